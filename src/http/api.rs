//! What the routes work with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::auth::Auth;
use super::health::Health;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::domain::conversation::Conversation;
use crate::domain::ids::{ConversationId, UserId};
use crate::domain::user::User;
use crate::domain::version::Details;
use crate::engine::process::Engine;
use crate::graph::Graph;
use crate::ingest::Ingest;
use crate::jobs::Wake;
use crate::models::Supply;
use crate::pipeline::chat::Assistant;
use crate::pipeline::deletion::Deletion;
use crate::pipeline::recall::Recall;
use crate::recording::Recordings;
use crate::store::Store;
use crate::stt::SpeechToText;
use crate::supervisor::Supervisor;

/// The state of the router.
pub struct Api {
    /// Users, conversations, memories.
    pub store: Arc<dyn Store>,
    /// Deletes conversations, users and audio with their files.
    pub deletion: Deletion,
    /// Search over memories.
    pub recall: Recall,
    /// Who and what memories speak of.
    pub graph: Arc<dyn Graph>,
    /// Talks about memories.
    pub assistant: Assistant,
    /// The devices that are connected, and audio from them.
    pub ingest: Arc<Ingest>,
    /// Recordings on disk.
    pub recordings: Recordings,
    /// The speech engine.
    pub speech: Arc<dyn SpeechToText>,
    /// Tells the workers of new jobs.
    pub wake: Wake,
    /// Logins.
    pub auth: Auth,
    /// The time.
    pub clock: Clock,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Starts the tasks of streams.
    pub supervisor: Supervisor,
    /// How the parts of the daemon are.
    pub health: Health,
    /// The models that are wanted, and how fetching them goes on.
    pub supply: Supply,
    /// What the device is called.
    pub name: watch::Sender<String>,
    /// The processes of the local models.
    pub engines: Vec<Arc<Engine>>,
    /// When the daemon started, by the monotonic clock.
    pub started: Duration,
    /// What listens where.
    pub listening: Vec<(&'static str, SocketAddr)>,
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

/// Conversations whose details are in memory at once: an hour of speech has
/// about a megabyte of them.
const PAGE: usize = 50;

impl Api {
    /// What `view` makes of each of `conversations` with what goes with it.
    ///
    /// # Errors
    /// What the store returns.
    pub async fn with_details<T>(
        &self,
        conversations: Vec<Conversation>,
        view: impl Fn(Conversation, Details) -> T,
    ) -> Result<Vec<T>> {
        let mut views = Vec::with_capacity(conversations.len());
        let mut rest = conversations.into_iter();
        loop {
            let page: Vec<Conversation> = rest.by_ref().take(PAGE).collect();
            if page.is_empty() {
                return Ok(views);
            }
            let ids: Vec<ConversationId> = page.iter().map(|one| one.id.clone()).collect();
            let mut details = self.store.details(&ids).await?;
            views.extend(page.into_iter().map(|conversation| {
                let details = details.remove(&conversation.id).unwrap_or_default();
                view(conversation, details)
            }));
        }
    }
}

/// Whether `caller` may see what belongs to `owner`.
pub fn may_see(caller: &User, owner: &UserId) -> bool {
    caller.is_superuser || caller.id == *owner
}
