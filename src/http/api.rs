//! What the routes work with.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::ws::WebSocket;

use super::auth::Auth;
use super::health::Health;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::domain::ids::{ClientId, ConversationId, UserId};
use crate::domain::user::User;
use crate::pipeline::recall::Recall;
use crate::store::Store;
use crate::supervisor::Supervisor;

/// The state of the router.
pub struct Api {
    /// Users, conversations, memories.
    pub store: Arc<dyn Store>,
    /// Search over memories.
    pub recall: Recall,
    /// The devices that are connected.
    pub live: Arc<dyn Live>,
    /// Logins.
    pub auth: Auth,
    /// Where recordings are.
    pub audio_dir: PathBuf,
    /// The time.
    pub clock: Clock,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Starts the tasks of streams.
    pub supervisor: Supervisor,
    /// How the parts of the daemon are.
    pub health: Health,
}

impl Api {
    /// Whose rows a request is about: `wanted` for an administrator, else the
    /// caller's own.
    ///
    /// # Errors
    /// `NotFound` when `wanted` is somebody else, or nobody.
    pub async fn owner(&self, caller: &User, wanted: Option<&str>) -> Result<User> {
        let wanted = match wanted {
            Some(id) if id != caller.id.as_str() => UserId::from_text(id),
            _ => return Ok(caller.clone()),
        };
        let found = if caller.is_superuser { self.store.user(&wanted).await? } else { None };
        found.ok_or_else(|| Error::new(Kind::NotFound, "User not found"))
    }
}

/// Whether `caller` may see what belongs to `owner`.
pub fn may_see(caller: &User, owner: &UserId) -> bool {
    caller.is_superuser || caller.id == *owner
}

/// The devices that are connected now.
#[async_trait]
pub trait Live: Send + Sync {
    /// All of them, in no order.
    fn clients(&self) -> Vec<ClientStatus>;

    /// Ends the open conversation of `client` and waits until that is recorded.
    ///
    /// # Errors
    /// What recording and store return.
    async fn close(&self, client: &ClientId) -> Result<CloseOutcome>;

    /// Talks to a device of `user` until it goes or the daemon stops.
    async fn serve_pcm(&self, socket: WebSocket, user: User, device: Option<String>);
}

/// A connected device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientStatus {
    /// Its id.
    pub client_id: ClientId,
    /// Whose it is.
    pub user_id: UserId,
    /// The name it gave.
    pub device: Option<String>,
    /// When it connected.
    pub connected_at: Timestamp,
    /// When its open conversation began, if there is one.
    pub conversation_start: Option<Timestamp>,
    /// Its open conversation.
    pub current_conversation: Option<ConversationId>,
    /// Conversations since it connected, the open one included.
    pub conversation_count: u64,
    /// Windows of the open conversation that have been transcribed.
    pub transcripts_count: u64,
    /// When the last of them was.
    pub last_transcript_at: Option<Timestamp>,
}

/// What asking a device to end its conversation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseOutcome {
    /// It ended this one.
    Closed(ConversationId),
    /// It had none open.
    NoConversation,
    /// It is not connected.
    NotConnected,
}
