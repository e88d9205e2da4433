//! The configuration: every key, its default, and what it means.
//!
//! [`load`] builds one from the defaults, a file, the environment and the
//! command line. No key is optional: an empty string or a zero means "choose
//! for me" where the text says so.

mod interval;
pub mod load;
mod secret;
mod validate;
mod when;

pub use interval::Interval;
pub use secret::Secret;
pub(crate) use validate::network;
pub use when::When;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where state lives.
    pub state: State,
    /// The HTTP and WebSocket server.
    pub server: Server,
    /// TLS of the HTTP and WebSocket server.
    pub tls: Tls,
    /// Wyoming over TCP.
    pub wyoming: Wyoming,
    /// ESP32 boards.
    pub esp32: Esp32,
    /// Audio that apps post.
    pub webhook: Webhook,
    /// Logging.
    pub log: Log,
    /// Logins and tokens.
    pub auth: Auth,
    /// How audio is written down.
    pub recording: Recording,
    /// Room on the disk.
    pub disk: Disk,
    /// Copies in another place.
    pub backup: Backup,
    /// What is deleted by age or size.
    pub retention: Retention,
    /// Where conversations begin and end.
    pub conversation: Conversation,
    /// How conversations are cut for transcription.
    pub transcribe: Transcribe,
    /// Cutting recordings down to their speech.
    pub cropping: Cropping,
    /// Speech to text.
    pub stt: Stt,
    /// The language model.
    pub llm: Llm,
    /// Embeddings.
    pub embed: Embed,
    /// Deepgram.
    pub deepgram: Deepgram,
    /// OpenAI, and whatever speaks its API.
    pub openai: Openai,
    /// Ollama.
    pub ollama: Ollama,
    /// The database.
    pub store: Store,
    /// MongoDB.
    pub mongodb: Mongodb,
    /// The vector index over memories.
    pub index: Index,
    /// Qdrant.
    pub qdrant: Qdrant,
    /// Neo4j.
    pub neo4j: Neo4j,
    /// Recordings in a bucket.
    pub s3: S3,
    /// Services outside, all of them.
    pub remote: Remote,
    /// What is remembered.
    pub memory: Memory,
    /// Who and what memories speak of.
    pub graph: Graph,
    /// The processes that run models.
    pub engines: Engines,
    /// Model files.
    pub models: Models,
    /// The job queue.
    pub jobs: Jobs,
    /// Uploaded files.
    pub uploads: Uploads,
    /// What comes from the original's database.
    pub import: Import,
    /// How the daemon looks after its parts.
    pub health: Health,
    /// Being found on the local network.
    pub discovery: Discovery,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty = $default:expr,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $ty,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }
    };
}

section!(
    /// Where state lives.
    State {
        /// Directory of the database and the audio. Empty: `$STATE_DIRECTORY`
        /// under systemd, else the user's data directory.
        dir: String = String::new(),
    }
);

section!(
    /// The HTTP and WebSocket server.
    Server {
        /// Address and port; port 0 takes a free one.
        listen: String = "0.0.0.0:8000".into(),
        /// Connections at once; more wait to be accepted.
        max_connections: usize = 1024,
        /// Time a client has to send a request's header.
        header_timeout: Interval = Interval::from_secs(30),
        /// Time open requests and streams have to end at shutdown.
        drain_timeout: Interval = Interval::from_secs(10),
        /// Streams one user may have open at once.
        max_streams_per_user: usize = 64,
        /// A stream that sends nothing, not even a ping answer, is ended after this.
        stream_timeout: Interval = Interval::from_secs(30),
        /// Devices send Opus packets with the three bytes before them that
        /// Bluetooth adds (a number and an index).
        opus_ble_header: bool = false,
        /// E-mail address of the user who gets what comes over `/ws` from old
        /// devices that cannot log in. Empty: such a device is refused.
        legacy_user: String = String::new(),
        /// Reverse proxies, as addresses or networks (`10.0.0.0/8`), whose word on
        /// where a request comes from (`X-Forwarded-For`) is taken.
        trusted_proxies: Vec<String> = Vec::new(),
        /// A bearer token that opens `/metrics` and nothing else, for Prometheus.
        /// Empty: only an administrator's login does.
        metrics_token: Secret = Secret::default(),
        /// Pages of other servers that may use the API from a browser:
        /// `https://dash.example.com`, or a network whose machines serve such pages
        /// by address (`100.64.0.0/10` is Tailscale's). Their scripts may then act
        /// for whoever is logged in.
        cors_origins: Vec<String> = Vec::new(),
    }
);

section!(
    /// Wyoming over TCP: speech to text for Home Assistant and others, and audio
    /// from satellites.
    Wyoming {
        /// Address and port; port 0 takes a free one. Empty: switched off.
        listen: String = "0.0.0.0:10300".into(),
        /// E-mail address of the user for whom audio is recorded that nobody asked
        /// to have transcribed. Empty: none is; such audio is transcribed only.
        user: String = String::new(),
        /// Device name of what is recorded; a second address gets `-2`.
        device: String = "wyoming".into(),
        /// The longest audio of one request.
        max_length: Interval = Interval::from_secs(600),
        /// A connection on which nothing happens is ended after this.
        idle_timeout: Interval = Interval::from_secs(300),
    }
);

section!(
    /// ESP32 boards that send raw audio over TCP: 16 kHz, 32 bits, stereo, of
    /// which the left channel is recorded.
    Esp32 {
        /// Address and port; port 0 takes a free one.
        listen: String = "0.0.0.0:8989".into(),
        /// E-mail address of the user for whom it is recorded. Empty: switched off.
        user: String = String::new(),
        /// Device name of the board; one at a second address gets `-2`.
        device: String = "havpe".into(),
    }
);

section!(
    /// Audio that an app posts to `/webhook/audio_bytes`, as Omi's does.
    Webhook {
        /// E-mail address of the user for whom it is recorded. Empty: switched off.
        user: String = String::new(),
        /// Device name of what is recorded.
        device: String = "omi".into(),
    }
);

section!(
    /// TLS of the HTTP and WebSocket server.
    Tls {
        /// Certificate chain, a PEM file, read again when it changes. Empty:
        /// plain HTTP.
        certificate: String = String::new(),
        /// Its private key, a PEM file.
        key: String = String::new(),
    }
);

section!(
    /// Logging.
    Log {
        /// `error`, `warn`, `info`, `debug`, `trace`, or a filter by module.
        level: String = "info".into(),
        /// One JSON object a line instead of text.
        json: bool = false,
    }
);

section!(
    /// Logins and tokens.
    Auth {
        /// Key that signs tokens. Empty: one is made and kept in the state.
        secret_key: Secret = Secret::default(),
        /// Address of the first administrator, made when there is none.
        admin_email: String = "admin@example.com".into(),
        /// Password of the first administrator. Empty: a random one, printed once.
        admin_password: Secret = Secret::default(),
        /// How long a login lasts.
        token_lifetime: Interval = Interval::from_secs(3600),
        /// Send the login cookie over HTTPS alone.
        cookie_secure: bool = false,
        /// Work factor of bcrypt (4 to 31); each step doubles the time of a login.
        bcrypt_cost: u32 = 12,
        /// Failed logins from one address, or for one account, before a pause.
        login_attempts: u32 = 10,
        /// Over which time failed logins count.
        login_window: Interval = Interval::from_secs(300),
    }
);

section!(
    /// How audio is written down.
    Recording {
        /// Longest time between syncs to disk: what a power cut can cost. 0 syncs
        /// every frame.
        sync_interval: Interval = Interval::from_secs(1),
        /// What becomes of audio that came as PCM once it is transcribed. `opus`:
        /// made anew as Ogg Opus, a tenth of its size. `wav`: kept as it is.
        /// `none`: deleted, and its transcript cannot be made again.
        archive: String = "opus".into(),
        /// Bits a second of archived audio, in thousands (6 to 128).
        archive_kbps: u32 = 24,
    }
);

section!(
    /// Room on the disk.
    Disk {
        /// Room kept free, in MiB. Below it audio that is in the bucket goes from
        /// this disk, then the oldest transcribed audio is deleted; where that is not
        /// enough, new audio is refused until there is room. Audio without a transcript is never deleted. Uploads may take
        /// half of it, until it is made free again.
        reserve_mib: u64 = 512,
        /// A warning is given when the room above the reserve lasts for less than
        /// this at the present rate.
        warn_headroom: Interval = Interval::from_secs(24 * 3600),
        /// How often the disk is looked at.
        check_interval: Interval = Interval::from_secs(10),
    }
);

section!(
    /// Copies in another place.
    Backup {
        /// Directory that `friend-lite backup` writes to, and that a damaged
        /// database is replaced from. Empty: the second of `$STATE_DIRECTORY`
        /// under systemd, else none.
        dir: String = String::new(),
        /// Backups that are kept.
        keep: usize = 14,
    }
);

section!(
    /// What is deleted by age or size; 0 keeps it. Audio that is not transcribed is
    /// never deleted, nor a conversation that has such audio. For a day after the
    /// clock was moved by more than a day nothing is deleted.
    Retention {
        /// Days that audio is kept; its transcript stays.
        audio_days: u32 = 0,
        /// The most MiB of audio that are kept on this disk; the oldest goes first,
        /// and what is in the bucket stays there.
        audio_mib: u64 = 0,
        /// Days that conversations are kept, with transcript and audio. What was
        /// remembered of them stays.
        conversations_days: u32 = 0,
        /// Days that memories are kept since they last changed.
        memories_days: u32 = 0,
        /// Days that talks with the assistant are kept since the last message.
        chats_days: u32 = 0,
        /// Days that finished jobs, the history of memories and the audit trail are
        /// kept.
        history_days: u32 = 365,
        /// How often that is looked at.
        interval: Interval = Interval::from_secs(3600),
    }
);

section!(
    /// Where conversations begin and end.
    Conversation {
        /// A conversation ends when nobody has spoken for this long.
        silence_timeout: Interval = Interval::from_secs(90),
        /// The longest conversation; it goes on in a new one.
        max_length: Interval = Interval::from_secs(3600),
        /// Audio kept from before the first speech on a stream without boundaries.
        pre_roll: Interval = Interval::from_secs(2),
        /// A device whose connection breaks and that is back within this time goes
        /// on with the same conversation. 0 closes it at once.
        reconnect_grace: Interval = Interval::from_secs(30),
    }
);

section!(
    /// How conversations are cut for transcription.
    Transcribe {
        /// How readily sound counts as speech: 0 (readily) to 3 (strictly), the
        /// modes of WebRTC's voice activity detector.
        vad_mode: u8 = 1,
        /// Speech gathered before a pause ends a window.
        window_min: Interval = Interval::from_secs(15),
        /// Speech after which a window ends with no pause at all; at most 29 s.
        window_max: Interval = Interval::from_secs(28),
        /// A pause this long ends a window with any speech in it, so that text
        /// appears while people are quiet.
        flush_after: Interval = Interval::from_secs(6),
        /// When to transcribe: `always`, `idle` (while nothing is recorded), or
        /// between two local times, as in `22:00-06:00`. What somebody waits for
        /// is done at any time.
        when: When = When::Always,
    }
);

section!(
    /// Cutting recordings down to their speech.
    Cropping {
        /// Write the speech of each recording to a second file.
        enabled: bool = true,
        /// Speech shorter than this is left out.
        min_speech: Interval = Interval::from_secs(1),
        /// Kept before and after speech.
        padding: Interval = Interval::from_millis(100),
    }
);

section!(
    /// Speech to text.
    Stt {
        /// Who transcribes, in order of preference: `deepgram`, `wyoming`,
        /// `openai`, `whisper` (on this machine). The next one steps in while
        /// those before it are away. Empty: Deepgram where its key is set, a
        /// Wyoming server where its address is, then whisper.
        engines: Vec<String> = Vec::new(),
        /// Whisper's model: one of the catalog or a path. `auto`: the best that
        /// fits this machine.
        model: String = "auto".into(),
        /// Language spoken, as an ISO 639-1 code, or `auto` to detect it.
        language: String = "auto".into(),
        /// Time the engine has for one window before it is ended; Deepgram has so
        /// much and as long as the speech lasts for a whole conversation.
        deadline: Interval = Interval::from_secs(300),
        /// A Wyoming speech-to-text server: `tcp://host:port`.
        wyoming_uri: String = String::new(),
        /// Windows that are transcribed at once where a service outside does it
        /// (1 to 8).
        parallel: usize = 4,
    }
);

section!(
    /// The language model.
    Llm {
        /// `llama` (on this machine), `openai` or `ollama`.
        engine: String = "llama".into(),
        /// `llama`: the model on this machine steps in while a service outside is
        /// away. Empty: what is to be remembered waits for the service.
        fallback: String = String::new(),
        /// Llama's model: one of the catalog or a path. `auto`: the best that fits
        /// this machine.
        model: String = "auto".into(),
        /// Tokens of context; more takes more memory.
        context: u32 = 2048,
        /// Time the engine has for one answer before it is ended.
        deadline: Interval = Interval::from_secs(1200),
    }
);

section!(
    /// Embeddings.
    Embed {
        /// `llama` (on this machine), `openai` or `ollama`. After a change run
        /// `friend-lite reindex`: vectors of different models cannot be compared.
        engine: String = "llama".into(),
        /// Llama's model: one of the catalog or a path. `auto`: the best that fits
        /// this machine.
        model: String = "auto".into(),
        /// Time the engine has for one batch before it is ended.
        deadline: Interval = Interval::from_secs(60),
    }
);

section!(
    /// Deepgram: speech to text.
    Deepgram {
        /// Key of its API. Setting it switches Deepgram on.
        api_key: Secret = Secret::default(),
        /// Where it is.
        url: String = "https://api.deepgram.com".into(),
        /// Model.
        model: String = "nova-3".into(),
        /// Whether conversations are sent while they are recorded, so that words are
        /// there as they are said, and not when it is over.
        live: bool = false,
    }
);

section!(
    /// OpenAI, or a server that speaks its API: used where `stt.engines`,
    /// `llm.engine` or `embed.engine` names it.
    Openai {
        /// Key of the API at `url`. Empty: none is sent.
        api_key: Secret = Secret::default(),
        /// Where it is, up to and with `/v1`.
        url: String = "https://api.openai.com/v1".into(),
        /// Model that writes.
        model: String = "gpt-4o".into(),
        /// Model that makes embeddings.
        embed_model: String = "text-embedding-3-small".into(),
        /// Model that transcribes.
        speech_model: String = "whisper-1".into(),
        /// Another server that makes the embeddings. Empty: the one at `url`.
        embed_url: String = String::new(),
        /// Its key.
        embed_key: Secret = Secret::default(),
        /// Another server that transcribes. Empty: the one at `url`.
        speech_url: String = String::new(),
        /// Its key.
        speech_key: Secret = Secret::default(),
    }
);

section!(
    /// Ollama: used where `llm.engine` or `embed.engine` names it.
    Ollama {
        /// Where it is.
        url: String = "http://localhost:11434".into(),
        /// Model that writes.
        model: String = "llama3.1:8b".into(),
        /// Model that makes embeddings.
        embed_model: String = "nomic-embed-text:latest".into(),
    }
);

section!(
    /// The database, of everything but the audio itself.
    Store {
        /// `sqlite` (a file in the state directory) or `mongodb`. `friend-lite migrate`
        /// takes along what is there; a change of this alone does not.
        engine: String = "sqlite".into(),
        /// What this daemon is called among those that share a MongoDB: each needs a
        /// name of its own, and keeps it. Empty: the machine's name.
        node: String = String::new(),
        /// A daemon that the others have not heard of for so long counts as dead: what
        /// it was doing is done by them. The same for all.
        node_silence: Interval = Interval::from_secs(60),
        /// Where the others reach this one, such as `http://friend-lite-1:8000`. A device
        /// that comes back to another one than has its conversation is passed on to
        /// there. Empty: it begins a new one.
        node_url: String = String::new(),
    }
);

section!(
    /// MongoDB: used where `store.engine` names it. It has to be a replica set; one
    /// of a single member is enough.
    Mongodb {
        /// Where it is, with the login: `mongodb://user:password@host:27017`. More
        /// than one member, and TLS, are asked for as everywhere:
        /// `mongodb://a,b/?replicaSet=rs0&tls=true`.
        uri: Secret = Secret::default(),
        /// Name of the database. Our collections in it all begin with `fl_`.
        database: String = "friend-lite".into(),
    }
);

section!(
    /// The vector index over memories.
    Index {
        /// `sqlite-vec` (in the daemon's own database; in MongoDB every vector of the
        /// user is compared instead) or `qdrant`. Either gets all memories by itself
        /// after a change.
        engine: String = "sqlite-vec".into(),
    }
);

section!(
    /// Neo4j: used where `graph.engine` names it. Any server that speaks Bolt and
    /// Cypher will do.
    Neo4j {
        /// Where its Bolt interface is. A host name alone means port 7687 there;
        /// `bolt+s://` and `neo4j+s://` are encrypted, and of certificates
        /// `remote.ca` alone counts then, where that is set.
        uri: String = "bolt://localhost:7687".into(),
        /// Who asks.
        user: String = "neo4j".into(),
        /// The password of that user.
        password: Secret = Secret::default(),
        /// Database of the graph; what others have in it stays as it is.
        database: String = "neo4j".into(),
        /// Time one request may take.
        deadline: Interval = Interval::from_secs(10),
    }
);

section!(
    /// Qdrant: used where `index.engine` names it.
    Qdrant {
        /// Where its gRPC interface is. A host name alone means port 6334 there.
        url: String = "http://localhost:6334".into(),
        /// Key of its API. Empty: none is sent.
        api_key: Secret = Secret::default(),
        /// Collection of the memories; it is made when it is not there. Memories
        /// that mem0 has left in it become memories here, of the users of the same
        /// ids; they need the embedding model that mem0 had.
        collection: String = "omi_memories".into(),
        /// Time one request may take.
        deadline: Interval = Interval::from_secs(5),
    }
);

section!(
    /// Recordings in a bucket of S3, or of a server that speaks its protocol. They
    /// are recorded on this machine first, as ever, and copied once they are closed
    /// and archived. A copy on this machine goes when its disk needs the room.
    S3 {
        /// The bucket. Empty: switched off.
        bucket: String = String::new(),
        /// Where a server other than Amazon's is (`https://minio.lan:9000`). Empty:
        /// Amazon's, of the region.
        endpoint: String = String::new(),
        /// Region.
        region: String = "us-east-1".into(),
        /// What the names of the objects begin with, as a directory.
        prefix: String = String::new(),
        /// Id of the access key. It may list the bucket, and put, get and delete
        /// objects.
        access_key_id: Secret = Secret::default(),
        /// The access key itself.
        secret_access_key: Secret = Secret::default(),
        /// Time one request may take: it moves 5 MiB at most.
        deadline: Interval = Interval::from_secs(60),
        /// How often recordings are looked for that are not there yet.
        interval: Interval = Interval::from_secs(60),
    }
);

section!(
    /// Services outside, all of them.
    Remote {
        /// Time one has to take a connection.
        connect_timeout: Interval = Interval::from_secs(5),
        /// Pause after one has failed before it is asked again; each failure
        /// doubles it, up to a minute.
        pause: Interval = Interval::from_secs(5),
        /// Certificates of authorities that are trusted besides the system's, a
        /// PEM file. Empty: none.
        ca: String = String::new(),
    }
);

section!(
    /// What is remembered.
    Memory {
        /// Extract memories at all.
        enabled: bool = true,
        /// Transcripts shorter than this many characters are not looked at.
        min_characters: usize = 10,
        /// Time one conversation may take up the language model with comparing what
        /// is new with what is known; the rest is then kept as it is.
        deadline: Interval = Interval::from_secs(300),
    }
);

section!(
    /// Who and what memories speak of.
    Graph {
        /// Read memories for people, places and things and how they are related.
        /// It takes an answer of the language model for every few memories; those
        /// from before it was switched on are read too.
        enabled: bool = false,
        /// Where it is kept: `sqlite` (the daemon's own database) or `neo4j`. Either
        /// has all memories read anew after a change.
        engine: String = "sqlite".into(),
        /// Memories that a search looks at besides, because they speak of somebody
        /// or something that its best hits speak of; they come after those. 0: none.
        widen: usize = 10,
    }
);

section!(
    /// The processes that run models.
    Engines {
        /// Directory of the engine programs. Empty: beside the daemon.
        dir: String = String::new(),
        /// Threads of one inference. 0: the cores less one.
        threads: usize = 0,
        /// Time an engine has to load its model; it is tried again after that.
        start_timeout: Interval = Interval::from_secs(60),
        /// An engine idle for this long is ended, which gives its memory back.
        idle_timeout: Interval = Interval::from_secs(120),
        /// Niceness of the engines (0 to 19): recording goes first.
        nice: i32 = 10,
        /// Keep only one large engine in memory at a time. `auto`: below 3 GiB.
        exclusive: String = "auto".into(),
    }
);

section!(
    /// Model files.
    Models {
        /// Directory of the model files. Empty: `models` below the state
        /// directory under systemd, else the user's cache directory.
        dir: String = String::new(),
        /// Fetch the models that are wanted and missing while the daemon runs.
        fetch: bool = true,
        /// Where to get them, in this order: `https`, `registry`, `path`, or a
        /// directory that holds the files.
        sources: Vec<String> = vec!["path".into(), "https".into(), "registry".into()],
        /// Pause after a failed fetch; each one after doubles it, up to an hour.
        retry_pause: Interval = Interval::from_secs(60),
    }
);

section!(
    /// The job queue.
    Jobs {
        /// Attempts before a job is given up; it can be retried by hand.
        max_attempts: u32 = 5,
        /// Pause before the first retry; each one after doubles it. Also how often a
        /// model or service that is away is asked for by the work that waits for it.
        retry_pause: Interval = Interval::from_secs(5),
        /// How often lost work is looked for.
        sweep_interval: Interval = Interval::from_secs(300),
    }
);

section!(
    /// A database of the original Friend-Lite, in which `store.engine = "mongodb"`
    /// keeps its own collections: the users and conversations there are taken over at
    /// each start, as far as they are new. It is only read.
    Import {
        /// Directory of the original's recordings, which are copied. Empty: those
        /// conversations have their transcripts alone, until this is set.
        audio: String = String::new(),
    }
);

section!(
    /// Uploaded files.
    Uploads {
        /// The largest file, in MiB.
        max_file_mib: u64 = 1024,
        /// The largest request, all of its files together, in MiB.
        max_request_mib: u64 = 4096,
        /// A recording longer than this is skipped. The original skipped what is
        /// longer than `20m`.
        max_length: Interval = Interval::from_secs(24 * 3600),
        /// A client that sends nothing for this long is given up.
        timeout: Interval = Interval::from_secs(60),
        /// How long a request that waits for its transcripts waits; they are made
        /// all the same after that.
        wait: Interval = Interval::from_secs(60),
    }
);

section!(
    /// How the daemon looks after its parts.
    Health {
        /// Time the database has to answer before `/health` says that it does not.
        store_timeout: Interval = Interval::from_secs(5),
    }
);

section!(
    /// Being found on the local network.
    Discovery {
        /// Announce the daemon by mDNS, unless it listens on loopback only.
        enabled: bool = true,
        /// Name to announce. Empty: "Friend-Lite" and the machine's name.
        name: String = String::new(),
        /// Network interfaces to announce on. Empty: all but loopback.
        interfaces: Vec<String> = Vec::new(),
    }
);

/// Where the service that a package installs keeps its state and its backups.
const SERVICE_DIRS: [&str; 2] = ["/var/lib/friend-lite", "/var/lib/friend-lite-backup"];

/// One of the service's directories, as systemd names them to it, separated by
/// colons; and the same for root, who looks after it. The first is for what the
/// daemon keeps, the second for its backups.
pub(crate) fn service_dir(index: usize) -> Option<PathBuf> {
    if let Ok(given) = std::env::var("STATE_DIRECTORY") {
        return given.split(':').nth(index).filter(|dir| !dir.is_empty()).map(Into::into);
    }
    let installed = PathBuf::from(SERVICE_DIRS.get(index)?);
    (rustix::process::geteuid().is_root() && installed.is_dir()).then_some(installed)
}

impl Disk {
    /// Room that is kept free, in bytes.
    pub fn reserve(&self) -> u64 {
        self.reserve_mib.saturating_mul(1 << 20)
    }

    /// Room that uploads leave free, in bytes. Less than the reserve: on a disk
    /// that has reached it, old audio makes room for what is uploaded too.
    pub fn upload_reserve(&self) -> u64 {
        self.reserve() / 2
    }
}

impl Stt {
    /// Whether a Wyoming server is named.
    fn has_wyoming(&self) -> bool {
        !self.wyoming_uri.is_empty()
    }
}

impl Store {
    /// Whether the database is in MongoDB.
    pub fn is_mongodb(&self) -> bool {
        self.engine == "mongodb"
    }

    /// What this daemon is called among those that share a MongoDB.
    pub fn node_name(&self) -> String {
        match self.node.as_str() {
            "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            name => name.to_owned(),
        }
    }
}

impl Qdrant {
    /// The URL of its gRPC interface: of a host name alone, with all else that is
    /// usual.
    pub fn address(&self) -> String {
        let url = self.url.trim_end_matches('/');
        match (url.contains("://"), url.contains(':')) {
            (true, _) => url.to_owned(),
            (false, true) => format!("http://{url}"),
            (false, false) => format!("http://{url}:6334"),
        }
    }
}

impl Neo4j {
    /// The URI of its Bolt interface: of a host name alone, with all else that is
    /// usual.
    pub fn address(&self) -> String {
        let uri = self.uri.trim_end_matches('/');
        match (uri.contains("://"), uri.contains(':')) {
            (true, _) => uri.to_owned(),
            (false, true) => format!("bolt://{uri}"),
            (false, false) => format!("bolt://{uri}:7687"),
        }
    }
}

impl S3 {
    /// Whether recordings are kept there.
    pub fn is_used(&self) -> bool {
        !self.bucket.is_empty()
    }
}

impl Openai {
    /// Where audio is transcribed, and the key that is shown there.
    pub fn speech(&self) -> (&str, &Secret) {
        self.at(&self.speech_url, &self.speech_key)
    }

    /// Where embeddings are made, and the key that is shown there.
    pub fn embed(&self) -> (&str, &Secret) {
        self.at(&self.embed_url, &self.embed_key)
    }

    fn at<'a>(&'a self, other: &'a str, key: &'a Secret) -> (&'a str, &'a Secret) {
        // A key is shown to the server that it is for, and to no other.
        if other.is_empty() { (&self.url, &self.api_key) } else { (other, key) }
    }
}

impl Config {
    /// Who transcribes, in order of preference.
    pub fn speech_engines(&self) -> Vec<&str> {
        if !self.stt.engines.is_empty() {
            return self.stt.engines.iter().map(String::as_str).collect();
        }
        let deepgram = (!self.deepgram.api_key.is_empty()).then_some("deepgram");
        let wyoming = self.stt.has_wyoming().then_some("wyoming");
        deepgram.into_iter().chain(wyoming).chain(["whisper"]).collect()
    }

    /// Whether the preferred speech engine is given a conversation at once, when it
    /// is closed, so that its speakers are the same all through.
    pub fn hears_whole(&self) -> bool {
        self.speech_engines().first() == Some(&"deepgram")
    }

    /// Whether whisper may be asked for a transcript.
    pub fn uses_whisper(&self) -> bool {
        self.speech_engines().contains(&"whisper")
    }

    /// Whether the language model on this machine may be asked.
    pub fn uses_llama(&self) -> bool {
        self.llm.engine == "llama" || self.llm.fallback == "llama"
    }

    /// Where the database and the audio live.
    pub fn state_dir(&self) -> PathBuf {
        if !self.state.dir.is_empty() {
            return self.state.dir.clone().into();
        }
        if let Some(dir) = service_dir(0) {
            return dir;
        }
        directories::ProjectDirs::from("", "", "friend-lite")
            .map_or_else(|| "friend-lite".into(), |dirs| dirs.data_dir().to_owned())
    }

    /// Where backups are, if anywhere.
    pub fn backup_dir(&self) -> Option<PathBuf> {
        match self.backup.dir.as_str() {
            "" => service_dir(1),
            dir => Some(dir.into()),
        }
    }
}
