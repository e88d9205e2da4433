//! Recordings, streamed from disk or from the bucket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::response::Builder;
use axum::http::{HeaderMap, HeaderName, Response, StatusCode, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::range::{Selection, select};
use crate::base::error::{Context, Kind, Result};
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, Detail};
use crate::recording::Playable;

const UNREADABLE: &str = "cannot read the recording";

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(root)).routes(routes!(file))
}

/// Dashboards ask for the directory to see whether recordings are served.
#[utoipa::path(get, path = "/audio/", tag = "audio", security(()),
    responses((status = 200, description = "They are")))]
async fn root() -> StatusCode {
    StatusCode::OK
}

/// A recording or a cropped one, whole or in part. Only what the row of a
/// conversation names is sent.
#[utoipa::path(get, path = "/audio/{file}", tag = "audio",
    params(("file" = String, Path, description = "`audio_path` or `cropped_audio_path` of a conversation")),
    responses(
        (status = 200, description = "The whole recording", content_type = "audio/x-wav", body = Vec<u8>),
        (status = 206, description = "The part that was asked for", content_type = "audio/x-wav", body = Vec<u8>),
        (status = 304, description = "Not changed"),
        (status = 404, description = "No such recording, or not here", body = Detail),
        (status = 410, description = "The recording was deleted", body = Detail),
        (status = 416, description = "No such part"),
    ))]
async fn file(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let found = match api.store.conversation_by_audio(&name).await? {
        None => api.store.conversation_by_crop(&name).await?,
        found => found,
    };
    let conversation = found
        .filter(|conversation| may_see(&user, &conversation.user_id))
        .ok_or_else(ApiError::not_found)?;
    if !conversation.has_audio() {
        let message = "This recording was deleted; its transcript is kept";
        return Err(ApiError::detail(StatusCode::GONE, message));
    }
    let name = &name;
    let recording = match api.recordings.playable(name).await {
        Err(error) if error.kind() == Kind::NotFound => {
            return Err(match api.store.recorded_elsewhere(&conversation.id).await? {
                None => ApiError::not_found(),
                Some(node) => ApiError::detail(StatusCode::NOT_FOUND, elsewhere(&node)),
            });
        }
        opened => opened?,
    };
    let version = Version::of(&recording)?;
    Ok(answer(recording, &version, content_type(name), &headers).await?)
}

/// Why this daemon cannot play a recording that another one has. A balancer that is
/// told so asks the next one.
fn elsewhere(node: &str) -> String {
    format!("This recording is with the daemon {node} alone until it has been copied to the bucket")
}

/// What identifies the bytes of a file at one time. That of a recording which
/// is going on changes as it grows.
struct Version {
    size: u64,
    etag: String,
    modified: String,
}

impl Version {
    fn of(recording: &Playable) -> Result<Self> {
        let (since, size) = (recording.modified, recording.bytes);
        let date = i64::try_from(since.as_secs())
            .ok()
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
            .unwrap_or_default();
        Ok(Self {
            size,
            etag: format!("\"{:x}-{size:x}\"", since.as_nanos()),
            modified: jiff::fmt::rfc2822::DateTimePrinter::new()
                .timestamp_to_rfc9110_string(&date)
                .context(Kind::Internal, UNREADABLE)?,
        })
    }

    /// Whether the client has these bytes already.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        match text(headers, header::IF_NONE_MATCH) {
            Some(etags) => etags
                .split(',')
                .map(|etag| etag.trim().trim_start_matches("W/"))
                .any(|etag| etag == "*" || etag == self.etag),
            None => text(headers, header::IF_MODIFIED_SINCE) == Some(&self.modified),
        }
    }

    /// What of them the client asks for. A part is only good for one who has
    /// the rest of the same version.
    fn selection(&self, headers: &HeaderMap) -> Selection {
        let same = text(headers, header::IF_RANGE)
            .is_none_or(|version| version == self.etag || version == self.modified);
        match text(headers, header::RANGE) {
            Some(range) if same => select(range, self.size),
            _ => Selection::All,
        }
    }
}

async fn answer(
    recording: Playable,
    version: &Version,
    content_type: &str,
    headers: &HeaderMap,
) -> Result<Response<Body>> {
    let base = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, &version.etag)
        .header(header::LAST_MODIFIED, &version.modified)
        .header(header::CACHE_CONTROL, "private, no-cache");
    if version.is_known(headers) {
        return finish(base.status(StatusCode::NOT_MODIFIED), Body::empty());
    }
    let size = version.size;
    let (base, start, length) = match version.selection(headers) {
        Selection::All => (base.status(StatusCode::OK), 0, size),
        Selection::Part { start, end } => {
            let range = format!("bytes {start}-{end}/{size}");
            let base = base.status(StatusCode::PARTIAL_CONTENT);
            (base.header(header::CONTENT_RANGE, range), start, end - start + 1)
        }
        Selection::Unsatisfiable => {
            let base = base.status(StatusCode::RANGE_NOT_SATISFIABLE);
            let base = base.header(header::CONTENT_RANGE, format!("bytes */{size}"));
            return finish(base, Body::empty());
        }
    };
    let pieces = recording.stream(start, length).await?;
    let base =
        base.header(header::CONTENT_TYPE, content_type).header(header::CONTENT_LENGTH, length);
    finish(base, Body::from_stream(pieces))
}

fn finish(builder: Builder, body: Body) -> Result<Response<Body>> {
    builder.body(body).context(Kind::Internal, UNREADABLE)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("wav") => "audio/x-wav",
        Some("ogg" | "opus") => "audio/ogg",
        _ => "application/octet-stream",
    }
}
