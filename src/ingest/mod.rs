//! Audio in: sessions, which every source shares, and the sources themselves.
//!
//! A session turns what a device sends into conversations: a recording on disk,
//! a row in the store, and windows of speech with the jobs that transcribe them.
//! It never waits for a model.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::domain::client::ClientView;
use crate::domain::ids::ConversationId;
use crate::domain::user::{Device, User};
use crate::jobs::Wake;
use crate::jobs::load::Load;
use crate::pipeline::reconcile::LiveConversations;
use crate::recording::Recordings;
use crate::store::Store;
use crate::stt::live::{Listener, Partial};
use crate::supervisor::Supervisor;

mod asr;
pub mod clients;
mod elsewhere;
pub mod esp32;
#[cfg(test)]
mod fake_store;
mod frame;
mod open;
mod pre_roll;
pub mod session;
mod stream;
mod tcp;
pub mod upload;
pub mod webhook;
pub mod ws;
pub mod wyoming;

use clients::{Clients, Registration};
use session::Session;

/// What sessions share.
pub struct Ingest {
    store: Arc<dyn Store>,
    recordings: Recordings,
    wake: Wake,
    clock: Clock,
    config: Arc<Config>,
    supervisor: Supervisor,
    clients: Clients,
    open: Mutex<HashSet<ConversationId>>,
    load: Load,
    listener: Option<Arc<dyn Listener>>,
}

impl Ingest {
    /// Ingest into `store` and `recordings`; `wake` is told of each new job, and
    /// the `listener`, if there is one, of each conversation.
    pub fn new(
        store: Arc<dyn Store>,
        recordings: Recordings,
        wake: Wake,
        clock: Clock,
        config: Arc<Config>,
        supervisor: Supervisor,
        listener: Option<Arc<dyn Listener>>,
    ) -> Arc<Self> {
        let (clients, open) = (Clients::default(), Mutex::default());
        Arc::new(Self {
            store,
            recordings,
            wake,
            clock,
            config,
            supervisor,
            clients,
            open,
            load: Load::default(),
            listener,
        })
    }

    /// Who is connected or expected back.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Whether this process is still recording or closing that conversation: the
    /// sweep leaves it alone then.
    pub fn is_open(&self, id: &ConversationId) -> bool {
        self.open_ids().contains(id)
    }

    /// What is understood of that conversation from now on; none when nobody
    /// listens to it.
    pub fn hear(&self, id: &ConversationId) -> Option<broadcast::Receiver<Partial>> {
        self.listener.as_ref()?.subscribe(id)
    }

    /// Whether anything is being recorded.
    pub fn any_open(&self) -> bool {
        !self.open_ids().is_empty()
    }

    /// How transcription keeps up: whoever knows notes it here.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Begins a session for `device` of `user`, or goes on with the one that the
    /// same device left a moment ago: its conversation then continues.
    ///
    /// # Errors
    /// `Busy` when the user has as many streams as are allowed; `NoSpace` or
    /// `Unavailable` while no audio can be recorded.
    pub async fn connect(self: &Arc<Self>, user: &User, device: Option<&str>) -> Result<Session> {
        self.recordings.accepting()?;
        let session = self.session(user, device).await?;
        let (id, now) = (session.client_id(), self.clock.now());
        let seen = Device {
            client_id: id.clone(),
            user_id: user.id.clone(),
            device_name: device.map(str::to_owned),
            first_seen: now,
            last_seen: now,
        };
        match self.store.see_device(&seen).await {
            Ok(()) => {}
            // The list of devices can wait; the audio cannot.
            Err(error) if error.is_transient() => {
                tracing::warn!(client = %id, "device not noted: {}", error.report());
            }
            Err(error) => return Err(error),
        }
        tracing::info!(client = %id, "connected");
        Ok(session)
    }

    /// A session under the first id of the device that is free, or whose holder
    /// is not alive.
    async fn session(self: &Arc<Self>, user: &User, device: Option<&str>) -> Result<Session> {
        let limit = self.config.server.max_streams_per_user;
        let mut copy = 1;
        loop {
            let now = self.clock.now();
            match self.clients.register(&user.id, device, copy, now, limit)? {
                Registration::New(client, commands) => {
                    return Ok(Session::new(self.clone(), client, commands));
                }
                Registration::Held(holder) => {
                    if let Some(session) = holder.resume().await {
                        return Ok(session);
                    }
                    // One that has ended meanwhile has left the id free.
                    if !self.clients.holds(&holder) {
                        continue;
                    }
                }
                Registration::Taken => {}
            }
            copy += 1;
        }
    }

    /// Begins a session for `device` of the user whose e-mail address the
    /// configuration has under `key`: for sources that know no login.
    ///
    /// # Errors
    /// As [`Ingest::connect`]; `NotFound` when there is no such user or it may
    /// not log in.
    pub(super) async fn connect_configured(
        self: &Arc<Self>,
        email: &str,
        key: &str,
        device: &str,
    ) -> Result<Session> {
        let user = self.store.user_by_email(email).await?.filter(|user| user.is_active);
        let user = user.ok_or_else(|| {
            let message = format!("the user that `{key}` names does not exist or may not log in");
            Error::new(Kind::NotFound, message)
        })?;
        self.connect(&user, Some(device)).await
    }

    fn open_ids(&self) -> std::sync::MutexGuard<'_, HashSet<ConversationId>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LiveConversations for Ingest {
    fn is_live(&self, id: &ConversationId) -> bool {
        self.is_open(id)
    }

    fn any_live(&self) -> bool {
        self.any_open()
    }

    async fn close(&self, id: &ConversationId) {
        let records = |client: &ClientView| client.conversation.as_ref().map(|c| &c.id) == Some(id);
        if let Some(client) = self.clients.list(None).into_iter().find(records) {
            // One that has none any more has closed it.
            let _ = self.clients.close_conversation(&client.client_id).await;
        }
    }
}

/// The refusal of one stream too many.
fn too_many(limit: usize) -> Error {
    Error::new(Kind::Busy, format!("{limit} streams are open already; close one and try again"))
}
