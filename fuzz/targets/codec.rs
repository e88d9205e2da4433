//! The Wyoming codec: no bytes may panic it or make it hold more than its
//! limits, however they are split it must say the same, and what it writes it
//! must read.

#![no_main]

use bytes::BytesMut;
use friend_lite::wyoming::{Codec, Event, FrameError, Header, Limits};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio_util::codec::{Decoder, Encoder};

const LIMITS: Limits = Limits { header: 512, data: 1 << 10, payload: 1 << 10 };

fuzz_target!(|data: &[u8]| {
    let Some((split, bytes)) = data.split_first() else { return };
    let _ = Header::parse(bytes);
    let whole = decode(bytes.chunks(bytes.len().max(1)));
    let pieces = decode(bytes.chunks(usize::from(*split).max(1)));
    assert_eq!(whole, pieces, "the split changes what is read");

    let (mut events, _) = whole;
    // The JSON library reads a fraction to its last digit or the one beside it.
    events.retain(|event| event.data.values().all(is_exact));
    let mut buffer = BytesMut::new();
    for event in &events {
        Codec::default().encode(event.clone(), &mut buffer).expect("an event can be written");
    }
    let mut codec = Codec::default();
    for event in events {
        let again = codec.decode(&mut buffer).expect("our own bytes").expect("a whole event");
        assert_eq!(again, event);
    }
    assert!(buffer.is_empty());
});

fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => !number.is_f64(),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        _ => true,
    }
}

/// The events of a stream, and how it ended.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, Option<String>) {
    let (mut codec, mut buffer, mut events) = (Codec::new(LIMITS), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(named(&error))),
            }
        }
    }
    let end = codec.decode_eof(&mut buffer);
    let error = end.map(|event| events.extend(event)).err();
    (events, error.as_ref().map(named))
}

fn named(error: &FrameError) -> String {
    error.to_string()
}
