//! Rows as the plain types of the domain, and back.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::clock::Timestamp;
use crate::base::error::{Context, Kind, Result};
use crate::domain::chat::{Chat, ChatMessage, ChatRole};
use crate::domain::conversation::{CloseReason, Conversation, Progress, Window, WindowState};
use crate::domain::graph::{Entity, EntityKind};
use crate::domain::ids::{ChatId, ClientId, ConversationId, EntityId, MemoryId, UserId};
use crate::domain::job::{Job, JobKind, JobState, Lane, Payload};
use crate::domain::memory::{Memory, MemoryEvent, MemoryHistory};
use crate::domain::object::Object;
use crate::domain::upload::{Upload, UploadJob, UploadState};
use crate::domain::user::{Device, User};
use crate::domain::version::{Crop, MemoryVersion, TranscriptVersion};
use crate::store::JobCensus;

type Read<T> = rusqlite::Result<T>;

/// The first row of a query, if there is one.
pub(super) fn first<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&Row<'_>) -> Read<T>,
) -> Result<Option<T>> {
    Ok(connection.prepare_cached(sql)?.query_row(params, read).optional()?)
}

/// Every row of a query.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&Row<'_>) -> Read<T>,
) -> Result<Vec<T>> {
    Ok(connection.prepare_cached(sql)?.query_map(params, read)?.collect::<Read<_>>()?)
}

/// Runs a statement; how many rows it changed.
pub(super) fn run(connection: &Connection, sql: &str, params: impl Params) -> Result<usize> {
    Ok(connection.prepare_cached(sql)?.execute(params)?)
}

/// A count of ours as SQLite's signed integer.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// JSON for a text column.
pub(super) fn to_json(value: &(impl Serialize + ?Sized)) -> Result<String> {
    serde_json::to_string(value).context(Kind::Internal, "cannot write a value as JSON")
}

pub(super) fn user(row: &Row<'_>) -> Read<User> {
    Ok(User {
        id: UserId::from_text(text(row, "id")?),
        email: row.get("email")?,
        password_hash: row.get("password_hash")?,
        display_name: row.get("display_name")?,
        is_active: row.get("is_active")?,
        is_superuser: row.get("is_superuser")?,
        is_verified: row.get("is_verified")?,
        token_epoch: row.get("token_epoch")?,
        created_at: timestamp(row, "created_at")?,
    })
}

pub(super) fn device(row: &Row<'_>) -> Read<Device> {
    Ok(Device {
        client_id: ClientId::from_text(text(row, "client_id")?),
        user_id: UserId::from_text(text(row, "user_id")?),
        device_name: row.get("device_name")?,
        first_seen: timestamp(row, "first_seen")?,
        last_seen: timestamp(row, "last_seen")?,
    })
}

pub(super) fn conversation(row: &Row<'_>) -> Read<Conversation> {
    let ended_at: Option<i64> = row.get("ended_at")?;
    // Both or neither are there.
    let close_reason = match ended_at {
        Some(_) => Some(name(row, "close_reason", CloseReason::from_name)?),
        None => None,
    };
    Ok(Conversation {
        id: ConversationId::from_text(text(row, "id")?),
        user_id: UserId::from_text(text(row, "user_id")?),
        client_id: ClientId::from_text(text(row, "client_id")?),
        audio_path: row.get("audio_path")?,
        started_at: timestamp(row, "started_at")?,
        ended_at: ended_at.map(Timestamp::from_millis),
        close_reason,
        samples: unsigned(row, "samples")?,
        transcription: name(row, "transcription", Progress::from_name)?,
        memory: name(row, "memory", Progress::from_name)?,
        error: row.get("error")?,
        title: row.get("title")?,
        audio_deleted_at: row
            .get::<_, Option<i64>>("audio_deleted_at")?
            .map(Timestamp::from_millis),
        time_estimated: row.get("time_estimated")?,
    })
}

pub(super) fn window(row: &Row<'_>) -> Read<Window> {
    Ok(Window {
        id: row.get("id")?,
        conversation_id: ConversationId::from_text(text(row, "conversation_id")?),
        version: row.get("version")?,
        seq: row.get("seq")?,
        spans: json(row, "spans")?,
        state: name(row, "state", WindowState::from_name)?,
        segments: json(row, "segments")?,
        engine: row.get("engine")?,
    })
}

pub(super) fn transcript_version(row: &Row<'_>) -> Read<TranscriptVersion> {
    Ok(TranscriptVersion {
        version: row.get("version")?,
        active: row.get("active")?,
        state: name(row, "state", Progress::from_name)?,
        engine: row.get("engine")?,
        created_at: timestamp(row, "created_at")?,
        completed_at: moment(row, "completed_at")?,
    })
}

pub(super) fn memory_version(row: &Row<'_>) -> Read<MemoryVersion> {
    Ok(MemoryVersion {
        version: row.get("version")?,
        active: row.get("active")?,
        transcript_version: row.get("transcript_version")?,
        state: name(row, "state", Progress::from_name)?,
        memories: unsigned(row, "memories")?,
        model: row.get("model")?,
        prompt_version: row.get("prompt_version")?,
        created_at: timestamp(row, "created_at")?,
        completed_at: moment(row, "completed_at")?,
    })
}

pub(super) fn crop(row: &Row<'_>) -> Read<Crop> {
    Ok(Crop {
        audio_path: row.get("audio_path")?,
        spans: json(row, "spans")?,
        at: timestamp(row, "at")?,
    })
}

pub(super) fn object(row: &Row<'_>) -> Read<Object> {
    Ok(Object {
        name: row.get("name")?,
        bytes: unsigned(row, "bytes")?,
        sha256: row.get("sha256")?,
        verified_at: moment(row, "verified_at")?,
    })
}

/// The column `conversation_id`, where it cannot be null.
pub(super) fn conversation_id(row: &Row<'_>) -> Read<ConversationId> {
    Ok(ConversationId::from_text(text(row, "conversation_id")?))
}

pub(super) fn chat(row: &Row<'_>) -> Read<Chat> {
    Ok(Chat {
        id: ChatId::from_text(text(row, "id")?),
        user_id: UserId::from_text(text(row, "user_id")?),
        title: row.get("title")?,
        created_at: timestamp(row, "created_at")?,
        updated_at: timestamp(row, "updated_at")?,
        messages: unsigned(row, "messages")?,
    })
}

pub(super) fn chat_message(row: &Row<'_>) -> Read<ChatMessage> {
    Ok(ChatMessage {
        id: row.get("id")?,
        chat_id: ChatId::from_text(text(row, "chat_id")?),
        role: name(row, "role", ChatRole::from_name)?,
        content: row.get("content")?,
        memories: json(row, "memories")?,
        at: timestamp(row, "at")?,
    })
}

pub(super) fn job(row: &Row<'_>) -> Read<Job> {
    let window: Option<i64> = row.get("window_id")?;
    let payload = match window {
        Some(id) => Payload::Window(id),
        None => Payload::Conversation(ConversationId::from_text(text(row, "conversation_id")?)),
    };
    Ok(Job {
        id: row.get("id")?,
        kind: name(row, "kind", JobKind::from_name)?,
        payload,
        lane: lane(row)?,
        state: name(row, "state", JobState::from_name)?,
        attempts: row.get("attempts")?,
        epoch: row.get("epoch")?,
        run_at: timestamp(row, "run_at")?,
        last_error: row.get("last_error")?,
        created_at: timestamp(row, "created_at")?,
        updated_at: timestamp(row, "updated_at")?,
    })
}

/// Without its files.
pub(super) fn upload_job(row: &Row<'_>) -> Read<UploadJob> {
    Ok(UploadJob {
        id: row.get("id")?,
        user_id: UserId::from_text(text(row, "user_id")?),
        client_id: ClientId::from_text(text(row, "client_id")?),
        created_at: timestamp(row, "created_at")?,
        files: Vec::new(),
    })
}

pub(super) fn upload(row: &Row<'_>) -> Read<Upload> {
    let conversation: Option<String> = row.get("conversation_id")?;
    let at = |column: &str| -> Read<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
    };
    Ok(Upload {
        filename: row.get("filename")?,
        bytes: unsigned(row, "bytes")?,
        sha256: row.get("sha256")?,
        spooled: row.get("spooled")?,
        state: name(row, "state", UploadState::from_name)?,
        conversation_id: conversation.map(ConversationId::from_text),
        duplicate: row.get("duplicate")?,
        seconds: row.get("seconds")?,
        note: row.get("note")?,
        error: row.get("error")?,
        started_at: at("started_at")?,
        ended_at: at("ended_at")?,
    })
}

/// The column `lane`, kept as its rank.
pub(super) fn lane(row: &Row<'_>) -> Read<Lane> {
    let rank: u8 = row.get("lane")?;
    Lane::from_rank(rank).ok_or_else(|| unreadable(Type::Integer, format!("lane {rank}")))
}

pub(super) fn memory(row: &Row<'_>) -> Read<Memory> {
    let conversation: Option<String> = row.get("conversation_id")?;
    let client: Option<String> = row.get("client_id")?;
    Ok(Memory {
        id: memory_id(row)?,
        user_id: UserId::from_text(text(row, "user_id")?),
        text: row.get("text")?,
        conversation_id: conversation.map(ConversationId::from_text),
        client_id: client.map(ClientId::from_text),
        prompt_version: row.get("prompt_version")?,
        created_at: timestamp(row, "created_at")?,
        updated_at: timestamp(row, "updated_at")?,
    })
}

pub(super) fn entity(row: &Row<'_>) -> Read<Entity> {
    Ok(Entity {
        id: EntityId::from_text(text(row, "id")?),
        user_id: UserId::from_text(text(row, "user_id")?),
        name: row.get("name")?,
        kind: name(row, "kind", EntityKind::from_name)?,
        first_seen: timestamp(row, "first_seen")?,
        last_seen: timestamp(row, "last_seen")?,
    })
}

pub(super) fn memory_id(row: &Row<'_>) -> Read<MemoryId> {
    Ok(MemoryId::from_text(text(row, "id")?))
}

pub(super) fn history(row: &Row<'_>) -> Read<MemoryHistory> {
    Ok(MemoryHistory {
        memory_id: MemoryId::from_text(text(row, "memory_id")?),
        event: name(row, "event", MemoryEvent::from_name)?,
        old_text: row.get("old_text")?,
        new_text: row.get("new_text")?,
        at: timestamp(row, "at")?,
    })
}

pub(super) fn census(row: &Row<'_>) -> Read<JobCensus> {
    Ok(JobCensus {
        kind: name(row, "kind", JobKind::from_name)?,
        state: name(row, "state", JobState::from_name)?,
        jobs: unsigned(row, "jobs")?,
    })
}

fn text(row: &Row<'_>, column: &str) -> Read<String> {
    row.get(column)
}

fn timestamp(row: &Row<'_>, column: &str) -> Read<Timestamp> {
    Ok(Timestamp::from_millis(row.get(column)?))
}

fn moment(row: &Row<'_>, column: &str) -> Read<Option<Timestamp>> {
    let millis: Option<i64> = row.get(column)?;
    Ok(millis.map(Timestamp::from_millis))
}

fn unsigned(row: &Row<'_>, column: &str) -> Read<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| unreadable(Type::Integer, format!("{column} {value}")))
}

fn name<T>(row: &Row<'_>, column: &str, parse: fn(&str) -> Option<T>) -> Read<T> {
    let value = text(row, column)?;
    parse(&value).ok_or_else(|| unreadable(Type::Text, format!("{column} {value:?}")))
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Read<T> {
    serde_json::from_str(&text(row, column)?)
        .map_err(|error| unreadable(Type::Text, format!("{column}: {error}")))
}

fn unreadable(kind: Type, what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, kind, what.into())
}
