//! People, devices, settings, and the audit trail.

use async_trait::async_trait;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};

use super::MongoStore;
use super::documents::{ADMINS_META, AuditRow, UserRow};
use super::schema::{AUDIT, DEVICES, META, SETTINGS, USERS};
use super::tx::Tx;
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::ids::UserId;
use crate::domain::user::{Device, User};
use crate::store::{UserUpdate, Users};

/// Logouts of one user that are remembered one by one.
const MAX_ENDED_TOKENS: i32 = 1_000;

#[async_trait]
impl Users for MongoStore {
    async fn add_user(&self, user: &User) -> Result<()> {
        let row = UserRow::from(user);
        let added = steps!(self, |tx| tx.insert(USERS, std::slice::from_ref(&row)).await).await;
        match added {
            Err(error) if error.kind() == Kind::Conflict => Err(taken(&row.email)),
            added => added,
        }
    }

    async fn user(&self, id: &UserId) -> Result<Option<User>> {
        let found = steps!(self, |tx| tx.first(USERS, doc! { "_id": id.as_str() }).await);
        Ok(found.await?.map(User::from))
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        let email = email.to_lowercase();
        let found = steps!(self, |tx| tx.first(USERS, doc! { "email": email }).await);
        Ok(found.await?.map(User::from))
    }

    async fn bearer(&self, id: &UserId, token: &str) -> Result<Option<User>> {
        let filter = doc! { "_id": id.as_str(), "ended.token": { "$ne": token } };
        Ok(steps!(self, |tx| tx.first(USERS, filter).await).await?.map(User::from))
    }

    async fn end_token(
        &self,
        id: &UserId,
        token: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        // One step on one document: what has expired goes, and this is added.
        let kept = doc! { "$filter": {
            "input": { "$ifNull": ["$ended", []] },
            "cond": { "$and": [
                { "$gt": ["$$this.expires_at", now.millis()] },
                { "$ne": ["$$this.token", { "$literal": token }] },
            ] },
        } };
        let new = doc! { "token": { "$literal": token }, "expires_at": until.millis() };
        // Too many to remember one by one: all of this user's end.
        let full = doc! { "$gt": [{ "$size": "$ended" }, MAX_ENDED_TOKENS] };
        let update = vec![
            doc! { "$set": { "ended": { "$concatArrays": [kept, [new]] } } },
            doc! { "$set": {
                "token_epoch": { "$add": ["$token_epoch", { "$cond": [full.clone(), 1_i64, 0_i64] }] },
                "ended": { "$cond": [full, [], "$ended"] },
            } },
        ];
        let filter = doc! { "_id": id.as_str() };
        steps!(self, |tx| tx.change(USERS, filter, update).await).await.map(drop)
    }

    async fn users(&self) -> Result<Vec<User>> {
        let order = doc! { "created_at": 1, "_id": 1 };
        let found = steps!(self, |tx| tx.all(USERS, doc! {}, order).await);
        Ok(found.await?.into_iter().map(User::from).collect())
    }

    async fn update_user(&self, id: &UserId, update: UserUpdate) -> Result<User> {
        let ends_tokens = update.end_tokens || update.password_hash.is_some();
        let email = update.email.as_ref().map(|email| email.to_lowercase());
        let mut set = Document::new();
        for (field, text) in [
            ("email", &email),
            ("password_hash", &update.password_hash),
            ("display_name", &update.display_name),
        ] {
            if let Some(text) = text {
                set.insert(field, text);
            }
        }
        for (field, is) in [
            ("is_active", update.is_active),
            ("is_superuser", update.is_superuser),
            ("is_verified", update.is_verified),
        ] {
            if let Some(is) = is {
                set.insert(field, is);
            }
        }
        let mut change = doc! { "$inc": { "token_epoch": i64::from(ends_tokens) } };
        if !set.is_empty() {
            change.insert("$set", set);
        }
        let loses_role = update.is_active == Some(false) || update.is_superuser == Some(false);
        transaction!(self, |tx| {
            if let Some(email) = &email {
                let other = doc! { "email": email, "_id": { "$ne": id.as_str() } };
                if tx.has(USERS, other).await? {
                    return Err(taken(email));
                }
            }
            let had_admin = has_admin(tx).await?;
            let filter = doc! { "_id": id.as_str() };
            let user = tx.take(USERS, filter, change.clone(), doc! {}).await?;
            let user = user.ok_or_else(no_user)?;
            if loses_role {
                let alone = doc! { "$inc": { "changes": 1_i64 } };
                tx.change(META, doc! { "_id": ADMINS_META }, alone).await?;
                if had_admin && !has_admin(tx).await? {
                    return Err(Error::new(
                        Kind::Conflict,
                        "this is the last administrator; make somebody else one first",
                    ));
                }
            }
            Ok(User::from(user))
        })
        .await
    }

    async fn renew_password_hash(&self, id: &UserId, from: &str, to: &str) -> Result<()> {
        let filter = doc! { "_id": id.as_str(), "password_hash": from };
        let update = doc! { "$set": { "password_hash": to } };
        steps!(self, |tx| tx.change(USERS, filter, update).await).await.map(drop)
    }

    async fn see_device(&self, device: &Device) -> Result<()> {
        // Of another user's it finds none, and cannot add a second.
        let filter = doc! { "_id": device.client_id.as_str(), "user_id": device.user_id.as_str() };
        let seen = device.last_seen.millis();
        let name = match &device.device_name {
            Some(name) => doc! { "$literal": name }.into(),
            None => mongodb::bson::bson!({ "$ifNull": ["$device_name", null] }),
        };
        let update = vec![doc! { "$set": {
            "device_name": name,
            "first_seen": { "$ifNull": ["$first_seen", device.first_seen.millis()] },
            "last_seen": { "$max": ["$last_seen", seen] },
        } }];
        let seen = steps!(self, |tx| tx.upsert(DEVICES, filter, update).await).await;
        match seen {
            Err(error) if error.kind() == Kind::Conflict => {
                Err(Error::new(Kind::Conflict, "this device belongs to another user"))
            }
            seen => seen.map(drop),
        }
    }

    async fn devices(&self, user: Option<&UserId>) -> Result<Vec<Device>> {
        let filter = user.map_or_else(Document::new, |user| doc! { "user_id": user.as_str() });
        let order = doc! { "first_seen": 1, "_id": 1 };
        let found = steps!(self, |tx| tx.all(DEVICES, filter, order).await).await?;
        Ok(found.into_iter().map(Device::from).collect())
    }

    async fn setting(&self, key: &str) -> Result<Option<String>> {
        let found = steps!(self, |tx| tx.first(SETTINGS, doc! { "_id": key }).await).await?;
        Ok(found.map(|setting| setting.value))
    }

    async fn setting_or_insert(&self, key: &str, value: &str) -> Result<String> {
        let update = doc! { "$setOnInsert": { "value": value } };
        let kept = steps!(self, |tx| tx.upsert(SETTINGS, doc! { "_id": key }, update).await);
        match kept.await {
            // Somebody else has added it in the same moment.
            Err(error) if error.kind() == Kind::Conflict => {
                Ok(self.setting(key).await?.unwrap_or_else(|| value.to_owned()))
            }
            kept => Ok(kept?.map_or_else(|| value.to_owned(), |kept| kept.value)),
        }
    }

    async fn set_setting(&self, key: &str, value: Option<&str>) -> Result<()> {
        steps!(self, |tx| set_setting(tx, key, value).await).await
    }

    async fn ping(&self) -> Result<()> {
        let update = doc! { "$inc": { "pings": 1_i64 } };
        steps!(self, |tx| tx.change(META, doc! { "_id": ADMINS_META }, update).await)
            .await
            .map(drop)
    }

    async fn audit(
        &self,
        at: Timestamp,
        actor: Option<&UserId>,
        action: &str,
        subject: &str,
    ) -> Result<()> {
        steps!(self, |tx| audit(tx, at, actor, action, subject).await).await
    }
}

/// Writes an audit row.
pub(super) async fn audit(
    tx: &mut Tx,
    at: Timestamp,
    actor: Option<&UserId>,
    action: &str,
    subject: &str,
) -> Result<()> {
    let row = AuditRow {
        id: ObjectId::new(),
        at,
        actor: actor.cloned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
    };
    tx.insert(AUDIT, &[row]).await
}

/// Writes a setting; none removes it.
pub(super) async fn set_setting(tx: &mut Tx, key: &str, value: Option<&str>) -> Result<()> {
    let filter = doc! { "_id": key };
    match value {
        Some(value) => {
            let update = doc! { "$set": { "value": value } };
            tx.upsert(SETTINGS, filter, update).await.map(drop)
        }
        None => tx.remove(SETTINGS, filter).await.map(drop),
    }
}

/// Whether anybody can manage the daemon.
async fn has_admin(tx: &mut Tx) -> Result<bool> {
    tx.has(USERS, doc! { "is_superuser": true, "is_active": true }).await
}

fn taken(email: &str) -> Error {
    Error::new(Kind::Conflict, format!("{email} is taken"))
}

pub(super) fn no_user() -> Error {
    Error::new(Kind::NotFound, "there is no such user")
}
