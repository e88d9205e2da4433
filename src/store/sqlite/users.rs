//! People, devices, settings, and the audit trail.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::{SqliteStore, rows};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::ids::UserId;
use crate::domain::user::{Device, User};
use crate::store::{UserUpdate, Users};

#[async_trait]
impl Users for SqliteStore {
    async fn add_user(&self, user: &User) -> Result<()> {
        let user = user.clone();
        self.write(move |tx| {
            if by_email(tx, &user.email)?.is_some() {
                let email = user.email.to_lowercase();
                return Err(Error::new(Kind::Conflict, format!("{email} is taken")));
            }
            insert(tx, &user)
        })
        .await
    }

    async fn user(&self, id: &UserId) -> Result<Option<User>> {
        let id = id.clone();
        self.read(move |db| {
            rows::first(db, "select * from users where id = ?1", [id.as_str()], rows::user)
        })
        .await
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        let email = email.to_owned();
        self.read(move |db| by_email(db, &email)).await
    }

    async fn bearer(&self, id: &UserId, token: &str) -> Result<Option<User>> {
        let (id, token) = (id.clone(), token.to_owned());
        self.read(move |db| {
            let sql = "select * from users where id = ?1
                       and not exists (select 1 from ended_tokens where token = ?2)";
            rows::first(db, sql, [id.as_str(), &token], rows::user)
        })
        .await
    }

    async fn end_token(
        &self,
        id: &UserId,
        token: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        let (id, token) = (id.clone(), token.to_owned());
        self.write(move |tx| {
            rows::run(tx, "delete from ended_tokens where expires_at <= ?1", [now.millis()])?;
            let kept: u64 = tx
                .prepare_cached("select count(*) from ended_tokens where user_id = ?1")?
                .query_row([id.as_str()], |row| row.get::<_, u32>(0))?
                .into();
            if kept >= MAX_ENDED_TOKENS {
                // Too many to remember one by one: all of this user's end.
                rows::run(
                    tx,
                    "update users set token_epoch = token_epoch + 1 where id = ?1",
                    [id.as_str()],
                )?;
                rows::run(tx, "delete from ended_tokens where user_id = ?1", [id.as_str()])?;
                return Ok(());
            }
            rows::run(
                tx,
                "insert into ended_tokens (token, user_id, expires_at) values (?1, ?2, ?3)
                 on conflict do nothing",
                params![token, id.as_str(), until.millis()],
            )?;
            Ok(())
        })
        .await
    }

    async fn users(&self) -> Result<Vec<User>> {
        self.read(|db| rows::all(db, "select * from users order by created_at, id", [], rows::user))
            .await
    }

    async fn update_user(&self, id: &UserId, update: UserUpdate) -> Result<User> {
        let id = id.clone();
        self.write(move |tx| {
            let ends_tokens = update.end_tokens || update.password_hash.is_some();
            let email = update.email.map(|email| email.to_lowercase());
            if let Some(email) = &email
                && rows::first(tx, USER_BY_EMAIL, [email], rows::user)?
                    .is_some_and(|other| other.id != id)
            {
                return Err(Error::new(Kind::Conflict, format!("{email} is taken")));
            }
            let had_admin = has_admin(tx)?;
            let user = rows::first(
                tx,
                "update users set
                     email = coalesce(?7, email),
                     is_verified = coalesce(?8, is_verified),
                     password_hash = coalesce(?2, password_hash),
                     display_name = coalesce(?3, display_name),
                     is_active = coalesce(?4, is_active),
                     is_superuser = coalesce(?5, is_superuser),
                     token_epoch = token_epoch + ?6
                 where id = ?1 returning *",
                params![
                    id.as_str(),
                    update.password_hash,
                    update.display_name,
                    update.is_active,
                    update.is_superuser,
                    i64::from(ends_tokens),
                    email,
                    update.is_verified,
                ],
                rows::user,
            )?
            .ok_or_else(no_user)?;
            if had_admin && !has_admin(tx)? {
                return Err(Error::new(
                    Kind::Conflict,
                    "this is the last administrator; make somebody else one first",
                ));
            }
            Ok(user)
        })
        .await
    }

    async fn renew_password_hash(&self, id: &UserId, from: &str, to: &str) -> Result<()> {
        let (id, from, to) = (id.clone(), from.to_owned(), to.to_owned());
        self.write(move |tx| {
            let sql = "update users set password_hash = ?3 where id = ?1 and password_hash = ?2";
            rows::run(tx, sql, [id.as_str(), &from, &to]).map(|_| ())
        })
        .await
    }

    async fn see_device(&self, device: &Device) -> Result<()> {
        let device = device.clone();
        self.write(move |tx| {
            let changed = rows::run(
                tx,
                "insert into devices (client_id, user_id, device_name, first_seen, last_seen)
                 values (?1, ?2, ?3, ?4, ?5)
                 on conflict (client_id) do update set
                     device_name = coalesce(excluded.device_name, device_name),
                     last_seen = max(last_seen, excluded.last_seen)
                 where user_id = excluded.user_id",
                params![
                    device.client_id.as_str(),
                    device.user_id.as_str(),
                    device.device_name,
                    device.first_seen.millis(),
                    device.last_seen.millis(),
                ],
            )?;
            match changed {
                0 => Err(Error::new(Kind::Conflict, "this device belongs to another user")),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn devices(&self, user: Option<&UserId>) -> Result<Vec<Device>> {
        let user = user.cloned();
        self.read(move |db| match user {
            Some(user) => rows::all(
                db,
                "select * from devices where user_id = ?1 order by first_seen, client_id",
                [user.as_str()],
                rows::device,
            ),
            None => rows::all(
                db,
                "select * from devices order by first_seen, client_id",
                [],
                rows::device,
            ),
        })
        .await
    }

    async fn setting(&self, key: &str) -> Result<Option<String>> {
        let key = key.to_owned();
        self.read(move |db| rows::first(db, SETTING, [key], |row| row.get(0))).await
    }

    async fn setting_or_insert(&self, key: &str, value: &str) -> Result<String> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.write(move |tx| {
            rows::run(
                tx,
                "insert into settings (key, value) values (?1, ?2) on conflict do nothing",
                [&key, &value],
            )?;
            Ok(rows::first(tx, SETTING, [&key], |row| row.get(0))?.unwrap_or(value))
        })
        .await
    }

    async fn set_setting(&self, key: &str, value: Option<&str>) -> Result<()> {
        let (key, value) = (key.to_owned(), value.map(str::to_owned));
        self.write(move |tx| {
            match value {
                Some(value) => rows::run(
                    tx,
                    "insert into settings (key, value) values (?1, ?2)
                     on conflict do update set value = excluded.value",
                    [&key, &value],
                )?,
                None => rows::run(tx, "delete from settings where key = ?1", [&key])?,
            };
            Ok(())
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        self.write(|_| Ok(())).await
    }

    async fn audit(
        &self,
        at: Timestamp,
        actor: Option<&UserId>,
        action: &str,
        subject: &str,
    ) -> Result<()> {
        let (actor, action, subject) = (actor.cloned(), action.to_owned(), subject.to_owned());
        self.write(move |tx| audit(tx, at, actor.as_ref(), &action, &subject)).await
    }
}

/// The user of that e-mail address, in any case.
pub(super) fn by_email(db: &Connection, email: &str) -> Result<Option<User>> {
    rows::first(db, USER_BY_EMAIL, [email.to_lowercase()], rows::user)
}

/// Adds the row of a user.
pub(super) fn insert(tx: &Connection, user: &User) -> Result<()> {
    rows::run(
        tx,
        "insert into users (id, email, password_hash, display_name, is_active,
                            is_superuser, is_verified, token_epoch, created_at)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            user.id.as_str(),
            user.email.to_lowercase(),
            user.password_hash,
            user.display_name,
            user.is_active,
            user.is_superuser,
            user.is_verified,
            user.token_epoch,
            user.created_at.millis(),
        ],
    )?;
    Ok(())
}

/// Writes an audit row.
pub(super) fn audit(
    tx: &Connection,
    at: Timestamp,
    actor: Option<&UserId>,
    action: &str,
    subject: &str,
) -> Result<()> {
    rows::run(
        tx,
        "insert into audit (at, actor, action, subject) values (?1, ?2, ?3, ?4)",
        params![at.millis(), actor.map(UserId::as_str), action, subject],
    )?;
    Ok(())
}

/// Logouts of one user that are remembered one by one.
const MAX_ENDED_TOKENS: u64 = 1_000;

const USER_BY_EMAIL: &str = "select * from users where email = ?1";
const SETTING: &str = "select value from settings where key = ?1";

/// Whether anybody can manage the daemon.
fn has_admin(tx: &Connection) -> Result<bool> {
    let sql = "select exists (select 1 from users where is_superuser and is_active)";
    Ok(tx.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

pub(super) fn no_user() -> Error {
    Error::new(Kind::NotFound, "there is no such user")
}
