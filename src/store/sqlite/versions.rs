//! Versions of transcripts and memories, and what goes with a conversation.

use std::collections::HashMap;

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::conversations::{self, ACTIVE_WINDOWS, no_conversation};
use super::queue::{complete, enqueue, finish_if_settled};
use super::{SqliteStore, memories, rows, shelf};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{Conversation, Progress, Window};
use crate::domain::ids::{ConversationId, WindowId};
use crate::domain::job::{JobKind, Lane, Lease, NewJob, Payload};
use crate::domain::transcript::{Segment, plain_text};
use crate::domain::version::{
    Begun, Crop, Details, MemoryVersion, SegmentEdit, Settled, TranscriptVersion,
};
use crate::store::Versions;

#[async_trait]
impl Versions for SqliteStore {
    async fn details(&self, ids: &[ConversationId]) -> Result<HashMap<ConversationId, Details>> {
        let ids = ids.to_vec();
        self.read(move |db| details(db, &ids)).await
    }

    async fn transcripts(&self, ids: &[ConversationId]) -> Result<HashMap<ConversationId, String>> {
        let ids = rows::to_json(ids)?;
        self.read(move |db| {
            let mut segments: HashMap<ConversationId, Vec<Segment>> = HashMap::new();
            for window in rows::all(db, &active_windows_of_many(), [ids], rows::window)? {
                segments.entry(window.conversation_id).or_default().extend(window.segments);
            }
            Ok(segments.into_iter().map(|(id, said)| (id, plain_text(&said))).collect())
        })
        .await
    }

    async fn transcript_versions(&self, id: &ConversationId) -> Result<Vec<TranscriptVersion>> {
        let id = id.clone();
        self.read(move |db| transcripts(db, &id)).await
    }

    async fn memory_versions(&self, id: &ConversationId) -> Result<Vec<MemoryVersion>> {
        let ids = rows::to_json(&[id])?;
        self.read(move |db| rows::all(db, MEMORY_VERSIONS, [ids], rows::memory_version)).await
    }

    async fn version_windows(&self, id: &ConversationId, version: u32) -> Result<Vec<Window>> {
        let id = id.clone();
        self.read(move |db| {
            let sql = "select * from windows where conversation_id = ?1 and version = ?2
                       order by seq";
            rows::all(db, sql, params![id.as_str(), version], rows::window)
        })
        .await
    }

    async fn reprocess_transcript(&self, id: &ConversationId, at: Timestamp) -> Result<Begun> {
        let id = id.clone();
        self.write(move |tx| {
            if !closed(tx, &id)?.has_audio() {
                let message = "the recording of this conversation was deleted";
                return Err(Error::new(Kind::Conflict, message));
            }
            if pending_transcript(tx, &id)?.is_some() {
                let message = "this conversation is being transcribed already";
                return Err(Error::new(Kind::Conflict, message));
            }
            let version: u32 = rows::first(
                tx,
                "insert into transcript_versions (conversation_id, version, active, state,
                                                  created_at)
                 select ?1, 1 + max(version), 0, 'PENDING', ?2
                 from transcript_versions where conversation_id = ?1 returning version",
                params![id.as_str(), at.millis()],
                |row| row.get(0),
            )?
            .ok_or_else(no_conversation)?;
            let windows: Vec<WindowId> = rows::all(
                tx,
                "insert into windows (conversation_id, version, seq, spans, state)
                 select w.conversation_id, ?2, w.seq, w.spans, 'waiting' from windows w
                 join transcript_versions v on v.conversation_id = w.conversation_id
                                           and v.version = w.version and v.active
                 where w.conversation_id = ?1 order by w.seq returning id",
                params![id.as_str(), version],
                |row| row.get(0),
            )?;
            for window in windows {
                let payload = Payload::Window(window);
                let kind = JobKind::Transcribe;
                enqueue(tx, &NewJob { kind, payload, lane: Lane::Backlog }, at)?;
            }
            finish_if_settled(tx, &id, Lane::Backlog, at)?;
            let jobs = rows::all(
                tx,
                "select j.id from jobs j left join windows w on w.id = j.window_id
                 where j.state in ('ready', 'leased')
                   and (w.conversation_id = ?1 and w.version = ?2
                        or j.conversation_id = ?1 and j.kind = 'finish')
                 order by j.id",
                params![id.as_str(), version],
                |row| row.get(0),
            )?;
            Ok(Begun { version, jobs })
        })
        .await
    }

    async fn activate_transcript(&self, id: &ConversationId, version: u32) -> Result<()> {
        let id = id.clone();
        self.write(move |tx| {
            let known = transcripts(tx, &id)?.into_iter().find(|known| known.version == version);
            match known.ok_or_else(no_version)?.state {
                Progress::Pending => Err(unfinished()),
                _ => {
                    activate(tx, &id, version)?;
                    mirror(tx, &id)
                }
            }
        })
        .await
    }

    async fn reprocess_memory(
        &self,
        id: &ConversationId,
        transcript: Option<u32>,
        at: Timestamp,
    ) -> Result<Begun> {
        let id = id.clone();
        self.write(move |tx| {
            closed(tx, &id)?;
            let chosen = transcripts(tx, &id)?.into_iter().find(|known| match transcript {
                Some(version) => known.version == version,
                None => known.active,
            });
            let chosen = chosen.ok_or_else(no_version)?;
            if chosen.state == Progress::Pending {
                return Err(unfinished());
            }
            let pending: bool = tx
                .prepare_cached(
                    "select exists (select 1 from memory_versions
                                    where conversation_id = ?1 and state = 'PENDING')",
                )?
                .query_row([id.as_str()], |row| row.get(0))?;
            if pending {
                let message = "memories of this conversation are being made already";
                return Err(Error::new(Kind::Conflict, message));
            }
            let version = begin_memory(tx, &id, chosen.version, at)?;
            let payload = Payload::Conversation(id.clone());
            let job = NewJob { kind: JobKind::Remember, payload, lane: Lane::Backlog };
            enqueue(tx, &job, at)?;
            let jobs = rows::all(
                tx,
                "select id from jobs where state in ('ready', 'leased')
                   and conversation_id = ?1 and kind = 'remember'",
                [id.as_str()],
                |row| row.get(0),
            )?;
            Ok(Begun { version, jobs })
        })
        .await
    }

    async fn activate_memory(
        &self,
        id: &ConversationId,
        version: u32,
        at: Timestamp,
    ) -> Result<()> {
        let id = id.clone();
        self.write(move |tx| {
            let known =
                rows::all(tx, MEMORY_VERSIONS, [rows::to_json(&[&id])?], rows::memory_version)?;
            let known = known.into_iter().find(|known| known.version == version);
            match known.ok_or_else(no_version)?.state {
                Progress::Completed | Progress::Empty => {
                    shelf::activate(tx, &id, version, at)?;
                    mirror(tx, &id)
                }
                _ => Err(unfinished()),
            }
        })
        .await
    }

    async fn edit_segment(
        &self,
        id: &ConversationId,
        index: usize,
        edit: &SegmentEdit,
    ) -> Result<bool> {
        let (id, edit) = (id.clone(), edit.clone());
        self.write(move |tx| {
            let sql = format!("{ACTIVE_WINDOWS} where w.conversation_id = ?1 order by w.seq");
            let windows = rows::all(tx, &sql, [id.as_str()], rows::window)?;
            let mut before = 0;
            for mut window in windows {
                let Some(segment) = window.segments.get_mut(index - before) else {
                    before += window.segments.len();
                    continue;
                };
                if !edit.apply(segment)? {
                    return Ok(false);
                }
                let segments = rows::to_json(&window.segments)?;
                let sql = "update windows set segments = ?2 where id = ?1";
                rows::run(tx, sql, params![window.id, segments])?;
                return Ok(true);
            }
            Err(Error::new(Kind::NotFound, "there is no such segment"))
        })
        .await
    }

    async fn add_speaker(&self, id: &ConversationId, speaker: &str) -> Result<()> {
        let (id, speaker) = (id.clone(), speaker.to_owned());
        self.write(move |tx| {
            let known = rows::run(
                tx,
                "update conversations
                 set speakers = iif(exists (select 1 from json_each(speakers) where value = ?2),
                                    speakers, json_insert(speakers, '$[#]', ?2))
                 where id = ?1",
                [id.as_str(), &speaker],
            )?;
            if known == 0 { Err(no_conversation()) } else { Ok(()) }
        })
        .await
    }

    async fn crop(&self, id: &ConversationId) -> Result<Option<Crop>> {
        let id = id.clone();
        self.read(move |db| {
            let sql = "select * from crops where conversation_id = ?1";
            rows::first(db, sql, [id.as_str()], rows::crop)
        })
        .await
    }

    async fn conversation_by_crop(&self, audio_path: &str) -> Result<Option<Conversation>> {
        let path = audio_path.to_owned();
        self.read(move |db| {
            let sql = "select c.* from crops x join conversations c on c.id = x.conversation_id
                       where x.audio_path = ?1";
            rows::first(db, sql, [path], rows::conversation)
        })
        .await
    }

    async fn complete_crop(&self, lease: Lease, id: &ConversationId, crop: &Crop) -> Result<()> {
        let (id, crop) = (id.clone(), crop.clone());
        self.write(move |tx| {
            complete(tx, lease, JobKind::Crop, Payload::Conversation(id.clone()), crop.at)?;
            rows::run(
                tx,
                "insert or replace into crops (conversation_id, audio_path, spans, at)
                 values (?1, ?2, ?3, ?4)",
                params![
                    id.as_str(),
                    crop.audio_path,
                    rows::to_json(&crop.spans)?,
                    crop.at.millis()
                ],
            )?;
            Ok(())
        })
        .await
    }
}

const TRANSCRIPTS: &str = "select v.*, (
         select w.engine from windows w
         where w.conversation_id = v.conversation_id and w.version = v.version
           and w.engine is not null limit 1) as engine
     from transcript_versions v
     where v.conversation_id in (select value from json_each(?1))
     order by v.conversation_id, v.version";

const MEMORY_VERSIONS: &str = "select v.*, iif(v.active, (
         select count(*) from memories m
         where m.conversation_id = v.conversation_id), (
         select count(*) from shelved_memories s
         where s.conversation_id = v.conversation_id and s.version = v.version
           and s.by_conversation is null)) as memories
     from memory_versions v
     where v.conversation_id in (select value from json_each(?1))
     order by v.conversation_id, v.version";

/// The windows of the active transcripts of the conversations in a JSON list.
fn active_windows_of_many() -> String {
    format!(
        "{ACTIVE_WINDOWS} where w.conversation_id in (select value from json_each(?1))
         order by w.conversation_id, w.seq"
    )
}

fn details(db: &Connection, ids: &[ConversationId]) -> Result<HashMap<ConversationId, Details>> {
    let mut found: HashMap<ConversationId, Details> = HashMap::new();
    let ids = rows::to_json(ids)?;

    for window in rows::all(db, &active_windows_of_many(), [&ids], rows::window)? {
        found.entry(window.conversation_id.clone()).or_default().windows.push(window);
    }
    for (id, version) in rows::all(db, TRANSCRIPTS, [&ids], |row| {
        Ok((rows::conversation_id(row)?, rows::transcript_version(row)?))
    })? {
        found.entry(id).or_default().transcripts.push(version);
    }
    for (id, version) in rows::all(db, MEMORY_VERSIONS, [&ids], |row| {
        Ok((rows::conversation_id(row)?, rows::memory_version(row)?))
    })? {
        found.entry(id).or_default().memory_versions.push(version);
    }
    let sql = memories::select_memory(
        "where conversation_id in (select value from json_each(?1)) order by created_at, seq",
    );
    for memory in rows::all(db, &sql, [&ids], rows::memory)? {
        if let Some(id) = memory.conversation_id.clone() {
            found.entry(id).or_default().memories.push(memory);
        }
    }
    let sql = "select * from crops where conversation_id in (select value from json_each(?1))";
    for (id, crop) in
        rows::all(db, sql, [&ids], |row| Ok((rows::conversation_id(row)?, rows::crop(row)?)))?
    {
        found.entry(id).or_default().crop = Some(crop);
    }
    let sql = "select id as conversation_id, summary, speakers from conversations
               where id in (select value from json_each(?1))";
    for (id, summary, speakers) in rows::all(db, sql, [&ids], |row| {
        Ok((rows::conversation_id(row)?, row.get("summary")?, rows::json(row, "speakers")?))
    })? {
        let details = found.entry(id).or_default();
        (details.summary, details.speakers) = (summary, speakers);
    }
    Ok(found)
}

fn transcripts(db: &Connection, id: &ConversationId) -> Result<Vec<TranscriptVersion>> {
    rows::all(db, TRANSCRIPTS, [rows::to_json(&[id])?], rows::transcript_version)
}

/// A closed conversation. `Conflict` while audio can still arrive, `NotFound`
/// without one.
fn closed(tx: &Connection, id: &ConversationId) -> Result<Conversation> {
    let found = conversations::one(tx, id)?.ok_or_else(no_conversation)?;
    if found.is_open() {
        let message = "this conversation is still going on; close it first";
        return Err(Error::new(Kind::Conflict, message));
    }
    Ok(found)
}

/// The oldest transcript that is being made.
pub(super) fn pending_transcript(tx: &Connection, id: &ConversationId) -> Result<Option<u32>> {
    rows::first(
        tx,
        "select version from transcript_versions
         where conversation_id = ?1 and state = 'PENDING' order by version limit 1",
        [id.as_str()],
        |row| row.get(0),
    )
}

/// Records how the making of a transcript ended, and makes it the active one if
/// it is complete. Whether it is the active one now.
pub(super) fn settle_transcript(
    tx: &Connection,
    id: &ConversationId,
    settled: &Settled,
    at: Timestamp,
) -> Result<bool> {
    let known = rows::run(
        tx,
        "update transcript_versions set state = ?3, completed_at = ?4
         where conversation_id = ?1 and version = ?2",
        params![id.as_str(), settled.version, settled.transcription.as_str(), at.millis()],
    )?;
    if known == 0 {
        return Err(no_version());
    }
    if matches!(settled.transcription, Progress::Completed | Progress::Empty) {
        activate(tx, id, settled.version)?;
    }
    mirror(tx, id)?;
    let active: bool = tx
        .prepare_cached(
            "select active from transcript_versions where conversation_id = ?1 and version = ?2",
        )?
        .query_row(params![id.as_str(), settled.version], |row| row.get(0))?;
    if active {
        // Memories that are there stand until others take their place.
        rows::run(
            tx,
            "update conversations set memory = ?2 where id = ?1 and not exists (
                 select 1 from memory_versions v where v.conversation_id = ?1 and v.active)",
            [id.as_str(), settled.memory.as_str()],
        )?;
    }
    Ok(active)
}

/// Marks transcripts that are being made as failed.
pub(super) fn fail_transcript(tx: &Connection, id: &ConversationId) -> Result<()> {
    rows::run(
        tx,
        "update transcript_versions set state = 'FAILED'
         where conversation_id = ?1 and state = 'PENDING'",
        [id.as_str()],
    )?;
    mirror(tx, id)
}

/// Marks a transcript as being made again: that of `version`, or the one that
/// failed last.
pub(super) fn reopen_transcript(
    tx: &Connection,
    id: &ConversationId,
    version: Option<u32>,
) -> Result<()> {
    rows::run(
        tx,
        "update transcript_versions set state = 'PENDING', completed_at = null
         where conversation_id = ?1 and version = coalesce(?2, (
             select max(version) from transcript_versions
             where conversation_id = ?1 and state = 'FAILED'))",
        params![id.as_str(), version],
    )?;
    mirror(tx, id)
}

/// Begins a set of memories made from that transcript; one that is being made
/// already takes the newer transcript. Returns its number.
pub(super) fn begin_memory(
    tx: &Connection,
    id: &ConversationId,
    transcript: u32,
    at: Timestamp,
) -> Result<u32> {
    let waiting = rows::first(
        tx,
        "update memory_versions set transcript_version = ?2
         where conversation_id = ?1 and state = 'PENDING' returning version",
        params![id.as_str(), transcript],
        |row| row.get(0),
    )?;
    if let Some(version) = waiting {
        return Ok(version);
    }
    let begun = rows::first(
        tx,
        "insert into memory_versions (conversation_id, version, active, transcript_version,
                                      state, created_at)
         select ?1, 1 + coalesce(max(version), 0), 0, ?2, 'PENDING', ?3
         from memory_versions where conversation_id = ?1 returning version",
        params![id.as_str(), transcript, at.millis()],
        |row| row.get(0),
    )?;
    mirror(tx, id)?;
    begun.ok_or_else(no_version)
}

/// The set of memories that is being made. `Conflict` without one.
pub(super) fn pending_memory(tx: &Connection, id: &ConversationId) -> Result<u32> {
    rows::first(
        tx,
        "select version from memory_versions where conversation_id = ?1 and state = 'PENDING'",
        [id.as_str()],
        |row| row.get(0),
    )?
    .ok_or_else(|| Error::new(Kind::Conflict, "no memories of this conversation are awaited"))
}

/// Marks the set of memories that is being made as failed.
pub(super) fn fail_memory(tx: &Connection, id: &ConversationId) -> Result<()> {
    rows::run(
        tx,
        "update memory_versions set state = 'FAILED'
         where conversation_id = ?1 and state = 'PENDING'",
        [id.as_str()],
    )?;
    // Said also where no set was begun.
    rows::run(
        tx,
        "update conversations set memory = 'FAILED' where id = ?1 and not exists (
             select 1 from memory_versions v where v.conversation_id = ?1 and v.active)",
        [id.as_str()],
    )?;
    Ok(())
}

/// Marks the set of memories that failed last as being made again.
pub(super) fn reopen_memory(tx: &Connection, id: &ConversationId) -> Result<()> {
    rows::run(
        tx,
        "update memory_versions set state = 'PENDING'
         where conversation_id = ?1 and version = (
             select max(version) from memory_versions
             where conversation_id = ?1 and state = 'FAILED')
         and not exists (select 1 from memory_versions
                         where conversation_id = ?1 and state = 'PENDING')",
        [id.as_str()],
    )?;
    mirror(tx, id)
}

fn activate(tx: &Connection, id: &ConversationId, version: u32) -> Result<()> {
    // One after the other: there is never more than one.
    for (active, which) in [(0, "<>"), (1, "=")] {
        let sql = format!(
            "update transcript_versions set active = {active}
             where conversation_id = ?1 and version {which} ?2"
        );
        rows::run(tx, &sql, params![id.as_str(), version])?;
    }
    Ok(())
}

/// Has the conversation's row say where its active versions stand; without an
/// active set of memories, where the latest does.
pub(super) fn mirror(tx: &Connection, id: &ConversationId) -> Result<()> {
    rows::run(
        tx,
        "update conversations set
             transcription = coalesce((
                 select state from transcript_versions
                 where conversation_id = ?1 and active), transcription),
             memory = coalesce((
                 select state from memory_versions where conversation_id = ?1
                 order by active desc, version desc limit 1), memory)
         where id = ?1",
        [id.as_str()],
    )?;
    Ok(())
}

fn no_version() -> Error {
    Error::new(Kind::NotFound, "there is no such version")
}

fn unfinished() -> Error {
    Error::new(Kind::Conflict, "this version is not complete")
}
