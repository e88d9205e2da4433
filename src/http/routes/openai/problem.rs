//! Errors in OpenAI's form.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::base::error::{Error, Kind};
use crate::http::error::ApiError;

/// An error in the form that OpenAI's clients read.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problems {
    error: Body,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiError)]
struct Body {
    message: String,
    r#type: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

/// Why a request cannot be answered.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    body: Body,
    /// What the log is to say.
    cause: Option<Box<ApiError>>,
}

const INVALID: &str = "invalid_request_error";

impl Problem {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let body = Body { message: message.into(), r#type: kind, param: None, code: None };
        Self { status, body, cause: None }
    }

    /// A parameter is missing or wrong.
    pub(super) fn parameter(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, message).about(name)
    }

    /// The same, about that parameter.
    pub(super) fn about(mut self, name: &'static str) -> Self {
        self.body.param = Some(name);
        self
    }

    /// The login of the request failed so.
    pub(super) fn of_login(error: &ApiError) -> Self {
        match error.status() {
            StatusCode::UNAUTHORIZED => {
                let message = "no valid token: log in and send it as Authorization: Bearer";
                let mut problem = Self::new(StatusCode::UNAUTHORIZED, INVALID, message);
                problem.body.code = Some("invalid_api_key");
                problem
            }
            StatusCode::FORBIDDEN => Self::new(StatusCode::FORBIDDEN, INVALID, "not allowed"),
            status => Self::new(status, "server_error", "logins cannot be checked now"),
        }
    }

    /// No such model.
    pub(super) fn no_model(id: &str, known: &[&str]) -> Self {
        let text = format!("the model `{id}` does not exist; there are {}", known.join(", "));
        let mut problem = Self::new(StatusCode::NOT_FOUND, INVALID, text).about("model");
        problem.body.code = Some("model_not_found");
        problem
    }

    /// Not now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
    }

    pub(super) fn answer(self) -> Response {
        let mut response = (self.status, Json(Problems { error: self.body })).into_response();
        if let Some(cause) = self.cause {
            // What the log says of the error goes with it.
            *response.extensions_mut() = cause.into_response().extensions().clone();
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (kind, message) = (error.kind(), error.message().to_owned());
        let cause = ApiError::from(error);
        let status = cause.status();
        let mut problem = match kind {
            Kind::Internal | Kind::Storage | Kind::Config => {
                Self::new(status, "server_error", "internal server error")
            }
            Kind::Busy => Self::new(status, "rate_limit_error", message),
            _ if status.is_client_error() => Self::new(status, INVALID, message),
            _ => Self::new(status, "server_error", message),
        };
        problem.cause = Some(Box::new(cause));
        problem
    }
}
