use crate::base::error::{Kind, Result};
use crate::domain::ids::{ClientId, UserId};
use crate::domain::user::{Device, User};
use crate::store::testing::{Fixture, Rows, Tested, at, user};
use crate::store::{Deleted, UserData, UserUpdate};

pub(crate) async fn addresses_are_unique_in_any_case<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let mut anna = user("anna");
    anna.email = "Anna@Example.COM".into();
    f.store.add_user(&anna).await.unwrap();
    let found = f.store.user_by_email("ANNA@example.com").await.unwrap().unwrap();
    assert_eq!(found.email, "anna@example.com");
    assert_eq!(found.id, anna.id);

    let mut again = user("other");
    again.email = "anna@EXAMPLE.com".into();
    assert_eq!(f.store.add_user(&again).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(f.store.users().await.unwrap().len(), 1);
}

pub(crate) async fn a_new_password_or_a_logout_everywhere_ends_tokens_and_nothing_else_does<
    S: Tested,
>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let update = |update| f.store.update_user(&anna.id, update);

    let named = UserUpdate { display_name: Some("Anna".into()), ..UserUpdate::default() };
    let after = update(named).await.unwrap();
    assert_eq!((after.token_epoch, after.display_name.as_deref()), (0, Some("Anna")));

    let password = UserUpdate { password_hash: Some("new".into()), ..UserUpdate::default() };
    let after = update(password).await.unwrap();
    assert_eq!((after.token_epoch, after.password_hash.as_str()), (1, "new"));

    let out = UserUpdate { end_tokens: true, is_active: Some(false), ..UserUpdate::default() };
    let after = update(out).await.unwrap();
    assert_eq!((after.token_epoch, after.is_active), (2, false));
    assert_eq!(f.store.user(&anna.id).await.unwrap(), Some(after));

    let nobody = UserId::from_text("nobody");
    let error = f.store.update_user(&nobody, UserUpdate::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

pub(crate) async fn ended_tokens_are_known_until_they_expire_and_do_not_pile_up<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    assert_eq!(f.store.bearer(&anna.id, "t1").await.unwrap(), Some(anna.clone()));
    f.store.end_token(&anna.id, "t1", at(10), at(0)).await.unwrap();
    f.store.end_token(&anna.id, "t1", at(10), at(0)).await.unwrap();
    assert_eq!(f.store.bearer(&anna.id, "t1").await.unwrap(), None);
    assert_eq!(f.store.bearer(&anna.id, "t2").await.unwrap(), Some(anna.clone()));
    f.store.end_token(&anna.id, "t2", at(30), at(10)).await.unwrap();
    assert_eq!(f.store.count(Rows::EndedTokens).await, 1);

    for n in 0..1_000 {
        f.store.end_token(&anna.id, &format!("x{n}"), at(30), at(10)).await.unwrap();
    }
    // One more than are remembered: all tokens of anna have ended instead.
    assert_eq!(f.store.count(Rows::EndedTokens).await, 0);
    assert_eq!(f.store.user(&anna.id).await.unwrap().unwrap().token_epoch, 1);
}

pub(crate) async fn there_is_always_an_administrator<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let (anna, bert) = (f.user("anna").await, f.user("bert").await);
    let role = |is| UserUpdate { is_superuser: Some(is), ..UserUpdate::default() };
    f.store.update_user(&anna.id, role(true)).await.unwrap();
    let error = f.store.update_user(&anna.id, role(false)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    let off = UserUpdate { is_active: Some(false), ..UserUpdate::default() };
    assert!(f.store.update_user(&anna.id, off).await.is_err());
    assert!(f.store.user(&anna.id).await.unwrap().unwrap().is_active);
    f.store.update_user(&bert.id, role(true)).await.unwrap();
    f.store.update_user(&anna.id, role(false)).await.unwrap();

    let taken = UserUpdate { email: Some("BERT@example.com".into()), ..UserUpdate::default() };
    let error = f.store.update_user(&anna.id, taken).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    let new = UserUpdate { email: Some("Ann@example.com".into()), ..UserUpdate::default() };
    assert_eq!(f.store.update_user(&anna.id, new.clone()).await.unwrap().email, "ann@example.com");
    f.store.update_user(&anna.id, new).await.unwrap();
}

pub(crate) async fn a_user_who_owns_something_stays<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let (anna, bert) = (f.user("anna").await, f.user("bert").await);
    f.opened(&anna).await;
    assert_eq!(remove(&f, &anna).await.unwrap_err().kind(), Kind::Conflict);

    f.store.see_device(&device(&bert.id, "phone", 1)).await.unwrap();
    remove(&f, &bert).await.unwrap();
    assert!(f.store.devices(None).await.unwrap().is_empty());
    assert_eq!(remove(&f, &bert).await.unwrap_err().kind(), Kind::NotFound);
}

pub(crate) async fn a_device_keeps_its_first_time_and_its_owner<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let (anna, bert) = (f.user("anna").await, f.user("bert").await);
    f.store.see_device(&device(&anna.id, "phone", 1)).await.unwrap();
    f.store.see_device(&device(&anna.id, "phone", 9)).await.unwrap();
    f.store.see_device(&device(&bert.id, "watch", 2)).await.unwrap();

    let seen = f.store.devices(Some(&anna.id)).await.unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].first_seen, seen[0].last_seen), (at(1), at(9)));
    assert_eq!(f.store.devices(None).await.unwrap().len(), 2);

    let mut stolen = device(&anna.id, "phone", 10);
    stolen.user_id = bert.id;
    assert_eq!(f.store.see_device(&stolen).await.unwrap_err().kind(), Kind::Conflict);
}

pub(crate) async fn the_first_value_of_a_setting_stays<S: Tested>() {
    let f = Fixture::<S>::open().await;
    assert_eq!(f.store.setting("key").await.unwrap(), None);
    assert_eq!(f.store.setting_or_insert("key", "one").await.unwrap(), "one");
    assert_eq!(f.store.setting_or_insert("key", "two").await.unwrap(), "one");
    assert_eq!(f.store.setting("key").await.unwrap().as_deref(), Some("one"));
}

pub(crate) async fn the_audit_trail_outlives_its_actor<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    f.store.audit(at(1), Some(&anna.id), "login", "anna@example.com").await.unwrap();
    f.store.audit(at(2), None, "login-failed", "x@example.com").await.unwrap();
    remove(&f, &anna).await.unwrap();
    assert_eq!(f.store.actions().await, ["login", "login-failed", "user-removed"]);
}

async fn remove<S: Tested>(f: &Fixture<S>, user: &User) -> Result<Deleted> {
    f.store.delete_user(&user.id, UserData::default(), None, at(9)).await
}

fn device(user: &UserId, name: &str, seen: u64) -> Device {
    Device {
        client_id: ClientId::from_text(format!("{}-{name}", user.suffix())),
        user_id: user.clone(),
        device_name: Some(name.into()),
        first_seen: at(seen),
        last_seen: at(seen),
    }
}
