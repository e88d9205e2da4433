//! Requests to services that speak HTTP: over TLS with the roots of the system,
//! with limits on time and size, and with no secret in a log or an error.

use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONNECTION, HeaderMap, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode, Upgraded};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::Fault;
use super::authorities::{Authorities, distrust, is_distrust};
use crate::base::error::{Context, Error, Kind, Result};
use crate::config::{self, Secret};

/// The largest answer: hours of words, or a batch of vectors.
const MAX_ANSWER: usize = 32 << 20;
/// The longest line of an answer that comes in lines.
const MAX_LINE: usize = 1 << 20;
/// Of a refusal so much is read, and so much is told.
const MAX_REFUSAL: usize = 16 << 10;
const MAX_TOLD: usize = 300;
/// Refusals of a request that may be over in a moment.
const PASSING: [StatusCode; 3] =
    [StatusCode::REQUEST_TIMEOUT, StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS];

/// An open WebSocket.
pub type Socket = WebSocketStream<Upgraded>;

/// One server, and how to show who asks.
#[derive(Clone, Debug)]
pub struct Http {
    name: &'static str,
    client: Client,
    base: String,
    secret: Secret,
    total: Duration,
}

impl Http {
    /// The server at `base`, called `name` in messages, which is shown
    /// `SCHEME KEY` unless the key is empty. A request may take `total`.
    ///
    /// # Errors
    /// `Config` when the key or the certificates cannot be used.
    pub fn new(
        name: &'static str,
        base: &str,
        (scheme, key): (&str, &Secret),
        total: Duration,
        config: &config::Remote,
    ) -> Result<Self> {
        let mut headers = HeaderMap::new();
        if !key.is_empty() {
            let mut value =
                HeaderValue::from_str(&format!("{scheme} {}", key.expose())).map_err(|_| {
                    Error::new(
                        Kind::Config,
                        format!("the key of {name} has characters that no key has"),
                    )
                })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = client(config)?
            .default_headers(headers)
            .build()
            .context(Kind::Internal, "cannot set up HTTPS")?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { name, client, base, secret: key.clone(), total })
    }

    /// A request for `path`, to be given to one of the other methods.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).timeout(self.total)
    }

    /// Time that a request may take which does not name another.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The answer to `request` as JSON.
    ///
    /// # Errors
    /// A [`Fault`] with a message for people that names the service.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Fault> {
        let mut response = self.send(request).await?;
        let body = self.read(&mut response, MAX_ANSWER).await?;
        serde_json::from_slice(&body).map_err(|error| {
            // What it holds may be what somebody said: it is not told.
            let message = format!("{} answers something else than it should", self.name);
            Fault::Passing(Error::new(Kind::Unavailable, message).with_source(error), None)
        })
    }

    /// Opens a WebSocket at `path` (RFC 6455), with `query` behind it.
    ///
    /// # Errors
    /// As [`Http::json`].
    pub async fn web_socket(&self, path: &str, query: &[(&str, &str)]) -> Result<Socket, Fault> {
        let key = generate_key();
        let request = self
            .request(Method::GET, path)
            .query(query)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let response = request.send().await.map_err(|error| self.broken(error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(match response.status().is_success() {
                true => Fault::passing(format!("{} does not open a WebSocket", self.name)),
                false => self.refusal(response).await,
            });
        }
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accepted
            .is_none_or(|value| value.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes())
        {
            return Err(Fault::passing(format!("{} opens another WebSocket", self.name)));
        }
        let stream = response.upgrade().await.map_err(|error| self.broken(error))?;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MAX_LINE))
            .max_frame_size(Some(MAX_LINE));
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, Some(limits)).await)
    }

    /// Asks for an upgrade in the words of somebody else, whose `headers` those are; the
    /// headers of the answer, and the connection.
    ///
    /// # Errors
    /// As [`Http::json`].
    pub async fn upgrade(
        &self,
        path: &str,
        headers: HeaderMap,
    ) -> Result<(HeaderMap, Upgraded), Fault> {
        let request = self.request(Method::GET, path).headers(headers);
        let response = request.send().await.map_err(|error| self.broken(error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(response).await);
        }
        let headers = response.headers().clone();
        let stream = response.upgrade().await.map_err(|error| self.broken(error))?;
        Ok((headers, stream))
    }

    /// Gives each line of the answer to `each` as it comes, until that is false
    /// or there are no more.
    ///
    /// # Errors
    /// As [`Http::json`], and what `each` returns.
    pub async fn lines(
        &self,
        request: RequestBuilder,
        mut each: impl FnMut(&str) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let mut response = self.send(request).await?;
        let mut rest: Vec<u8> = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| self.broken(error))?;
            let end = chunk.is_none();
            rest.extend_from_slice(&chunk.unwrap_or_default());
            let mut start = 0;
            while let Some(length) = rest.iter().skip(start).position(|byte| *byte == b'\n') {
                let line = rest.get(start..start + length).unwrap_or_default();
                if !each(String::from_utf8_lossy(line).trim())? {
                    return Ok(());
                }
                start += length + 1;
            }
            rest.drain(..start);
            if end {
                let last = String::from_utf8_lossy(&rest);
                if !last.trim().is_empty() {
                    each(last.trim())?;
                }
                return Ok(());
            }
            if rest.len() > MAX_LINE {
                return Err(Fault::passing(format!("{} answers without end", self.name)));
            }
        }
    }

    /// Sends `request`; an answer other than success is a fault.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Fault> {
        let response = request.send().await.map_err(|error| self.broken(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    async fn read(&self, response: &mut Response, limit: usize) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            if body.len() + chunk.len() > limit {
                let message = format!("{} answers more than {limit} bytes", self.name);
                return Err(Fault::passing(message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn broken(&self, error: reqwest::Error) -> Fault {
        if is_distrust(&error) {
            let error =
                Error::new(Kind::Unavailable, distrust(self.name)).with_source(error.without_url());
            return Fault::Lasting(error);
        }
        let (kind, what) = match (error.is_timeout(), error.is_connect()) {
            (true, false) => (Kind::Timeout, "does not answer in time"),
            (_, true) => (Kind::Unavailable, "cannot be reached"),
            _ => (Kind::Unavailable, "broke off its answer"),
        };
        let message = format!("{} {what}", self.name);
        Fault::Passing(Error::new(kind, message).with_source(error.without_url()), None)
    }

    async fn refusal(&self, mut response: Response) -> Fault {
        let (name, status) = (self.name, response.status());
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
        let body = self.read(&mut response, MAX_REFUSAL).await.unwrap_or_default();
        let error = |kind, message: String| {
            let error = Error::new(kind, message);
            // For the log: whoever sees the message may be anybody.
            match self.told(&body) {
                Some(said) => error.with_source(said),
                None => error,
            }
        };
        match status {
            // Their words on keys have pieces of the key in them.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Fault::Lasting(Error::new(
                Kind::Unavailable,
                format!("{name} refuses the key ({status}); correct it in the configuration"),
            )),
            StatusCode::NOT_FOUND | StatusCode::PAYMENT_REQUIRED => Fault::Lasting(error(
                Kind::Unavailable,
                format!("{name} answers {status}; correct its url or model"),
            )),
            status if status.is_redirection() => Fault::Lasting(error(
                Kind::Unavailable,
                format!("{name} is elsewhere ({status}); correct its url"),
            )),
            status if status.is_server_error() || PASSING.contains(&status) => {
                Fault::Passing(error(Kind::Unavailable, format!("{name} answers {status}")), after)
            }
            status => {
                Fault::Refused(error(Kind::BadInput, format!("{name} refuses it ({status})")))
            }
        }
    }

    /// What an error's body says in the form of one of the services, without
    /// the key.
    fn told(&self, body: &[u8]) -> Option<String> {
        let body = serde_json::from_slice::<Value>(body).ok()?;
        let places = ["/error/message", "/error", "/err_msg", "/message", "/detail"];
        let said = places.iter().find_map(|place| body.pointer(place)?.as_str())?;
        let said = match self.secret.expose() {
            "" => said.to_owned(),
            secret => said.replace(secret, "***"),
        };
        Some(said.chars().filter(|c| !c.is_control()).take(MAX_TOLD).collect())
    }
}

/// A client of any server. How long a request may take is its own affair.
pub(super) fn client(config: &config::Remote) -> Result<ClientBuilder> {
    crate::base::tls::install();
    let authorities = Authorities::read(config)?;
    let certificates = authorities.map(|read| read.certificates()).transpose();
    let certificates = certificates.context(Kind::Config, "remote.ca cannot be used")?;
    let certificates = certificates.unwrap_or_default();
    Ok(Client::builder()
        .user_agent(concat!("friend-lite/", env!("CARGO_PKG_VERSION")))
        // A key is for one server.
        .redirect(Policy::none())
        .connect_timeout(config.connect_timeout.get())
        .tls_certs_merge(certificates))
}
