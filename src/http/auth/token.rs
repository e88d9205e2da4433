//! Tokens: JWTs signed with HS256, in the form existing clients got from
//! fastapi-users.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::clock::{Clock, Stamp, Timestamp};
use crate::base::error::{Context, Error, Kind, Result};
use crate::domain::ids::UserId;
use crate::domain::user::User;

/// Whom a token is meant for: the audience that fastapi-users writes.
const AUDIENCE: &str = "fastapi-users:auth";

/// A signed token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token that a request carries.
    pub(super) fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The token itself, for the answer to a login.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    aud: Vec<String>,
    /// Absent in tokens of the original, as are `epoch` and `jti`.
    #[serde(default)]
    iat: i64,
    exp: i64,
    #[serde(default)]
    epoch: i64,
    /// Random, so that two tokens of the same second can be told apart.
    #[serde(default)]
    jti: String,
    /// The course of wall time that the other times are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clk: Option<Stamp>,
}

/// Who a valid token belongs to, before the user is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The user.
    pub user: UserId,
    /// The user's token epoch when it was signed.
    pub epoch: i64,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Its hash, by which an ended one is known.
    pub hash: String,
}

/// Signs tokens and checks them.
pub struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    lifetime: Duration,
}

impl Signer {
    /// Signs with `key`; tokens end after `lifetime`.
    pub fn new(key: &[u8], lifetime: Duration) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        // Checked below, against the daemon's own clock.
        validation.validate_exp = false;
        Self {
            encoding: EncodingKey::from_secret(key),
            decoding: DecodingKey::from_secret(key),
            validation,
            lifetime,
        }
    }

    /// A token for `user`, good from now on.
    ///
    /// # Errors
    /// `Internal` when it cannot be signed.
    pub fn sign(&self, user: &User, clock: &Clock) -> Result<Token> {
        let now = clock.now();
        let claims = Claims {
            sub: user.id.to_string(),
            aud: vec![AUDIENCE.to_owned()],
            iat: now.seconds(),
            exp: now.plus(self.lifetime).seconds(),
            epoch: user.token_epoch,
            jti: format!("{:032x}", rand::random::<u128>()),
            clk: Some(clock.stamp()),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map(Token)
            .context(Kind::Internal, "cannot sign a token")
    }

    /// Whose token `text` is, when it is one of ours and has not ended by now. It
    /// lasts as long as it was made for, also when the machine's clock is set.
    ///
    /// # Errors
    /// `Unauthorized` in every other case.
    pub fn verify(&self, text: &str, clock: &Clock) -> Result<Bearer> {
        let refused = "the token is not valid; log in again";
        let token = jsonwebtoken::decode::<Claims>(text, &self.decoding, &self.validation)
            .context(Kind::Unauthorized, refused)?;
        let mut expires_at = Timestamp::from_millis(token.claims.exp.saturating_mul(1000));
        if let Some(stamp) = token.claims.clk {
            expires_at = clock.carried(expires_at, stamp);
        }
        if expires_at.seconds() <= clock.now().seconds() {
            return Err(Error::new(Kind::Unauthorized, "the token has expired; log in again"));
        }
        Ok(Bearer {
            user: UserId::from_text(token.claims.sub),
            epoch: token.claims.epoch,
            expires_at,
            hash: hex::encode(Sha256::digest(text)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: Timestamp = Timestamp::from_millis(1_753_190_000_000);

    fn user() -> User {
        User {
            id: UserId::from_text("507f1f77bcf86cd799439011"),
            email: "ann@example.com".into(),
            password_hash: String::new(),
            display_name: None,
            is_active: true,
            is_superuser: false,
            is_verified: true,
            token_epoch: 3,
            created_at: NOW,
        }
    }

    fn at(time: Timestamp) -> Clock {
        Clock::simulated(time)
    }

    fn signer() -> Signer {
        Signer::new(KEY, Duration::from_secs(3600))
    }

    fn forge(header: &Header, key: &[u8], claims: &serde_json::Value) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(key)).unwrap()
    }

    fn claims() -> serde_json::Value {
        serde_json::json!({
            "sub": "507f1f77bcf86cd799439011", "aud": [AUDIENCE], "exp": NOW.seconds() + 60,
        })
    }

    #[test]
    fn a_token_lasts_exactly_its_lifetime() {
        let token = signer().sign(&user(), &at(NOW)).unwrap();
        let bearer = signer().verify(token.expose(), &at(NOW)).unwrap();
        assert_eq!((bearer.user, bearer.epoch), (user().id, 3));
        assert_eq!(bearer.expires_at, Timestamp::from_millis(1_753_193_600_000));
        let other = signer().sign(&user(), &at(NOW)).unwrap();
        assert_ne!(signer().verify(other.expose(), &at(NOW)).unwrap().hash, bearer.hash);
        assert!(signer().verify(token.expose(), &at(NOW.plus(Duration::from_secs(3599)))).is_ok());
        let late = signer().verify(token.expose(), &at(NOW.plus(Duration::from_secs(3600))));
        assert_eq!(late.unwrap_err().kind(), Kind::Unauthorized);
        assert!(!format!("{token:?}").contains(token.expose()));
    }

    #[test]
    fn a_token_of_the_original_counts_as_epoch_zero() {
        let token = forge(&Header::new(Algorithm::HS256), KEY, &claims());
        assert_eq!(signer().verify(&token, &at(NOW)).unwrap().epoch, 0);
    }

    #[test]
    fn forged_tokens_are_refused() {
        let hs256 = Header::new(Algorithm::HS256);
        let without = |claim: &str| {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(claim);
            forge(&hs256, KEY, &claims)
        };
        let mut other_audience = claims();
        other_audience["aud"] = serde_json::json!(["fastapi-users:reset"]);
        // {"alg":"none","typ":"JWT"} and the claims above, with no signature.
        let signed = forge(&hs256, KEY, &claims());
        let body = signed.split('.').nth(1).unwrap();
        let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.");
        for (what, token) in [
            ("another key", forge(&hs256, b"another key", &claims())),
            ("another algorithm", forge(&Header::new(Algorithm::HS512), KEY, &claims())),
            ("no algorithm", none),
            ("another audience", forge(&hs256, KEY, &other_audience)),
            ("no audience", without("aud")),
            ("no expiry", without("exp")),
            ("no subject", without("sub")),
            ("no signature", signed.rsplit_once('.').unwrap().0.to_owned()),
            ("nothing", String::new()),
        ] {
            let outcome = signer().verify(&token, &at(NOW));
            assert_eq!(outcome.unwrap_err().kind(), Kind::Unauthorized, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_altered_token_is_accepted(position in 0usize..400, byte in proptest::char::any()) {
            let token = signer().sign(&user(), &at(NOW)).unwrap();
            let mut altered: Vec<char> = token.expose().chars().collect();
            let position = position % altered.len();
            altered[position] = byte;
            let altered: String = altered.into_iter().collect();
            prop_assume!(altered != token.expose());
            // The last digit of a signature carries bits that are not used, and
            // the decoder refuses those set, so any change is a refusal.
            prop_assert!(signer().verify(&altered, &at(NOW)).is_err());
        }
    }
}
