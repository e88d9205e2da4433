//! Documents and memories in memory, taken over into a store in a file.

use std::path::Path;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};

use super::*;
use crate::audio::synthetic::speech;
use crate::audio::wav;
use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::domain::conversation::Progress;
use crate::domain::ids::MemoryId;
use crate::store::sqlite::{Access, SqliteStore};

const ANNA: &str = "687f8e700123456789abcdef";
const BEN: &str = "687f8e700123456789fedcba";

/// A model that gives every text the same vector.
struct Flat;

#[async_trait::async_trait]
impl Embedder for Flat {
    fn name(&self) -> String {
        "flat".into()
    }

    fn is_ready(&self) -> bool {
        true
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|_| vec![1.0, 0.0]).collect())
    }
}

/// A place with a store and a directory of the original's audio.
struct World {
    dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    collections: HashMap<&'static str, Vec<Document>>,
    memories: Vec<Result<PastMemory, Unreadable>>,
    trusting: bool,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(dir.path(), Access::Exclusive).unwrap());
        std::fs::create_dir(dir.path().join("old")).unwrap();
        Self { dir, store, collections: HashMap::new(), memories: Vec::new(), trusting: false }
    }

    fn add(&mut self, collection: &'static str, document: Document) {
        self.collections.entry(collection).or_default().push(document);
    }

    fn sound(&self, name: &str, seconds: f64) {
        let path = self.dir.path().join("old").join(name);
        std::fs::write(path, wav::file(&speech(seconds))).unwrap();
    }

    fn recordings(&self) -> Recordings {
        Recordings::open(self.dir.path(), Duration::ZERO, Clock::system()).unwrap()
    }

    async fn run(&self, dry: bool) -> Result<Tally> {
        self.run_with(dry, Some(self.dir.path().join("old"))).await
    }

    async fn run_with(&self, dry: bool, audio: Option<PathBuf>) -> Result<Tally> {
        let collections = self.collections.clone();
        let documents: Documents = Arc::new(move |name| {
            let all = collections.get(name).cloned().unwrap_or_default();
            stream::iter(all.into_iter().map(Ok::<_, Error>)).boxed()
        });
        let memories = stream::iter(self.memories.clone().into_iter().map(Ok::<_, Error>)).boxed();
        let embedder: Arc<dyn Embedder> = Arc::new(Flat);
        let original = Original { documents, memories: Some((memories, embedder)), audio };
        let transcribe = config::Transcribe::default();
        let takeover =
            Takeover::new(self.store.clone(), self.recordings(), transcribe, Clock::system());
        let takeover = if self.trusting { takeover.trusting() } else { takeover };
        takeover.dry(dry).run(original, &|_, _| {}).await
    }

    async fn get(&self, id: &str) -> crate::domain::conversation::Conversation {
        self.store.conversation(&ConversationId::from_text(id)).await.unwrap().unwrap()
    }

    async fn said(&self, id: &str) -> Vec<String> {
        let windows = self.store.windows(&ConversationId::from_text(id)).await.unwrap();
        windows.into_iter().flat_map(|w| w.segments).map(|s| s.text).collect()
    }
}

fn user(id: &str, email: &str, superuser: bool, device: &str) -> Document {
    doc! {
        "_id": ObjectId::parse_str(id).unwrap(), "email": email, "hashed_password": "$argon2id$x",
        "is_superuser": superuser,
        "registered_clients": { device: { "client_id": device, "device_name": "phone" } },
    }
}

fn memory(id: &str, user: &str, origin: Option<&str>) -> Result<PastMemory, Unreadable> {
    Ok(PastMemory {
        id: MemoryId::from_text(id),
        user: user.into(),
        text: format!("fact {id}"),
        conversation_id: origin.map(ConversationId::from_text),
        created_at: Some(Timestamp::from_millis(5_000)),
        updated_at: None,
    })
}

/// A database that has seen both shapes.
fn both() -> World {
    let mut world = World::new();
    world.add("users", user(ANNA, "anna@example.com", true, "abcdef-phone"));
    world.add("users", user(BEN, "ben@example.com", false, "fedcba-pin"));
    world.add(
        "audio_chunks",
        doc! {
            "audio_uuid": "e1", "audio_path": "1753190000_fedcba-pin_e1.wav",
            "client_id": "fedcba-pin", "timestamp": 1_753_190_000,
            "transcript": [{ "speaker": "Speaker 0", "text": "Hello there.", "start": 0.0, "end": 0.0 }],
            "transcription_status": "COMPLETED", "memory_processing_status": "COMPLETED",
            "memories": [{ "memory_id": "m1" }], "cropped_audio_path": "e1_cropped.wav",
            "speech_segments": [{ "start": 0.5, "end": 2.0 }],
        },
    );
    // Nobody has that device, and nothing is made of it yet.
    world.add(
        "audio_chunks",
        doc! {
            "audio_uuid": "e2", "audio_path": "1753190100_stray_e2.wav", "client_id": "stray",
            "timestamp": 1_753_190_100, "transcript": [], "transcription_status": "PENDING",
            "memory_processing_status": "PENDING",
        },
    );
    world.add(
        "audio_chunks",
        doc! {
            "audio_uuid": "n1", "audio_path": "n1.wav", "client_id": "abcdef-phone",
            "timestamp": 1_753_190_200_000_i64, "user_id": ANNA, "conversation_id": "c-1",
        },
    );
    let version = |id: &str, text: &str, start: f64| {
        doc! { "version_id": id, "provider": "deepgram", "model": "nova-3",
        "segments": [{ "text": text, "start": start, "end": start + 1.0 }] }
    };
    world.add(
        "conversations",
        doc! {
            "conversation_id": "c-1", "audio_uuid": "n1", "user_id": ANNA,
            "client_id": "abcdef-phone", "created_at": DateTime::from_millis(1_753_190_200_500),
            "title": "Lunch", "summary": "Tea was had.", "memory_count": 1,
            "transcript_versions": [version("v1", "old", 0.0), version("v2", "late", 35.0)],
            "active_transcript_version": "v2",
        },
    );
    world.add(
        "chat_sessions",
        doc! { "session_id": "s", "user_id": ANNA, "title": "Talk",
        "created_at": DateTime::from_millis(1_000) },
    );
    for (id, role) in [("1", "user"), ("2", "assistant")] {
        world.add(
            "chat_messages",
            doc! { "message_id": id, "session_id": "s", "role": role,
            "content": "Hm.", "timestamp": DateTime::from_millis(2_000) },
        );
    }
    world.sound("1753190000_fedcba-pin_e1.wav", 3.0);
    world.sound("1753190100_stray_e2.wav", 4.0);
    world.sound("n1.wav", 40.0);
    world.sound("e1_cropped.wav", 1.5);
    world.memories = vec![memory("m1", BEN, Some("e1")), memory("m2", ANNA, Some("c-1"))];
    world
}

#[tokio::test]
async fn both_shapes_come_over_and_only_once() {
    let world = both();
    let dry = world.run(true).await.unwrap();
    assert!(dry.is_complete(), "{dry:?}");
    assert!(world.store.users().await.unwrap().is_empty(), "nothing was changed");

    let tally = world.run(false).await.unwrap();
    assert!(tally.is_complete(), "{tally:?}");
    let taken: HashMap<_, _> =
        tally.rows().into_iter().map(|(name, row)| (name, row.taken)).collect();
    assert_eq!(taken["users"], 2);
    assert_eq!((taken["conversations"], taken["segments"], taken["recordings"]), (3, 2, 3));
    assert_eq!((taken["seconds of audio"], taken["memories"]), (47, 2));
    assert_eq!((taken["chats"], taken["messages"], tally.guessed), (1, 2, 1));
    let told =
        |tally: &Tally| tally.rows().into_iter().map(|(_, row)| row.source).collect::<Vec<_>>();
    assert_eq!(told(&dry), told(&tally));

    let era = world.get("e1").await;
    assert_eq!((era.user_id.as_str(), era.client_id.as_str()), (BEN, "fedcba-pin"));
    assert_eq!(era.audio_path, "1753190000_fedcba-pin_e1.wav", "its links stay");
    assert_eq!((era.transcription, era.memory), (Progress::Completed, Progress::Completed));
    assert_eq!(world.said("e1").await, ["Hello there."]);
    let crop = world.store.crop(&era.id).await.unwrap().unwrap();
    assert_eq!(crop.audio_path.as_deref(), Some("cropped_e1.wav"));
    let pending = world.get("e2").await;
    assert_eq!((pending.user_id.as_str(), pending.transcription), (ANNA, Progress::Pending));
    let later = world.get("c-1").await;
    assert_eq!(later.audio_path, "1753190200_abcdef-phone_c-1.wav");
    assert_eq!(later.title.as_deref(), Some("Lunch"));
    assert_eq!(world.said("c-1").await, ["late"]);
    let windows = world.store.windows(&later.id).await.unwrap();
    assert!(windows.len() > 1 && windows[0].segments.is_empty(), "it was said in the second");
    assert_eq!(world.store.transcript_versions(&later.id).await.unwrap().len(), 2);
    let of = world.store.conversation_memories(&later.id).await.unwrap();
    assert_eq!(of.iter().map(|memory| memory.text.as_str()).collect::<Vec<_>>(), ["fact m2"]);
    let original = std::fs::read(world.dir.path().join("old/n1.wav")).unwrap();
    let copy = std::fs::read(world.recordings().dir().join(&later.audio_path)).unwrap();
    assert_eq!(original, copy);
    assert!(world.store.contradictions().await.unwrap().is_empty());

    let again = world.run(false).await.unwrap();
    assert!(again.is_complete(), "{again:?}");
    assert_eq!((again.news(), told(&again)), (0, told(&tally)));

    let mut world = world;
    world.trusting = true;
    let quick = world.run(false).await.unwrap();
    assert!(quick.is_complete(), "{quick:?}");
    assert_eq!((quick.news(), quick.conversations.before, quick.samples.source), (0, 3, 0));
    world.trusting = false;

    // What is deleted here stays deleted.
    world.store.delete_conversation(&era.id, true, None, Clock::system().now()).await.unwrap();
    let third = world.run(false).await.unwrap();
    assert!(third.is_complete(), "{third:?}");
    assert_eq!((third.news(), third.conversations.gone), (0, 1));
    assert_eq!(third.memories.unwrap().gone, 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_keeps_nothing_else() {
    let mut world = both();
    world.add("users", doc! { "_id": "odd", "email": "odd@example.com" });
    world.add("audio_chunks", doc! { "audio_uuid": "bad", "transcript": 5.5, "client_id": [] });
    world.add("conversations", doc! { "conversation_id": "c-2", "user_id": ANNA });
    world.add(
        "chat_messages",
        doc! { "message_id": "3", "session_id": "gone", "role": "user",
        "content": "?", "timestamp": 5 },
    );
    world.memories.push(Err(Unreadable { id: "7".into(), why: "its id is not a UUID".into() }));
    world.memories.push(memory("m3", "nobody", None));
    std::fs::write(world.dir.path().join("old/n1.wav"), "not audio").unwrap();
    let tally = world.run(false).await.unwrap();
    assert!(!tally.is_complete());
    assert_eq!(tally.missing(), Vec::<&str>::new(), "{tally:?}");
    let named: Vec<&str> = tally.problems.iter().map(|problem| problem.id.as_str()).collect();
    for id in ["odd@example.com", "bad", "c-2", "gone", "7", "m3", "c-1"] {
        assert!(named.contains(&id), "{id}: {:?}", tally.problems);
    }
    assert_eq!((tally.users.left, tally.conversations.left), (1, 2));
    let silent = world.get("c-1").await;
    assert!(!silent.has_audio());
    assert_eq!(world.said("c-1").await, ["late"]);
    assert_eq!(world.said("e1").await, ["Hello there."]);
}

#[tokio::test]
async fn recordings_may_come_later_and_after_a_crash() {
    let world = both();
    let tally = world.run_with(false, None).await.unwrap();
    assert!(tally.is_complete(), "{tally:?}");
    assert_eq!((tally.conversations.taken, tally.recordings.left), (3, 3));
    assert_eq!(world.get("e2").await.transcription, Progress::Failed);
    let tally = world.run(false).await.unwrap();
    assert!(tally.is_complete(), "{tally:?}");
    assert_eq!((tally.conversations.before, tally.recordings.taken), (3, 3));
    assert_eq!(world.get("e2").await.transcription, Progress::Pending);

    // A crash came between the row and the name of the file.
    let name = world.get("c-1").await.audio_path;
    std::fs::remove_file(world.recordings().dir().join(&name)).unwrap();
    let tally = world.run(false).await.unwrap();
    assert_eq!((tally.recordings.taken, tally.recordings.before), (1, 2));
    assert!(world.recordings().dir().join(&name).is_file());
    assert!(is_quiet(&world.recordings()));
}

/// Whether nothing half written is left.
fn is_quiet(recordings: &Recordings) -> bool {
    let names = std::fs::read_dir(recordings.dir()).unwrap();
    !names.flatten().any(|entry| Path::new(&entry.file_name()).to_string_lossy().ends_with(".part"))
}

#[tokio::test]
async fn somebody_who_is_here_already_gets_what_is_theirs() {
    let world = both();
    let here = crate::domain::user::User {
        id: UserId::from_text("111111111111111111111111"),
        email: "ben@example.com".into(),
        password_hash: "ours".into(),
        display_name: None,
        is_active: true,
        is_superuser: true,
        is_verified: true,
        token_epoch: 0,
        created_at: Timestamp::from_millis(1),
    };
    world.store.add_user(&here).await.unwrap();
    let tally = world.run(false).await.unwrap();
    assert!(tally.is_complete(), "{tally:?}");
    assert_eq!((tally.users.taken, tally.users.before), (1, 1));
    assert_eq!(world.get("e1").await.user_id, here.id);
    assert_eq!(world.store.memories(&here.id, 9).await.unwrap().len(), 1);
    assert_eq!(world.store.user(&here.id).await.unwrap().unwrap().password_hash, "ours");
    // They go, and come no more, and nobody gets what was theirs.
    let all = crate::store::UserData { conversations: true, memories: true };
    let anna = UserId::from_text(ANNA);
    world.store.delete_user(&here.id, all, None, Clock::system().now()).await.unwrap();
    let again = world.run(false).await.unwrap();
    assert!(again.is_complete(), "{again:?}");
    assert_eq!((again.users.gone, again.conversations.gone, again.news()), (1, 1, 0));
    assert_eq!(world.store.memories(&anna, 9).await.unwrap().len(), 1);
}
