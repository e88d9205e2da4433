//! How often a transaction is made, until it is through.

use std::time::Duration;

use super::error::is_transient;
use super::tx::Tx;
use crate::base::error::{Kind, Result};

/// How often a transaction is made before the database counts as too busy.
const ATTEMPTS: u32 = 40;
/// The same, where the connection broke in the middle.
const BROKEN_ATTEMPTS: u32 = 2;
/// The longest pause before the second attempt, of which a part is waited by
/// chance; each one more is half as long again.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How often a transaction has been made.
#[derive(Default)]
pub(super) struct Attempts {
    made: u32,
}

impl Attempts {
    /// Ends a transaction by what its work came to. None, after a pause: all of it
    /// is to be made again.
    pub(super) async fn end<T>(&mut self, tx: Tx, outcome: Result<T>) -> Option<Result<T>> {
        let outcome = match outcome {
            Ok(value) => tx.commit().await.map(|()| value),
            Err(error) => {
                tx.abort().await;
                Err(error)
            }
        };
        self.made += 1;
        let most = match &outcome {
            Err(error) if is_transient(error) && error.kind() == Kind::Busy => ATTEMPTS,
            Err(error) if is_transient(error) => BROKEN_ATTEMPTS,
            _ => 0,
        };
        if self.made >= most {
            return Some(outcome);
        }
        let longest = PAUSE.mul_f64(1.5_f64.powi(self.made.min(20).cast_signed()));
        tokio::time::sleep(longest.min(LONGEST_PAUSE).mul_f64(rand::random())).await;
        None
    }
}

/// The same work: tells the compiler how it fails.
pub(super) async fn fallible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    work.await
}
