//! A socket on the machine itself, which tells how the daemon is to whoever may
//! open it: root, and the user that the daemon runs as. No password is needed,
//! and nothing is read: each connection gets one JSON document.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::status::{self, Status};
use crate::base::error::{Context, Error, Kind, Result};

/// The socket below the state directory.
const NAME: &str = "status.sock";

/// Time one side has for its part.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest document that is taken.
const MAX_DOCUMENT: u64 = 4 << 20;

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// Listens below `state_dir`, which this daemon alone holds: a socket that is
/// there was left by one that has ended.
///
/// # Errors
/// `Storage` when it cannot be made.
pub fn listen(state_dir: &Path) -> Result<UnixListener> {
    let path = path(state_dir);
    let cannot = || format!("cannot listen on {}", path.display());
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(Kind::Storage, cannot);
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(Kind::Storage, cannot)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(Kind::Storage, cannot)?;
    Ok(listener)
}

/// Tells everybody who connects how the daemon is.
///
/// # Errors
/// `Internal` when no connection can be taken.
pub async fn serve(listener: &UnixListener, api: &Arc<Api>, stop: CancellationToken) -> Result<()> {
    loop {
        let (stream, _) = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            taken = listener.accept() => taken.context(Kind::Internal, "cannot take a connection")?,
        };
        // The mode keeps others out; this holds where a file system has none.
        let peer = stream.peer_cred().map(|credentials| credentials.uid());
        if !peer.is_ok_and(|uid| uid == 0 || uid == geteuid().as_raw()) {
            continue;
        }
        let api = api.clone();
        api.supervisor.clone().once(async move {
            if tokio::time::timeout(TIMEOUT, tell(stream, &api)).await.is_err() {
                tracing::debug!("whoever asked how the daemon is did not listen");
            }
        });
    }
}

async fn tell(mut stream: UnixStream, api: &Api) {
    let Ok(text) = serde_json::to_vec(&status::status(api).await) else { return };
    if let Err(error) = stream.write_all(&text).await {
        tracing::debug!("whoever asked how the daemon is has gone: {error}");
    }
}

/// Asks the daemon that holds `state_dir` how it is.
///
/// # Errors
/// `Unavailable` when none is running there, `Forbidden` when this user may not
/// ask.
pub async fn ask(state_dir: &Path) -> Result<Status> {
    let path = path(state_dir);
    let mut stream = UnixStream::connect(&path).await.map_err(|error| {
        let refused = error.kind() == std::io::ErrorKind::PermissionDenied;
        let (kind, message) = match refused {
            true => (Kind::Forbidden, "only its owner and root may ask; try it with sudo".into()),
            false => {
                let dir = state_dir.display();
                (Kind::Unavailable, format!("no daemon is running on the state in {dir}"))
            }
        };
        Error::new(kind, message).with_source(error)
    })?;
    let mut text = Vec::new();
    let mut limited = (&mut stream).take(MAX_DOCUMENT);
    tokio::time::timeout(TIMEOUT, limited.read_to_end(&mut text))
        .await
        .context(Kind::Timeout, "the daemon does not answer")?
        .context(Kind::Unavailable, "the daemon does not answer")?;
    serde_json::from_slice(&text)
        .context(Kind::Unavailable, "the daemon answers in another version's form")
}
