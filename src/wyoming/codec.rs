//! Events to bytes and back.
//!
//! On a stream an event is one line of JSON (the header), then `data_length`
//! bytes of JSON that are merged over the header's own `data`, then
//! `payload_length` bytes. Over WebSockets the header is a text frame and the
//! payload the next binary frame; see [`Header`].

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::codec::{Decoder, Encoder};

use super::event::Event;
use crate::base::error::{Error, Kind};

/// The version of the protocol that we write.
const VERSION: &str = "1.10.2";

/// Data longer than this goes into a block of its own: the reference
/// implementation reads header lines of at most 64 KiB.
const INLINE_DATA: usize = 16 << 10;

/// The longest parts of an event that are accepted, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The header line, without its newline.
    pub header: usize,
    /// The data block.
    pub data: usize,
    /// The payload.
    pub payload: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header: 1 << 20, data: 16 << 20, payload: 16 << 20 }
    }
}

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// It ended inside an event.
    #[error("the connection ended inside an event")]
    Incomplete,
    /// A part is longer than its limit.
    #[error("the {part} of an event is longer than {limit} bytes")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its limit in bytes.
        limit: usize,
    },
    /// A part is not what it should be.
    #[error("the {part} of an event is not valid: {source}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        let kind = match &error {
            FrameError::Io(_) | FrameError::Incomplete => Kind::Unavailable,
            FrameError::TooLong { .. } => Kind::TooLarge,
            FrameError::Malformed { .. } => Kind::BadInput,
        };
        Self::new(kind, error.to_string())
    }
}

/// The first part of an event. Its other parts follow on a stream; over
/// WebSockets `data_length` is not used and the payload is the next binary
/// frame, whatever its length.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The kind of the event.
    pub kind: String,
    /// Data that the header holds itself.
    pub data: Map<String, Value>,
    /// Bytes of data that follow.
    pub data_length: usize,
    /// Bytes of payload that follow; 0 when absent or null.
    pub payload_length: usize,
    /// Major and minor version of the protocol that the sender speaks, where it
    /// says so.
    pub version: Option<(u32, u32)>,
}

#[derive(Deserialize)]
struct HeaderIn {
    #[serde(rename = "type")]
    kind: String,
    data: Option<Map<String, Value>>,
    data_length: Option<usize>,
    payload_length: Option<usize>,
    #[serde(default)]
    version: Value,
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_length: Option<usize>,
    payload_length: Option<usize>,
}

impl Header {
    /// Reads a header, with or without its newline.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] when it is not JSON or has no `type`.
    pub fn parse(text: &[u8]) -> Result<Self, FrameError> {
        let header: HeaderIn = serde_json::from_slice(text)
            .map_err(|source| FrameError::Malformed { part: "header", source })?;
        Ok(Self {
            kind: header.kind,
            data: header.data.unwrap_or_default(),
            data_length: header.data_length.unwrap_or(0),
            payload_length: header.payload_length.unwrap_or(0),
            version: header.version.as_str().and_then(version),
        })
    }

    fn check(&self, limits: &Limits) -> Result<(), FrameError> {
        for (part, length, limit) in [
            ("data", self.data_length, limits.data),
            ("payload", self.payload_length, limits.payload),
        ] {
            if length > limit {
                return Err(FrameError::TooLong { part, limit });
            }
        }
        Ok(())
    }

    /// The event, once its other parts are here.
    fn complete(self, block: &[u8], payload: Bytes) -> Result<Event, FrameError> {
        let mut data = self.data;
        if !block.is_empty() {
            let more: Map<String, Value> = serde_json::from_slice(block)
                .map_err(|source| FrameError::Malformed { part: "data", source })?;
            data.extend(more);
        }
        Ok(Event { kind: self.kind, data, payload })
    }
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The stream form, for `tokio_util`'s `Framed` or a buffer of one's own.
/// Memory grows with what has arrived, never with what a header announces.
#[derive(Debug, Default)]
pub struct Codec {
    limits: Limits,
    /// Bytes of the buffer known to hold no newline.
    scanned: usize,
    /// A header whose other parts are still on their way.
    pending: Option<Header>,
    peer_version: Option<(u32, u32)>,
}

impl Codec {
    /// A codec with limits of its own.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Major and minor version of the protocol that the peer speaks, as its
    /// latest event says.
    pub fn peer_version(&self) -> Option<(u32, u32)> {
        self.peer_version
    }

    /// Whether no part of an event has come since the last whole one.
    pub fn is_between_events(&self) -> bool {
        self.pending.is_none() && self.scanned == 0
    }

    /// The next header in `buffer`. Blank lines between events are skipped.
    fn header(&mut self, buffer: &mut BytesMut) -> Result<Option<Header>, FrameError> {
        let limit = self.limits.header;
        loop {
            let fresh = buffer.get(self.scanned..).unwrap_or_default();
            let Some(found) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.scanned = buffer.len();
                if buffer.len() > limit {
                    return Err(FrameError::TooLong { part: "header", limit });
                }
                return Ok(None);
            };
            // As above, so that it does not matter how the bytes arrive.
            if self.scanned + found > limit {
                return Err(FrameError::TooLong { part: "header", limit });
            }
            let line = buffer.split_to(self.scanned + found + 1);
            self.scanned = 0;
            let line = line.trim_ascii();
            if !line.is_empty() {
                let header = Header::parse(line)?;
                header.check(&self.limits)?;
                self.peer_version = header.version;
                return Ok(Some(header));
            }
        }
    }
}

impl Decoder for Codec {
    type Item = Event;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, FrameError> {
        let header = match self.pending.take() {
            Some(header) => header,
            None => match self.header(buffer)? {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        // Both lengths are below their limits, so the sum cannot overflow.
        if buffer.len() < header.data_length + header.payload_length {
            self.pending = Some(header);
            return Ok(None);
        }
        let block = buffer.split_to(header.data_length);
        // A copy: a slice would pin the whole read buffer while it is kept.
        let payload = Bytes::copy_from_slice(&buffer.split_to(header.payload_length));
        header.complete(&block, payload).map(Some)
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, FrameError> {
        match self.decode(buffer)? {
            Some(event) => Ok(Some(event)),
            None if self.pending.is_none() && buffer.trim_ascii().is_empty() => Ok(None),
            None => Err(FrameError::Incomplete),
        }
    }
}

impl Encoder<Event> for Codec {
    type Error = FrameError;

    fn encode(&mut self, event: Event, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let malformed = |source| FrameError::Malformed { part: "data", source };
        let block = serde_json::to_vec(&event.data).map_err(malformed)?;
        let inline = block.len() <= INLINE_DATA;
        let header = HeaderOut {
            kind: &event.kind,
            version: VERSION,
            data: (inline && !event.data.is_empty()).then_some(&event.data),
            data_length: (!inline).then_some(block.len()),
            payload_length: (!event.payload.is_empty()).then_some(event.payload.len()),
        };
        let line = serde_json::to_vec(&header).map_err(malformed)?;
        buffer.reserve(line.len() + 1 + block.len() + event.payload.len());
        buffer.put_slice(&line);
        buffer.put_u8(b'\n');
        if !inline {
            buffer.put_slice(&block);
        }
        buffer.put_slice(&event.payload);
        Ok(())
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
