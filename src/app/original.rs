//! Where the original Friend-Lite keeps what it has: MongoDB, Qdrant and a directory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::store::Database;
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::config::Config;
use crate::embed::Embedder;
use crate::index::qdrant::Client;
use crate::recording::Recordings;
use crate::store::mongodb::original::OriginalDatabase;
use crate::supervisor::heart::Pulse;
use crate::upkeep::original::{Documents, Original, Takeover};

/// How often the log tells how far a takeover is.
const TOLD: Duration = Duration::from_secs(5);
/// The most things that the log names which did not come.
const NAMED: usize = 20;

/// What the original has in the database, the collection and the directory that
/// `config` names as `mongodb`, `qdrant` and `import.audio`. Memories are left where
/// nobody makes vectors of them.
///
/// # Errors
/// As [`OriginalDatabase::open`]; `Config` when Qdrant's address cannot be used.
pub async fn original(config: &Config, embedder: Option<Arc<dyn Embedder>>) -> Result<Original> {
    let database = OriginalDatabase::open(&config.mongodb, &config.remote).await?;
    let memories = match embedder {
        Some(embedder) => {
            let client = Client::new(&config.qdrant, &config.remote)?;
            Some((client.memories(), embedder))
        }
        None => None,
    };
    Ok(Original { memories, ..beside(database, config) })
}

/// Takes over what the original has in the database that this daemon keeps its own
/// collections in, as far as it is new: all but the memories, which the index finds.
/// What cannot be read is told and keeps nothing else from coming. `progress` beats
/// meanwhile.
///
/// # Errors
/// Those of the database and of the disk.
pub(super) async fn take_over(
    config: &Config,
    database: &Database,
    recordings: &Recordings,
    progress: &Pulse,
    clock: &Clock,
) -> Result<()> {
    let Some(source) = database.original() else { return Ok(()) };
    if !source.is_there().await? {
        return Ok(());
    }
    let last = Mutex::new(clock.monotonic());
    let tell = |what: &'static str, done: u64| {
        progress.beat();
        let now = clock.monotonic();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(*last) >= TOLD {
            *last = now;
            tracing::info!("taking over what the original has here: {done} {what}");
        }
    };
    let (store, recordings) = (database.store(), recordings.clone());
    let takeover = Takeover::new(store, recordings, config.transcribe.clone(), clock.clone());
    let takeover = takeover.trusting();
    let tally = progress.during(takeover.run(beside(source, config), &tell)).await?;
    for problem in tally.problems.iter().take(NAMED) {
        tracing::warn!("left in the original: {} {}: {}", problem.what, problem.id, problem.why);
    }
    let (left, news) = (tally.problems.len(), tally.news());
    if news > 0 || left > 0 {
        tracing::info!(
            users = tally.users.taken,
            conversations = tally.conversations.taken,
            recordings = tally.recordings.taken,
            chats = tally.chats.taken,
            left,
            "took over what the original has in this database"
        );
    }
    if tally.recordings.left > 0 && config.import.audio.is_empty() {
        tracing::warn!(
            recordings = tally.recordings.left,
            "conversations came without their recordings; import.audio says where those are"
        );
    }
    for kind in tally.missing() {
        tracing::error!("the {kind} of the original do not add up; look with `friend-lite import`");
    }
    Ok(())
}

/// The documents of `database`, and the audio.
fn beside(database: OriginalDatabase, config: &Config) -> Original {
    let documents: Documents = Arc::new(move |name| database.documents(name));
    let audio = Some(&config.import.audio).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    Original { documents, memories: None, audio }
}
