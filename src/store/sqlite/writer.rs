//! The one connection that writes, on a thread of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::base::error::{Error, Kind, Result};
use crate::base::planned;
use crate::supervisor;

/// Writes that may wait for the thread before callers do.
const QUEUE: usize = 256;

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// Hands transactions to the writing thread. Dropping it waits until the
/// thread has done what is queued and closed the database.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(mut connection: Connection) -> Result<Self> {
        let (queue, mut work) = mpsc::channel::<Work>(QUEUE);
        let thread = supervisor::thread("store-writer", move || {
            while let Some(step) = work.blocking_recv() {
                step(&mut connection);
            }
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Runs `work` as one transaction. A panic in it rolls back and comes out as
    /// `Internal`; the thread goes on.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let step: Work = Box::new(move |connection| {
            let outcome = catch_unwind(AssertUnwindSafe(|| transact(connection, work)))
                .unwrap_or_else(|_| {
                    Err(Error::new(Kind::Internal, "a step in the database failed unexpectedly"))
                });
            // Nobody waits for it any more: it is done all the same.
            let _ = answer.send(outcome);
        });
        let closed = || Error::new(Kind::Unavailable, "the database is closed");
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(step).await.map_err(|_| closed())?;
        result.await.map_err(|_| closed())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // Steps catch their own panics.
            let _ = thread.join();
        }
    }
}

fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T>,
) -> Result<T> {
    if !connection.is_autocommit() {
        // A rollback failed earlier, with the disk perhaps.
        connection.execute_batch("rollback")?;
    }
    // Immediate: a transaction that reads first would fail when another process
    // writes in between.
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = work(&tx)?;
    planned::around("committing", || Ok(tx.commit()?))?;
    Ok(value)
}
