//! One conversation from its first sample to its close.

use std::sync::Arc;
use std::time::Duration;

use super::Ingest;
use super::clients::Client;
use super::pre_roll::PreRoll;
use crate::base::clock::Timestamp;
use crate::base::error::{Kind, Result};
use crate::base::planned;
use crate::domain::client::CurrentConversation;
use crate::domain::conversation::{CloseReason, Conversation, NewWindow, SAMPLE_RATE};
use crate::domain::ids::ConversationId;
use crate::domain::job::Lane;
use crate::recording::{Format, Recorder, Recordings};
use crate::stt::live::Listening;

/// Pauses between attempts at the store: about six seconds in all, which a
/// device's send buffer bridges.
const OPEN_PAUSES: [u64; 5] = [200, 400, 800, 1_600, 3_200];
/// Pauses between attempts to close a conversation, before the sweep has to.
const CLOSE_PAUSES: [u64; 6] = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000];
/// Audio after which a window that could not be stored is tried again.
const WINDOW_RETRY: u64 = 5 * SAMPLE_RATE as u64;

/// A conversation that is being recorded.
pub(super) struct Open {
    listed: Listed,
    recorder: Recorder,
    /// Whoever hears it while it is recorded.
    listening: Option<Listening>,
    /// Windows that are cut and not in the store yet.
    pending: Vec<NewWindow>,
    /// When, in samples, to try those again.
    retry_at: u64,
}

/// Keeps a conversation in the lists of open ones while it exists.
struct Listed {
    ingest: Arc<Ingest>,
    client: Arc<Client>,
    id: ConversationId,
    /// Its row, while the store has been away since before it began.
    unwritten: Option<Conversation>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.ingest.open_ids().remove(&self.id);
        // Some work waits until nothing is recorded.
        self.ingest.wake.wake();
    }
}

impl Open {
    /// Begins a conversation whose first sample was heard `age` samples ago: its
    /// row, then its file. Where the store is known to be away, the file alone, and
    /// the row once it is back.
    pub(super) async fn begin(
        ingest: &Arc<Ingest>,
        client: &Arc<Client>,
        format: Format,
        age: usize,
    ) -> Result<Self> {
        let id = ConversationId::generate();
        let age = i64::try_from(age).unwrap_or(0) * 1_000 / i64::from(SAMPLE_RATE);
        let started_at = Timestamp::from_millis(ingest.clock.now().millis() - age);
        let mut conversation = Conversation::begin(
            id.clone(),
            client.user_id().clone(),
            client.id().clone(),
            Recordings::file_name(started_at, client.id(), &id, format),
            started_at,
        );
        conversation.time_estimated = ingest.clock.is_estimated();
        ingest.open_ids().insert(id.clone());
        let mut listed =
            Listed { ingest: ingest.clone(), client: client.clone(), id, unwritten: None };
        planned::before("opening a conversation")?;
        if !open_row(ingest, &conversation).await? {
            listed.unwritten = Some(conversation.clone());
        }
        planned::after("opening a conversation")?;
        let recorder = match ingest.recordings.create(&conversation).await {
            Ok(recorder) => recorder,
            Err(error) => {
                // Without a row, there is nothing of it.
                if listed.unwritten.take().is_none() {
                    listed.close_row(0, &[], CloseReason::Disconnect).await;
                }
                return Err(error);
            }
        };
        let listener = ingest.listener.as_ref();
        let listening = listener.map(|l| l.listen(&conversation.id, &conversation.audio_path));
        let current = CurrentConversation { id: conversation.id, started_at, windows: 0 };
        tracing::info!(client = %client.id(), conversation = %current.id, "conversation opened");
        client.begin(current);
        Ok(Self { listed, recorder, listening, pending: Vec::new(), retry_at: 0 })
    }

    /// What it records.
    pub(super) fn format(&self) -> Format {
        self.recorder.format()
    }

    /// Records `samples`, or the packet that they are of.
    pub(super) async fn append(&mut self, samples: &[i16], packet: Option<&[u8]>) -> Result<()> {
        match packet {
            Some(packet) => {
                let samples = u16::try_from(samples.len()).unwrap_or(0);
                self.recorder.append_packet(packet, samples).await
            }
            None => self.recorder.append(samples).await,
        }
    }

    /// Records what was held from before the first speech.
    pub(super) async fn append_held(&mut self, held: PreRoll) -> Result<()> {
        let (samples, packets) = held.into_parts();
        if self.format() == Format::Wav {
            return self.recorder.append(&samples).await;
        }
        let mut result = Ok(());
        for (packet, samples) in packets {
            // All are kept, whatever is said of one.
            result = result.and(self.recorder.append_packet(&packet, samples).await);
        }
        result
    }

    /// Time left until audio must go to disk.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.recorder.due_in()
    }

    /// Sends audio to disk that is due.
    pub(super) fn poll(&mut self) -> Result<()> {
        self.recorder.poll()
    }

    /// Whether there is something for [`Open::add_windows`] to do: `windows`, or
    /// earlier ones that are to be tried again.
    pub(super) fn has_windows(&self, windows: &[NewWindow]) -> bool {
        let due = !self.pending.is_empty() && self.recorder.samples() >= self.retry_at;
        !windows.is_empty() || due
    }

    /// Stores `windows` once their audio is on disk. One that the store cannot
    /// take now is kept, and tried again later.
    pub(super) async fn add_windows(&mut self, windows: &mut Vec<NewWindow>) -> Result<()> {
        if let Some(current) = &mut *self.listed.client.conversation() {
            current.windows += u32::try_from(windows.len()).unwrap_or(0);
        }
        self.pending.append(windows);
        self.recorder.sync().await?;
        let samples = self.recorder.samples();
        while let Some(window) = self.pending.first() {
            let stored = self.listed.add_window(samples, window).await;
            let id = &self.listed.id;
            match stored {
                Ok(()) => self.listed.ingest.wake.wake(),
                Err(error) if error.is_transient() => {
                    // Of a store outside its breaker has told.
                    if error.kind() != Kind::Away {
                        let report = error.report();
                        tracing::warn!(conversation = %id, "window kept for later: {report}");
                    }
                    self.retry_at = samples + WINDOW_RETRY;
                    break;
                }
                Err(error) => {
                    tracing::error!(conversation = %id, "window refused: {}", error.report());
                }
            }
            self.pending.remove(0);
        }
        Ok(())
    }

    /// Ends the conversation: its file, then its row with the `last` windows.
    pub(super) async fn close(self, last: Vec<NewWindow>, reason: CloseReason) {
        let Self { listed, recorder, listening, mut pending, .. } = self;
        listed.client.conversation().take();
        pending.extend(last);
        let (samples, error) = recorder.close().await;
        if let Some(listening) = listening {
            listening.closed(samples);
        }
        match error {
            None => listed.close_row(samples, &pending, reason).await,
            // It may have come to disk all the same: the sweep goes by the file.
            Some(error) => tracing::error!(
                conversation = %listed.id,
                "the end of a recording may not be on disk, left to the sweep: {}", error.report()
            ),
        }
    }
}

impl Listed {
    /// Makes the row that could not be made when the conversation began.
    async fn write_row(&mut self) -> Result<()> {
        let Some(conversation) = &self.unwritten else { return Ok(()) };
        match self.ingest.store.adopt_conversation(conversation).await {
            // The sweep has found the recording before.
            Err(error) if error.kind() == Kind::Conflict => {}
            made => drop(made?),
        }
        self.unwritten = None;
        Ok(())
    }

    async fn add_window(&mut self, samples: u64, window: &NewWindow) -> Result<()> {
        self.write_row().await?;
        let Self { ingest, id, .. } = self;
        let lane = match ingest.config.hears_whole() && !ingest.config.deepgram.live {
            true => Lane::Held,
            false => Lane::Live,
        };
        ingest.store.add_window(id, samples, window, lane, ingest.clock.now()).await
    }

    /// Closes the row; goes on trying in the background while the store cannot.
    async fn close_row(mut self, samples: u64, windows: &[NewWindow], reason: CloseReason) {
        let at = self.ingest.clock.now();
        match self.try_close(samples, windows, reason, at).await {
            Err(error) if error.is_transient() => {
                if error.kind() != Kind::Away {
                    tracing::warn!(conversation = %self.id, "closing it later: {}", error.report());
                }
                let (supervisor, windows) = (self.ingest.supervisor.clone(), windows.to_vec());
                supervisor.once(self.keep_closing(samples, windows, reason, at));
            }
            Err(error) => {
                tracing::error!(conversation = %self.id, "cannot close it: {}", error.report());
            }
            Ok(()) => {}
        }
    }

    async fn keep_closing(
        mut self,
        samples: u64,
        windows: Vec<NewWindow>,
        reason: CloseReason,
        at: Timestamp,
    ) {
        let stop = self.ingest.supervisor.stop_token();
        for pause in CLOSE_PAUSES {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
                () = stop.cancelled() => {}
            }
            match self.try_close(samples, &windows, reason, at).await {
                Err(error) if error.is_transient() && !stop.is_cancelled() => {}
                Err(error) => {
                    tracing::warn!(conversation = %self.id, "left to the sweep: {}", error.report());
                    return;
                }
                Ok(()) => return,
            }
        }
        tracing::warn!(conversation = %self.id, "left to the sweep");
    }

    async fn try_close(
        &mut self,
        samples: u64,
        windows: &[NewWindow],
        reason: CloseReason,
        at: Timestamp,
    ) -> Result<()> {
        self.write_row().await?;
        let Self { ingest, id, .. } = self;
        planned::before("closing a conversation")?;
        ingest.store.close_conversation(id, samples, windows, reason, at).await?;
        planned::after("closing a conversation")?;
        ingest.wake.wake();
        tracing::info!(
            conversation = %id,
            seconds = samples / u64::from(SAMPLE_RATE),
            reason = reason.as_str(),
            "conversation closed"
        );
        Ok(())
    }
}

/// Adds the row, waiting a little for a store that is busy; false where the store
/// is known to be away.
async fn open_row(ingest: &Ingest, conversation: &Conversation) -> Result<bool> {
    for pause in OPEN_PAUSES {
        match ingest.store.open_conversation(conversation).await {
            Err(error) if error.kind() == Kind::Away => return Ok(false),
            Err(error) if error.is_transient() && error.kind() != Kind::NoSpace => {
                tracing::warn!("opening a conversation again: {}", error.report());
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            done => return done.map(|()| true),
        }
    }
    ingest.store.open_conversation(conversation).await.map(|()| true)
}
