//! Users of the original with their devices, and whose something is.

use std::collections::HashMap;

use mongodb::bson::{Document, oid::ObjectId};

use super::fields::{Fields, Read};
use crate::base::clock::Timestamp;
use crate::domain::ids::{ClientId, UserId};
use crate::domain::user::{Device, User};

/// A user with their devices.
pub(super) struct Person {
    pub(super) user: User,
    pub(super) devices: Vec<Device>,
}

impl Person {
    pub(super) fn read(document: &Document) -> Read<Self> {
        let fields = Fields(document);
        let id = fields.needed("_id")?;
        let id = UserId::parse(&id).ok_or("its id is not that of a user")?;
        let made = ObjectId::parse_str(id.as_str()).map_err(|error| error.to_string())?;
        let made = Timestamp::from_millis(made.timestamp().timestamp_millis());
        let email = fields.needed("email")?.trim().to_lowercase();
        let user = User {
            password_hash: fields.needed("hashed_password")?,
            display_name: fields.text("display_name")?,
            is_active: fields.flag("is_active", true)?,
            is_superuser: fields.flag("is_superuser", false)?,
            is_verified: fields.flag("is_verified", false)?,
            token_epoch: 0,
            created_at: fields.time("created_at")?.unwrap_or(made),
            id: id.clone(),
            email,
        };
        let mut devices = Vec::new();
        if let Some(clients) = fields.document("registered_clients")? {
            for (name, client) in clients {
                let none = Document::new();
                let client = Fields(client.as_document().unwrap_or(&none));
                let first_seen = client.time("first_seen")?.unwrap_or(user.created_at);
                devices.push(Device {
                    client_id: ClientId::from_text(name),
                    user_id: id.clone(),
                    device_name: client.text("device_name")?,
                    first_seen,
                    last_seen: client.time("last_seen")?.unwrap_or(first_seen),
                });
            }
        }
        Ok(Self { user, devices })
    }
}

/// Whose something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A user, as they are called here.
    User(UserId),
    /// An administrator, since nobody knows better.
    Administrator(UserId),
    /// Somebody who was deleted here since.
    Gone,
    /// Nobody.
    Nobody,
}

/// The users of the original, and who they are here.
#[derive(Default)]
pub(super) struct People {
    /// By their id there; none were deleted here since.
    by_id: HashMap<String, Option<UserId>>,
    by_email: HashMap<String, String>,
    by_client: HashMap<String, String>,
    administrator: Option<UserId>,
}

impl People {
    /// Adds somebody, who is `here` by now.
    pub(super) fn add(&mut self, person: &Person, here: Option<UserId>) {
        let id = person.user.id.to_string();
        self.by_email.insert(person.user.email.clone(), id.clone());
        for device in &person.devices {
            self.by_client.insert(device.client_id.to_string(), id.clone());
        }
        if person.user.is_superuser && self.administrator.is_none() {
            self.administrator.clone_from(&here);
        }
        self.by_id.insert(id, here);
    }

    /// Whose something of `user`, by id or e-mail address, is that came from the
    /// device `client`.
    pub(super) fn owner(&self, user: Option<&str>, client: &str) -> Owner {
        let named = user.and_then(|user| {
            let user = user.to_lowercase();
            let known = self.by_email.get(&user).unwrap_or(&user).clone();
            self.by_id.contains_key(&known).then_some(known)
        });
        let suffix = || {
            let (suffix, _) = client.split_once('-')?;
            let mut of_suffix = self.by_id.keys().filter(|id| id.ends_with(suffix));
            of_suffix.next().filter(|_| suffix.len() == 6).cloned()
        };
        let known = named.or_else(|| self.by_client.get(client).cloned()).or_else(suffix);
        match known.and_then(|id| self.by_id.get(&id)) {
            Some(Some(here)) => Owner::User(here.clone()),
            Some(None) => Owner::Gone,
            None => self.administrator.clone().map_or(Owner::Nobody, Owner::Administrator),
        }
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, doc};

    use super::*;

    const ANNA: &str = "687f8e700123456789abcdef";

    fn anna() -> Person {
        Person::read(&doc! {
            "_id": ObjectId::parse_str(ANNA).unwrap(), "email": "Anna@Example.com",
            "hashed_password": "$argon2id$x", "is_superuser": true, "display_name": null,
            "registered_clients": {
                "abcdef-phone": { "client_id": "abcdef-phone", "device_name": "phone",
                    "first_seen": DateTime::from_millis(5_000), "is_active": true },
                "odd": {},
            },
            "primary_speakers": [],
        })
        .unwrap()
    }

    #[test]
    fn a_user_comes_with_their_devices() {
        let Person { user, devices } = anna();
        assert_eq!((user.id.as_str(), user.email.as_str()), (ANNA, "anna@example.com"));
        assert!(user.is_active && user.is_superuser && !user.is_verified);
        assert_eq!(user.created_at.seconds(), 0x687f_8e70);
        assert_eq!(devices.len(), 2);
        assert_eq!(devices[0].device_name.as_deref(), Some("phone"));
        assert_eq!(devices[0].last_seen.millis(), 5_000);
        assert_eq!(devices[1].first_seen, user.created_at);

        let why = |document| Person::read(&document).err().unwrap();
        assert_eq!(why(doc! { "_id": "x" }), "its id is not that of a user");
        assert_eq!(why(doc! { "_id": ANNA, "email": "a@b" }), "it has no hashed_password");
    }

    #[test]
    fn an_owner_is_found_by_what_there_is() {
        let mut people = People::default();
        assert_eq!(people.owner(None, "abcdef-x"), Owner::Nobody);
        let (anna, here) = (anna(), UserId::from_text("here"));
        people.add(&anna, Some(here.clone()));
        let user = Owner::User(here.clone());
        assert_eq!(people.owner(Some(ANNA), "x"), user);
        assert_eq!(people.owner(Some("Anna@example.com"), "x"), user);
        assert_eq!(people.owner(None, "odd"), user);
        assert_eq!(people.owner(None, "abcdef-laptop-2"), user);
        assert_eq!(people.owner(None, "f-laptop"), Owner::Administrator(here.clone()));
        assert_eq!(people.owner(Some("gone"), "who"), Owner::Administrator(here));
        people.add(&anna, None);
        assert_eq!(people.owner(Some(ANNA), "x"), Owner::Gone);
    }
}
