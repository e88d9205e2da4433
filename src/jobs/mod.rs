//! Background work: the queue lives in the store, the workers here.

pub mod load;
pub mod worker;

use std::sync::Arc;

use tokio::sync::watch;

/// Tells the workers that there may be a job to take. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Wake(Arc<watch::Sender<()>>);

impl Default for Wake {
    fn default() -> Self {
        Self(Arc::new(watch::channel(()).0))
    }
}

impl Wake {
    /// There may be work.
    pub fn wake(&self) {
        self.0.send_replace(());
    }

    /// Hears every wake from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

/// One worker's ear: a wake while it was busy is not lost.
#[derive(Debug)]
pub struct Listener(watch::Receiver<()>);

impl Listener {
    /// Waits for a wake since the last wait.
    pub async fn wait(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody can wake us any more.
            std::future::pending::<()>().await;
        }
    }
}
