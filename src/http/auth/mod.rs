//! Logins: who somebody is, and what proves it.

mod bootstrap;
mod extract;
mod origin;
pub mod password;
mod proxies;
pub mod setup;
pub mod throttle;
pub mod token;

use std::net::IpAddr;
use std::sync::Arc;

pub use bootstrap::{Bootstrap, NewUser, add_user, bootstrap_admin, check_email, normal_email};
pub use extract::{COOKIE, CurrentUser, Session, Superuser, web_socket_user};
pub use origin::Origins;
pub use token::Token;

use axum::http::HeaderMap;

use self::password::Passwords;
use self::proxies::Proxies;
use self::throttle::Throttle;
use self::token::Signer;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::metrics;
use crate::config::Config;
use crate::domain::ids::UserId;
use crate::domain::user::User;
use crate::store::Store;

/// The setting that holds the signing key when none is configured.
const KEY_SETTING: &str = "auth.secret_key";

/// The longest e-mail address, in bytes (RFC 5321 allows 254).
const MAX_EMAIL: usize = 254;

/// Checks passwords and tokens.
pub struct Auth {
    store: Arc<dyn Store>,
    clock: Clock,
    passwords: Passwords,
    signer: Signer,
    throttle: Throttle,
    proxies: Proxies,
    origins: Origins,
}

impl Auth {
    /// Reads or makes the signing key.
    ///
    /// # Errors
    /// What the store returns.
    pub async fn new(store: Arc<dyn Store>, clock: Clock, config: &Config) -> Result<Self> {
        let auth = &config.auth;
        let key = if auth.secret_key.is_empty() {
            let random: [u8; 32] = rand::random();
            let fresh = hex::encode(random);
            store.setting_or_insert(KEY_SETTING, &fresh).await?
        } else {
            auth.secret_key.expose().to_owned()
        };
        Ok(Self {
            store,
            clock,
            passwords: Passwords::new(auth.bcrypt_cost),
            signer: Signer::new(key.as_bytes(), auth.token_lifetime.get()),
            throttle: Throttle::new(auth.login_attempts.max(1), auth.login_window.get()),
            proxies: Proxies::new(&config.server.trusted_proxies),
            origins: Origins::new(&config.server.cors_origins),
        })
    }

    /// Exchanges a name and a password for a token. The name is the e-mail
    /// address, the user id, or the last six digits of the user id where only
    /// one user has them.
    ///
    /// # Errors
    /// `Unauthorized` when they do not belong to somebody who may log in,
    /// `Busy` after too many failures, or what the store returns.
    pub async fn login(&self, username: &str, password: &str, remote: IpAddr) -> Result<Token> {
        let name = normal_email(username);
        // What cannot be a name is not looked up, and not kept in the trail.
        let name = if name.len() > MAX_EMAIL { "(too long)" } else { name.as_str() };
        let user = self.find(name).await?;
        // By account, so that its names do not give one guess each.
        let account = user.as_ref().map_or(name, |user| user.email.as_str());
        let attempt = self
            .throttle
            .begin(remote, account, self.clock.monotonic())
            .inspect_err(|_| metrics::LOGIN_FAILURES.add(&["throttled"], 1.0))?;

        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let correct = self.passwords.verify(password, hash).await?;
        let subject = format!("{name} from {remote}");
        let Some(user) = user.filter(|user| correct && user.is_active) else {
            metrics::LOGIN_FAILURES.add(&["credentials"], 1.0);
            self.audit(None, "login-failed", &subject).await;
            return Err(Error::new(Kind::Unauthorized, "wrong e-mail address or password"));
        };
        self.throttle.succeeded(attempt);
        if self.passwords.is_outdated(&user.password_hash) {
            self.renew_hash(&user, password).await;
        }
        let token = self.signer.sign(&user, &self.clock)?;
        self.audit(Some(&user.id), "login", &subject).await;
        Ok(token)
    }

    /// Hashes a password anew that was right, as new ones are. What fails here is
    /// tried again at the next login.
    async fn renew_hash(&self, user: &User, password: &str) {
        // Too long for bcrypt: such a password keeps the hash it has.
        if password::check(password).is_err() {
            return;
        }
        let renewed = async {
            let fresh = self.passwords.hash(password).await?;
            self.store.renew_password_hash(&user.id, &user.password_hash, &fresh).await
        };
        if let Err(error) = renewed.await {
            tracing::warn!(user = %user.id, "an old password hash is kept: {}", error.report());
        }
    }

    /// The user of that name.
    async fn find(&self, name: &str) -> Result<Option<User>> {
        if name.contains('@') {
            return self.store.user_by_email(name).await;
        }
        if let Some(id) = UserId::parse(name) {
            return self.store.user(&id).await;
        }
        if name.len() != 6 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let mut users = self.store.users().await?;
        users.retain(|user| user.id.suffix() == name);
        // Two users of one suffix have to say more.
        Ok(if users.len() == 1 { users.pop() } else { None })
    }

    /// The user a token belongs to, as the store has them now.
    ///
    /// # Errors
    /// `Unauthorized` when the token is not ours, has ended, was ended by a
    /// logout or a password change, or its user may not log in; or what the
    /// store returns.
    pub async fn verify(&self, token: &str) -> Result<User> {
        let bearer = self.signer.verify(token, &self.clock)?;
        let user = self.store.bearer(&bearer.user, &bearer.hash).await?;
        user.filter(|user| user.is_active && user.token_epoch == bearer.epoch)
            .ok_or_else(|| Error::new(Kind::Unauthorized, "the token has ended; log in again"))
    }

    /// Ends the token of a session; other sessions of its user go on.
    ///
    /// # Errors
    /// What the store returns.
    pub async fn logout(&self, session: &Session) -> Result<()> {
        let now = self.clock.now();
        let bearer = self.signer.verify(session.token(), &self.clock)?;
        let (user, until) = (&session.user, bearer.expires_at);
        self.store.end_token(&user.id, &bearer.hash, until, now).await?;
        self.audit(Some(&user.id), "logout", &user.email).await;
        Ok(())
    }

    /// The hash of a password that a person chose.
    ///
    /// # Errors
    /// `BadInput` when it is too short or too long.
    pub async fn hash(&self, password: &str) -> Result<String> {
        password::check_chosen(password)?;
        self.passwords.hash(password).await
    }

    /// The address a request comes from: that of `peer`, or the one that a
    /// trusted proxy names.
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        self.proxies.client_address(peer, headers)
    }

    /// Whether a request that carries a cookie comes from one of our own pages,
    /// or from one of `server.cors_origins`.
    pub fn trusts_origin(&self, headers: &HeaderMap) -> bool {
        self.origins.trust(headers)
    }

    /// Other servers whose pages may use the API.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// Writes an audit row; what it tells of has happened, so a failure to
    /// write does not undo it, and is logged.
    pub async fn audit(&self, actor: Option<&UserId>, action: &str, subject: &str) {
        if let Err(error) = self.store.audit(self.clock.now(), actor, action, subject).await {
            tracing::error!(action, "an audit row was lost: {}", error.report());
        }
    }
}
