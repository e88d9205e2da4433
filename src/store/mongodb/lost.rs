//! Work that waits and that nobody will do, since its job is gone.

use std::collections::{HashMap, HashSet};

use mongodb::bson::{Bson, Document, doc};
use serde::Deserialize;

use super::queue::find_record;
use super::record::Record;
use super::schema::{CONVERSATIONS, JOBS, UPLOADS, WINDOWS};
use super::tx::{Of, Tx};
use crate::base::error::Result;
use crate::domain::conversation::{Progress, WindowState};
use crate::domain::ids::{ConversationId, WindowId};
use crate::domain::job::{JobKind, Lane, NewJob, Payload};
use crate::domain::upload::UploadState;

#[derive(Deserialize)]
struct Waiting {
    #[serde(rename = "_id")]
    id: WindowId,
    conversation_id: ConversationId,
}

const WAITING: Of<Waiting> = Of::<Waiting>::new(WINDOWS.name).without(&["segments"]);

/// A job as far as it tells what is done about what.
#[derive(Deserialize)]
struct Live {
    kind: JobKind,
    window_id: Option<WindowId>,
    conversation_id: ConversationId,
}

const LIVE: Of<Live> = Of::new(JOBS.name);

/// What ought to have a live job and has none, with its conversation.
pub(super) async fn jobs(tx: &mut Tx) -> Result<Vec<(Record, NewJob)>> {
    let live = tx.all(LIVE, doc! { "live": true }, doc! {}).await?;
    let at_work: HashSet<WindowId> = live.iter().filter_map(|job| job.window_id).collect();
    let has = |id: &ConversationId, kinds: &[JobKind]| {
        live.iter().any(|job| job.conversation_id == *id && kinds.contains(&job.kind))
    };
    let mut lost = Vec::new();

    let waiting = doc! { "files": { "$elemMatch": {
        "state": UploadState::Waiting.as_str(), "conversation_id": { "$ne": null },
    } } };
    for upload in tx.all(UPLOADS, waiting, doc! { "seq": 1 }).await? {
        let files = upload.files.iter().filter(|file| file.state == UploadState::Waiting);
        for id in files.filter_map(|file| file.conversation_id.as_ref()) {
            if !has(id, &[JobKind::Import]) {
                lost.push((id.clone(), JobKind::Import, None));
            }
        }
    }
    let waiting = doc! { "state": WindowState::Waiting.as_str() };
    for window in tx.all(WAITING, waiting, doc! { "_id": 1 }).await? {
        if !at_work.contains(&window.id) {
            lost.push((window.conversation_id, JobKind::Transcribe, Some(window.id)));
        }
    }
    for record in tx.all(CONVERSATIONS, unsettled(), doc! { "started_at": 1 }).await? {
        let waits = doc! {
            "conversation_id": record.id.as_str(), "state": WindowState::Waiting.as_str(),
        };
        if !has(&record.id, &[JobKind::Finish]) && !tx.has(WINDOWS, waits).await? {
            lost.push((record.id, JobKind::Finish, None));
        }
    }
    let unremembered = doc! { "sets.state": Progress::Pending.as_str() };
    for record in tx.all(CONVERSATIONS, unremembered, doc! { "started_at": 1 }).await? {
        if !has(&record.id, &[JobKind::Finish, JobKind::Remember]) {
            lost.push((record.id, JobKind::Remember, None));
        }
    }

    let mut records: HashMap<ConversationId, Record> = HashMap::new();
    let mut jobs = Vec::new();
    for (id, kind, window) in lost {
        if !records.contains_key(&id) {
            // One that is gone has nothing to wait for.
            let Some(record) = find_record(tx, &id).await? else { continue };
            records.insert(id.clone(), record);
        }
        let Some(record) = records.get(&id) else { continue };
        let payload = match window {
            Some(window) => Payload::Window(window),
            None => Payload::Conversation(id),
        };
        jobs.push((record.clone(), NewJob { kind, payload, lane: Lane::Backlog }));
    }
    Ok(jobs)
}

/// Closed conversations with a transcript that is being made.
fn unsettled() -> Document {
    doc! {
        "ended_at": { "$ne": Bson::Null }, "transcripts.state": Progress::Pending.as_str(),
    }
}
