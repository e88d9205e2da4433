//! The generated password of the first administrator, kept in words until
//! somebody has chosen another one. Whoever reads the database reads the key
//! that signs tokens too, so this gives nothing away.

use serde::{Deserialize, Serialize};

use crate::base::error::{Context, Kind, Result};
use crate::store::Store;

/// The setting that holds it.
const SETTING: &str = "auth.first_password";

#[derive(Serialize, Deserialize)]
struct Kept {
    email: String,
    password: String,
    /// Tells whether the password is still the one in force.
    hash: String,
}

/// How the administrator logs in for the first time.
#[derive(Clone, PartialEq, Eq)]
pub struct FirstLogin {
    /// E-mail address.
    pub email: String,
    /// The generated password.
    pub password: String,
}

/// Keeps a generated password with its hash.
pub(super) async fn keep(store: &dyn Store, email: &str, password: &str, hash: &str) -> Result<()> {
    let kept = Kept { email: email.into(), password: password.into(), hash: hash.into() };
    let text = serde_json::to_string(&kept).context(Kind::Internal, "cannot keep the password")?;
    store.set_setting(SETTING, Some(&text)).await
}

/// The first login while nobody has chosen a password; none after that.
///
/// # Errors
/// What the store returns.
pub async fn first_login(store: &dyn Store) -> Result<Option<FirstLogin>> {
    let text = store.setting(SETTING).await?;
    let Some(kept) = text.and_then(|text| serde_json::from_str::<Kept>(&text).ok()) else {
        return Ok(None);
    };
    let user = store.user_by_email(&kept.email).await?;
    let in_force = user.is_some_and(|user| user.password_hash == kept.hash);
    Ok(in_force.then_some(FirstLogin { email: kept.email, password: kept.password }))
}

/// Forgets the generated password: somebody has chosen another one.
///
/// # Errors
/// What the store returns.
pub async fn forget(store: &dyn Store) -> Result<()> {
    store.set_setting(SETTING, None).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::testing::Fixture;
    use crate::store::{UserUpdate, Users};

    #[tokio::test]
    async fn a_password_is_told_until_another_one_is_chosen() {
        let fixture = Fixture::new();
        let store = &fixture.store;
        assert!(first_login(store).await.unwrap().is_none());
        let user = fixture.user("root").await;
        keep(store, &user.email, "abcd-efgh", &user.password_hash).await.unwrap();
        let login = first_login(store).await.unwrap().unwrap();
        assert_eq!((login.email, login.password.as_str()), (user.email.clone(), "abcd-efgh"));
        // By whatever way it was changed.
        let update = UserUpdate { password_hash: Some("other".into()), ..UserUpdate::default() };
        store.update_user(&user.id, update).await.unwrap();
        assert!(first_login(store).await.unwrap().is_none());
        forget(store).await.unwrap();
        assert_eq!(store.setting(SETTING).await.unwrap(), None);
    }
}
