//! Whose turn it is. One heavy inference runs at a time: ggml's threads spin at
//! a barrier, so two that share the cores take many times longer than one after
//! the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::oneshot;

use super::process::Engine;
use crate::domain::job::Lane;

/// Lets one heavy inference through at a time, the most urgent lane first and
/// within a lane in order of arrival. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    exclusive: bool,
    queue: Mutex<Queue>,
    engines: Mutex<Vec<Weak<Engine>>>,
}

#[derive(Debug, Default)]
struct Queue {
    taken: bool,
    /// By [`Lane::rank`].
    lanes: [VecDeque<oneshot::Sender<Permit>>; 4],
}

/// The right to run; passed on to whoever waits when it is dropped.
#[derive(Debug)]
pub struct Permit(Option<Arc<Inner>>);

impl Gate {
    /// An open gate. With `exclusive`, an engine that gets through first ends
    /// the others, so that two large models are never in memory together.
    pub fn new(exclusive: bool) -> Self {
        Self(Arc::new(Inner { exclusive, ..Inner::default() }))
    }

    /// Counts `engine` among those that an exclusive gate ends.
    pub fn admit(&self, engine: &Arc<Engine>) {
        let mut engines = self.0.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.retain(|other| other.strong_count() > 0);
        engines.push(Arc::downgrade(engine));
    }

    /// Waits for the turn of `engine`. Dropping the future gives the place up.
    pub async fn enter(&self, lane: Lane, engine: &Arc<Engine>) -> Permit {
        let permit = self.turn(lane).await;
        if self.0.exclusive {
            for other in self.others(engine) {
                other.end().await;
            }
        }
        permit
    }

    async fn turn(&self, lane: Lane) -> Permit {
        let place = {
            let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if !queue.taken {
                queue.taken = true;
                return Permit(Some(self.0.clone()));
            }
            let (sender, place) = oneshot::channel();
            if let Some(lane) = queue.lanes.get_mut(usize::from(lane.rank())) {
                lane.push_back(sender);
            }
            place
        };
        // A sender leaves the queue only with a permit, so this cannot fail
        // while the gate, which we hold, exists.
        place.await.unwrap_or(Permit(None))
    }

    fn others(&self, engine: &Arc<Engine>) -> Vec<Arc<Engine>> {
        let engines = self.0.engines.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = engines.iter().filter_map(Weak::upgrade);
        alive.filter(|other| !Arc::ptr_eq(other, engine)).collect()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(gate) = self.0.take() else { return };
        loop {
            let next = {
                let mut queue = gate.queue.lock().unwrap_or_else(PoisonError::into_inner);
                let next = queue.lanes.iter_mut().find_map(VecDeque::pop_front);
                queue.taken = next.is_some();
                next
            };
            let Some(next) = next else { return };
            match next.send(Permit(Some(gate.clone()))) {
                Ok(()) => return,
                // It stopped waiting: take the permit back and ask the next.
                Err(mut refused) => refused.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    /// Polls once; whether it is still waiting.
    async fn waits<F: Future<Output = Permit>>(turn: &mut Pin<Box<F>>) -> bool {
        let turn = turn.as_mut();
        let mut turn = Some(turn);
        std::future::poll_fn(move |context| {
            let turn = turn.take().expect("polled once");
            std::task::Poll::Ready(turn.poll(context).is_pending())
        })
        .await
    }

    #[tokio::test]
    async fn the_urgent_go_first_and_equals_in_order() {
        let gate = Gate::new(false);
        let first = gate.turn(Lane::Backlog).await;
        let order = Mutex::new(Vec::new());
        let wait = async |lane, name: &'static str| {
            let _permit = gate.turn(lane).await;
            order.lock().unwrap().push(name);
        };
        let release = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        tokio::join!(
            wait(Lane::Backlog, "backlog"),
            wait(Lane::Live, "live 1"),
            wait(Lane::Live, "live 2"),
            wait(Lane::Interactive, "interactive"),
            release,
        );
        assert_eq!(*order.lock().unwrap(), ["interactive", "live 1", "live 2", "backlog"]);
    }

    #[tokio::test]
    async fn whoever_stops_waiting_blocks_nobody() {
        let gate = Gate::new(false);
        let first = gate.turn(Lane::Live).await;
        let impatient = gate.turn(Lane::Interactive);
        assert!(tokio::time::timeout(Duration::from_millis(5), impatient).await.is_err());
        // This one is dropped after its permit was sent and before it was seen.
        let mut unlucky = Box::pin(gate.turn(Lane::Interactive));
        assert!(waits(&mut unlucky).await);
        drop(first);
        drop(unlucky);
        let next = gate.turn(Lane::Backlog);
        assert!(tokio::time::timeout(Duration::from_secs(5), next).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn never_two_at_once() {
        let gate = Gate::new(false);
        let inside = Arc::new(AtomicBool::new(false));
        let supervisor = crate::supervisor::Supervisor::new();
        for n in 0..64_u32 {
            let (gate, inside) = (gate.clone(), inside.clone());
            supervisor.once(async move {
                for round in 0..50 {
                    let lane = [Lane::Interactive, Lane::Live, Lane::Backlog][(n % 3) as usize];
                    let turn = Box::pin(gate.turn(lane));
                    // Some give up soon, at any moment of the exchange.
                    let patience = if (n + round) % 5 == 0 { 1 } else { 30_000 };
                    let patience = Duration::from_millis(patience);
                    let Ok(permit) = tokio::time::timeout(patience, turn).await else { continue };
                    assert!(!inside.swap(true, Ordering::SeqCst));
                    tokio::task::yield_now().await;
                    inside.store(false, Ordering::SeqCst);
                    drop(permit);
                }
            });
        }
        assert!(supervisor.drain(Duration::from_secs(60)).await);
        assert!(!gate.0.queue.lock().unwrap().taken);
    }
}
