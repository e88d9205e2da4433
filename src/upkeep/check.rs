//! Proves that rows and files agree. It only looks, so it works beside a running
//! daemon too.
//!
//! - Every recording has a row, or is noted as deleted; every row has its
//!   recording, with the samples that it claims.
//! - The windows of a conversation are in order, apart, and inside its audio.
//! - What waits has a job, memories are in their indexes, figures add up, and
//!   SQLite finds its file whole.
//! - Nothing is left of what was deleted, cropped or archived.
//! - What is in the bucket according to its row is there, when that is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::error::{Kind, Result};
use crate::domain::conversation::{Conversation, SAMPLE_RATE, Window};
use crate::domain::finding::{Fault, Finding};
use crate::domain::ids::ConversationId;
use crate::domain::object::Object;
use crate::pipeline::reconcile::Sweep;
use crate::recording::{Format, Recordings};
use crate::remote::bucket::Bucket;
use crate::store::Store;

/// A daemon at work is between two steps for less than this.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Names that the store is asked of at a time.
const BATCH: usize = 1_000;

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Conversations in the store.
    pub conversations: usize,
    /// Recordings on disk.
    pub recordings: usize,
    /// What is wrong; empty is as it should be.
    pub findings: Vec<Finding>,
}

/// Rows and recordings to compare.
pub struct Check {
    store: Arc<dyn Store>,
    recordings: Recordings,
    clock: Clock,
    /// A daemon is at work on them.
    running: bool,
    /// Asked for what it has.
    bucket: Option<Bucket>,
}

/// The files there are, on disk and by their rows in the bucket.
struct Files {
    here: BTreeSet<String>,
    stored: BTreeMap<String, Object>,
}

impl Files {
    fn has(&self, name: &str) -> bool {
        self.here.contains(name) || self.stored.contains_key(name)
    }
}

impl Check {
    /// Of these rows and recordings; `running`: a daemon is at work on them.
    pub fn new(store: Arc<dyn Store>, recordings: Recordings, clock: Clock, running: bool) -> Self {
        Self { store, recordings, clock, running, bucket: None }
    }

    /// The same, which has `bucket` tell whether it has what it should.
    #[must_use]
    pub fn asking(self, bucket: Option<Bucket>) -> Self {
        Self { bucket, ..self }
    }

    /// Looks at everything, and beside a daemon a second time at what seems
    /// wrong: it may have been between two steps. `progress` hears how many
    /// conversations are done, of how many.
    ///
    /// # Errors
    /// When the store or the directory of recordings cannot be read at all, or the
    /// bucket does not answer.
    pub async fn run(&self, progress: impl Fn(usize, usize)) -> Result<Report> {
        let first = self.look(&progress).await?;
        if first.findings.is_empty() || !self.running {
            return Ok(first);
        }
        tokio::time::sleep(SECOND_LOOK).await;
        let mut second = self.look(&progress).await?;
        second.findings.retain(|finding| first.findings.contains(finding));
        Ok(second)
    }

    /// Mends what can be mended, as the daemon's own sweep does; it deletes no
    /// audio but what somebody deleted. Only with the daemon stopped, and with
    /// `sweep` over the same rows and recordings.
    ///
    /// # Errors
    /// When the store or the recordings cannot be written.
    pub async fn repair(&self, sweep: &Sweep) -> Result<()> {
        sweep.once().await?;
        self.store.rebuild().await?;
        let files = self.files().await?;
        for (id, name) in self.store.crops().await? {
            if !files.has(&name) {
                self.store.crop_again(&id, self.clock.now()).await?;
            }
        }
        Ok(())
    }

    async fn files(&self) -> Result<Files> {
        // Files before rows: a row is made before its file.
        let here = self.recordings.scan().await?.into_iter().map(|found| found.name).collect();
        let conversations = self.store.conversations(None, usize::MAX).await?;
        let crops = self.store.crops().await?.into_iter().map(|(_, name)| name);
        let names: Vec<String> =
            conversations.into_iter().map(|row| row.audio_path).chain(crops).collect();
        let mut stored = BTreeMap::new();
        for names in names.chunks(BATCH) {
            let objects = self.store.objects(names).await?.into_iter();
            let verified = objects.filter(|object| object.verified_at.is_some());
            stored.extend(verified.map(|object| (object.name.clone(), object)));
        }
        Ok(Files { here, stored })
    }

    async fn look(&self, progress: &impl Fn(usize, usize)) -> Result<Report> {
        let files = self.files().await?;
        let mut findings = self.store.contradictions().await?;
        let going: BTreeSet<String> = self.store.deletions().await?.into_iter().collect();
        let conversations = self.store.conversations(None, usize::MAX).await?;
        let by_id: BTreeMap<&ConversationId, &Conversation> =
            conversations.iter().map(|row| (&row.id, row)).collect();

        let mut recordings = 0;
        for name in files.here.iter().filter(|name| !going.contains(*name)) {
            let Some(origin) = Recordings::origin(name) else { continue };
            recordings += 1;
            let row = by_id.get(&origin.conversation_id).copied();
            findings.extend(self.unowned(name, row, &files));
        }
        for (done, conversation) in conversations.iter().enumerate() {
            progress(done, conversations.len());
            findings.extend(self.audio(conversation, &files).await?);
            let windows = self.store.windows(&conversation.id).await?;
            findings.extend(order(conversation, &windows));
        }
        if !self.running {
            // A daemon has conversations open, and closes those it finds.
            let open = self.store.open_conversations().await?;
            findings.extend(open.iter().map(|conversation| {
                let id = conversation.id.as_str();
                let message = format!("conversation {id} was left open, and nothing records it");
                Finding::new(Fault::ConversationOpen, id, message)
            }));
        }
        findings.extend(self.derived(&files).await?);
        findings.extend(self.objects(&files).await?);
        findings.extend(going.iter().filter(|name| files.here.contains(*name)).map(|name| {
            let message = format!("{name} was deleted and is still there");
            Finding::new(Fault::DeletionUnfinished, name, message)
        }));
        findings.sort();
        Ok(Report { conversations: conversations.len(), recordings, findings })
    }

    /// What is wrong with there being a recording `name`, whose conversation is
    /// `row`.
    fn unowned(&self, name: &str, row: Option<&Conversation>, files: &Files) -> Option<Finding> {
        let Some(row) = row else {
            let message = format!("{name} belongs to no conversation");
            return Some(Finding::new(Fault::RecordingWithoutRow, name, message));
        };
        if row.audio_path == name {
            return None;
        }
        if row.has_audio() && !files.has(&row.audio_path) {
            let message = format!(
                "{} of conversation {} is not there, and {name} is",
                row.audio_path, row.id
            );
            return Some(Finding::new(Fault::RecordingRenamed, name, message));
        }
        // An archiving that was cut short is done again, and makes it anew.
        let archive = Format::of(&row.audio_path) == Some(Format::Wav)
            && Recordings::archived_name(&row.audio_path).as_deref() == Some(name);
        (!archive).then(|| {
            let message = format!("{name} is a second recording of conversation {}", row.id);
            Finding::new(Fault::FileLeft, name, message)
        })
    }

    /// Whether a conversation has the audio that its row claims.
    async fn audio(&self, conversation: &Conversation, files: &Files) -> Result<Option<Finding>> {
        let (id, claimed) = (&conversation.id, conversation.samples);
        let path = &conversation.audio_path;
        if !conversation.has_audio() {
            return Ok(None);
        }
        let finding = |fault, message| Ok(Some(Finding::new(fault, id.as_str(), message)));
        match self.recordings.samples(path).await {
            // An open one gets its file right after its row.
            Err(error) if error.kind() == Kind::NotFound && claimed == 0 => Ok(None),
            Err(error) if error.kind() == Kind::NotFound && files.has(path) => Ok(None),
            Err(error) if error.kind() == Kind::NotFound => {
                let message = format!(
                    "the recording {path} of conversation {id}, with {}, is not there",
                    seconds(claimed)
                );
                finding(Fault::RecordingMissing, message)
            }
            Err(error) => {
                let message = format!("{path} of conversation {id}: {}", error.report());
                finding(Fault::RecordingUnreadable, message)
            }
            Ok(samples) if samples < claimed => {
                let message = format!(
                    "{path} ends {} before its conversation {id} does",
                    seconds(claimed - samples)
                );
                finding(Fault::RecordingShort, message)
            }
            Ok(samples) if !conversation.is_open() && samples > claimed => {
                let message = format!(
                    "{path} goes on for {} after its conversation {id} has ended",
                    seconds(samples - claimed)
                );
                finding(Fault::RecordingLong, message)
            }
            Ok(_) => Ok(None),
        }
    }

    /// What the bucket lacks of what is to be there.
    async fn objects(&self, files: &Files) -> Result<Vec<Finding>> {
        let Some(bucket) = &self.bucket else { return Ok(Vec::new()) };
        let there = bucket.list().await?;
        let lost = files
            .stored
            .values()
            .filter(|object| there.get(&object.name).is_none_or(|bytes| *bytes != object.bytes));
        let tell = |object: &Object| {
            let name = &object.name;
            let message = match files.here.contains(name) {
                true => format!("{name} is not in the bucket, and is on this disk"),
                false => format!("{name} is not in the bucket, and nowhere else"),
            };
            Finding::new(Fault::ObjectMissing, name, message)
        };
        Ok(lost.map(tell).collect())
    }

    /// Cropped recordings, uploads, and what was left half written.
    async fn derived(&self, files: &Files) -> Result<Vec<Finding>> {
        let crops = self.store.crops().await?;
        let missing = crops.iter().filter(|(_, name)| !files.has(name));
        let mut found: Vec<Finding> = missing
            .map(|(id, name)| {
                let message = format!("the cropped recording {name} is not there");
                Finding::new(Fault::CropMissing, id.as_str(), message)
            })
            .collect();
        for name in self.store.spooled_uploads().await? {
            if !self.recordings.spool().path(&name).is_ok_and(|path| path.is_file()) {
                let message = format!("the uploaded file {name} waits to be recorded and is gone");
                found.push(Finding::new(Fault::UploadMissing, name, message));
            }
        }
        let left = |name: String, what: &str| {
            let message = format!("{name} {what}");
            Finding::new(Fault::FileLeft, name, message)
        };
        let used: BTreeSet<&str> = crops.iter().map(|(_, name)| name.as_str()).collect();
        let cropped = self.recordings.scan_cropped().await?;
        let unused = cropped.into_iter().filter(|name| !used.contains(name.as_str()));
        found.extend(unused.map(|name| left(name, "is a cropped recording of no conversation")));
        let half = self.recordings.scan_half_written().await?;
        found.extend(half.into_iter().map(|name| left(name, "was left half written")));
        Ok(found)
    }
}

/// Whether the windows of a conversation are in order and inside its audio.
fn order(conversation: &Conversation, windows: &[Window]) -> Option<Finding> {
    let id = &conversation.id;
    let mut end = 0;
    for window in windows {
        let wrong = |what: &str| {
            let message = format!("window {} of conversation {id} {what}", window.seq);
            Some(Finding::new(Fault::WindowMisplaced, id.as_str(), message))
        };
        if window.spans.is_empty() || window.spans.iter().any(|span| span.is_empty()) {
            return wrong("covers no audio");
        }
        for span in &window.spans {
            if span.start < end {
                return wrong("overlaps what is before it");
            }
            end = span.end;
        }
        if end > conversation.samples {
            return wrong("reaches beyond the end of the audio");
        }
    }
    None
}

fn seconds(samples: u64) -> String {
    format!("{:.2} s of audio", samples as f64 / f64::from(SAMPLE_RATE))
}

#[cfg(test)]
mod tests;
