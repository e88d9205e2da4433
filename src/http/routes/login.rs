//! Logging in and out.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Form, FromRequest, Multipart, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::error::{Context, Kind};
use crate::http::api::Api;
use crate::http::auth::{COOKIE, Session, Token};
use crate::http::body;
use crate::http::error::{ApiError, Detail, Problem, ValidationError};
use crate::http::openapi::at;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(cookie_login))
        .routes(routes!(cookie_logout))
        .routes(routes!(config))
        .routes(routes!(health))
        .routes(at("/api/auth/health", routes!(health)))
}

/// Who wants to log in.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a schema: `form` reads both encodings")]
struct LoginForm {
    /// E-mail address, user id, or the last six digits of the user id.
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

/// Exchanges a name and a password for a token.
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
    Ok(match attempt(&api, peer, request).await? {
        Ok(token) => {
            let access_token = token.expose().to_owned();
            Json(BearerToken { access_token, token_type: "bearer" }).into_response()
        }
        Err(refusal) => refusal,
    })
}

/// Exchanges a name and a password for a cookie.
#[utoipa::path(post, path = "/auth/cookie/login", tag = "auth", security(()),
    request_body(content(
        (LoginForm = "application/x-www-form-urlencoded"),
        (LoginForm = "multipart/form-data"),
    )),
    responses(
        (status = 204, description = "Logged in; the cookie is set"),
        (status = 400, description = "Wrong credentials, or no form", body = Detail),
        (status = 408, description = "The form did not arrive in time", body = Detail),
        (status = 413, description = "The form is too large", body = Detail),
        (status = 422, description = "A field is missing", body = ValidationError),
        (status = 429, description = "Too many failed logins", body = Detail),
    ))]
async fn cookie_login(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response, ApiError> {
    Ok(match attempt(&api, peer, request).await? {
        Ok(token) => {
            let lifetime = api.config.auth.token_lifetime.get().as_secs();
            (StatusCode::NO_CONTENT, [cookie(&api, token.expose(), lifetime)?]).into_response()
        }
        Err(refusal) => refusal,
    })
}

/// A login with the form of `request`: the token, or the answer that refuses it.
async fn attempt(
    api: &Api,
    peer: SocketAddr,
    request: Request,
) -> Result<Result<Token, Response>, ApiError> {
    let address = api.auth.client_address(peer.ip(), request.headers());
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
    match api.auth.login(username, password, address).await {
        Ok(token) => Ok(Ok(token)),
        Err(error) if error.kind() == Kind::Unauthorized => {
            Err(ApiError::detail(StatusCode::BAD_REQUEST, "LOGIN_BAD_CREDENTIALS"))
        }
        Err(error) if error.kind() == Kind::Busy => {
            let answer = ApiError::detail(StatusCode::TOO_MANY_REQUESTS, error.message());
            let wait = api.config.auth.login_window.get().as_secs();
            let mut response = answer.into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
            Ok(Err(response))
        }
        Err(error) => Err(error.into()),
    }
}

/// Ends the token of this request. Those of the user's other devices go on; a
/// password change ends them all.
#[utoipa::path(post, path = "/auth/jwt/logout", tag = "auth",
    responses((status = 204, description = "Logged out")))]
async fn logout(State(api): State<Arc<Api>>, session: Session) -> Result<StatusCode, ApiError> {
    api.auth.logout(&session).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the token of this request, and has the browser forget the cookie.
#[utoipa::path(post, path = "/auth/cookie/logout", tag = "auth",
    responses((status = 204, description = "Logged out")))]
async fn cookie_logout(
    State(api): State<Arc<Api>>,
    session: Session,
) -> Result<Response, ApiError> {
    api.auth.logout(&session).await?;
    Ok((StatusCode::NO_CONTENT, [cookie(&api, "", 0)?]).into_response())
}

/// The header that sets the cookie for `lifetime` seconds.
pub(super) fn cookie(
    api: &Api,
    value: &str,
    lifetime: u64,
) -> Result<(HeaderName, HeaderValue), ApiError> {
    let secure = if api.config.auth.cookie_secure { "; Secure" } else { "" };
    let text =
        format!("{COOKIE}={value}; HttpOnly; Max-Age={lifetime}; Path=/; SameSite=lax{secure}");
    let value = HeaderValue::from_str(&text).context(Kind::Internal, "cannot set a cookie")?;
    Ok((header::SET_COOKIE, value))
}

/// How logins are.
#[derive(Serialize, ToSchema)]
struct AuthHealth {
    /// `healthy`.
    status: &'static str,
    /// Seconds since the Unix epoch.
    timestamp: i64,
    auth_method: &'static str,
    /// Seconds that a token lasts.
    token_lifetime_seconds: u64,
}

/// Whether one can log in: the store of users answers.
#[utoipa::path(get, path = "/auth/health", tag = "auth", security(()),
    responses((status = 200, description = "One can", body = AuthHealth)))]
async fn health(State(api): State<Arc<Api>>) -> Result<Json<AuthHealth>, ApiError> {
    api.store.user_by_email(&api.config.auth.admin_email).await?;
    Ok(Json(AuthHealth {
        status: "healthy",
        timestamp: api.clock.now().seconds(),
        auth_method: "email",
        token_lifetime_seconds: api.config.auth.token_lifetime.get().as_secs(),
    }))
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
        features: AuthFeatures { email_login: true, user_id_login: true, registration: false },
    })
}

/// The fields of a form, url-encoded or multipart; none of any other body.
pub(super) async fn form(request: Request) -> Result<Vec<(String, String)>, ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::read(Request::from_parts(parts.clone(), body), &()).await?;
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
