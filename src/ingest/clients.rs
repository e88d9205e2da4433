//! Who is connected, who is expected back, and what each of them is doing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::session::Session;
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::client::{ClientView, CurrentConversation};
use crate::domain::ids::{ClientId, ConversationId, UserId};

/// Time a device that connects again waits for its own earlier connection to be
/// found alive or dead.
const RESUME_TIMEOUT: Duration = Duration::from_secs(4);

/// The devices that are connected now, and those whose conversation waits for
/// them to come back. Cheap to clone.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<HashMap<ClientId, Arc<Client>>>>);

/// What a session is asked to do.
pub(super) enum Command {
    /// Close the conversation, and say so by the channel.
    CloseConversation(oneshot::Sender<()>),
    /// The device seems to be back on another connection: hand the session over,
    /// unless this connection is alive.
    Resume(oneshot::Sender<Session>),
}

/// What came of asking for the id of a device.
pub(super) enum Registration {
    /// It was free.
    New(Arc<Client>, mpsc::Receiver<Command>),
    /// The same device of the same user has it.
    Held(Arc<Client>),
    /// Somebody else has it.
    Taken,
}

/// A connected device, shared between its session and the registry.
pub(super) struct Client {
    id: ClientId,
    user_id: UserId,
    device_name: Option<String>,
    connected_at: Timestamp,
    away: AtomicBool,
    last_audio: AtomicI64,
    conversation: Mutex<Option<CurrentConversation>>,
    conversation_count: AtomicU32,
    commands: mpsc::Sender<Command>,
}

/// Sorts devices by when they connected.
pub(super) fn in_order(views: &mut [ClientView]) {
    views.sort_by(|a, b| (a.connected_at, &a.client_id).cmp(&(b.connected_at, &b.client_id)));
}

impl Clients {
    /// All devices, or those of `user`, in order of connection.
    pub fn list(&self, user: Option<&UserId>) -> Vec<ClientView> {
        let clients = self.lock();
        let wanted = |client: &&Arc<Client>| user.is_none_or(|user| client.user_id == *user);
        let mut views: Vec<_> = clients.values().filter(wanted).map(|c| c.view()).collect();
        in_order(&mut views);
        views
    }

    /// The device of that id, if it is connected or waited for.
    pub fn get(&self, id: &ClientId) -> Option<ClientView> {
        self.lock().get(id).map(|client| client.view())
    }

    /// How many are connected.
    pub fn count(&self) -> usize {
        self.lock().values().filter(|client| !client.is_away()).count()
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

    /// Asks for the id of a device of `user`; `copy` above 1 is for one more of
    /// the same name.
    ///
    /// # Errors
    /// `Busy` when the user has `limit` devices already.
    pub(super) fn register(
        &self,
        user: &UserId,
        device: Option<&str>,
        copy: u32,
        now: Timestamp,
        limit: usize,
    ) -> Result<Registration> {
        let mut clients = self.lock();
        let id = ClientId::for_device(user, device, copy);
        if let Some(holder) = clients.get(&id) {
            return Ok(match holder.user_id == *user {
                true => Registration::Held(holder.clone()),
                false => Registration::Taken,
            });
        }
        if clients.values().filter(|client| client.user_id == *user).count() >= limit {
            return Err(super::too_many(limit));
        }
        let (commands, receiver) = mpsc::channel(1);
        let client = Arc::new(Client {
            id: id.clone(),
            user_id: user.clone(),
            device_name: device.map(str::to_owned),
            connected_at: now,
            away: AtomicBool::new(false),
            last_audio: AtomicI64::new(i64::MIN),
            conversation: Mutex::default(),
            conversation_count: AtomicU32::new(0),
            commands,
        });
        clients.insert(id, client.clone());
        Ok(Registration::New(client, receiver))
    }

    /// Whether that very connection still has its id.
    pub(super) fn holds(&self, client: &Arc<Client>) -> bool {
        self.lock().get(&client.id).is_some_and(|holder| Arc::ptr_eq(holder, client))
    }

    /// The id that `device` of `user` would get now.
    pub(super) fn free_id(&self, user: &UserId, device: Option<&str>) -> ClientId {
        let clients = self.lock();
        let mut copy = 1;
        loop {
            let id = ClientId::for_device(user, device, copy);
            if !clients.contains_key(&id) {
                return id;
            }
            copy += 1;
        }
    }

    /// Takes a device out.
    pub(super) fn remove(&self, id: &ClientId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, Arc<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    pub(super) fn id(&self) -> &ClientId {
        &self.id
    }

    pub(super) fn user_id(&self) -> &UserId {
        &self.user_id
    }

    /// Whether it gave a name by which it can be known again.
    pub(super) fn has_name(&self) -> bool {
        self.device_name.is_some()
    }

    /// Whether it is waited for.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Notes that it left or came back.
    pub(super) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// The session of this device, unless a living connection has it.
    pub(super) async fn resume(&self) -> Option<Session> {
        let (hand_over, session) = oneshot::channel();
        let asked = async {
            self.commands.send(Command::Resume(hand_over)).await.ok()?;
            session.await.ok()
        };
        tokio::time::timeout(RESUME_TIMEOUT, asked).await.ok().flatten()
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
            connected: !self.is_away(),
            connected_at: self.connected_at,
            last_audio_at: (heard != i64::MIN).then_some(Timestamp::from_millis(heard)),
            conversation: self.conversation().clone(),
            conversation_count: self.conversation_count.load(Ordering::Relaxed),
        }
    }
}
