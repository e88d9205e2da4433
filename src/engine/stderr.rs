//! What an engine says on standard error: into the log at debug, and the last
//! lines kept for the message about its death.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio_util::sync::CancellationToken;

/// Lines kept.
const LINES: usize = 6;
/// The longest line kept, in bytes.
const LINE: u64 = 1 << 10;

/// The last lines of one engine's standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: CancellationToken,
}

impl Tail {
    /// Reads `stderr` to its end.
    pub(super) async fn follow(self, engine: String, stderr: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while matches!((&mut reader).take(LINE).read_until(b'\n', &mut line).await, Ok(1..)) {
            let text = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            line.clear();
            if text.is_empty() {
                continue;
            }
            tracing::debug!(%engine, "{text}");
            let mut kept = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == LINES {
                kept.pop_front();
            }
            kept.push_back(text);
        }
        self.ended.cancel();
    }

    /// Waits until everything has been read: the last words of an engine that
    /// died may still be on their way. At most `limit`, since a child of its own
    /// could hold the pipe open.
    pub(super) async fn ended(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.ended.cancelled()).await;
    }

    /// The kept lines on one line; empty when it said nothing.
    pub(super) fn text(&self) -> String {
        let kept = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_last_lines_of_anything() {
        let mut said = b"early\n".repeat(50);
        said.extend(vec![b'x'; 5_000]);
        said.extend(b"\n\xff\xfe\n\nlast words");
        let tail = Tail::default();
        tail.clone().follow("test".into(), said.as_slice()).await;
        let text = tail.text();
        assert!(text.ends_with("| \u{fffd}\u{fffd} | last words"), "{text}");
        assert!(!text.contains("early | early"), "{text}");
    }
}
