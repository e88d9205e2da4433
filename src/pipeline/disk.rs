//! Looks after the room on the disk, in steps: it warns while there is time; below
//! the reserve it lets audio go that is in the bucket, then deletes the oldest
//! transcribed audio; and it refuses new audio when that is not enough. Audio
//! without a transcript is never deleted.
//! A disk that cannot be written for another reason is refused with its own
//! words. Recording resumes by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::deletion::Deletion;
use super::upload;
use crate::base::clock::Clock;
use crate::base::error::{Kind, Result};
use crate::config;
use crate::domain::conversation::Conversation;
use crate::recording::{Recordings, Refusal, Seen, Space};
use crate::store::Store;

/// Over how long the present rate is measured.
const RATE_OVER: Duration = Duration::from_secs(600);
/// Conversations asked for at a time.
const BATCH: usize = 16;

/// The one who looks after it.
pub struct DiskKeeper {
    store: Arc<dyn Store>,
    recordings: Recordings,
    deletion: Deletion,
    reserve: u64,
    warn_headroom: Duration,
    clock: Clock,
    /// When (monotonic), and how many bytes had been recorded by then.
    written: VecDeque<(Duration, u64)>,
    said: Option<Refusal>,
    warned: bool,
}

impl DiskKeeper {
    /// For the disk of `recordings`.
    pub fn new(
        store: Arc<dyn Store>,
        recordings: Recordings,
        deletion: Deletion,
        config: &config::Disk,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            recordings,
            deletion,
            reserve: config.reserve(),
            warn_headroom: config.warn_headroom.get(),
            clock,
            written: VecDeque::new(),
            said: None,
            warned: false,
        }
    }

    /// Looks every `interval` until `stop`.
    ///
    /// # Errors
    /// When the disk cannot be measured; the supervisor starts it again.
    pub async fn run(mut self, interval: Duration, stop: CancellationToken) -> Result<()> {
        while !stop.is_cancelled() {
            self.step().await?;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
        Ok(())
    }

    /// Looks once, and does what is to be done.
    ///
    /// # Errors
    /// When the disk cannot be measured.
    pub async fn step(&mut self) -> Result<()> {
        let mut refusal = match self.recordings.space().await? {
            Ok(space) => self.keep_room(space).await?,
            Err(refusal) => {
                self.recordings.see(None);
                Some(refusal)
            }
        };
        if refusal.is_none() && self.recordings.refusal().is_some() {
            refusal = self.recordings.probe().await?;
        }
        self.recordings.refuse(refusal.clone());
        self.say(refusal);
        Ok(())
    }

    /// Makes room where there is too little; a refusal when that does not help.
    async fn keep_room(&mut self, mut space: Space) -> Result<Option<Refusal>> {
        // An eighth more once it was too little, so that it does not go to and fro.
        let enough = self.reserve.saturating_add(self.reserve / 8);
        let full = self.recordings.refusal() == Some(Refusal::FULL);
        if space.free < self.reserve || (full && space.free < enough) {
            self.make_room(enough.saturating_sub(space.free)).await;
            match self.recordings.space().await? {
                Ok(now) => space = now,
                Err(refusal) => return Ok(Some(refusal)),
            }
        }
        let headroom = self.headroom(space.free);
        self.recordings.see(Some(Seen { space, headroom }));
        self.warn(headroom);
        let wanted = if full { enough } else { self.reserve };
        Ok((space.free < wanted).then_some(Refusal::FULL))
    }

    /// Frees `bytes`, or as many as may be: what is in the bucket goes from here
    /// first, then transcribed audio for good.
    async fn make_room(&self, bytes: u64) {
        let freed = upload::free(self.store.as_ref(), &self.recordings, bytes).await;
        let freed = freed.unwrap_or_else(|error| {
            tracing::warn!("cannot let go of what is in the bucket: {}", error.report());
            0
        });
        self.delete_oldest(bytes.saturating_sub(freed)).await;
    }

    /// Deletes transcribed audio, oldest first, until `bytes` are freed or there
    /// is no more.
    async fn delete_oldest(&self, bytes: u64) {
        let only_here = self.recordings.bucket().is_some();
        let (mut freed, mut count) = (0, 0);
        'all: while freed < bytes {
            let oldest = match self.store.transcribed_audio(None, only_here, BATCH).await {
                Ok(oldest) if oldest.is_empty() => break,
                Ok(oldest) => oldest,
                Err(error) => {
                    tracing::warn!("cannot tell which audio to delete: {}", error.report());
                    break;
                }
            };
            for conversation in oldest {
                match self.delete(&conversation).await {
                    Ok(more) => (freed, count) = (freed + more, count + 1),
                    Err(error) => {
                        let id = &conversation.id;
                        tracing::warn!(conversation = %id, "cannot delete audio: {}", error.report());
                        break 'all;
                    }
                }
                if freed >= bytes {
                    break;
                }
            }
        }
        if count > 0 {
            tracing::warn!(
                conversations = count,
                bytes = freed,
                "deleted the oldest transcribed audio, to keep room on the disk"
            );
        }
    }

    async fn delete(&self, conversation: &Conversation) -> Result<u64> {
        match self.deletion.audio(&conversation.id).await {
            // No room even to note it: what may go goes first, then.
            Err(error) if error.kind() == Kind::NoSpace => {
                let removed =
                    self.recordings.remove(std::slice::from_ref(&conversation.audio_path)).await?;
                self.deletion.audio(&conversation.id).await?;
                Ok(removed.bytes)
            }
            done => done,
        }
    }

    /// How long `free` bytes last at the present rate.
    fn headroom(&mut self, free: u64) -> Option<Duration> {
        let (now, written) = (self.clock.monotonic(), self.recordings.bytes_written());
        self.written.push_back((now, written));
        while self.written.get(1).is_some_and(|(then, _)| now.saturating_sub(*then) >= RATE_OVER) {
            self.written.pop_front();
        }
        let (then, before) = *self.written.front()?;
        let rate = written.saturating_sub(before) as f64 / now.saturating_sub(then).as_secs_f64();
        let seconds = free.saturating_sub(self.reserve) as f64 / rate;
        // With nothing recorded, or no time gone, there is no rate.
        (rate > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
    }

    fn warn(&mut self, headroom: Option<Duration>) {
        let short = headroom.is_some_and(|left| left < self.warn_headroom);
        if short && !self.warned {
            let hours = headroom.unwrap_or_default().as_secs() / 3600;
            tracing::warn!(hours, "the disk will be full soon at the present rate");
        }
        // Well above it before the next warning.
        let ample = headroom.is_none_or(|left| left > self.warn_headroom.saturating_mul(2));
        self.warned = short || (self.warned && !ample);
    }

    /// Says once what has changed.
    fn say(&mut self, refusal: Option<Refusal>) {
        if refusal != self.said {
            match &refusal {
                Some(refusal) => tracing::error!("{}", refusal.message),
                None => tracing::info!("audio is accepted again"),
            }
            self.said = refusal;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::reconcile::testing::Nobody;
    use crate::recording::Format;
    use crate::store::sqlite::testing::{Fixture, at, conversation, user};

    #[tokio::test]
    async fn warns_once_while_the_room_lasts_for_less_than_is_wanted() {
        const HOUR: u64 = 3600;
        let fixture = Fixture::new();
        let clock = Clock::simulated(at(0));
        let dir = fixture.dir.path().join("state");
        let recordings = Recordings::open(&dir, Duration::ZERO, clock.clone()).unwrap();
        let store: Arc<dyn Store> = Arc::new(fixture.store.clone());
        let live = Arc::new(Nobody);
        let deletion = Deletion::new(store.clone(), recordings.clone(), live, clock.clone());
        let config = config::Disk::default();
        let reserve = config.reserve_mib << 20;
        let mut keeper =
            DiskKeeper::new(store, recordings.clone(), deletion, &config, clock.clone());
        assert_eq!(keeper.headroom(reserve + 1), None, "no rate yet");

        let mut one = conversation(&user("anna"));
        let (client, id) = (&one.client_id, &one.id);
        one.audio_path = Recordings::file_name(one.started_at, client, id, Format::Wav);
        let mut recorder = recordings.create(&one).await.unwrap();
        // Ten seconds in a hundred: 3,200 bytes a second.
        recorder.append(&[1; 160_000]).await.unwrap();
        clock.advance(Duration::from_secs(100));
        let hours = |hours: u64| reserve + 3_200 * HOUR * hours;
        let short = keeper.headroom(hours(20)).unwrap();
        assert!((19 * HOUR..=20 * HOUR).contains(&short.as_secs()), "{short:?}");
        let ample = keeper.headroom(hours(60)).unwrap();
        let mut warned = Vec::new();
        for headroom in [ample, short, short, short * 2, ample] {
            keeper.warn(Some(headroom));
            warned.push(keeper.warned);
        }
        // Twice what is too little is not enough to be at ease again.
        assert_eq!(warned, [false, true, true, true, false]);
        // Nothing recorded for a while: as good as no rate.
        clock.advance(RATE_OVER);
        keeper.headroom(hours(20));
        clock.advance(RATE_OVER);
        assert_eq!(keeper.headroom(hours(20)), None);
    }
}
