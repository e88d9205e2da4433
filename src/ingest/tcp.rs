//! What the sources that listen on a port of their own share: accepting within
//! limits, and telling devices apart by address.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::error::{Context, Error, Kind, Result};
use crate::supervisor::Supervisor;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;
/// Of which one address may have this many.
const MAX_PER_ADDRESS: usize = 16;
/// The pause after accepting failed: long enough for descriptors to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);
/// Addresses that are told apart; a home has fewer.
const MAX_NAMES: usize = 256;

/// A connection's place among those allowed; free again when it is dropped.
pub(super) struct Place {
    counts: Counts,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A connection.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// Held while it is served.
    pub(super) place: Place,
    /// Why it is not to be served: its address has too many.
    pub(super) refused: Option<Error>,
}

/// Hands each connection to `serve`, in a task of its own, until shutdown.
///
/// # Errors
/// None at present: what goes wrong with one connection ends that one.
pub(super) async fn accept<F, Fut>(
    listener: &TcpListener,
    supervisor: &Supervisor,
    serve: F,
) -> Result<()>
where
    F: Fn(Accepted) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let stop = supervisor.stop_token();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let counts = Counts::default();
    loop {
        // A place first: what is over the limit takes no descriptor.
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            let permit = permit.context(Kind::Internal, "the connection limit has been closed")?;
            Ok::<_, Error>((listener.accept().await, permit))
        };
        let (accepted, permit) = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            next = next => next?,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let address = peer.ip().to_canonical();
        let place = Place { counts: counts.clone(), address, _permit: permit };
        let count = {
            let mut counts = lock(&counts);
            let count = counts.entry(address).or_insert(0);
            *count += 1;
            *count
        };
        let refused = (count > MAX_PER_ADDRESS).then(|| {
            let message = format!("{MAX_PER_ADDRESS} connections of {address} are open already");
            Error::new(Kind::Busy, message)
        });
        supervisor.once(serve(Accepted { stream, peer, place, refused }));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Names for devices that share a configured one. Each address keeps its name as
/// long as the daemon runs, so that what one device leaves open is never taken
/// up by another.
#[derive(Default)]
pub(super) struct Names(Mutex<HashMap<IpAddr, usize>>);

impl Names {
    /// `base` for the address that came first, `base-2` for the next.
    pub(super) fn of(&self, base: &str, peer: SocketAddr) -> String {
        let mut names = lock(&self.0);
        let next = names.len() + 1;
        let address = peer.ip().to_canonical();
        let number = match names.get(&address) {
            Some(number) => *number,
            None if next > MAX_NAMES => 1,
            None => *names.entry(address).or_insert(next),
        };
        if number == 1 {
            return base.to_owned();
        }
        // A client id holds ten characters of the name; the number is one of them.
        let number = format!("-{number}");
        let kept: String = base.chars().take(10 - number.len()).collect();
        format!("{kept}{number}")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn an_address_keeps_its_name() {
        let names = Names::default();
        let peer = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(names.of("havpe", peer("10.0.0.7:1")), "havpe");
        assert_eq!(names.of("havpe", peer("10.0.0.9:1")), "havpe-2");
        assert_eq!(names.of("havpe", peer("10.0.0.7:2")), "havpe");
        assert_eq!(names.of("havpe", peer("[::ffff:10.0.0.9]:2")), "havpe-2");
        assert_eq!(names.of("living-room", peer("10.0.0.11:1")), "living-r-3");
    }

    #[tokio::test]
    async fn one_address_gets_no_more_than_its_share_and_places_come_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let supervisor = Supervisor::new();
        let (served, mut outcomes) = mpsc::unbounded_channel();
        let of_task = supervisor.clone();
        supervisor.once(async move {
            let serve = |mut accepted: Accepted| {
                let served = served.clone();
                async move {
                    served.send(accepted.refused.is_none()).unwrap();
                    if accepted.refused.is_none() {
                        let _ = accepted.stream.read(&mut [0]).await;
                    }
                    drop(accepted.place);
                }
            };
            accept(&listener, &of_task, serve).await.unwrap();
        });
        let mut open = Vec::new();
        for number in 0..20 {
            open.push(TcpStream::connect(address).await.unwrap());
            assert_eq!(outcomes.recv().await.unwrap(), number < MAX_PER_ADDRESS, "{number}");
        }
        open.clear();
        // Places are free once the tasks have seen it.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while {
            let _again = TcpStream::connect(address).await.unwrap();
            !outcomes.recv().await.unwrap()
        } {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        supervisor.stop();
        assert!(supervisor.drain(Duration::from_secs(5)).await);
    }
}
