//! Versions of transcripts and memories, and what goes with a conversation.

use std::collections::HashMap;

use async_trait::async_trait;
use mongodb::bson::{Bson, doc};
use serde::Deserialize;

use super::MongoStore;
use super::conversations::active_windows;
use super::queue::{
    complete, enqueue_kind, find_record, finish_if_settled, insert_window, live_jobs, numbers,
    record, save, windows_of,
};
use super::record::{CropRow, Record, Set, no_version};
use super::schema::{CONVERSATIONS, JOBS, LISTED, MEMORIES, SHELF, WINDOWS};
use super::shelf;
use super::tx::Tx;
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{Conversation, NewWindow, Progress, Window};
use crate::domain::ids::{ConversationId, WindowId};
use crate::domain::job::{JobKind, Lane, Lease, Payload};
use crate::domain::transcript::{Segment, plain_text};
use crate::domain::version::{Begun, Crop, Details, MemoryVersion, SegmentEdit, TranscriptVersion};
use crate::store::Versions;

#[async_trait]
impl Versions for MongoStore {
    async fn details(&self, ids: &[ConversationId]) -> Result<HashMap<ConversationId, Details>> {
        steps!(self, |tx| details(tx, ids).await).await
    }

    async fn transcripts(&self, ids: &[ConversationId]) -> Result<HashMap<ConversationId, String>> {
        steps!(self, |tx| {
            let records = records(tx, ids).await?;
            let mut segments: HashMap<ConversationId, Vec<Segment>> = HashMap::new();
            for window in windows_of_many(tx, &records).await? {
                segments.entry(window.conversation_id).or_default().extend(window.segments);
            }
            Ok(segments.into_iter().map(|(id, said)| (id, plain_text(&said))).collect())
        })
        .await
    }

    async fn transcript_versions(&self, id: &ConversationId) -> Result<Vec<TranscriptVersion>> {
        let found = steps!(self, |tx| find_record(tx, id).await).await?;
        Ok(found.map(|record| record.transcript_versions()).unwrap_or_default())
    }

    async fn memory_versions(&self, id: &ConversationId) -> Result<Vec<MemoryVersion>> {
        steps!(self, |tx| {
            let Some(record) = find_record(tx, id).await? else { return Ok(Vec::new()) };
            let shown = tx.count(MEMORIES, doc! { "conversation_id": id.as_str() }).await?;
            let shelved = shelved(tx, std::slice::from_ref(id)).await?;
            Ok(record.memory_versions(|set| memories_of(&record, set, shown, &shelved)))
        })
        .await
    }

    async fn version_windows(&self, id: &ConversationId, version: u32) -> Result<Vec<Window>> {
        let filter = doc! { "conversation_id": id.as_str(), "version": i64::from(version) };
        let found = steps!(self, |tx| tx.all(WINDOWS, filter, doc! { "seq": 1 }).await).await?;
        Ok(found.into_iter().map(Window::from).collect())
    }

    async fn reprocess_transcript(&self, id: &ConversationId, at: Timestamp) -> Result<Begun> {
        transaction!(self, |tx| {
            let mut record = closed(tx, id).await?;
            if record.audio_deleted_at.is_some() {
                let message = "the recording of this conversation was deleted";
                return Err(Error::new(Kind::Conflict, message));
            }
            if record.pending_transcript().is_some() {
                let message = "this conversation is being transcribed already";
                return Err(Error::new(Kind::Conflict, message));
            }
            let spoken = active_windows(tx, id).await?;
            let version = record.begin_transcript(at);
            let mut windows = windows_of(tx, id).await?;
            for Window { seq, spans, .. } in spoken {
                let window = (version, &NewWindow { seq, spans });
                insert_window(tx, &record, &mut windows, window, Lane::Backlog, at).await?;
            }
            record.count(&windows);
            finish_if_settled(tx, &record, &windows, Lane::Backlog, at).await?;
            save(tx, &mut record).await?;
            let own: Vec<WindowId> =
                windows.iter().filter(|w| w.version == version).map(|w| w.id).collect();
            let jobs = doc! { "conversation_id": id.as_str(), "live": true, "$or": [
                { "window_id": { "$in": own } }, { "kind": JobKind::Finish.as_str() },
            ] };
            let jobs = numbers(&tx.all(JOBS, jobs, doc! { "_id": 1 }).await?);
            Ok(Begun { version, jobs })
        })
        .await
    }

    async fn activate_transcript(&self, id: &ConversationId, version: u32) -> Result<()> {
        transaction!(self, |tx| {
            let mut record = find_record(tx, id).await?.ok_or_else(no_version)?;
            if record.transcript(version)?.state == Progress::Pending {
                return Err(unfinished());
            }
            record.activate_transcript(version);
            record.mirror();
            let windows = windows_of(tx, id).await?;
            record.count(&windows);
            save(tx, &mut record).await
        })
        .await
    }

    async fn reprocess_memory(
        &self,
        id: &ConversationId,
        transcript: Option<u32>,
        at: Timestamp,
    ) -> Result<Begun> {
        transaction!(self, |tx| {
            let mut record = closed(tx, id).await?;
            let chosen = transcript.or(record.active_transcript()).ok_or_else(no_version)?;
            if record.transcript(chosen)?.state == Progress::Pending {
                return Err(unfinished());
            }
            if record.pending_set().is_some() {
                let message = "memories of this conversation are being made already";
                return Err(Error::new(Kind::Conflict, message));
            }
            let version = record.begin_set(chosen, at);
            let kind = JobKind::Remember;
            enqueue_kind(tx, &record, kind, Lane::Backlog, at).await?;
            save(tx, &mut record).await?;
            let jobs = numbers(&live_jobs(tx, id, kind).await?);
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
        transaction!(self, |tx| {
            let mut record = find_record(tx, id).await?.ok_or_else(no_version)?;
            match record.set(version)?.state {
                Progress::Completed | Progress::Empty => {
                    shelf::activate(tx, &mut record, version, at).await?;
                    record.mirror();
                    save(tx, &mut record).await
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
        transaction!(self, |tx| {
            let mut before = 0;
            for mut window in active_windows(tx, id).await? {
                let Some(segment) = window.segments.get_mut(index - before) else {
                    before += window.segments.len();
                    continue;
                };
                if !edit.apply(segment)? {
                    return Ok(false);
                }
                let update = doc! { "$set": { "segments": segments(&window.segments)? } };
                tx.change(WINDOWS, doc! { "_id": window.id }, update).await?;
                return Ok(true);
            }
            Err(Error::new(Kind::NotFound, "there is no such segment"))
        })
        .await
    }

    async fn add_speaker(&self, id: &ConversationId, speaker: &str) -> Result<()> {
        transaction!(self, |tx| {
            let mut record = record(tx, id).await?;
            if !record.speakers.iter().any(|known| known == speaker) {
                record.speakers.push(speaker.to_owned());
            }
            save(tx, &mut record).await
        })
        .await
    }

    async fn crop(&self, id: &ConversationId) -> Result<Option<Crop>> {
        let found = steps!(self, |tx| find_record(tx, id).await).await?;
        Ok(found.and_then(|record| record.crop()))
    }

    async fn conversation_by_crop(&self, audio_path: &str) -> Result<Option<Conversation>> {
        self.find(doc! { "crop.audio_path": audio_path }).await
    }

    async fn complete_crop(&self, lease: Lease, id: &ConversationId, crop: &Crop) -> Result<()> {
        transaction!(self, |tx| {
            let subject = Payload::Conversation(id.clone());
            complete(tx, lease, JobKind::Crop, subject, crop.at).await?;
            let mut record = record(tx, id).await?;
            record.crop = Some(CropRow {
                audio_path: crop.audio_path.clone(),
                spans: crop.spans.clone(),
                at: crop.at,
            });
            save(tx, &mut record).await
        })
        .await
    }
}

/// What was said, as a document keeps it.
pub(super) fn segments(segments: &[Segment]) -> Result<Bson> {
    mongodb::bson::serialize_to_bson(segments)
        .map_err(|error| Error::new(Kind::Internal, "cannot write a transcript").with_source(error))
}

async fn records(tx: &mut Tx, ids: &[ConversationId]) -> Result<Vec<Record>> {
    let ids: Vec<&str> = ids.iter().map(ConversationId::as_str).collect();
    tx.all(CONVERSATIONS, doc! { "_id": { "$in": ids } }, doc! {}).await
}

/// The windows of the active transcripts of conversations, in order.
async fn windows_of_many(tx: &mut Tx, records: &[Record]) -> Result<Vec<Window>> {
    let active = |record: &Record| {
        let version = record.active_transcript().map(i64::from);
        doc! { "conversation_id": record.id.as_str(), "version": version }
    };
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let filter = doc! { "$or": records.iter().map(active).collect::<Vec<_>>() };
    let order = doc! { "conversation_id": 1, "seq": 1 };
    let found = tx.all(WINDOWS, filter, order).await?;
    Ok(found.into_iter().map(Window::from).collect())
}

/// How many memories the sets of a conversation have that are not active.
type ShelvedSets = HashMap<(ConversationId, u32), u64>;

async fn shelved(tx: &mut Tx, ids: &[ConversationId]) -> Result<ShelvedSets> {
    #[derive(Deserialize)]
    struct Counted {
        #[serde(rename = "_id")]
        set: Of,
        memories: u64,
    }
    #[derive(Deserialize)]
    struct Of {
        conversation: ConversationId,
        version: u32,
    }
    let ids: Vec<&str> = ids.iter().map(ConversationId::as_str).collect();
    let pipeline = vec![
        doc! { "$match": {
            "memory.conversation_id": { "$in": ids }, "by_conversation": null,
        } },
        doc! { "$group": {
            "_id": { "conversation": "$memory.conversation_id", "version": "$memory.version" },
            "memories": { "$sum": 1 },
        } },
    ];
    let counted: Vec<Counted> = tx.aggregate(SHELF, pipeline).await?;
    let entry = |one: Counted| ((one.set.conversation, one.set.version), one.memories);
    Ok(counted.into_iter().map(entry).collect())
}

fn memories_of(record: &Record, set: &Set, shown: u64, shelved: &ShelvedSets) -> u64 {
    match set.active {
        true => shown,
        false => shelved.get(&(record.id.clone(), set.version)).copied().unwrap_or(0),
    }
}

async fn details(tx: &mut Tx, ids: &[ConversationId]) -> Result<HashMap<ConversationId, Details>> {
    let records = records(tx, ids).await?;
    let shelved = shelved(tx, ids).await?;
    let mut found: HashMap<ConversationId, Details> = HashMap::new();
    for window in windows_of_many(tx, &records).await? {
        found.entry(window.conversation_id.clone()).or_default().windows.push(window);
    }
    let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    let filter = doc! { "conversation_id": { "$in": ids } };
    for memory in tx.all(LISTED, filter, doc! { "created_at": 1, "seq": 1 }).await? {
        if let Some(id) = memory.conversation_id.clone() {
            found.entry(id).or_default().memories.push(memory.into());
        }
    }
    for record in &records {
        let details = found.entry(record.id.clone()).or_default();
        let shown = details.memories.len() as u64;
        details.transcripts = record.transcript_versions();
        details.memory_versions =
            record.memory_versions(|set| memories_of(record, set, shown, &shelved));
        details.crop = record.crop();
        details.summary.clone_from(&record.summary);
        details.speakers.clone_from(&record.speakers);
    }
    Ok(found)
}

/// A closed conversation. `Conflict` while audio can still arrive, `NotFound`
/// without one.
async fn closed(tx: &mut Tx, id: &ConversationId) -> Result<Record> {
    let found = record(tx, id).await?;
    if found.ended_at.is_none() {
        let message = "this conversation is still going on; close it first";
        return Err(Error::new(Kind::Conflict, message));
    }
    Ok(found)
}

fn unfinished() -> Error {
    Error::new(Kind::Conflict, "this version is not complete")
}
