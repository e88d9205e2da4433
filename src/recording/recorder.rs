//! Writes one recording without making its source wait for the disk.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;

use super::format::Format;
use super::gate::Gate;
use super::track::{Piece, Track};
use crate::audio::ogg;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::metrics;
use crate::domain::conversation::seconds;
use crate::supervisor::blocking;

/// Samples that may gather while the disk is slow: two minutes, 4 MiB.
const BACKLOG: u64 = 2 << 20;

/// Appends to a recording. One write is in flight at a time; what arrives
/// meanwhile gathers in memory. Dropping one without [`Recorder::close`] still
/// hands everything to the system, but does not wait for the disk.
pub struct Recorder {
    pub(super) shared: Arc<Shared>,
    pub(super) write: Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
    /// When the oldest gathered sample must go to disk.
    due: Option<Duration>,
    /// The last write failed: the file still holds samples to write.
    behind: bool,
    samples: u64,
    format: Format,
    sync_interval: Duration,
    /// Taken off the first interval: recordings that begin together are not to
    /// sync together, again and again.
    head_start: Duration,
    clock: Clock,
}

/// What the recorder and its write in flight have in common.
pub(super) struct Shared {
    /// Held while writing.
    pub(super) file: Mutex<Track>,
    /// Appended and not written; never held for longer than a copy takes.
    gathered: Mutex<Piece>,
    gate: Arc<Gate>,
}

impl Shared {
    fn gathered(&self) -> MutexGuard<'_, Piece> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the file written by `work`, and tells whoever wants to know how.
    fn save(&self, work: impl FnOnce(&mut Track) -> Result<()>) -> Result<()> {
        let mut file = self.file();
        let (bytes, samples) = (file.bytes(), file.synced());
        let result = work(&mut file);
        self.gate.wrote(file.bytes().saturating_sub(bytes));
        metrics::AUDIO_SYNCED.add(&[], seconds(file.synced().saturating_sub(samples)));
        self.gate.heed(result)
    }

    /// The file, with all that has gathered handed to it.
    fn file(&self) -> MutexGuard<'_, Track> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.add(std::mem::take(&mut *self.gathered()));
        file
    }
}

impl Recorder {
    pub(super) fn new(file: Track, gate: Arc<Gate>, sync_interval: Duration, clock: Clock) -> Self {
        let head_start = sync_interval.mul_f64(gate.next_phase());
        Self {
            format: file.format(),
            head_start,
            shared: Arc::new(Shared { file: Mutex::new(file), gathered: Mutex::default(), gate }),
            write: None,
            due: None,
            behind: false,
            samples: 0,
            sync_interval,
            clock,
        }
    }

    /// Samples appended so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// What it takes: samples, or packets.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Appends `samples` to a WAV recording. They are kept whatever this
    /// returns. It waits for the disk only when two minutes have gathered, or
    /// when the sync interval is zero.
    ///
    /// # Errors
    /// `NoSpace` or `Storage` when an earlier write failed; the next call tries
    /// it again. `Internal` when packets are recorded here.
    pub async fn append(&mut self, samples: &[i16]) -> Result<()> {
        self.takes(Format::Wav)?;
        self.gather(samples.len() as u64, |gathered| gathered.add_samples(samples)).await
    }

    /// Appends an Opus packet of `samples` samples, just as it came, to an Opus
    /// recording. In all else as [`Recorder::append`].
    ///
    /// # Errors
    /// As [`Recorder::append`]; `BadInput` for a packet longer than any is.
    pub async fn append_packet(&mut self, packet: &[u8], samples: u16) -> Result<()> {
        self.takes(Format::Opus)?;
        if packet.len() > ogg::MAX_PACKET {
            return Err(Error::new(Kind::BadInput, "no Opus packet is that long"));
        }
        self.gather(samples.into(), |gathered| gathered.add_packet(packet, samples)).await
    }

    fn takes(&self, format: Format) -> Result<()> {
        if self.format == format {
            Ok(())
        } else {
            Err(Error::new(Kind::Internal, "the recording is in another format"))
        }
    }

    async fn gather(&mut self, samples: u64, add: impl FnOnce(&mut Piece)) -> Result<()> {
        self.samples += samples;
        metrics::AUDIO_ACCEPTED.add(&[], seconds(samples));
        let backlog = {
            let mut gathered = self.shared.gathered();
            add(&mut gathered);
            gathered.samples
        };
        if self.sync_interval.is_zero() || backlog >= BACKLOG {
            return self.sync().await;
        }
        if self.due.is_none() && backlog > 0 {
            let head_start = std::mem::take(&mut self.head_start);
            let wait = self.sync_interval.saturating_sub(head_start);
            self.due = Some(self.clock.monotonic() + wait);
        }
        self.poll()
    }

    /// Time left until what has gathered must go to disk; none when nothing
    /// has. [`Recorder::poll`] is to be called then.
    pub fn due_in(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_sub(self.clock.monotonic()))
    }

    /// Starts a write when one is due and none is in flight.
    ///
    /// # Errors
    /// As [`Recorder::append`].
    pub fn poll(&mut self) -> Result<()> {
        if self.due.is_none_or(|due| self.clock.monotonic() < due) {
            return Ok(());
        }
        if let Some(write) = &mut self.write {
            match write.now_or_never() {
                None => {
                    // Asked again a little later, when the write will have ended.
                    self.due = Some(self.clock.monotonic() + self.sync_interval / 4);
                    return Ok(());
                }
                Some(result) => self.wrote(result)?,
            }
        }
        self.start();
        Ok(())
    }

    /// Waits until everything appended so far is on disk.
    ///
    /// # Errors
    /// `NoSpace` or `Storage` when a write fails; nothing is forgotten, and the
    /// next call tries it again.
    pub async fn sync(&mut self) -> Result<()> {
        if let Some(write) = &mut self.write {
            let result = write.await;
            // A failure here is made good or met again by the write below.
            let _ = self.wrote(result);
        }
        if self.behind || self.shared.gathered().samples > 0 {
            self.start();
            if let Some(write) = &mut self.write {
                let result = write.await;
                self.wrote(result)?;
            }
        }
        Ok(())
    }

    /// Ends the recording. Returns the samples that are on disk for good, and,
    /// where those are not all that were appended, why.
    pub async fn close(mut self) -> (u64, Option<Error>) {
        if let Some(write) = self.write.take() {
            // A failure here is made good or met again by the write below.
            let _ = write.await;
        }
        let shared = self.shared.clone();
        let error = blocking(move || shared.save(Track::finish)).await.err();
        let synced = self.shared.file().synced();
        (synced, error)
    }

    /// Notes how the write in flight ended.
    fn wrote(&mut self, result: Result<()>) -> Result<()> {
        self.write = None;
        self.behind = result.is_err();
        if self.behind {
            self.due = Some(self.clock.monotonic() + self.sync_interval);
        }
        result
    }

    /// Hands what has gathered to a write.
    fn start(&mut self) {
        self.due = None;
        let shared = self.shared.clone();
        let mut write = Box::pin(blocking(move || shared.save(Track::sync)));
        // Work begins with the first poll.
        self.write = Some(match (&mut write).now_or_never() {
            None => write,
            Some(result) => Box::pin(std::future::ready(result)),
        });
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Waits at most for the write in flight.
        let mut file = self.shared.file();
        if let Err(error) = file.hand_over() {
            tracing::error!(samples = file.waiting(), "audio is lost: {}", error.report());
        }
    }
}
