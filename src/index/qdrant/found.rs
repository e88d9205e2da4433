//! Memories in points that others have put there, in both payloads of the
//! original: mem0's flat one (`user_id`, `data`, times as ISO 8601) and that of
//! its own service (`content`, `metadata.user_id`, times in seconds as text).

use qdrant_client::qdrant::value::Kind as Plain;
use qdrant_client::qdrant::vector_output::Vector;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::{RetrievedPoint, Value, VectorsOutput};

use super::client::{self, USER};
use crate::base::clock::Timestamp;
use crate::domain::ids::{MemoryId, UserId};
use crate::domain::memory::IndexedMemory;

pub(super) const TEXT: &str = "data";
pub(super) const CREATED: &str = "created_at";
pub(super) const UPDATED: &str = "updated_at";

/// The memory in a point, if there is one: mem0 keeps points without a text too.
pub(super) fn memory(point: RetrievedPoint) -> Option<(MemoryId, IndexedMemory)> {
    let id = client::memory(point.id?)?;
    let payload = point.payload;
    let text = [TEXT, "content"].iter().find_map(|key| words(payload.get(*key)?))?;
    let inner = || match payload.get("metadata")?.kind.as_ref()? {
        Plain::StructValue(inner) => words(inner.fields.get(USER)?),
        _ => None,
    };
    let user = payload.get(USER).and_then(words).or_else(inner)?;
    let created_at = payload.get(CREATED).and_then(time).unwrap_or(Timestamp::from_millis(0));
    let updated_at = payload.get(UPDATED).and_then(time).unwrap_or(created_at);
    let vector = vector(point.vectors?)?;
    let user_id = UserId::from_text(user);
    Some((id, IndexedMemory { user_id, text, vector, created_at, updated_at }))
}

fn words(value: &Value) -> Option<String> {
    match value.kind.as_ref()? {
        Plain::StringValue(text) if !text.trim().is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    let seconds = |seconds: f64| Timestamp::from_millis((seconds * 1000.0) as i64);
    match value.kind.as_ref()? {
        Plain::IntegerValue(whole) => Some(seconds(*whole as f64)),
        Plain::DoubleValue(value) => Some(seconds(*value)),
        Plain::StringValue(text) => match text.parse() {
            Ok(value) => Some(seconds(value)),
            Err(_) => {
                let time: jiff::Timestamp = text.parse().ok()?;
                Some(Timestamp::from_millis(time.as_millisecond()))
            }
        },
        _ => None,
    }
}

fn vector(vectors: VectorsOutput) -> Option<Vec<f32>> {
    let VectorsOptions::Vector(vector) = vectors.vectors_options? else { return None };
    match vector.into_vector() {
        Vector::Dense(dense) => Some(dense.data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_payloads_are_read() {
        let read = |value: Value| time(&value).map(Timestamp::millis);
        let at = Some(1_753_190_000_250);
        assert_eq!(read("2025-07-22T06:13:20.250000-07:00".into()), at);
        assert_eq!(read("1753190000.25".into()), at);
        assert_eq!(read(1_753_190_000.25.into()), at);
        assert_eq!(read(1_753_190_000.into()), Some(1_753_190_000_000));
        assert_eq!(read("yesterday".into()), None);
    }
}
