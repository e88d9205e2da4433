//! Bodies of requests, read within a time and checked the way FastAPI checks
//! them.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;
use serde_path_to_error::Path;

use super::error::{ApiError, Problem};

/// The time a client has to send a body that is not an upload.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A JSON object as the body; 422 when it is not what the handler takes.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        parse(&read(request, state).await?).map(Self)
    }
}

/// The whole body.
///
/// # Errors
/// 408 when it does not arrive in time, 413 when it is too large.
pub(super) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    let bytes = tokio::time::timeout(TIMEOUT, Bytes::from_request(request, state))
        .await
        .map_err(|_| ApiError::detail(StatusCode::REQUEST_TIMEOUT, "Request Timeout"))?;
    bytes.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::detail(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Large")
        }
        _ => ApiError::detail(StatusCode::BAD_REQUEST, "There was an error parsing the body"),
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let problem = |kind, path: &[String], msg: &str| {
        let mut place = vec!["body".to_owned()];
        place.extend_from_slice(path);
        ApiError::validation(vec![Problem::at(kind, place, msg)])
    };
    if bytes.is_empty() {
        return Err(problem("missing", &[], "Field required"));
    }
    // Bodies are objects; serde would take a list for one, field by field.
    if bytes.trim_ascii_start().starts_with(b"[") {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        return Err(problem("model_attributes_type", &[], msg));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json);
    let error = match (value, json.end()) {
        (Ok(value), Ok(())) => return Ok(value),
        (Ok(_), Err(error)) => return Err(problem("json_invalid", &[], &error.to_string())),
        (Err(error), _) => error,
    };
    let mut path = fields(error.path());
    let inner = error.into_inner();
    if !inner.is_data() {
        return Err(problem("json_invalid", &path, &inner.to_string()));
    }
    let text = inner.to_string();
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    Err(match missing {
        Some(field) => {
            path.push(field.to_owned());
            problem("missing", &path, "Field required")
        }
        None => problem("value_error", &path, &text),
    })
}

fn fields(path: &Path) -> Vec<String> {
    path.iter().map(ToString::to_string).filter(|segment| segment != "?").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Form {
        email: String,
        #[serde(default)]
        age: Option<u8>,
    }

    async fn problem(text: &str) -> Value {
        let response = parse::<Form>(text.as_bytes()).unwrap_err().into_response();
        assert_eq!(response.status(), 422, "{text}");
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()["detail"][0].clone()
    }

    #[tokio::test]
    async fn what_is_wrong_is_named() {
        assert!(parse::<Form>(br#"{"email":"a","unknown":1}"#).is_ok());
        let missing = problem("{}").await;
        assert_eq!(missing["type"], "missing");
        assert_eq!(missing["loc"], json!(["body", "email"]));
        assert_eq!(problem("").await["loc"], json!(["body"]));
        assert_eq!(problem("{").await["type"], "json_invalid");
        assert_eq!(problem(r#"{"email":"a"} x"#).await["type"], "json_invalid");
        assert_eq!(problem(r#"{"email":"a","age":-1}"#).await["loc"], json!(["body", "age"]));
        assert_eq!(problem("1").await["type"], "value_error");
        assert_eq!(problem(r#" ["a"]"#).await["type"], "model_attributes_type");
        assert_eq!(problem("\u{0}").await["type"], "json_invalid");
    }

    proptest! {
        #[test]
        fn any_body_is_taken_or_refused(bytes: Vec<u8>) {
            let _ = parse::<Form>(&bytes);
        }
    }
}
