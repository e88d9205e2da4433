//! Logging in and out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Form, FromRequest, Multipart, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::error::Kind;
use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, Detail, Problem, ValidationError};

/// The largest login form, in bytes.
const MAX_FORM: usize = 16 * 1024;

/// The time a client has to send its login form.
const FORM_TIMEOUT: Duration = Duration::from_secs(15);

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(login)).routes(routes!(logout)).routes(routes!(config))
}

/// Who wants to log in.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a schema: `form` reads both encodings")]
struct LoginForm {
    /// E-mail address.
    #[schema(min_length = 1)]
    username: String,
    #[schema(min_length = 1, format = Password)]
    password: String,
}

/// The token of a login.
#[derive(Serialize, ToSchema)]
struct BearerToken {
    access_token: String,
    /// Always `bearer`.
    token_type: &'static str,
}

/// Exchanges an e-mail address and a password for a token.
#[utoipa::path(post, path = "/auth/jwt/login", tag = "auth", security(()),
    request_body(content(
        (LoginForm = "application/x-www-form-urlencoded"),
        (LoginForm = "multipart/form-data"),
    )),
    responses(
        (status = 200, description = "The token", body = BearerToken),
        (status = 400, description = "Wrong credentials, or no form", body = Detail),
        (status = 408, description = "The form did not arrive in time", body = Detail),
        (status = 413, description = "The form is too large", body = Detail),
        (status = 422, description = "A field is missing", body = ValidationError),
        (status = 429, description = "Too many failed logins", body = Detail),
    ))]
async fn login(
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
            let access_token = token.expose().to_owned();
            Ok(Json(BearerToken { access_token, token_type: "bearer" }).into_response())
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
#[utoipa::path(post, path = "/auth/jwt/logout", tag = "auth",
    responses((status = 204, description = "Logged out")))]
async fn logout(State(api): State<Arc<Api>>, CurrentUser(user): CurrentUser) -> StatusCode {
    api.auth.audit(Some(&user.id), "logout", &user.email).await;
    StatusCode::NO_CONTENT
}

/// The ways to log in.
#[derive(Serialize, ToSchema)]
struct AuthConfig {
    auth_method: &'static str,
    registration_enabled: bool,
    features: AuthFeatures,
}

/// The ways to log in, one by one.
#[derive(Serialize, ToSchema)]
struct AuthFeatures {
    email_login: bool,
    user_id_login: bool,
    registration: bool,
}

/// How one can log in.
#[utoipa::path(get, path = "/api/auth/config", tag = "auth", security(()),
    responses((status = 200, description = "The ways", body = AuthConfig)))]
async fn config() -> Json<AuthConfig> {
    Json(AuthConfig {
        auth_method: "email",
        registration_enabled: false,
        features: AuthFeatures { email_login: true, user_id_login: false, registration: false },
    })
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
