//! What has become of the audio, and its archiving.

use async_trait::async_trait;
use mongodb::bson::{Bson, doc};
use serde::Deserialize;

use super::MongoStore;
use super::deletions::{is_transcribed, note, subjects, transcribed, unstored};
use super::queue::{complete, enqueue_kind, record, save};
use super::schema::{CONVERSATIONS, JOBS, OBJECTS};
use crate::base::clock::Timestamp;
use crate::base::error::Result;
use crate::domain::coverage::{Coverage, DayCoverage};
use crate::domain::ids::{ConversationId, UserId};
use crate::domain::job::{JobKind, JobState, Lane, Lease, Payload};
use crate::domain::object::Object;
use crate::store::Audio;

#[async_trait]
impl Audio for MongoStore {
    async fn coverage(
        &self,
        user: Option<&UserId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<DayCoverage>> {
        let mut filter = doc! { "started_at": { "$gte": from.millis(), "$lt": to.millis() } };
        if let Some(user) = user {
            filter.insert("user_id", user.as_str());
        }
        let day = doc! { "$dateToString": {
            "format": "%Y-%m-%d", "date": { "$toDate": "$started_at" },
        } };
        // A window can be newer than the count of samples, for a moment.
        let parts = doc! { "$add": [
            "$figures.transcribed", "$figures.waiting", "$figures.failed",
        ] };
        let accepted = doc! { "$max": ["$samples", parts] };
        let on_disk = doc! { "$cond": [
            { "$eq": [{ "$ifNull": ["$audio_deleted_at", Bson::Null] }, Bson::Null] },
            accepted.clone(), 0_i64,
        ] };
        let pipeline = vec![
            doc! { "$match": filter },
            doc! { "$group": {
                "_id": { "user": "$user_id", "day": day },
                "accepted": { "$sum": accepted },
                "on_disk": { "$sum": on_disk },
                "transcribed": { "$sum": "$figures.transcribed" },
                "waiting": { "$sum": "$figures.waiting" },
                "failed": { "$sum": "$figures.failed" },
            } },
            doc! { "$sort": { "_id.day": 1, "_id.user": 1 } },
        ];
        let days: Vec<Day> = steps!(self, |tx| tx.aggregate(CONVERSATIONS, pipeline).await).await?;
        Ok(days.into_iter().map(DayCoverage::from).collect())
    }

    /// Of this node's recordings.
    async fn queue_archives(&self, at: Timestamp) -> Result<usize> {
        transaction!(self, |tx| {
            let begun = doc! {
                "kind": JobKind::Archive.as_str(), "state": { "$ne": JobState::Done.as_str() },
            };
            let begun = subjects(tx, begun).await?;
            let wav = doc! { "$and": [
                transcribed(tx).await?,
                {
                    "_id": { "$nin": begun }, "node": self.node(),
                    "audio_path": { "$regex": "\\.wav$" }, "samples": { "$gt": 0 },
                },
            ] };
            let found = tx.all(CONVERSATIONS, wav, doc! { "started_at": 1 }).await?;
            for record in &found {
                enqueue_kind(tx, record, JobKind::Archive, Lane::Backlog, at).await?;
            }
            Ok(found.len())
        })
        .await
    }

    async fn complete_archive(
        &self,
        lease: Lease,
        id: &ConversationId,
        name: &str,
        at: Timestamp,
    ) -> Result<Option<String>> {
        transaction!(self, |tx| {
            complete(tx, lease, JobKind::Archive, Payload::Conversation(id.clone()), at).await?;
            let mut record = record(tx, id).await?;
            if record.audio_path == name {
                return Ok(None);
            }
            // Not while something reads it under its old name.
            let goes = match is_transcribed(tx, &record).await? {
                true => std::mem::replace(&mut record.audio_path, name.to_owned()),
                false => name.to_owned(),
            };
            note(tx, &record.node, vec![goes.clone()], at).await?;
            save(tx, &mut record).await?;
            Ok(Some(goes))
        })
        .await
    }

    /// Of this node's recordings.
    async fn unstored_recordings(&self, wav_before: Timestamp) -> Result<Vec<String>> {
        let is_wav = doc! { "$regexMatch": { "input": "$audio_path", "regex": "\\.wav$" } };
        let rests = doc! { "$or": [
            { "$not": [is_wav] }, { "$lt": ["$ended_at", wav_before.millis()] },
        ] };
        let recording = doc! { "$cond": [
            { "$and": [{ "$gt": ["$samples", 0] }, rests] }, ["$audio_path"], [],
        ] };
        let cropped = doc! { "$cond": [
            { "$eq": [{ "$type": "$crop.audio_path" }, "string"] }, ["$crop.audio_path"], [],
        ] };
        let mut pipeline = vec![
            doc! { "$match": {
                "node": self.node(), "ended_at": { "$ne": null }, "audio_deleted_at": null,
            } },
            doc! { "$project": {
                "_id": 0, "started_at": 1, "name": { "$concatArrays": [recording, cropped] },
            } },
            doc! { "$unwind": "$name" },
        ];
        pipeline.extend(unstored("name"));
        pipeline.push(doc! { "$sort": { "started_at": 1, "name": 1 } });
        let found: Vec<Named> =
            steps!(self, |tx| tx.aggregate(CONVERSATIONS, pipeline).await).await?;
        Ok(found.into_iter().map(|found| found.name).collect())
    }

    async fn begin_object(&self, name: &str) -> Result<()> {
        let update = doc! {
            "$set": { "verified_at": null }, "$setOnInsert": { "bytes": 0_i64, "sha256": "" },
        };
        let begun = steps!(self, |tx| tx.upsert(OBJECTS, doc! { "_id": name }, update).await);
        begun.await.map(drop)
    }

    async fn complete_object(&self, object: &Object, at: Timestamp) -> Result<bool> {
        let name = object.name.as_str();
        transaction!(self, |tx| {
            tx.put(OBJECTS, name, &object.into()).await?;
            let recorded = doc! { "audio_path": name, "audio_deleted_at": null };
            if let Some(mut record) = tx.first(CONVERSATIONS, recorded).await? {
                // From now on any node can hear it.
                let bound = doc! {
                    "conversation_id": record.id.as_str(), "audio_at": { "$ne": null },
                    "kind": JobKind::Transcribe.as_str(),
                };
                let free = doc! { "$set": { "audio_at": null } };
                tx.change(JOBS, bound, free).await?;
                save(tx, &mut record).await?;
                return Ok(true);
            }
            let used = tx.has(CONVERSATIONS, doc! { "crop.audio_path": name }).await?;
            if !used {
                note(tx, self.node(), vec![name.to_owned()], at).await?;
            }
            Ok(used)
        })
        .await
    }

    async fn objects(&self, names: &[String]) -> Result<Vec<Object>> {
        let (these, order) = (doc! { "_id": { "$in": names } }, doc! { "_id": 1 });
        let found = steps!(self, |tx| tx.all(OBJECTS, these, order).await).await?;
        Ok(found.into_iter().map(Object::from).collect())
    }

    async fn forget_objects(&self, names: &[String]) -> Result<()> {
        let gone = doc! { "_id": { "$in": names } };
        steps!(self, |tx| tx.remove(OBJECTS, gone).await).await.map(drop)
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Day {
    #[serde(rename = "_id")]
    of: Of,
    accepted: u64,
    on_disk: u64,
    transcribed: u64,
    waiting: u64,
    failed: u64,
}

#[derive(Deserialize)]
struct Of {
    user: UserId,
    day: String,
}

impl From<Day> for DayCoverage {
    fn from(day: Day) -> Self {
        Self {
            user_id: day.of.user,
            day: day.of.day,
            coverage: Coverage {
                accepted: day.accepted,
                on_disk: day.on_disk,
                transcribed: day.transcribed,
                waiting: day.waiting,
                failed: day.failed,
            },
        }
    }
}
