//! Memories in points that others have put there, in both payloads of the
//! original: mem0's flat one (`user_id`, `data`, times as ISO 8601) and that of
//! its own service (`content`, `metadata.user_id`, times in seconds as text).

use qdrant_client::qdrant::value::Kind as Plain;
use qdrant_client::qdrant::vector_output::Vector;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::{RetrievedPoint, Value, VectorsOutput};

use super::client::{self, USER};
use crate::base::clock::Timestamp;
use crate::domain::ids::{ConversationId, MemoryId, UserId};
use crate::domain::memory::IndexedMemory;
use crate::domain::past::{PastMemory, Unreadable, time_of_number, time_of_text};

pub(super) const TEXT: &str = "data";
pub(super) const CREATED: &str = "created_at";
pub(super) const UPDATED: &str = "updated_at";

/// The memory in a point, if there is one: mem0 keeps points without a text too.
pub(super) fn memory(point: RetrievedPoint) -> Option<(MemoryId, IndexedMemory)> {
    let vector = vector(point.vectors.clone()?)?;
    let past = past(point).ok()?;
    let created_at = past.created_at.unwrap_or(Timestamp::from_millis(0));
    let memory = IndexedMemory {
        user_id: UserId::from_text(past.user),
        text: past.text,
        vector,
        conversation_id: past.conversation_id,
        created_at,
        updated_at: past.updated_at.unwrap_or(created_at),
    };
    Some((past.id, memory))
}

/// What a point says of a memory, or why it says nothing.
pub(super) fn past(point: RetrievedPoint) -> Result<PastMemory, Unreadable> {
    let id = point.id.map(|id| (client::name(&id), client::memory(id)));
    let (name, id) = id.unwrap_or_default();
    let unreadable = |why: &str| Unreadable { id: name.clone(), why: why.to_owned() };
    let id = id.ok_or_else(|| unreadable("its id is not a UUID"))?;
    let payload = point.payload;
    let text = [TEXT, "content", "memory"].iter().find_map(|key| words(payload.get(*key)?));
    let text = text.ok_or_else(|| unreadable("it has no text"))?;
    let inner = match payload.get("metadata").and_then(|value| value.kind.as_ref()) {
        Some(Plain::StructValue(inner)) => Some(&inner.fields),
        _ => None,
    };
    let of = |key: &str| payload.get(key).or_else(|| inner?.get(key));
    let user = of(USER).and_then(words).ok_or_else(|| unreadable("it does not say whose it is"))?;
    let origin = ["audio_uuid", "conversation_id", "source_id"].iter();
    let created_at = of(CREATED).and_then(time);
    Ok(PastMemory {
        id,
        user,
        text,
        conversation_id: origin
            .filter_map(|key| words(of(key)?))
            .map(ConversationId::from_text)
            .next(),
        created_at: created_at.or_else(|| of("timestamp").and_then(time)),
        updated_at: of(UPDATED).and_then(time),
    })
}

fn words(value: &Value) -> Option<String> {
    match value.kind.as_ref()? {
        Plain::StringValue(text) if !text.trim().is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    match value.kind.as_ref()? {
        Plain::IntegerValue(whole) => Some(time_of_number(*whole as f64)),
        Plain::DoubleValue(value) => Some(time_of_number(*value)),
        Plain::StringValue(text) => time_of_text(text),
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
