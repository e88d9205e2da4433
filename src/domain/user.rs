//! People and their devices.

use serde::{Deserialize, Serialize};

use super::ids::{ClientId, UserId};
use crate::base::clock::Timestamp;

/// Somebody who can log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Identifier, stable for life.
    pub id: UserId,
    /// E-mail address in lower case; unique.
    pub email: String,
    /// Password hash (bcrypt). Never serialised.
    pub password_hash: String,
    /// A name to show.
    pub display_name: Option<String>,
    /// May log in.
    pub is_active: bool,
    /// May see and manage everything.
    pub is_superuser: bool,
    /// Address confirmed; always true for users made here.
    pub is_verified: bool,
    /// Raised by a password change or a logout everywhere: older tokens end.
    pub token_epoch: i64,
    /// When the user was made.
    pub created_at: Timestamp,
}

/// A device that has connected at least once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its client id.
    pub client_id: ClientId,
    /// Whose it is.
    pub user_id: UserId,
    /// The name it gave.
    pub device_name: Option<String>,
    /// First connection.
    pub first_seen: Timestamp,
    /// Latest connection.
    pub last_seen: Timestamp,
}
