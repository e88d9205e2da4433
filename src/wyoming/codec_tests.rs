use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn decode_all(codec: &mut Codec, bytes: &[u8]) -> Result<Vec<Event>, FrameError> {
    let mut buffer = BytesMut::from(bytes);
    let mut events = Vec::new();
    while let Some(event) = codec.decode(&mut buffer)? {
        events.push(event);
    }
    Ok(events)
}

fn encode_all(events: &[Event]) -> BytesMut {
    let mut buffer = BytesMut::new();
    for event in events {
        Codec::default().encode(event.clone(), &mut buffer).unwrap();
    }
    buffer
}

#[test]
fn reads_what_clients_send() {
    let bytes = b"{\"type\":\"audio-chunk\",\"data\":{\"rate\":16000},\"version\":\"1.0.0\",\"payload_length\":4}\nabcd\
        {\"type\":\"ping\",\"payload_length\":null}\r\n\n\
        {\"type\":\"transcribe\",\"data\":{\"language\":\"en\",\"name\":\"a\"},\"data_length\":17}\n{\"language\":\"de\"}";
    let events = decode_all(&mut Codec::default(), bytes).unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].payload, "abcd");
    assert_eq!(events[1], Event::bare("ping"));
    assert_eq!(Value::Object(events[2].data.clone()), json!({"language": "de", "name": "a"}));
}

#[test]
fn a_web_socket_header_needs_no_newline() {
    for text in [
        "{\"type\":\"audio-stop\",\"data\":null}",
        "{\"type\":\"audio-stop\",\"t\":5,\"payload_length\":null}\n",
        " {\"type\":\"audio-stop\",\"payload_length\":0}",
    ] {
        let header = Header::parse(text.as_bytes()).unwrap();
        assert_eq!((header.kind.as_str(), header.payload_length), ("audio-stop", 0));
    }
    assert_eq!(
        Header::parse(b"{\"type\":\"x\",\"payload_length\":1024}").unwrap().payload_length,
        1024
    );
}

#[test]
fn a_hostile_header_is_refused_before_memory_is_taken() {
    let limits = Limits { header: 100, data: 10, payload: 20 };
    for (bytes, part) in [
        ("{\"type\":\"a\",\"payload_length\":18446744073709551615}\n".to_owned(), "payload"),
        ("{\"type\":\"a\",\"payload_length\":21}\n".to_owned(), "payload"),
        ("{\"type\":\"a\",\"data_length\":11}\n".to_owned(), "data"),
        (format!("{{\"type\":\"{}\"}}\n", "a".repeat(100)), "header"),
        ("a".repeat(101), "header"),
    ] {
        match decode_all(&mut Codec::new(limits), bytes.as_bytes()) {
            Err(FrameError::TooLong { part: found, .. }) => assert_eq!(found, part),
            other => panic!("{bytes}: {other:?}"),
        }
    }
    let mut buffer = BytesMut::from("{\"type\":\"a\",\"payload_length\":16000000}\n");
    assert!(Codec::default().decode(&mut buffer).unwrap().is_none());
    assert!(buffer.capacity() < 1 << 10);
}

#[test]
fn a_header_that_is_no_header_is_malformed() {
    for bytes in [
        "nonsense\n",
        "[]\n",
        "{\"data\":{}}\n",
        "{\"type\":5}\n",
        "{\"type\":\"a\",\"payload_length\":-1}\n",
        "{\"type\":\"a\",\"data\":[1]}\n",
        "{\"type\":\"a\",\"data_length\":4}\nnull",
        "{\"type\":\"\u{fffd}",
    ] {
        let mut buffer = BytesMut::from(bytes);
        let outcome = Codec::default().decode_eof(&mut buffer);
        let expected =
            matches!(outcome, Err(FrameError::Malformed { .. } | FrameError::Incomplete));
        assert!(expected, "{bytes}: {outcome:?}");
    }
}

#[test]
fn an_end_inside_an_event_is_told_from_an_end_between_events() {
    let whole = b"{\"type\":\"a\",\"payload_length\":2}\nxy";
    for cut in 1..whole.len() {
        let mut codec = Codec::default();
        let mut buffer = BytesMut::from(&whole[..cut]);
        let mut outcome = codec.decode(&mut buffer);
        if matches!(outcome, Ok(None)) {
            outcome = codec.decode_eof(&mut buffer);
        }
        assert!(matches!(outcome, Err(FrameError::Incomplete)), "cut at {cut}: {outcome:?}");
    }
    assert!(Codec::default().decode_eof(&mut BytesMut::from("\n \n")).unwrap().is_none());
}

#[test]
fn long_data_goes_into_a_block() {
    let mut event = Event::bare("transcript").with_payload("tail");
    event.data.insert("text".into(), Value::String("word ".repeat(20_000)));
    let bytes = encode_all(std::slice::from_ref(&event));
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    assert!(line < 200, "header of {line} bytes");
    assert_eq!(decode_all(&mut Codec::default(), &bytes).unwrap(), [event]);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn event() -> impl Strategy<Value = Event> {
    (".{0,16}", btree_map(".{0,8}", value(), 0..5), vec(any::<u8>(), 0..200)).prop_map(
        |(kind, data, payload)| Event {
            kind,
            data: data.into_iter().collect(),
            payload: payload.into(),
        },
    )
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_events(
        events in vec(event(), 0..6),
        cuts in vec(1_usize..40, 1..20),
    ) {
        let bytes = encode_all(&events);
        let (mut codec, mut buffer, mut seen) = (Codec::default(), BytesMut::new(), Vec::new());
        let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            buffer.extend_from_slice(piece);
            rest = tail;
            while let Some(event) = codec.decode(&mut buffer)? {
                seen.push(event);
            }
        }
        prop_assert_eq!(seen, events);
        prop_assert!(codec.decode_eof(&mut buffer)?.is_none());
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..400)) {
        let _ = decode_all(&mut Codec::default(), &bytes);
        let _ = Header::parse(&bytes);
    }

    #[test]
    fn garbage_is_the_same_however_it_is_split(
        parts in vec(
            prop_oneof![
                "[ \\n\\r{}a]{0,30}".prop_map(String::into_bytes),
                event().prop_map(|event| encode_all(&[event]).to_vec()),
                (0_usize..30, 0_usize..30).prop_map(|(data, payload)| format!(
                    "{{\"type\":\"a\",\"data_length\":{data},\"payload_length\":{payload}}}\n"
                ).into_bytes()),
                vec(any::<u8>(), 0..30),
            ],
            0..6,
        ),
        size in 1_usize..40,
    ) {
        let bytes = parts.concat();
        let limits = Limits { header: 64, data: 24, payload: 24 };
        let read = |pieces: std::slice::Chunks<'_, u8>| {
            let (mut codec, mut buffer) = (Codec::new(limits), BytesMut::new());
            let mut seen = Vec::new();
            for piece in pieces {
                buffer.extend_from_slice(piece);
                loop {
                    match codec.decode(&mut buffer) {
                        Ok(Some(event)) => seen.push(event),
                        Ok(None) => break,
                        Err(error) => return (seen, Some(error.to_string())),
                    }
                }
            }
            let end = codec.decode_eof(&mut buffer);
            (seen, end.err().map(|error| error.to_string()))
        };
        prop_assert_eq!(read(bytes.chunks(size)), read(bytes.chunks(bytes.len().max(1))));
    }

    #[test]
    fn a_damaged_stream_never_panics(
        events in vec(event(), 1..4),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let mut bytes = encode_all(&events);
        let at = at.index(bytes.len());
        bytes[at] = with;
        let mut codec = Codec::default();
        while let Ok(Some(_)) = codec.decode(&mut bytes) {}
        let _ = codec.decode_eof(&mut bytes);
    }
}
