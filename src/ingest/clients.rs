//! Who is connected, and what each of them is doing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::ids::{ClientId, ConversationId, UserId};

/// The devices that are connected now. Cheap to clone.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<HashMap<ClientId, Arc<Client>>>>);

/// One connected device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientView {
    /// Its id, unique among those connected.
    pub client_id: ClientId,
    /// Whose it is.
    pub user_id: UserId,
    /// The name it gave.
    pub device_name: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentConversation {
    /// Which.
    pub id: ConversationId,
    /// When its first sample was heard.
    pub started_at: Timestamp,
    /// Windows cut from it so far.
    pub windows: u32,
}

/// What a session is asked to do.
pub(super) enum Command {
    /// Close the conversation, and say so by the channel.
    CloseConversation(oneshot::Sender<()>),
}

/// A connected device, shared between its session and the registry.
pub(super) struct Client {
    id: ClientId,
    user_id: UserId,
    device_name: Option<String>,
    connected_at: Timestamp,
    last_audio: AtomicI64,
    conversation: Mutex<Option<CurrentConversation>>,
    conversation_count: AtomicU32,
    commands: mpsc::Sender<Command>,
}

impl Clients {
    /// Everybody connected, or the devices of `user`, in order of connection.
    pub fn list(&self, user: Option<&UserId>) -> Vec<ClientView> {
        let clients = self.lock();
        let wanted = |client: &&Arc<Client>| user.is_none_or(|user| client.user_id == *user);
        let mut views: Vec<_> = clients.values().filter(wanted).map(|c| c.view()).collect();
        views.sort_by(|a, b| (a.connected_at, &a.client_id).cmp(&(b.connected_at, &b.client_id)));
        views
    }

    /// The device of that id, if it is connected.
    pub fn get(&self, id: &ClientId) -> Option<ClientView> {
        self.lock().get(id).map(|client| client.view())
    }

    /// How many are connected.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Has the session of `id` close its conversation; returns once it is closed.
    ///
    /// # Errors
    /// `NotFound` when it is not connected, `BadInput` when it has no conversation.
    pub async fn close_conversation(&self, id: &ClientId) -> Result<ConversationId> {
        let client = self.lock().get(id).cloned();
        let gone =
            || Error::new(Kind::NotFound, format!("Client '{id}' not found or not connected"));
        let client = client.ok_or_else(gone)?;
        let current = client.conversation().clone().ok_or_else(|| {
            Error::new(Kind::BadInput, format!("Client '{id}' has no open conversation"))
        })?;
        let (done, closed) = oneshot::channel();
        let sent = client.commands.send(Command::CloseConversation(done)).await;
        // Without a session there is nobody to answer, and nothing left open.
        if sent.is_ok() {
            let _ = closed.await;
        }
        Ok(current.id)
    }

    /// Adds a device of `user` under an id that nobody connected has.
    pub(super) fn register(
        &self,
        user: &UserId,
        device: Option<&str>,
        now: Timestamp,
        limit: usize,
    ) -> Result<(Arc<Client>, mpsc::Receiver<Command>)> {
        let mut clients = self.lock();
        if clients.values().filter(|client| client.user_id == *user).count() >= limit {
            return Err(super::too_many(limit));
        }
        let id = free_id(&clients, user, device);
        let (commands, receiver) = mpsc::channel(1);
        let client = Arc::new(Client {
            id: id.clone(),
            user_id: user.clone(),
            device_name: device.map(str::to_owned),
            connected_at: now,
            last_audio: AtomicI64::new(i64::MIN),
            conversation: Mutex::default(),
            conversation_count: AtomicU32::new(0),
            commands,
        });
        clients.insert(id, client.clone());
        Ok((client, receiver))
    }

    /// The id that `device` of `user` would get now.
    pub(super) fn free_id(&self, user: &UserId, device: Option<&str>) -> ClientId {
        free_id(&self.lock(), user, device)
    }

    /// Takes a device out.
    pub(super) fn remove(&self, id: &ClientId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, Arc<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An id for `device` of `user` that nobody connected has.
fn free_id(
    clients: &HashMap<ClientId, Arc<Client>>,
    user: &UserId,
    device: Option<&str>,
) -> ClientId {
    let mut copy = 1;
    loop {
        let id = ClientId::for_device(user, device, copy);
        if !clients.contains_key(&id) {
            return id;
        }
        copy += 1;
    }
}

impl Client {
    pub(super) fn id(&self) -> &ClientId {
        &self.id
    }

    pub(super) fn user_id(&self) -> &UserId {
        &self.user_id
    }

    /// Notes that audio came.
    pub(super) fn heard(&self, now: Timestamp) {
        self.last_audio.store(now.millis(), Ordering::Relaxed);
    }

    /// Notes that a conversation began.
    pub(super) fn begin(&self, conversation: CurrentConversation) {
        *self.conversation() = Some(conversation);
        self.conversation_count.fetch_add(1, Ordering::Relaxed);
    }

    /// The conversation that is being recorded.
    pub(super) fn conversation(&self) -> MutexGuard<'_, Option<CurrentConversation>> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> ClientView {
        let heard = self.last_audio.load(Ordering::Relaxed);
        ClientView {
            client_id: self.id.clone(),
            user_id: self.user_id.clone(),
            device_name: self.device_name.clone(),
            connected_at: self.connected_at,
            last_audio_at: (heard != i64::MIN).then_some(Timestamp::from_millis(heard)),
            conversation: self.conversation().clone(),
            conversation_count: self.conversation_count.load(Ordering::Relaxed),
        }
    }
}
