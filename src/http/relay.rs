//! Passes a device that comes back on to the daemon that records its conversation, where
//! several share the work: byte for byte, so that it is as if it had come there.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};

use super::api::Api;
use super::server::Place;
use crate::base::error::Result;
use crate::config::Secret;
use crate::domain::ids::ClientId;
use crate::domain::user::User;
use crate::remote::Fault;
use crate::remote::http::Http;

/// A request that has this comes from another daemon, and is not passed on again.
const RELAYED: &str = "x-friend-lite-relayed";
/// Time that the other daemon has to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Time that one side has to end once the other one has.
const FAREWELL: Duration = Duration::from_secs(10);

/// The answer of the daemon that records a conversation of `device` of `user`, to which
/// the connection belongs from then on; none when that is nobody, or this daemon, or
/// when the other one does not answer.
pub(super) async fn pass_on(
    api: &Arc<Api>,
    user: &User,
    device: Option<&str>,
    request: &mut Request,
) -> Option<Response<Body>> {
    let id = ClientId::for_device(&user.id, Some(device?), 1);
    if request.headers().contains_key(RELAYED) || api.ingest.clients().get(&id).is_some() {
        return None;
    }
    let url = match api.store.node_with(&id).await {
        Ok(url) => url?,
        Err(error) => {
            tracing::debug!(client = %id, "nobody is asked for it: {}", error.report());
            return None;
        }
    };
    match relay(api, &url, request).await {
        Ok(answer) => {
            tracing::info!(client = %id, to = url, "passed on to the daemon that records it");
            Some(answer)
        }
        Err(error) => {
            tracing::warn!(client = %id, "begins anew here: {}", error.report());
            None
        }
    }
}

async fn relay(api: &Arc<Api>, url: &str, request: &mut Request) -> Result<Response<Body>> {
    let none = ("", &Secret::default());
    let http = Http::new("the other daemon", url, none, ANSWER, &api.config.remote)?;
    let mut headers = request.headers().clone();
    headers.insert(RELAYED, HeaderValue::from_static("1"));
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let upgraded = http.upgrade(path, headers).await;
    let (headers, there) = upgraded.map_err(Fault::into_error)?;
    let place = request.extensions().get::<Place>().cloned();
    let here = hyper::upgrade::on(request);
    let supervisor = api.supervisor.clone();
    let stop = supervisor.stop_token();
    supervisor.once(async move {
        // One that leaves before it has heard the answer has sent nothing.
        let Ok(here) = here.await else { return };
        tokio::select! {
            () = stop.cancelled() => {}
            () = join(TokioIo::new(here), there) => {}
        }
        drop(place);
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// Carries bytes both ways until one side ends, and the other has heard of it.
async fn join(here: impl AsyncRead + AsyncWrite, there: impl AsyncRead + AsyncWrite) {
    let ((mut from, mut back), (mut answers, mut to)) = (split(here), split(there));
    let up = async {
        // Whatever ends it: what has come is passed on, and nothing more comes.
        let _ = copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    };
    let down = async {
        let _ = copy(&mut answers, &mut back).await;
        let _ = back.shutdown().await;
    };
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        () = &mut up => drop(tokio::time::timeout(FAREWELL, down).await),
        () = &mut down => drop(tokio::time::timeout(FAREWELL, up).await),
    }
}
