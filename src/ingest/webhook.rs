//! Audio that an app posts a piece at a time, as Omi's does: each post goes on
//! where the last one of the same wearer ended, if that was not long ago.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::Ingest;
use crate::audio::pcm::PcmFormat;
use crate::base::error::{Error, Kind, Result};

/// Takes a piece of PCM in `format` of the wearer `uid`. All of it is kept.
///
/// # Errors
/// As [`Session::audio`](super::session::Session::audio) and
/// [`Ingest::connect`]; `NotFound` without the configured user.
pub async fn take(
    ingest: &Arc<Ingest>,
    uid: &str,
    format: PcmFormat,
    bytes: bytes::Bytes,
) -> Result<()> {
    let (done, outcome) = oneshot::channel();
    let (task, device) = (ingest.clone(), device(&ingest.config.webhook.device, uid));
    // A task of its own: an app that hangs up early has handed its audio over.
    ingest.supervisor.once(async move {
        let _ = done.send(record(&task, &device, format, &bytes).await);
    });
    outcome.await.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "the audio was not recorded")))
}

async fn record(ingest: &Arc<Ingest>, device: &str, format: PcmFormat, bytes: &[u8]) -> Result<()> {
    let user = &ingest.config.webhook.user;
    let mut session = ingest.connect_configured(user, "webhook.user", device).await?;
    session.audio_start(format);
    let taken = session.audio(bytes, None).await;
    // Between two posts the wearer is away, like one whose connection broke.
    session.lost().await;
    taken
}

/// The device name of a wearer, within the ten characters that a client id
/// keeps: `omi-1f3a9c`.
fn device(base: &str, uid: &str) -> String {
    if uid.is_empty() {
        return base.to_owned();
    }
    let hash = Sha256::digest(uid);
    let [first, second, third, ..] = hash.as_slice() else { return base.to_owned() };
    let base: String = base.chars().take(3).collect();
    format!("{base}-{first:02x}{second:02x}{third:02x}")
}

#[cfg(test)]
mod tests {
    use super::super::session::tests::{bench, bytes, user};
    use super::*;
    use crate::audio::synthetic::speech;
    use crate::base::clock::Clock;
    use crate::config::Interval;
    use crate::domain::conversation::CloseReason;

    #[test]
    fn wearers_are_told_apart() {
        assert_eq!(device("omi", ""), "omi");
        let (one, other) = (device("omi", "alice"), device("omi", "bob"));
        assert!(one != other && one.len() == 10 && one.starts_with("omi-"), "{one}");
        assert_eq!(one, device("omi", "alice"));
    }

    #[tokio::test]
    async fn posts_of_one_wearer_are_one_conversation() {
        let bench = bench(Clock::system(), |config| {
            config.webhook.user = "1@example.com".into();
            config.conversation.reconnect_grace = Interval::from_secs(20);
        });
        let send = async |uid: &str| {
            let piece = bytes(&speech(1.0)).into();
            take(&bench.ingest, uid, PcmFormat::SPEECH, piece).await
        };
        assert_eq!(send("alice").await.unwrap_err().kind(), Kind::NotFound);
        bench.store.state().users.push(user('1'));
        for uid in ["alice", "bob", "alice", "alice"] {
            send(uid).await.unwrap();
        }
        bench.supervisor.stop();
        assert!(bench.supervisor.drain(std::time::Duration::from_secs(10)).await);
        let rows = bench.store.rows();
        let lengths: Vec<_> = rows.iter().map(|row| bench.recorded(row).len()).collect();
        assert_eq!(lengths, [48_000, 16_000]);
        let shut = Some(CloseReason::Shutdown);
        assert!(rows.iter().all(|row| row.conversation.close_reason == shut));
    }
}
