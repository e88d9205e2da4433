//! The first administrator.

use super::password::{self, Passwords};
use super::setup;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::domain::ids::UserId;
use crate::domain::user::User;
use crate::store::{Store, UserUpdate};

/// The administrator that was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// E-mail address to log in with.
    pub email: String,
    /// The password, only when it was generated: to be shown once.
    pub password: Option<String>,
}

/// Makes an administrator when there is none. A user who already has the
/// configured address becomes one and keeps their password.
///
/// # Errors
/// `Config` when the configured address or password cannot be used, or what the
/// store returns.
pub async fn bootstrap_admin(
    store: &dyn Store,
    config: &Config,
    clock: &Clock,
) -> Result<Option<Bootstrap>> {
    if store.users().await?.iter().any(|user| user.is_superuser) {
        return Ok(None);
    }
    let email = normal_email(&config.auth.admin_email);
    check_email(&email)
        .map_err(|error| Error::new(Kind::Config, format!("auth.admin_email: {error}")))?;
    if let Some(user) = store.user_by_email(&email).await? {
        let update = UserUpdate { is_superuser: Some(true), ..UserUpdate::default() };
        store.update_user(&user.id, update).await?;
        store.audit(clock.now(), None, "user-promoted", &email).await?;
        return Ok(Some(Bootstrap { email, password: None }));
    }

    let configured = config.auth.admin_password.expose();
    let generated = configured.is_empty().then(password::generate);
    let password = generated.as_deref().unwrap_or(configured);
    password::check(password)
        .map_err(|error| Error::new(Kind::Config, format!("auth.admin_password: {error}")))?;
    let hash = Passwords::new(config.auth.bcrypt_cost).hash(password).await?;
    if let Some(password) = &generated {
        // First: an administrator whose password nobody can read is of no use.
        setup::keep(store, &email, password, &hash).await?;
    }
    let admin = NewUser { is_superuser: true, ..NewUser::new(&email, hash, Some("Administrator")) };
    add_user(store, clock, None, admin).await?;
    Ok(Some(Bootstrap { email, password: generated }))
}

/// A user to be made.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// E-mail address, in any case.
    pub email: String,
    /// Hash of the password.
    pub password_hash: String,
    /// A name to show.
    pub display_name: Option<String>,
    /// May log in.
    pub is_active: bool,
    /// May see and manage everything.
    pub is_superuser: bool,
    /// Address confirmed.
    pub is_verified: bool,
}

impl NewUser {
    /// One who may log in, and is no administrator.
    pub fn new(email: &str, password_hash: String, display_name: Option<&str>) -> Self {
        Self {
            email: email.to_owned(),
            password_hash,
            display_name: display_name.map(str::to_owned),
            is_active: true,
            is_superuser: false,
            is_verified: true,
        }
    }
}

/// Adds a user, with the audit row of who did it.
///
/// # Errors
/// `BadInput` when the e-mail address is none, `Conflict` when it is taken, or
/// what the store returns.
pub async fn add_user(
    store: &dyn Store,
    clock: &Clock,
    actor: Option<&UserId>,
    new: NewUser,
) -> Result<User> {
    let email = normal_email(&new.email);
    check_email(&email)?;
    let now = clock.now();
    let user = User {
        id: UserId::generate(now.seconds()),
        email,
        password_hash: new.password_hash,
        display_name: new.display_name,
        is_active: new.is_active,
        is_superuser: new.is_superuser,
        is_verified: new.is_verified,
        token_epoch: 0,
        created_at: now,
    };
    store.add_user(&user).await?;
    store.audit(now, actor, "user-created", &user.email).await?;
    Ok(user)
}

/// The form in which addresses are kept and compared.
pub fn normal_email(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Whether `email` looks like an address; only a message to it could tell more.
///
/// # Errors
/// `BadInput` when it does not.
pub fn check_email(email: &str) -> Result<()> {
    let plausible = email.len() <= super::MAX_EMAIL
        && email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
        && !email.contains(|c: char| c.is_whitespace() || c.is_control());
    if plausible {
        return Ok(());
    }
    Err(Error::new(Kind::BadInput, "an e-mail address is needed, like name@example.com"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::store::Users;
    use crate::store::sqlite::testing::{Fixture, at};

    fn config() -> Config {
        let mut config = Config::default();
        config.auth.bcrypt_cost = 4;
        config.auth.admin_email = "Root@Example.com".into();
        config
    }

    #[tokio::test]
    async fn the_first_start_makes_an_administrator_and_shows_the_password_once() {
        let fixture = Fixture::new();
        let (config, clock) = (config(), Clock::simulated(at(0)));
        let made = bootstrap_admin(&fixture.store, &config, &clock).await.unwrap().unwrap();
        assert_eq!(made.email, "root@example.com");
        let user = fixture.store.user_by_email("root@example.com").await.unwrap().unwrap();
        assert!(user.is_superuser && user.is_active);
        let hash = Some(user.password_hash);
        let password = made.password.unwrap();
        assert!(Passwords::new(4).verify(&password, hash).await.unwrap());
        let kept = setup::first_login(&fixture.store).await.unwrap().unwrap();
        assert_eq!((kept.email.as_str(), kept.password), ("root@example.com", password));
        assert!(bootstrap_admin(&fixture.store, &config, &clock).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_configured_password_is_used_and_not_shown() {
        let fixture = Fixture::new();
        let (mut config, clock) = (config(), Clock::simulated(at(0)));
        config.auth.admin_password = Secret::new("x".repeat(73));
        let error = bootstrap_admin(&fixture.store, &config, &clock).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Config);
        config.auth.admin_password = Secret::new("short");
        let made = bootstrap_admin(&fixture.store, &config, &clock).await.unwrap().unwrap();
        assert_eq!(made.password, None);
        let user = fixture.store.user_by_email(&made.email).await.unwrap().unwrap();
        assert!(Passwords::new(4).verify("short", Some(user.password_hash)).await.unwrap());
    }

    #[tokio::test]
    async fn a_user_of_that_address_is_promoted_and_keeps_the_password() {
        let fixture = Fixture::new();
        let user = fixture.user("root").await;
        let (config, clock) = (config(), Clock::simulated(at(0)));
        let made = bootstrap_admin(&fixture.store, &config, &clock).await.unwrap().unwrap();
        assert_eq!(made.password, None);
        let now = fixture.store.user(&user.id).await.unwrap().unwrap();
        assert!(now.is_superuser);
        assert_eq!(now.password_hash, user.password_hash);
    }

    #[test]
    fn addresses_are_checked_for_form_only() {
        for good in ["a@b", "ann.lee+x@example.com", "j\u{fc}rgen@example.org"] {
            assert!(check_email(good).is_ok(), "{good}");
        }
        for bad in ["", "ann", "@host", "name@", "a b@c", "a@b\n"] {
            assert!(check_email(bad).is_err(), "{bad}");
        }
        assert_eq!(normal_email("  Ann@Example.COM "), "ann@example.com");
    }
}
