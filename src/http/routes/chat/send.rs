//! A question and its answer, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::owned;
use crate::base::error::{Kind, Result};
use crate::domain::ids::{ChatId, MemoryId};
use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::body::Body;
use crate::http::error::{ApiError, ErrorText, Problem, ValidationError};
use crate::pipeline::chat::{Turn, title};

/// Longest question, in characters.
const LONGEST: usize = 4_000;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(send))
}

/// A question.
#[derive(Deserialize, ToSchema)]
struct Question {
    /// 1 to 4000 characters.
    #[schema(min_length = 1, max_length = 4000)]
    message: String,
    /// The talk it belongs to; a new one without it.
    session_id: Option<String>,
}

/// One event of a stream.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a schema: axum writes the events")]
struct ServerSentEvent {
    /// A JSON object, or `[DONE]`.
    data: String,
}

/// Asks a question. The answer is a stream of server-sent events, each a JSON
/// object `{"type", "data", "timestamp"}`: `memory_context` (the memories that
/// fit the question), `token` (a piece of the answer), `complete`, or `error`;
/// then `[DONE]`. The answer is written down even if nobody waits for it.
#[utoipa::path(post, path = "/api/chat/send", tag = "chat", request_body = Question,
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream",
         body = ServerSentEvent),
        (status = 404, description = "No such talk", body = ErrorText),
        (status = 422, description = "Wrong body", body = ValidationError),
        (status = 429, description = "The caller waits for an answer already", body = ErrorText),
    ))]
async fn send(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Body(question): Body<Question>,
) -> Result<impl IntoResponse, ApiError> {
    let message = checked(&question.message)?.to_owned();
    let known = match question.session_id {
        Some(id) => Some(owned(&api, &user, id).await?.id),
        None => None,
    };
    let turn = api.assistant.turn(&user.id)?;
    let chat = match known {
        Some(id) => id,
        None => api.assistant.begin(&user.id, &title(&message)).await?.id,
    };
    // The task never waits for a slow client; an answer has an end.
    let (events, stream) = mpsc::unbounded_channel();
    let task = Answering { api: api.clone(), turn, chat, events };
    api.supervisor.once(task.run(message));
    let lines = lines_of(stream).map(|line| Ok::<_, Infallible>(Event::default().data(line)));
    Ok(Sse::new(lines).keep_alive(KeepAlive::default()))
}

/// An answer that is being made.
struct Answering {
    api: Arc<Api>,
    turn: Turn,
    chat: ChatId,
    events: mpsc::UnboundedSender<String>,
}

impl Answering {
    async fn run(self, question: String) {
        if let Err(error) = self.answer(&question).await {
            tracing::warn!(chat = %self.chat, "no answer: {}", error.report());
            let internal = matches!(error.kind(), Kind::Internal | Kind::Storage | Kind::Config);
            let text = if internal { "Internal server error" } else { error.message() };
            self.say("error", json!({ "error": text, "session_id": self.chat }));
        }
        // Nobody may be listening any more.
        let _ = self.events.send("[DONE]".to_owned());
    }

    async fn answer(&self, question: &str) -> Result<()> {
        let memories = self.turn.ask(&self.chat, question).await?;
        let used: Vec<&MemoryId> = memories.iter().map(|found| &found.memory.id).collect();
        let context = json!({
            "session_id": self.chat,
            "memory_ids": used,
            "memory_count": used.len(),
        });
        self.say("memory_context", context);
        let mut token =
            |piece: &str| self.say("token", json!({ "token": piece, "content": piece }));
        let answer = self.turn.answer(&self.chat, &memories, &mut token).await?;
        self.say(
            "complete",
            json!({
                "session_id": self.chat,
                "message_id": answer.message.to_string(),
                "content": answer.text,
                "memories_used": used,
            }),
        );
        Ok(())
    }

    fn say(&self, kind: &str, data: Value) {
        let timestamp = self.api.clock.now().seconds_f64();
        let event = json!({ "type": kind, "data": data, "timestamp": timestamp });
        let _ = self.events.send(event.to_string());
    }
}

/// The question without space around it.
fn checked(message: &str) -> Result<&str, ApiError> {
    let problem =
        |kind, msg| ApiError::validation(vec![Problem::new(kind, "body", "message", msg, None)]);
    let text = message.trim();
    if text.is_empty() {
        return Err(problem("string_too_short", "String should have at least 1 character"));
    }
    if text.chars().count() > LONGEST {
        return Err(problem("string_too_long", "String should have at most 4000 characters"));
    }
    Ok(text)
}

/// What a channel brings, until it is closed.
fn lines_of(receiver: mpsc::UnboundedReceiver<String>) -> impl futures_util::Stream<Item = String> {
    futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|line| (line, receiver))
    })
}
