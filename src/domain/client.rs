//! Devices that are connected now.

use serde::{Deserialize, Serialize};

use super::ids::{ClientId, ConversationId, UserId};
use crate::base::clock::Timestamp;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientView {
    /// Its id, unique among those connected.
    pub client_id: ClientId,
    /// Whose it is.
    pub user_id: UserId,
    /// The name it gave.
    pub device_name: Option<String>,
    /// False while its conversation waits for it to come back.
    pub connected: bool,
    /// When it connected.
    pub connected_at: Timestamp,
    /// When audio last came.
    pub last_audio_at: Option<Timestamp>,
    /// The conversation it is recording.
    pub conversation: Option<CurrentConversation>,
    /// Conversations since it connected, the current one included.
    pub conversation_count: u32,
}

/// A conversation that is being recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentConversation {
    /// Which.
    pub id: ConversationId,
    /// When its first sample was heard.
    pub started_at: Timestamp,
    /// Windows cut from it so far.
    pub windows: u32,
}
