//! Looking after what is kept. MongoDB looks after its files and its indexes by
//! itself.

use std::path::Path;

use async_trait::async_trait;
use mongodb::bson::doc;

use super::queue::{enqueue_kind, record, save, windows_of};
use super::record::{Figures, Record};
use super::schema::CONVERSATIONS;
use super::tx::Tx;
use super::{MongoStore, deletions, lost};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::finding::{Fault, Finding};
use crate::domain::ids::ConversationId;
use crate::domain::job::{JobKind, Lane, NewJob, Payload};
use crate::store::Upkeep;

#[async_trait]
impl Upkeep for MongoStore {
    async fn back_up(&self, _: &Path) -> Result<()> {
        Err(Error::new(
            Kind::Config,
            "the database is in MongoDB, which is backed up with its own tools: mongodump \
             --uri=… --db=… --oplog, or a snapshot of its disk",
        ))
    }

    async fn contradictions(&self) -> Result<Vec<Finding>> {
        // One transaction, so that all of it is of one moment.
        transaction!(self, |tx| {
            let mut found: Vec<Finding> =
                lost::jobs(tx).await?.iter().map(|(_, job)| without_job(job)).collect();
            for record in miscounted(tx).await? {
                let id = &record.id;
                let message = format!(
                    "what is noted as transcribed, waiting and failed of conversation {id} is \
                     not what its windows say"
                );
                found.push(Finding::new(Fault::CoverageWrong, id.as_str(), message));
            }
            Ok(found)
        })
        .await
    }

    async fn rebuild(&self) -> Result<usize> {
        transaction!(self, |tx| {
            let mut wrong = miscounted(tx).await?;
            for record in &mut wrong {
                let windows = windows_of(tx, &record.id).await?;
                record.count(&windows);
                save(tx, record).await?;
            }
            Ok(wrong.len())
        })
        .await
    }

    async fn rename_recording(&self, id: &ConversationId, from: &str, to: &str) -> Result<bool> {
        transaction!(self, |tx| {
            if deletions::is_noted(tx, to).await? {
                return Ok(false);
            }
            let filter = doc! { "_id": id.as_str(), "audio_path": from };
            let update = doc! { "$set": { "audio_path": to }, "$inc": { "revision": 1_i64 } };
            Ok(tx.change(CONVERSATIONS, filter, update).await? > 0)
        })
        .await
    }

    /// Of this node's recordings.
    async fn crops(&self) -> Result<Vec<(ConversationId, String)>> {
        let cropped = doc! { "node": self.node(), "crop.audio_path": { "$type": "string" } };
        let order = doc! { "crop.audio_path": 1 };
        let found = steps!(self, |tx| tx.all(CONVERSATIONS, cropped, order).await).await?;
        let name = |record: Record| Some((record.id, record.crop?.audio_path?));
        Ok(found.into_iter().filter_map(name).collect())
    }

    async fn crop_again(&self, id: &ConversationId, at: Timestamp) -> Result<()> {
        transaction!(self, |tx| {
            let mut record = record(tx, id).await?;
            record.crop = None;
            enqueue_kind(tx, &record, JobKind::Crop, Lane::Backlog, at).await?;
            save(tx, &mut record).await
        })
        .await
    }
}

fn without_job(job: &NewJob) -> Finding {
    let subject = match &job.payload {
        Payload::Window(id) => format!("window {id}"),
        Payload::Conversation(id) => format!("conversation {id}"),
    };
    let message = format!("{subject} waits ({}), and no job does it", job.kind.as_str());
    Finding::new(Fault::JobMissing, subject, message)
}

/// Conversations whose figures are not those of their windows.
async fn miscounted(tx: &mut Tx) -> Result<Vec<Record>> {
    let mut wrong = Vec::new();
    for record in tx.all(CONVERSATIONS, doc! {}, doc! { "_id": 1 }).await? {
        let windows = windows_of(tx, &record.id).await?;
        let mut counted = record.clone();
        counted.count(&windows);
        let (kept, right): (Figures, Figures) = (record.figures, counted.figures);
        if kept != right {
            wrong.push(record);
        }
    }
    Ok(wrong)
}
