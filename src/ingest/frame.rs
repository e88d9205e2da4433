//! Wyoming events as they come in WebSocket frames: a line of JSON, possibly
//! more JSON behind it, and audio in the same frame or in the next one.

use std::borrow::Cow;

use serde::Deserialize;

use crate::audio::pcm::PcmFormat;
use crate::base::error::{Context, Error, Kind, Result};

/// What an event asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A stretch of audio begins.
    AudioStart(Format),
    /// Some of it.
    AudioChunk(Format),
    /// It has ended.
    AudioStop,
    /// Nothing that is understood here.
    Other,
}

/// Where the bytes that belong to an event are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    /// There are none.
    None,
    /// In this frame.
    Here(&'a [u8]),
    /// They are the next binary frame, whatever its length.
    Next,
}

/// The format of audio as an event tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Format {
    rate: Option<u64>,
    width: Option<u64>,
    channels: Option<u64>,
}

impl Format {
    /// The format, where the event names one; what it leaves out is as in speech.
    ///
    /// # Errors
    /// `BadInput` when it names one that cannot be.
    pub(super) fn pcm(self) -> Result<Option<PcmFormat>> {
        if self == Self::default() {
            return Ok(None);
        }
        let speech = PcmFormat::SPEECH;
        let small = |value: Option<u64>, default: u16| {
            value.map_or(default, |value| u16::try_from(value).unwrap_or(u16::MAX))
        };
        let rate = self.rate.map_or(speech.rate(), |rate| u32::try_from(rate).unwrap_or(u32::MAX));
        let (width, channels) =
            (small(self.width, speech.width()), small(self.channels, speech.channels()));
        PcmFormat::new(rate, width, channels).map(Some)
    }
}

/// The header line of an event, as every client but a few sends it.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    data: Option<Format>,
    data_length: Option<u64>,
    payload_length: Option<u64>,
}

/// The first event of a text frame, and what follows it. Its payload is never in
/// the same frame.
///
/// # Errors
/// `BadInput` when there is no event.
pub(super) fn text(frame: &str) -> Result<(Event, Payload<'_>, &str)> {
    let (event, payload_length, rest) = event(frame.as_bytes())?;
    let payload = if payload_length > 0 { Payload::Next } else { Payload::None };
    // The rest begins after an ASCII line break or after `data_length` bytes.
    let rest = frame.get(frame.len() - rest.len()..).unwrap_or_default();
    Ok((event, payload, rest.trim_start()))
}

/// The first event of a binary frame, and what follows it.
///
/// # Errors
/// `BadInput` when there is no event: it is bare audio.
pub(super) fn binary(frame: &[u8]) -> Result<(Event, Payload<'_>, &[u8])> {
    if frame.first() != Some(&b'{') {
        return Err(Error::new(Kind::BadInput, "no event"));
    }
    let (event, payload_length, rest) = event(frame)?;
    let (payload, rest) = match (payload_length, rest) {
        (0, rest) => (Payload::None, rest),
        (_, []) => (Payload::Next, rest),
        (length, rest) => {
            let (payload, rest) = rest.split_at(rest.len().min(length));
            (Payload::Here(payload), rest)
        }
    };
    Ok((event, payload, rest.trim_ascii_start()))
}

/// The event at the start of `frame`, the length of its payload, and the rest.
fn event(frame: &[u8]) -> Result<(Event, usize, &[u8])> {
    let (line, rest) = match frame.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            (frame.get(..end).unwrap_or_default(), frame.get(end + 1..).unwrap_or_default())
        }
        None => (frame, &[][..]),
    };
    let header = match serde_json::from_slice::<Header<'_>>(line) {
        Ok(header) => header,
        Err(_) => lenient(line)?,
    };
    let length = |value: Option<u64>| usize::try_from(value.unwrap_or(0)).unwrap_or(usize::MAX);
    let (data, rest) = rest.split_at(rest.len().min(length(header.data_length)));
    let format = match header.data {
        Some(format) => format,
        None if data.is_empty() => Format::default(),
        None => format(&serde_json::from_slice(data).unwrap_or_default()),
    };
    let event = match header.kind.as_ref() {
        "audio-start" => Event::AudioStart(format),
        "audio-chunk" => Event::AudioChunk(format),
        "audio-stop" => Event::AudioStop,
        _ => Event::Other,
    };
    Ok((event, length(header.payload_length), rest))
}

/// A header whose values are of other types than they should be.
fn lenient(line: &[u8]) -> Result<Header<'_>> {
    let failed = "not a Wyoming event: a JSON object with a \"type\" is expected";
    let value: serde_json::Value = serde_json::from_slice(line).context(Kind::BadInput, failed)?;
    let kind = value.get("type").and_then(|kind| kind.as_str());
    let kind = kind.ok_or_else(|| Error::new(Kind::BadInput, failed))?.to_owned();
    let data = value.get("data").filter(|data| data.is_object()).map(format);
    let (data_length, payload_length) =
        (number(value.get("data_length")), number(value.get("payload_length")));
    Ok(Header { kind: kind.into(), data, data_length, payload_length })
}

fn format(data: &serde_json::Value) -> Format {
    let field = |name| number(data.get(name));
    Format { rate: field("rate"), width: field("width"), channels: field("channels") }
}

/// A number in any form; below zero there are none.
fn number(value: Option<&serde_json::Value>) -> Option<u64> {
    // `as` saturates, and makes zero of what is not a number.
    value?.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn formatted(rate: u64, width: u64, channels: u64) -> Format {
        Format { rate: Some(rate), width: Some(width), channels: Some(channels) }
    }

    #[test]
    fn reads_what_clients_send() {
        let speech = formatted(16_000, 2, 1);
        let cases: [(&str, Event, Payload<'_>); 9] = [
            (
                "{\"type\":\"audio-start\",\"data\":{\"rate\":16000,\"width\":2,\"channels\":1},\"version\":\"1.0.0\",\"payload_length\":null}\n",
                Event::AudioStart(speech),
                Payload::None,
            ),
            (
                r#"{"type":"audio-start","data":{"rate":16000,"width":2,"channels":1,"mode":"streaming"}}"#,
                Event::AudioStart(speech),
                Payload::None,
            ),
            (
                "{\"type\":\"audio-chunk\",\"data\":{\"rate\":16000,\"width\":2,\"channels\":1},\"payload_length\":1024}\n",
                Event::AudioChunk(speech),
                Payload::Next,
            ),
            (
                "{\"type\":\"audio-stop\",\"data\":{\"timestamp\":1753190000000},\"payload_length\":null}\n",
                Event::AudioStop,
                Payload::None,
            ),
            (r#"{"type":"audio-stop","data":{"timestamp":null}}"#, Event::AudioStop, Payload::None),
            (r#"{"type":"audio-stop"}"#, Event::AudioStop, Payload::None),
            (r#"{"type":"ping","t":1753190000000}"#, Event::Other, Payload::None),
            (
                r#"{"type":"audio-start","data":{"rate":16000.0,"width":2,"channels":"one"}}"#,
                Event::AudioStart(Format { channels: None, ..speech }),
                Payload::None,
            ),
            (
                "{\"type\":\"audio-chunk\",\"data_length\":14,\"payload_length\":4}\n{\"rate\":48000}\n",
                Event::AudioChunk(Format { rate: Some(48_000), ..Format::default() }),
                Payload::Next,
            ),
        ];
        for (frame, event, payload) in cases {
            let (found, at, rest) = text(frame).unwrap();
            assert_eq!((found, at, rest), (event, payload, ""), "{frame}");
        }
    }

    #[test]
    fn one_binary_frame_may_hold_events_with_their_payload() {
        let frame = b"{\"type\":\"audio-chunk\",\"data_length\":14,\"payload_length\":4}\n{\"rate\":48000}\x01\x02\x03\x04{\"type\":\"audio-stop\"}\n";
        let (event, payload, rest) = binary(frame).unwrap();
        assert_eq!(event, Event::AudioChunk(Format { rate: Some(48_000), ..Format::default() }));
        assert_eq!(payload, Payload::Here(&[1, 2, 3, 4]));
        assert_eq!(binary(rest).unwrap(), (Event::AudioStop, Payload::None, &[][..]));
        let alone = b"{\"type\":\"audio-chunk\",\"payload_length\":4}\n";
        assert_eq!(binary(alone).unwrap().1, Payload::Next);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for frame in ["", "hello", "[1]", "{}", "{\"type\":7}", "null", "{\"type\":\"a\""] {
            assert_eq!(text(frame).unwrap_err().kind(), Kind::BadInput, "{frame}");
            assert!(binary(frame.as_bytes()).is_err());
        }
        assert!(binary(&[0x7B, 0x00, 0x7B, 0x0A]).is_err(), "audio that begins like JSON");
    }

    #[test]
    fn formats_are_checked_and_completed() {
        assert_eq!(Format::default().pcm().unwrap(), None);
        let partial = Format { rate: Some(48_000), ..Format::default() };
        assert_eq!(partial.pcm().unwrap(), Some(PcmFormat::new(48_000, 2, 1).unwrap()));
        assert!(formatted(16_000, 2, u64::MAX).pcm().is_err());
        assert!(formatted(u64::MAX, 2, 1).pcm().is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = binary(&bytes);
            let _ = text(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn near_misses_never_panic(
            kind in "[a-z\\-]{0,12}",
            data in "(null|7|\"x\"|\\{\\}|\\{\"rate\":(-1|1e99|16000|null)\\}|\\[\\])",
            data_length in "(null|-5|3|1e300|\"9\"|18446744073709551615)",
            payload_length in "(null|-5|3|1e300|\"9\"|18446744073709551615)",
            tail in "\\PC{0,40}",
        ) {
            let frame = format!(
                "{{\"type\":\"{kind}\",\"data\":{data},\"data_length\":{data_length},\"payload_length\":{payload_length}}}\n{tail}"
            );
            prop_assert!(text(&frame).is_ok());
            let (_, payload, rest) = binary(frame.as_bytes()).unwrap();
            if let Payload::Here(bytes) = payload {
                prop_assert!(bytes.len() + rest.len() <= tail.len());
            }
        }
    }
}
