//! The user behind a request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};

use super::token::Token;
use crate::base::error::{Error, Kind, Result};
use crate::domain::user::User;
use crate::http::api::Api;
use crate::http::error::ApiError;

/// The cookie that carries a token.
pub const COOKIE: &str = "fastapiusersauth";

/// Somebody who is logged in, with the token that says so; 401 for anybody else.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who.
    pub user: User,
    token: Token,
}

/// Somebody who is logged in; 401 for anybody else.
#[derive(Clone, Debug)]
pub struct CurrentUser(pub User);

/// An administrator; 403 for other users.
#[derive(Clone, Debug)]
pub struct Superuser(pub User);

enum Credential<'a> {
    Header(&'a str),
    Cookie(&'a str),
}

impl Session {
    pub(super) fn token(&self) -> &str {
        self.token.expose()
    }
}

impl FromRequestParts<Arc<Api>> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let token = match credential(&parts.headers).ok_or_else(ApiError::unauthorized)? {
            Credential::Header(token) => token,
            Credential::Cookie(token) => {
                let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
                if !safe && !api.auth.trusts_origin(&parts.headers) {
                    return Err(ApiError::forbidden());
                }
                token
            }
        };
        let user = api.auth.verify(token).await?;
        Ok(Self { user, token: Token::from_text(token) })
    }
}

impl FromRequestParts<Arc<Api>> for CurrentUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        Ok(Self(Session::from_request_parts(parts, api).await?.user))
    }
}

impl FromRequestParts<Arc<Api>> for Superuser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let CurrentUser(user) = CurrentUser::from_request_parts(parts, api).await?;
        if user.is_superuser { Ok(Self(user)) } else { Err(ApiError::forbidden()) }
    }
}

/// The user of a WebSocket: by the token of the query, of the header, or of the
/// cookie; the last only on a page of this host.
///
/// # Errors
/// `Unauthorized`, saying why; or what the store returns.
pub async fn web_socket_user(
    api: &Api,
    headers: &HeaderMap,
    query_token: Option<&str>,
) -> Result<User> {
    let token = match (query_token, credential(headers)) {
        (Some(token), _) | (None, Some(Credential::Header(token))) => token,
        (None, Some(Credential::Cookie(token))) => {
            if !api.auth.trusts_origin(headers) {
                let message = "a cookie is accepted only from a page of this server";
                return Err(Error::new(Kind::Unauthorized, message));
            }
            token
        }
        (None, None) => return Err(Error::new(Kind::Unauthorized, "no token was given")),
    };
    api.auth.verify(token).await
}

/// The token of a request. A bearer header decides, even when it is wrong.
fn credential(headers: &HeaderMap) -> Option<Credential<'_>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| Credential::Header(token.trim()));
    }
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, token)| Credential::Cookie(token))
}
