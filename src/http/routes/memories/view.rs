//! What clients see of a memory: the fields of both versions of the original,
//! where they do not collide.

use md5::{Digest, Md5};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::ids::{ClientId, ConversationId, MemoryId, UserId};
use crate::domain::memory::Memory;

/// A memory.
#[derive(Clone, Serialize, ToSchema)]
pub(in crate::http::routes) struct MemoryEntry {
    id: MemoryId,
    /// The fact, one sentence.
    memory: String,
    /// MD5 of the fact, by which clients tell repetitions.
    hash: String,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
    user_id: UserId,
    metadata: MemoryMetadata,
    /// How well it answers, 0 to 1; only in a search.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
}

/// Where a memory comes from.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct MemoryMetadata {
    source: &'static str,
    client_id: Option<ClientId>,
    audio_uuid: Option<ConversationId>,
    source_id: Option<ConversationId>,
    user_id: UserId,
    user_email: String,
    /// Seconds since the Unix epoch.
    timestamp: i64,
    prompt_version: String,
    conversation_context: &'static str,
    device_type: &'static str,
    organization_id: &'static str,
    project_id: &'static str,
    app_id: &'static str,
    extraction_method: &'static str,
    extraction_enabled: bool,
    config_enabled: bool,
}

/// `memory`, of the user with that address.
pub(in crate::http::routes) fn entry(
    memory: Memory,
    user_email: &str,
    score: Option<f32>,
) -> MemoryEntry {
    MemoryEntry {
        id: memory.id.clone(),
        hash: hash(&memory.text),
        created_at: memory.created_at.to_rfc3339(),
        updated_at: memory.updated_at.to_rfc3339(),
        user_id: memory.user_id.clone(),
        metadata: metadata(&memory, user_email),
        memory: memory.text,
        score,
    }
}

pub(super) fn metadata(memory: &Memory, user_email: &str) -> MemoryMetadata {
    MemoryMetadata {
        source: "offline_streaming",
        client_id: memory.client_id.clone(),
        audio_uuid: memory.conversation_id.clone(),
        source_id: memory.conversation_id.clone(),
        user_id: memory.user_id.clone(),
        user_email: user_email.to_owned(),
        timestamp: memory.created_at.seconds(),
        prompt_version: memory.prompt_version.clone(),
        // What the original put there for everybody.
        conversation_context: "audio_transcription",
        device_type: "audio_recording",
        organization_id: "friend-lite-org",
        project_id: "audio-conversations",
        app_id: "omi-backend",
        extraction_method: "llm",
        extraction_enabled: true,
        config_enabled: true,
    }
}

fn hash(text: &str) -> String {
    hex::encode(Md5::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_md5_in_hex() {
        assert_eq!(hash(""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hash("abc"), "900150983cd24fb0d6963f7d28e17f72");
    }
}
