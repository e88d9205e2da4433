//! Logins: who somebody is, and what proves it.

mod bootstrap;
mod extract;
mod origin;
pub mod password;
pub mod throttle;
pub mod token;

use std::net::IpAddr;
use std::sync::Arc;

pub use bootstrap::{Bootstrap, add_user, bootstrap_admin, normal_email};
pub use extract::{COOKIE, CurrentUser, Superuser, web_socket_user};
pub use token::Token;

use self::password::Passwords;
use self::throttle::Throttle;
use self::token::Signer;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
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
            let fresh: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
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
        })
    }

    /// Exchanges an e-mail address and a password for a token.
    ///
    /// # Errors
    /// `Unauthorized` when they do not belong to somebody who may log in,
    /// `Busy` after too many failures, or what the store returns.
    pub async fn login(&self, username: &str, password: &str, remote: IpAddr) -> Result<Token> {
        let email = normal_email(username);
        // What cannot be an address is not looked up, and not kept in the trail.
        let email = if email.len() > MAX_EMAIL { "(too long)" } else { email.as_str() };
        let attempt = self.throttle.begin(remote, email, self.clock.monotonic())?;

        let user = self.store.user_by_email(email).await?;
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let correct = self.passwords.verify(password, hash).await?;
        let subject = format!("{email} from {remote}");
        let Some(user) = user.filter(|user| correct && user.is_active) else {
            self.audit(None, "login-failed", &subject).await;
            return Err(Error::new(Kind::Unauthorized, "wrong e-mail address or password"));
        };
        self.throttle.succeeded(attempt);
        let token = self.signer.sign(&user, self.clock.now())?;
        self.audit(Some(&user.id), "login", &subject).await;
        Ok(token)
    }

    /// The user a token belongs to, as the store has them now.
    ///
    /// # Errors
    /// `Unauthorized` when the token is not ours, has ended, was ended by a
    /// password change, or its user may not log in; or what the store returns.
    pub async fn verify(&self, token: &str) -> Result<User> {
        let bearer = self.signer.verify(token, self.clock.now())?;
        let user = self.store.user(&bearer.user).await?;
        user.filter(|user| user.is_active && user.token_epoch == bearer.epoch)
            .ok_or_else(|| Error::new(Kind::Unauthorized, "the token has ended; log in again"))
    }

    /// Writes an audit row; what it tells of has happened, so a failure to
    /// write does not undo it, and is logged.
    pub async fn audit(&self, actor: Option<&UserId>, action: &str, subject: &str) {
        if let Err(error) = self.store.audit(self.clock.now(), actor, action, subject).await {
            tracing::error!(action, "an audit row was lost: {}", error.report());
        }
    }
}
