//! Identifiers. Each is a string of its own type, so that one cannot stand in
//! for another.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn from_text(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

string_id!(
    /// A user: 24 lower-case hex digits, the form of a MongoDB ObjectId, which
    /// existing clients and databases use.
    UserId
);
string_id!(
    /// A device of a user: `<last 6 hex of the user id>-<device name>`.
    ClientId
);
string_id!(
    /// A conversation and its audio: 32 hex digits (`audio_uuid` in the API).
    ConversationId
);
string_id!(
    /// A memory: a hyphenated UUID, as mem0 makes them.
    MemoryId
);

string_id!(
    /// A talk with the assistant: a hyphenated UUID.
    ChatId
);

string_id!(
    /// Somebody or something that memories speak of: 32 hex digits, the same each
    /// time for the same name and user.
    EntityId
);

/// The number of a transcription window, unique in one store.
pub type WindowId = i64;
/// The number of a job, unique in one store.
pub type JobId = i64;

impl UserId {
    /// The id in `text`: 24 hex digits, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| Self(text.to_ascii_lowercase()))
    }

    /// A new id in the shape of an ObjectId: four bytes of time, eight random.
    pub fn generate(now_seconds: i64) -> Self {
        let time = u32::try_from(now_seconds.rem_euclid(1 << 32)).unwrap_or(0);
        Self(format!("{time:08x}{:016x}", rand::random::<u64>()))
    }

    /// The last six characters, which begin the client ids of this user.
    pub fn suffix(&self) -> &str {
        let start = self.0.len().saturating_sub(6);
        self.0.get(start..).unwrap_or(&self.0)
    }
}

impl ConversationId {
    /// A new random id.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }
}

impl MemoryId {
    /// A new random id.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().to_string())
    }
}

impl ChatId {
    /// A new random id.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().to_string())
    }
}

impl ClientId {
    /// The id of `device` of `user`: the name in lower case, letters, digits and
    /// hyphens only, at most ten characters; without one that can be used, eight
    /// random hex digits. `copy` above 1 is appended while the plain id is taken.
    pub fn for_device(user: &UserId, device: Option<&str>, copy: u32) -> Self {
        let mut name: String = device
            .unwrap_or_default()
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
            .take(10)
            .collect();
        if name.is_empty() {
            name = format!("{:08x}", rand::random::<u32>());
        }
        if copy > 1 {
            name.push_str(&format!("-{copy}"));
        }
        Self(format!("{}-{name}", user.suffix()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_look_like_object_ids() {
        let id = UserId::generate(1_753_190_000);
        assert_eq!(id.as_str().len(), 24);
        assert!(id.as_str().starts_with("687f8e70"));
        assert_eq!(id.suffix().len(), 6);
    }

    #[test]
    fn client_ids_follow_the_device_name() {
        let user = UserId::from_text("507f1f77bcf86cd799439011");
        let id = |device, copy| ClientId::for_device(&user, Some(device), copy).to_string();
        assert_eq!(id("Laptop", 1), "439011-laptop");
        assert_eq!(id("My Phone! (2) extra", 1), "439011-myphone2ex");
        assert_eq!(id("havpe", 2), "439011-havpe-2");
        assert_eq!(ClientId::for_device(&user, None, 1).as_str().len(), "439011-".len() + 8);
        assert_eq!(id("\u{e9}", 1).len(), "439011-".len() + 8);
    }
}
