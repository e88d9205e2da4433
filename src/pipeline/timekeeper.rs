//! Follows the machine's clock, and puts right what was written while it had not
//! been set.
//!
//! A board without a battery-backed clock wakes up in the past, records at once,
//! and learns the time from the network minutes or days later. Until then time
//! goes on from the last that is noted in the store, so that order is kept, and
//! conversations are marked as estimated.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, Step, Timestamp, Watch};
use crate::base::error::{Kind, Result};
use crate::base::system;
use crate::jobs::Wake;
use crate::store::{KnownTime, Store};

/// A jump of time that is no correction.
const JUMP: Duration = Duration::from_secs(24 * 3600);

/// The one who follows it.
pub struct Timekeeper {
    store: Arc<dyn Store>,
    clock: Clock,
    wake: Wake,
    boot: Option<String>,
    /// Since when times are estimates.
    estimated_since: Option<Timestamp>,
    /// Since when time has gone on without a jump.
    steady_since: Timestamp,
    /// Steps that are not in the store yet, each with the start of the estimate.
    pending: Vec<(Step, Option<Timestamp>)>,
}

impl Timekeeper {
    /// Sets `clock` going, from what the store knows of the time.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn begin(store: Arc<dyn Store>, clock: Clock, wake: Wake) -> Result<Self> {
        let boot = system::boot_id();
        let mut estimated_since = None;
        let before = store.known_time().await?;
        if let Some(known) = &before {
            match known.estimated_since {
                // This run of the machine has had a daemon before, and no time.
                Some(since) if boot.is_some() && known.boot == boot => {
                    clock.resume(known.at, known.since_boot);
                    estimated_since = Some(since);
                    clock.recall(&known.history);
                }
                _ => {
                    clock.begin(known.at);
                    // How long the machine was off is not known: another history.
                    if !clock.is_estimated() {
                        clock.recall(&known.history);
                    }
                }
            }
        } else {
            clock.begin(Timestamp::default());
        }
        if clock.is_estimated() {
            let now = clock.now();
            estimated_since = estimated_since.or(Some(now));
            tracing::warn!(
                "the machine's clock has not been set; times are estimated from {now} on until \
                 it is, by a time service or by hand"
            );
        }
        // A machine that was off for long and one whose clock is wrong look alike.
        let now = clock.now();
        let steady_since = match before {
            Some(known) if now.apart(known.at) < JUMP => known.steady_since,
            _ => now,
        };
        let pending = Vec::new();
        let mut keeper = Self { store, clock, wake, boot, estimated_since, steady_since, pending };
        // Set between two daemons of one run of the machine.
        keeper.follow();
        keeper.write().await?;
        Ok(keeper)
    }

    /// Follows until `stop`: at once when the clock is set, and every `interval`,
    /// when it also notes the time.
    pub async fn run(mut self, interval: Duration, stop: CancellationToken) {
        let watch = Watch::new()
            .inspect_err(|error| tracing::warn!("looked at every {interval:?}: {}", error.report()))
            .ok();
        let mut stopped = false;
        while !stopped {
            tokio::select! {
                () = stop.cancelled() => stopped = true,
                () = changed(watch.as_ref()) => {}
                () = tokio::time::sleep(interval) => {}
            }
            self.follow();
            // Of a store outside its breaker has told.
            if let Err(error) = self.write().await
                && error.kind() != Kind::Away
            {
                tracing::warn!("the time is noted later: {}", error.report());
            }
        }
    }

    fn follow(&mut self) {
        let Some(step) = self.clock.follow() else { return };
        let since = self.estimated_since.take();
        if since.is_some() {
            tracing::warn!(from = %step.from, to = %step.to, "the machine's clock has been set");
        } else {
            let seconds = step.by() / 1_000;
            tracing::warn!(to = %step.to, "the machine's clock was moved by {seconds} s");
        }
        // What is carried over a small step is as old as before.
        self.steady_since = match step.to.apart(step.from) < JUMP && since.is_none() {
            true => self.steady_since.moved(step.by()),
            false => step.to,
        };
        self.pending.push((step, since));
    }

    /// Brings steps to the store, or the time alone.
    async fn write(&mut self) -> Result<()> {
        let known = KnownTime {
            at: self.clock.now(),
            boot: self.boot.clone(),
            since_boot: system::since_boot(),
            estimated_since: self.estimated_since,
            steady_since: self.steady_since,
            history: self.clock.history(),
        };
        if self.pending.is_empty() {
            return self.store.note_time(&known).await;
        }
        while let Some((step, since)) = self.pending.first() {
            let corrected = self.store.clock_stepped(*step, *since, &known).await?;
            if corrected > 0 {
                tracing::info!(
                    conversations = corrected,
                    "corrected the times that were estimated"
                );
            }
            self.pending.remove(0);
        }
        // What is due has changed.
        self.wake.wake();
        Ok(())
    }
}

/// Returns when the machine's clock is set, as far as that can be watched.
async fn changed(watch: Option<&Watch>) {
    let watched = match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    };
    if let Err(error) = watched {
        tracing::warn!("{}", error.report());
        std::future::pending().await
    }
}
