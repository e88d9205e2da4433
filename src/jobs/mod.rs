//! Background work: the queue lives in the store, the workers here.

use std::sync::Arc;

use tokio::sync::Notify;

/// Tells the workers that there may be a job to take. Cheap to clone; a wake
/// before anybody waits is kept.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// There may be work.
    pub fn wake(&self) {
        self.0.notify_waiters();
        self.0.notify_one();
    }

    /// Waits for the next wake.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}
