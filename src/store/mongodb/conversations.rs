//! Conversations, their windows and transcripts.

use async_trait::async_trait;
use mongodb::bson::{Document, doc};

use super::queue::{
    complete, enqueue, finish_if_settled, insert_record, insert_window, make_due, prune, record,
    release, save, windows_of,
};
use super::record::Record;
use super::schema::{CONVERSATIONS, JOBS, UPLOADS, USERS, WINDOWS};
use super::tx::Tx;
use super::{MongoStore, deletions, lost, versions};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{CloseReason, Conversation, NewWindow, Window, WindowState};
use crate::domain::ids::{ConversationId, UserId, WindowId};
use crate::domain::job::{JobKind, Lane, Lease, Payload};
use crate::domain::version::{Settled, Transcribed};
use crate::store::Conversations;

#[async_trait]
impl Conversations for MongoStore {
    async fn open_conversation(&self, conversation: &Conversation) -> Result<()> {
        let new = Record::new(conversation, self.node());
        transaction!(self, |tx| {
            let shut = doc! { "_id": new.user_id.as_str(), "is_active": false };
            if tx.has(USERS, shut).await? {
                let message = "this user may not log in any more, so nothing is recorded";
                return Err(Error::new(Kind::Forbidden, message));
            }
            insert_record(tx, &new).await
        })
        .await
    }

    async fn adopt_conversation(&self, conversation: &Conversation) -> Result<bool> {
        let new = Record::new(conversation, self.node());
        transaction!(self, |tx| {
            if deletions::is_noted(tx, &new.audio_path).await? {
                return Ok(false);
            }
            insert_record(tx, &new).await.map(|()| true)
        })
        .await
    }

    async fn add_window(
        &self,
        id: &ConversationId,
        samples: u64,
        window: &NewWindow,
        lane: Lane,
        at: Timestamp,
    ) -> Result<()> {
        transaction!(self, |tx| {
            let mut record = record(tx, id).await?;
            record.samples = record.samples.max(samples);
            let mut windows = windows_of(tx, id).await?;
            // Only the first transcript is made while audio arrives.
            insert_window(tx, &record, &mut windows, (1, window), lane, at).await?;
            record.count(&windows);
            save(tx, &mut record).await
        })
        .await
    }

    async fn close_conversation(
        &self,
        id: &ConversationId,
        samples: u64,
        windows: &[NewWindow],
        reason: CloseReason,
        at: Timestamp,
    ) -> Result<()> {
        transaction!(self, |tx| {
            let mut record = record(tx, id).await?;
            if record.ended_at.is_some() {
                return Ok(());
            }
            record.samples = record.samples.max(samples);
            record.close(reason, at);
            let mut known = windows_of(tx, id).await?;
            let lane = lane_of_close(tx, id, reason).await?;
            release(tx, id, lane).await?;
            for window in windows {
                insert_window(tx, &record, &mut known, (1, window), lane, at).await?;
            }
            record.count(&known);
            finish_if_settled(tx, &record, &known, lane, at).await?;
            save(tx, &mut record).await
        })
        .await
    }

    async fn conversation(&self, id: &ConversationId) -> Result<Option<Conversation>> {
        self.find(doc! { "_id": id.as_str() }).await
    }

    async fn conversation_by_audio(&self, audio_path: &str) -> Result<Option<Conversation>> {
        self.find(doc! { "audio_path": audio_path }).await
    }

    async fn conversations(
        &self,
        user: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<Conversation>> {
        let filter = user.map_or_else(Document::new, |user| doc! { "user_id": user.as_str() });
        let order = doc! { "started_at": -1, "_id": -1 };
        let found = steps!(self, |tx| tx.page(CONVERSATIONS, filter, order, 0, limit).await);
        Ok(found.await?.iter().map(Record::conversation).collect())
    }

    /// Those that were recorded at this node: what is open at another one is that
    /// one's to close.
    async fn open_conversations(&self) -> Result<Vec<Conversation>> {
        let filter = doc! { "node": self.node(), "ended_at": null };
        steps!(self, |tx| {
            let open = tx.all(CONVERSATIONS, filter, doc! { "started_at": 1 }).await?;
            let ids: Vec<&str> = open.iter().map(|record| record.id.as_str()).collect();
            let waiting = doc! { "files": { "$elemMatch": {
                "conversation_id": { "$in": ids }, "spooled": { "$ne": null },
            } } };
            let uploads = tx.all(UPLOADS, waiting, doc! {}).await?;
            let files = uploads.iter().flat_map(|upload| &upload.files);
            let waiting: Vec<_> = files
                .filter(|file| file.spooled.is_some())
                .filter_map(|file| file.conversation_id.as_ref())
                .collect();
            let open = open.iter().filter(|record| !waiting.contains(&&record.id));
            Ok(open.map(Record::conversation).collect())
        })
        .await
    }

    async fn windows(&self, id: &ConversationId) -> Result<Vec<Window>> {
        steps!(self, |tx| active_windows(tx, id).await).await
    }

    async fn window(&self, id: WindowId) -> Result<Option<Window>> {
        let found = steps!(self, |tx| tx.first(WINDOWS, doc! { "_id": id }).await).await?;
        Ok(found.map(Window::from))
    }

    async fn complete_windows(&self, windows: &[Transcribed], at: Timestamp) -> Result<()> {
        transaction!(self, |tx| {
            let mut last = None;
            for done in windows {
                let subject = Payload::Window(done.window);
                let lane = complete(tx, done.lease, JobKind::Transcribe, subject, at).await?;
                let text = versions::segments(&done.segments)?;
                let engine = &done.engine;
                let heard = doc! { "$set": {
                    "state": WindowState::Done.as_str(), "segments": text, "engine": engine,
                } };
                let window = tx.take(WINDOWS, doc! { "_id": done.window }, heard, doc! {}).await?;
                let window =
                    window.ok_or_else(|| Error::new(Kind::NotFound, "there is no such window"))?;
                last = Some((window, engine, lane));
            }
            let Some((window, engine, lane)) = last else { return Ok(()) };
            let mut record = record(tx, &window.conversation_id).await?;
            let transcript = record.transcript(window.version)?;
            transcript.engine.get_or_insert_with(|| engine.clone());
            let windows = windows_of(tx, &record.id).await?;
            record.count(&windows);
            finish_if_settled(tx, &record, &windows, lane, at).await?;
            save(tx, &mut record).await
        })
        .await
    }

    async fn finish_conversation(
        &self,
        lease: Lease,
        id: &ConversationId,
        settled: &Settled,
        at: Timestamp,
    ) -> Result<()> {
        transaction!(self, |tx| {
            let subject = Payload::Conversation(id.clone());
            let lane = complete(tx, lease, JobKind::Finish, subject, at).await?;
            let mut record = record(tx, id).await?;
            let windows = windows_of(tx, id).await?;
            if record.settle(settled, at)? {
                if settled.next.iter().any(|job| job.kind == JobKind::Remember) {
                    record.begin_set(settled.version, at);
                }
                for job in &settled.next {
                    enqueue(tx, &record, job, at).await?;
                }
            }
            record.count(&windows);
            record.clear_error(&windows);
            if record.pending_transcript().is_some() {
                finish_if_settled(tx, &record, &windows, lane, at).await?;
            }
            save(tx, &mut record).await
        })
        .await
    }

    async fn requeue_lost(&self, at: Timestamp) -> Result<usize> {
        transaction!(self, |tx| {
            let lost = lost::jobs(tx).await?;
            for (record, job) in &lost {
                enqueue(tx, record, job, at).await?;
            }
            let put_off = make_due(tx, at).await?;
            prune(tx, at).await?;
            Ok(lost.len() + usize::try_from(put_off).unwrap_or(usize::MAX))
        })
        .await
    }
}

impl MongoStore {
    /// The conversation that `filter` names.
    pub(super) async fn find(&self, filter: Document) -> Result<Option<Conversation>> {
        let found = steps!(self, |tx| tx.first(CONVERSATIONS, filter).await).await?;
        Ok(found.as_ref().map(Record::conversation))
    }
}

/// The windows of the active transcript of a conversation, in order.
pub(super) async fn active_windows(tx: &mut Tx, id: &ConversationId) -> Result<Vec<Window>> {
    let Some(record) = super::queue::find_record(tx, id).await? else { return Ok(Vec::new()) };
    let version = record.active_transcript().map(i64::from);
    let filter = doc! { "conversation_id": id.as_str(), "version": version };
    let found = tx.all(WINDOWS, filter, doc! { "seq": 1 }).await?;
    Ok(found.into_iter().map(Window::from).collect())
}

/// The tail goes where the windows before it went; nobody waits for what the
/// sweep closes.
async fn lane_of_close(tx: &mut Tx, id: &ConversationId, reason: CloseReason) -> Result<Lane> {
    if reason == CloseReason::Sweep {
        return Ok(Lane::Backlog);
    }
    let filter = doc! { "conversation_id": id.as_str(), "version": 1 };
    let Some(last) = tx.first_by(WINDOWS, filter, doc! { "seq": -1 }).await? else {
        return Ok(Lane::Live);
    };
    let earlier = tx.first_by(
        JOBS,
        doc! { "window_id": last.id, "conversation_id": id.as_str() },
        doc! { "_id": -1 },
    );
    let earlier = earlier.await?.map(|job| job.lane());
    Ok(earlier.filter(|lane| *lane != Lane::Held).unwrap_or(Lane::Live))
}
