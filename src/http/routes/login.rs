//! Logging in and out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Form, FromRequest, Multipart, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::base::error::Kind;
use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, Problem};

/// The largest login form, in bytes.
const MAX_FORM: usize = 16 * 1024;

/// The time a client has to send its login form.
const FORM_TIMEOUT: Duration = Duration::from_secs(15);

/// Exchanges the form fields `username` and `password` for a token.
pub(super) async fn login(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response, ApiError> {
    let fields = form(request).await?;
    // FastAPI takes an empty form field for a missing one.
    let field = |name: &'static str| {
        let value = fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value);
        value.filter(|value| !value.is_empty()).ok_or_else(|| Problem::missing("body", name))
    };
    let (username, password) = match (field("username"), field("password")) {
        (Ok(username), Ok(password)) => (username, password),
        (username, password) => {
            let problems = [username.err(), password.err()].into_iter().flatten().collect();
            return Err(ApiError::validation(problems));
        }
    };
    match api.auth.login(username, password, peer.ip()).await {
        Ok(token) => {
            let body = json!({ "access_token": token.expose(), "token_type": "bearer" });
            Ok(Json(body).into_response())
        }
        Err(error) if error.kind() == Kind::Unauthorized => {
            Err(ApiError::detail(StatusCode::BAD_REQUEST, "LOGIN_BAD_CREDENTIALS"))
        }
        Err(error) if error.kind() == Kind::Busy => {
            let answer = ApiError::detail(StatusCode::TOO_MANY_REQUESTS, error.message());
            let wait = api.config.auth.login_window.get().as_secs();
            let mut response = answer.into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
            Ok(response)
        }
        Err(error) => Err(error.into()),
    }
}

/// Notes that a device logged out. Its token is for the device to forget: it
/// stays valid until it expires, since ending it here would mean ending those
/// of the user's other devices too. A password change ends them all.
pub(super) async fn logout(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> StatusCode {
    api.auth.audit(Some(&user.id), "logout", &user.email).await;
    StatusCode::NO_CONTENT
}

/// How one can log in.
pub(super) async fn config() -> Json<Value> {
    Json(json!({
        "auth_method": "email",
        "registration_enabled": false,
        "features": { "email_login": true, "user_id_login": false, "registration": false },
    }))
}

/// The fields of a form, url-encoded or multipart; none of any other body.
async fn form(request: Request) -> Result<Vec<(String, String)>, ApiError> {
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(FORM_TIMEOUT, axum::body::to_bytes(body, MAX_FORM))
        .await
        .map_err(|_| ApiError::detail(StatusCode::REQUEST_TIMEOUT, "Request Timeout"))?
        .map_err(|_| ApiError::detail(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Large"))?;
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let request = Request::from_parts(parts, Body::from(body));
    let malformed =
        || ApiError::detail(StatusCode::BAD_REQUEST, "There was an error parsing the body");

    if content_type.starts_with("application/x-www-form-urlencoded") {
        let form = Form::<Vec<(String, String)>>::from_request(request, &()).await;
        return form.map(|Form(fields)| fields).map_err(|_| malformed());
    }
    let mut fields = Vec::new();
    if content_type.starts_with("multipart/form-data") {
        let mut form = Multipart::from_request(request, &()).await.map_err(|_| malformed())?;
        while let Some(field) = form.next_field().await.map_err(|_| malformed())? {
            let name = field.name().unwrap_or_default().to_owned();
            fields.push((name, field.text().await.map_err(|_| malformed())?));
        }
    }
    Ok(fields)
}
