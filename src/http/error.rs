//! Errors as clients see them.
//!
//! The forms are those of the original: `detail` for what the framework
//! answers (logins, unknown paths, wrong parameters), `error` or `message` for
//! what a handler answers. What went wrong inside stays in the log, under the
//! request id that the answer carries.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::base::error::{Error, Kind};

/// What the framework answers: no login, no such path, no such method.
#[derive(Debug, Serialize, ToSchema)]
pub struct Detail {
    /// What is wrong.
    pub detail: String,
}

/// What most handlers answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorText {
    /// What is wrong.
    pub error: String,
}

/// What the other handlers answer, and what a deed without a result says.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageText {
    /// What is wrong, or what was done.
    pub message: String,
}

/// Wrong parameters or a wrong body (422).
#[derive(Debug, Serialize, ToSchema)]
pub struct ValidationError {
    /// All that is wrong.
    pub detail: Vec<Problem>,
}

/// Any failure of the daemon itself (5xx).
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "a schema: handlers answer one of these by ApiError")]
pub enum Failure {
    /// As the framework says it.
    Detail(Detail),
    /// As most handlers say it.
    Error(ErrorText),
    /// As the other handlers say it.
    Message(MessageText),
}

/// The cause of a failed request, left in the answer for the log.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    pub(super) kind: Kind,
    pub(super) report: String,
}

/// An answer that is not a success.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Value,
    cause: Option<Cause>,
}

impl ApiError {
    /// `{"detail": …}`.
    pub fn detail(status: StatusCode, detail: impl Into<Value>) -> Self {
        Self { status, body: json!({ "detail": detail.into() }), cause: None }
    }

    /// `{"error": …}`.
    pub fn error(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: json!({ "error": error.into() }), cause: None }
    }

    /// `{"message": …}`.
    pub fn message(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, body: json!({ "message": message.into() }), cause: None }
    }

    /// Any other body.
    pub fn body(status: StatusCode, body: Value) -> Self {
        Self { status, body, cause: None }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Nobody is logged in.
    pub fn unauthorized() -> Self {
        Self::detail(StatusCode::UNAUTHORIZED, "Unauthorized")
    }

    /// Somebody is, and may not.
    pub fn forbidden() -> Self {
        Self::detail(StatusCode::FORBIDDEN, "Forbidden")
    }

    /// No such path, or nothing there that the caller may see.
    pub fn not_found() -> Self {
        Self::detail(StatusCode::NOT_FOUND, "Not Found")
    }

    /// A wrong parameter, in FastAPI's form.
    pub fn validation(problems: Vec<Problem>) -> Self {
        Self::body(StatusCode::UNPROCESSABLE_ENTITY, json!(ValidationError { detail: problems }))
    }

    /// For `map_err`: `error` as `{"message": …}`.
    pub fn as_message(error: Error) -> Self {
        Self::from_error(error, "message")
    }

    fn from_error(error: Error, field: &str) -> Self {
        let status = status_of(error.kind());
        if status == StatusCode::UNAUTHORIZED {
            return Self::unauthorized();
        }
        let internal = matches!(error.kind(), Kind::Internal | Kind::Storage | Kind::Config);
        let text = if internal { "Internal server error" } else { error.message() };
        let cause = Cause { kind: error.kind(), report: error.report() };
        Self { status, body: json!({ field: text }), cause: Some(cause) }
    }
}

/// `{"error": …}`, the form of most handlers.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::from_error(error, "error")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

/// One wrong parameter, as FastAPI describes it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A name for this sort of problem: `missing`, `int_parsing`.
    #[serde(rename = "type")]
    kind: String,
    /// Where: `query` or `body`, then the field.
    loc: Vec<String>,
    /// The problem in words.
    msg: String,
    /// What was given.
    input: Option<String>,
}

impl Problem {
    /// What is wrong (`kind`, `msg`) with `field` of `place` (`query`, `body`).
    pub fn new(kind: &str, place: &str, field: &str, msg: &str, input: Option<&str>) -> Self {
        Self {
            kind: kind.to_owned(),
            loc: vec![place.to_owned(), field.to_owned()],
            msg: msg.to_owned(),
            input: input.map(str::to_owned),
        }
    }

    /// What is wrong at a place deeper down.
    pub fn at(kind: &str, loc: Vec<String>, msg: &str) -> Self {
        Self { kind: kind.to_owned(), loc, msg: msg.to_owned(), input: None }
    }

    /// A field that must be there.
    pub fn missing(place: &str, field: &str) -> Self {
        Self::new("missing", place, field, "Field required", None)
    }
}

fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::BadInput => StatusCode::BAD_REQUEST,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Busy => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable | Kind::Away => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Kind::Storage | Kind::Config | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// For paths that do not exist.
pub(super) async fn not_found() -> ApiError {
    ApiError::not_found()
}

/// For paths that exist with another method.
pub(super) async fn method_not_allowed() -> ApiError {
    ApiError::detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internals_stay_inside() {
        let io = std::io::Error::other("/var/lib/secret: I/O error");
        let error = Error::new(Kind::Storage, "cannot read table users").with_source(io);
        let answer = ApiError::from(error);
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.body, json!({ "error": "Internal server error" }));
        assert!(answer.cause.is_some_and(|cause| cause.report.contains("users")));
    }

    #[test]
    fn what_helps_the_caller_is_said() {
        let answer = ApiError::as_message(Error::new(Kind::Unavailable, "the index is away"));
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.body, json!({ "message": "the index is away" }));
    }
}
