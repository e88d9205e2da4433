//! Tells systemd how the daemon is: starting, ready, alive, stopping. Nobody is
//! told where `$NOTIFY_SOCKET` names nobody.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::base::error::Kind;
use crate::http::server::ACCEPT_LOOP;
use crate::pipeline::reconcile::Start;
use crate::store::Store;
use crate::supervisor::Supervisor;
use crate::supervisor::heart::{BEAT, Heart};

/// How much more time is asked for with each beat of a slow start.
const MORE: Duration = Duration::from_secs(30);
/// The longest step of a start: after this much quiet no more time is asked for.
const LONGEST_STEP: Duration = Duration::from_secs(10 * 60);

/// How long a part may stand still where no watchdog says.
const STILL: Duration = Duration::from_secs(60);

/// The name of the database writer's pulse, and how often it is taken.
const WRITER: &str = "the database writer";
const WRITER_INTERVAL: Duration = Duration::from_secs(1);

/// Reports from the first moment of a start on. The daemon is not ready without
/// its accept loop and its writer, however late they come.
pub fn report(supervisor: &Supervisor, start: &Start) {
    let heart = supervisor.heart().clone();
    heart.part(ACCEPT_LOOP);
    heart.part(WRITER);
    let start = start.clone();
    supervisor.service("systemd", move |stop| {
        let (heart, start) = (heart.clone(), start.clone());
        async move {
            report_until(stop, &heart, &start).await;
            Ok(())
        }
    });
}

/// Takes the writer's pulse: it beats when a write has gone through.
pub fn watch_writer(supervisor: &Supervisor, store: Arc<dyn Store>) {
    let pulse = supervisor.heart().part(WRITER);
    supervisor.service("writer-pulse", move |stop| {
        let (pulse, store) = (pulse.clone(), store.clone());
        async move {
            while !stop.is_cancelled() {
                match store.ping().await {
                    Ok(()) => pulse.beat(),
                    // A database outside that is known to be away: the daemon goes
                    // on recording, and to end it would help nobody.
                    Err(error) if error.kind() == Kind::Away => pulse.beat(),
                    Err(_) => {}
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(WRITER_INTERVAL) => {}
                }
            }
            Ok(())
        }
    });
}

/// Reports until `stop`: asks for more time while the start goes on, says that
/// the daemon is ready once every part of `heart` has moved, and from then on
/// feeds the watchdog while all of them do.
async fn report_until(stop: CancellationToken, heart: &Heart, start: &Start) {
    let watchdog = sd_notify::watchdog_enabled();
    // Half, so that one late beat does not cost the daemon its life.
    let limit = watchdog.map_or(STILL, |watchdog| watchdog / 2);
    let every = watchdog.map_or(BEAT, |watchdog| (watchdog / 4).min(BEAT));
    let (mut ready, mut stuck) = (false, None);
    loop {
        let still = heart.still(limit);
        if ready {
            if still.is_none() && watchdog.is_some() {
                tell(&[NotifyState::Watchdog]);
            }
            if let (Some(part), None) = (still, stuck) {
                tracing::error!(
                    "{part} has not moved for {limit:?}: the watchdog is not fed, if there is one"
                );
            }
            stuck = still;
        } else if start.done.is_cancelled() && still.is_none() {
            tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
            ready = true;
        } else if start.progress.quiet().is_some_and(|quiet| quiet < LONGEST_STEP) {
            tell(&[NotifyState::ExtendTimeoutUsec(micros(MORE)), NotifyState::Status("starting")]);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Says that the daemon stops, which takes at most `limit`.
pub fn stopping(limit: Duration) {
    tell(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(micros(limit)),
        NotifyState::Status("stopping"),
    ]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd cannot be told: {error}");
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
