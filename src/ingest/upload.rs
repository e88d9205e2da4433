//! Uploaded files: what is taken in, and as what.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Ingest;
use crate::audio::decode::{AudioFile, Shape};
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{Conversation, SAMPLE_RATE};
use crate::domain::ids::{ClientId, ConversationId};
use crate::domain::upload::{Upload, UploadJob, UploadState};
use crate::domain::user::{Device, User};
use crate::recording::{Format, Recordings, Spooled};
use crate::supervisor::blocking;

/// A file that was offered.
pub struct Offer {
    /// The name its sender gave it.
    pub filename: String,
    /// Its length in bytes, as far as it came.
    pub bytes: u64,
    /// The file, or why it cannot be taken.
    pub file: Result<Audio>,
}

/// A file that holds audio.
pub struct Audio {
    spooled: Spooled,
    /// What it says of itself.
    pub shape: Shape,
}

impl Audio {
    /// Looks whether `spooled` can be decoded.
    ///
    /// # Errors
    /// `BadInput`, naming the file, when it is not audio.
    pub async fn check(filename: &str, spooled: Spooled) -> Result<Self> {
        let (path, name) = (spooled.path().to_owned(), filename.to_owned());
        let shape = blocking(move || {
            let mut file = AudioFile::open_as(&path, name)?;
            // Much that is not audio looks like it until it is decoded.
            file.read(&mut Vec::new())?;
            Ok(file.shape())
        })
        .await?;
        Ok(Self { spooled, shape })
    }

    /// The file to read, which is gone once it is closed.
    ///
    /// # Errors
    /// `Storage` when it cannot be opened.
    pub async fn into_file(self, filename: &str) -> Result<AudioFile> {
        let name = filename.to_owned();
        blocking(move || AudioFile::open_as(self.spooled.path(), name)).await
    }
}

impl Ingest {
    /// Takes what `user` offers: each file that can be taken gets its
    /// conversation and a job to record it, or, unless `force`, the conversation
    /// that the same bytes were made into before. Goes on when the caller stops
    /// waiting.
    ///
    /// # Errors
    /// `Storage`, `NoSpace` or `Busy` when nothing could be taken.
    pub async fn upload(
        self: &Arc<Self>,
        user: &User,
        device: &str,
        offers: Vec<Offer>,
        force: bool,
    ) -> Result<UploadJob> {
        let (ingest, user, device) = (self.clone(), user.clone(), device.to_owned());
        let (answer, answered) = oneshot::channel();
        self.supervisor.once(async move {
            // Whoever asked may be gone.
            let _ = answer.send(ingest.take(&user, &device, offers, force).await);
        });
        let stopped = |_| Error::new(Kind::Unavailable, "the daemon is stopping");
        answered.await.map_err(stopped)?
    }

    async fn take(
        &self,
        user: &User,
        device: &str,
        offers: Vec<Offer>,
        force: bool,
    ) -> Result<UploadJob> {
        let now = self.clock.now();
        let client_id = self.clients.free_id(&user.id, Some(device));
        let seen = Device {
            client_id: client_id.clone(),
            user_id: user.id.clone(),
            device_name: Some(device.to_owned()),
            first_seen: now,
            last_seen: now,
        };
        self.store.see_device(&seen).await?;
        let mut job = UploadJob {
            id: uuid::Uuid::new_v4().hyphenated().to_string(),
            user_id: user.id.clone(),
            client_id: client_id.clone(),
            created_at: now,
            files: Vec::new(),
        };
        let (mut conversations, mut spooled) = (Vec::new(), Vec::new());
        for Offer { filename, bytes, file } in offers {
            let mut upload = refused(filename, bytes);
            match file {
                Err(error) => upload.error = Some(error.message().to_owned()),
                Ok(audio) => {
                    let conversation = self.conversation(user, &client_id);
                    self.plan(&mut upload, &audio, &conversation.id);
                    conversations.push(conversation);
                    spooled.push(audio.spooled);
                }
            }
            if upload.state != UploadState::Waiting {
                (upload.started_at, upload.ended_at) = (Some(now), Some(now));
            }
            job.files.push(upload);
        }
        let job = self.store.add_uploads(&job, &conversations, force).await?;
        for file in spooled {
            if job.files.iter().any(|upload| upload.spooled.as_deref() == Some(file.name())) {
                file.keep();
            }
        }
        self.wake.wake();
        tracing::info!(user = %user.id, job = job.id, files = job.files.len(), "uploaded");
        Ok(job)
    }

    /// What is to become of a file that holds audio.
    fn plan(&self, upload: &mut Upload, audio: &Audio, id: &ConversationId) {
        let seconds = audio.shape.samples.map(|samples| samples as f64 / f64::from(SAMPLE_RATE));
        upload.seconds = seconds;
        upload.sha256.clone_from(&audio.spooled.sha256);
        let limit = self.config.uploads.max_length;
        if seconds.is_some_and(|seconds| seconds > limit.get().as_secs_f64()) {
            upload.state = UploadState::Skipped;
            upload.error = Some(format!("{} is longer than {limit}", upload.filename));
        } else {
            upload.state = UploadState::Waiting;
            upload.spooled = Some(audio.spooled.name().to_owned());
            upload.conversation_id = Some(id.clone());
        }
    }

    fn conversation(&self, user: &User, client: &ClientId) -> Conversation {
        let (id, now) = (ConversationId::generate(), self.clock.now());
        let audio_path = Recordings::file_name(now, client, &id, Format::Wav);
        Conversation::begin(id, user.id.clone(), client.clone(), audio_path, now)
    }
}

/// The record of a file that cannot be taken, until it is known better.
fn refused(filename: String, bytes: u64) -> Upload {
    Upload {
        filename,
        bytes,
        sha256: String::new(),
        spooled: None,
        state: UploadState::Failed,
        conversation_id: None,
        duplicate: false,
        seconds: None,
        note: None,
        error: None,
        started_at: None,
        ended_at: None,
    }
}
