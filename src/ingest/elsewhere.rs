//! Devices at the other daemons that share the database: they are listed like our own,
//! and their conversations can be closed from here.

use std::time::Duration;

use super::{Ingest, clients};
use crate::base::error::{Error, Kind, Result};
use crate::domain::client::ClientView;
use crate::domain::ids::{ClientId, ConversationId, UserId};

/// How often it is looked whether another node has closed a conversation, and how
/// long: that node looks about every second what it is asked.
const LOOK: Duration = Duration::from_millis(250);
const LOOKS: u32 = 40;

impl Ingest {
    /// All devices at all nodes, or those of `user`, in order of connection. One that
    /// a node still waits for while it is back at another is listed there.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn clients_everywhere(&self, user: Option<&UserId>) -> Result<Vec<ClientView>> {
        let mut all = self.clients.list(user);
        let elsewhere = self.store.clients_elsewhere().await?;
        all.extend(elsewhere.into_iter().filter(|one| user.is_none_or(|id| one.user_id == *id)));
        all.sort_by(|a, b| {
            let latest = |one: &ClientView| (one.connected, one.connected_at);
            a.client_id.cmp(&b.client_id).then(latest(b).cmp(&latest(a)))
        });
        all.dedup_by(|a, b| a.client_id == b.client_id);
        clients::in_order(&mut all);
        Ok(all)
    }

    /// The device of that id, at whichever node.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn client_anywhere(&self, id: &ClientId) -> Result<Option<ClientView>> {
        let all = self.clients_everywhere(None).await?;
        Ok(all.into_iter().find(|client| client.client_id == *id))
    }

    /// Has the conversation of a device closed, at whichever node it is recorded;
    /// returns once it is closed.
    ///
    /// # Errors
    /// As [`clients::Clients::close_conversation`]; `Unavailable` when the node that
    /// records it does not do it in time.
    pub async fn close_anywhere(&self, id: &ClientId) -> Result<ConversationId> {
        let current = match self.client_anywhere(id).await? {
            Some(ClientView { conversation: Some(current), .. }) => current.id,
            _ => return self.clients.close_conversation(id).await,
        };
        if !self.store.ask_to_close(&current).await? {
            return self.clients.close_conversation(id).await;
        }
        for _ in 0..LOOKS {
            tokio::time::sleep(LOOK).await;
            let row = self.store.conversation(&current).await?;
            if row.is_none_or(|row| !row.is_open()) {
                return Ok(current);
            }
        }
        let message = format!(
            "the daemon that '{id}' is connected to has been asked to close its conversation and \
             has not done so yet"
        );
        Err(Error::new(Kind::Unavailable, message))
    }
}
