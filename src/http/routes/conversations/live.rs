//! A conversation while it is recorded, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::owned;
use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, ErrorText};
use crate::stt::live::Partial;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(live))
}

/// What is being said, as it is understood: server-sent events, each the phrase
/// so far, which the next one replaces unless it is final. Ends with the
/// conversation. There is something to hear only with `deepgram.live`.
#[utoipa::path(get, path = "/api/conversations/{id}/live", tag = "conversations",
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream",
         body = Partial),
        (status = 404, description = "No such conversation, or nobody listens to it",
         body = ErrorText),
    ))]
async fn live(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let conversation = owned(&api, &user, id).await?;
    let nobody = || ApiError::error(StatusCode::NOT_FOUND, "Nobody listens to it now");
    let partials = api.ingest.hear(&conversation.id).ok_or_else(nobody)?;
    Ok(Sse::new(events(partials)).keep_alive(KeepAlive::default()))
}

fn events(partials: Receiver<Partial>) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(partials, |mut partials| async move {
        loop {
            match partials.recv().await {
                Ok(partial) => {
                    let data = serde_json::to_string(&partial).unwrap_or_default();
                    return Some((Ok(Event::default().data(data)), partials));
                }
                // What a slow listener missed has been replaced since.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}
