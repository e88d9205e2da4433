//! Rules between values that types alone cannot hold.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::Config;
use crate::base::error::{Error, Kind, Result};

/// Longest password bcrypt reads, in bytes.
const MAX_PASSWORD_BYTES: usize = 72;

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// `Config`, naming the key, what is wrong with it and what is allowed.
    pub fn validate(&self) -> Result<()> {
        require(self.tls.certificate.is_empty() == self.tls.key.is_empty(), "tls.key", || {
            "tls.certificate and tls.key go together: set both, or neither".into()
        })?;
        address("server.listen", &self.server.listen)?;
        if !self.wyoming.listen.is_empty() {
            address("wyoming.listen", &self.wyoming.listen)?;
        }
        address("esp32.listen", &self.esp32.listen)?;
        device("wyoming.device", &self.wyoming.device)?;
        device("esp32.device", &self.esp32.device)?;
        device("webhook.device", &self.webhook.device)?;
        positive("wyoming.max_length", self.wyoming.max_length.get())?;
        positive("wyoming.idle_timeout", self.wyoming.idle_timeout.get())?;
        require(self.server.max_connections >= 8, "server.max_connections", || {
            "must be at least 8".into()
        })?;
        require(self.server.max_streams_per_user >= 1, "server.max_streams_per_user", || {
            "must be at least 1".into()
        })?;
        positive("server.header_timeout", self.server.header_timeout.get())?;
        positive("server.stream_timeout", self.server.stream_timeout.get())?;
        let token = self.server.metrics_token.expose();
        require(token.is_empty() || token.len() >= 16, "server.metrics_token", || {
            "must be at least 16 characters, or empty".into()
        })?;
        let legacy = &self.server.legacy_user;
        require(legacy.is_empty() || legacy.contains('@'), "server.legacy_user", || {
            format!("`{legacy}` is not an e-mail address; leave it empty to refuse /ws")
        })?;
        for proxy in &self.server.trusted_proxies {
            require(network(proxy).is_some(), "server.trusted_proxies", || {
                format!("`{proxy}` is neither an address nor a network such as 10.0.0.0/8")
            })?;
        }
        for origin in &self.server.cors_origins {
            let good = is_origin(origin) || network(origin).is_some();
            require(good, "server.cors_origins", || {
                format!("`{origin}` is not an origin such as https://dash.example.com")
            })?;
        }
        positive("auth.token_lifetime", self.auth.token_lifetime.get())?;
        positive("auth.login_window", self.auth.login_window.get())?;
        require(self.auth.login_attempts >= 1, "auth.login_attempts", || {
            "must be at least 1".into()
        })?;
        require((4..=31).contains(&self.auth.bcrypt_cost), "auth.bcrypt_cost", || {
            "must be 4 to 31".into()
        })?;
        require(self.auth.admin_email.contains('@'), "auth.admin_email", || {
            "must be an e-mail address".into()
        })?;
        require(
            self.auth.admin_password.expose().len() <= MAX_PASSWORD_BYTES,
            "auth.admin_password",
            || format!("must be at most {MAX_PASSWORD_BYTES} bytes"),
        )?;
        let key = self.auth.secret_key.expose();
        require(key.is_empty() || key.len() >= 16, "auth.secret_key", || {
            "must be at least 16 characters; leave it empty to have one made".into()
        })?;
        require(
            self.recording.sync_interval.get() <= Duration::from_secs(60),
            "recording.sync_interval",
            || "must be at most 60s: it is what a power cut can cost".into(),
        )?;
        let archive = &self.recording.archive;
        require(matches!(archive.as_str(), "opus" | "wav" | "none"), "recording.archive", || {
            format!("`{archive}` is not one of opus, wav, none")
        })?;
        require(
            (6..=128).contains(&self.recording.archive_kbps),
            "recording.archive_kbps",
            || "must be 6 to 128".into(),
        )?;
        positive("disk.check_interval", self.disk.check_interval.get())?;
        require(self.backup.keep >= 1, "backup.keep", || "must be at least 1".into())?;
        positive("retention.interval", self.retention.interval.get())?;
        positive("conversation.silence_timeout", self.conversation.silence_timeout.get())?;
        require(
            self.conversation.max_length.get() >= Duration::from_secs(60),
            "conversation.max_length",
            || "must be at least 1m".into(),
        )?;
        require(
            self.conversation.pre_roll.get() <= Duration::from_secs(30),
            "conversation.pre_roll",
            || "must be at most 30s".into(),
        )?;
        require(
            self.conversation.reconnect_grace.get() <= Duration::from_secs(3600),
            "conversation.reconnect_grace",
            || "must be at most 1h: a conversation that waits is not remembered yet".into(),
        )?;
        require(self.transcribe.vad_mode <= 3, "transcribe.vad_mode", || "must be 0 to 3".into())?;
        let (min, max) = (self.transcribe.window_min.get(), self.transcribe.window_max.get());
        require(
            min >= Duration::from_secs(1) && min <= max && max <= Duration::from_secs(29),
            "transcribe.window_min",
            || {
                "needs 1s <= window_min <= window_max <= 29s: the speech model reads 30 s at once"
                    .into()
            },
        )?;
        positive("transcribe.flush_after", self.transcribe.flush_after.get())?;
        require(
            self.cropping.padding.get() <= Duration::from_secs(10),
            "cropping.padding",
            || "must be at most 10s".into(),
        )?;
        let language = &self.stt.language;
        require(
            language == "auto"
                || (language.len() == 2 && language.chars().all(|c| c.is_ascii_lowercase())),
            "stt.language",
            || format!("`{language}` is neither `auto` nor a two-letter code such as `en`"),
        )?;
        self.validate_services()?;
        require((512..=32768).contains(&self.llm.context), "llm.context", || {
            "must be 512 to 32768 tokens".into()
        })?;
        for (key, deadline) in [
            ("stt.deadline", self.stt.deadline),
            ("llm.deadline", self.llm.deadline),
            ("embed.deadline", self.embed.deadline),
            ("engines.idle_timeout", self.engines.idle_timeout),
            ("engines.start_timeout", self.engines.start_timeout),
            ("memory.deadline", self.memory.deadline),
            ("models.retry_pause", self.models.retry_pause),
            ("jobs.sweep_interval", self.jobs.sweep_interval),
            ("uploads.max_length", self.uploads.max_length),
            ("uploads.timeout", self.uploads.timeout),
            ("health.store_timeout", self.health.store_timeout),
            ("qdrant.deadline", self.qdrant.deadline),
            ("neo4j.deadline", self.neo4j.deadline),
            ("s3.deadline", self.s3.deadline),
            ("s3.interval", self.s3.interval),
            ("remote.connect_timeout", self.remote.connect_timeout),
            ("remote.pause", self.remote.pause),
        ] {
            positive(key, deadline.get())?;
        }
        require((0..=19).contains(&self.engines.nice), "engines.nice", || {
            "must be 0 to 19".into()
        })?;
        require(self.engines.threads <= 256, "engines.threads", || "must be at most 256".into())?;
        let exclusive = &self.engines.exclusive;
        require(matches!(exclusive.as_str(), "auto" | "yes" | "no"), "engines.exclusive", || {
            format!("`{exclusive}` is not one of auto, yes, no")
        })?;
        for source in &self.models.sources {
            require(
                matches!(source.as_str(), "https" | "registry" | "path") || source.contains('/'),
                "models.sources",
                || format!("`{source}` is not one of path, https, registry, or a directory"),
            )?;
        }
        let (file, request) = (self.uploads.max_file_mib, self.uploads.max_request_mib);
        require((1..=1 << 20).contains(&file), "uploads.max_file_mib", || {
            "must be 1 to 1048576 MiB".into()
        })?;
        require((file..=1 << 20).contains(&request), "uploads.max_request_mib", || {
            format!("must be {file}, the largest file, to 1048576 MiB")
        })?;
        require(self.jobs.max_attempts >= 1, "jobs.max_attempts", || "must be at least 1".into())
    }
}

impl Config {
    /// Checks what concerns services outside.
    fn validate_services(&self) -> Result<()> {
        let engines = &self.stt.engines;
        for (n, engine) in engines.iter().enumerate() {
            let known = ["deepgram", "wyoming", "openai", "whisper"].contains(&engine.as_str());
            require(known, "stt.engines", || {
                format!("`{engine}` is not one of deepgram, wyoming, openai, whisper")
            })?;
            require(
                !engines.iter().take(n).any(|earlier| earlier == engine),
                "stt.engines",
                || format!("`{engine}` is named twice"),
            )?;
        }
        let speech = self.speech_engines();
        require(
            !speech.contains(&"deepgram") || !self.deepgram.api_key.is_empty(),
            "deepgram.api_key",
            || "is needed for the engine deepgram".into(),
        )?;
        let uri = &self.stt.wyoming_uri;
        require(!speech.contains(&"wyoming") || !uri.is_empty(), "stt.wyoming_uri", || {
            "is needed for the engine wyoming".into()
        })?;
        require(uri.is_empty() || self.wyoming_server().is_some(), "stt.wyoming_uri", || {
            format!("`{uri}` is not of the form tcp://host:port")
        })?;
        require((1..=8).contains(&self.stt.parallel), "stt.parallel", || "must be 1 to 8".into())?;
        for (key, engine) in
            [("llm.engine", &self.llm.engine), ("embed.engine", &self.embed.engine)]
        {
            require(matches!(engine.as_str(), "llama" | "openai" | "ollama"), key, || {
                format!("`{engine}` is not one of llama, openai, ollama")
            })?;
        }
        let fallback = &self.llm.fallback;
        require(matches!(fallback.as_str(), "" | "llama"), "llm.fallback", || {
            format!("`{fallback}` is not llama, and not empty")
        })?;
        let engine = &self.store.engine;
        require(matches!(engine.as_str(), "sqlite" | "mongodb"), "store.engine", || {
            format!("`{engine}` is neither sqlite nor mongodb")
        })?;
        let mongodb = self.store.is_mongodb();
        require(!mongodb || !self.mongodb.uri.is_empty(), "mongodb.uri", || {
            "is needed for the engine mongodb".into()
        })?;
        let apart = !self.graph.enabled || self.graph.engine == "neo4j";
        require(!mongodb || apart, "graph.enabled", || {
            "needs graph.engine = \"neo4j\" where store.engine is \"mongodb\"; or switch it off"
                .into()
        })?;
        let database = &self.mongodb.database;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let good = (1..=63).contains(&database.len()) && database.chars().all(plain);
        require(good, "mongodb.database", || {
            format!("`{database}` is not of letters, digits, `-` and `_` alone, 63 at most")
        })?;
        let engine = &self.index.engine;
        require(matches!(engine.as_str(), "sqlite-vec" | "qdrant"), "index.engine", || {
            format!("`{engine}` is neither sqlite-vec nor qdrant")
        })?;
        let engine = &self.graph.engine;
        require(matches!(engine.as_str(), "sqlite" | "neo4j"), "graph.engine", || {
            format!("`{engine}` is neither sqlite nor neo4j")
        })?;
        require(self.graph.widen <= 100, "graph.widen", || "must be at most 100".into())?;
        let uri = self.neo4j.address();
        let schemes = ["bolt", "bolt+s", "neo4j", "neo4j+s"];
        let known = reqwest::Url::parse(&uri).is_ok_and(|url| {
            schemes.contains(&url.scheme()) && url.has_host() && url.password().is_none()
        });
        require(known, "neo4j.uri", || {
            format!("`{uri}` is not of the form bolt://host:port (nor bolt+s, neo4j, neo4j+s)")
        })?;
        require(!self.neo4j.database.is_empty(), "neo4j.database", || "must not be empty".into())?;
        let collection = &self.qdrant.collection;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        require(
            !collection.is_empty() && collection.chars().all(plain),
            "qdrant.collection",
            || format!("`{collection}` is not of letters, digits, `-`, `_` and `.` alone"),
        )?;
        for (key, url) in [
            ("qdrant.url", &self.qdrant.address()),
            ("deepgram.url", &self.deepgram.url),
            ("openai.url", &self.openai.url),
            ("ollama.url", &self.ollama.url),
        ] {
            require(is_base_url(url), key, || bad_url(url))?;
        }
        for (key, url) in [
            ("openai.embed_url", &self.openai.embed_url),
            ("openai.speech_url", &self.openai.speech_url),
            ("s3.endpoint", &self.s3.endpoint),
            ("store.node_url", &self.store.node_url),
        ] {
            require(url.is_empty() || is_base_url(url), key, || bad_url(url))?;
        }
        let s3 = &self.s3;
        let keys = [&s3.access_key_id, &s3.secret_access_key];
        require(
            !s3.is_used() || keys.iter().all(|key| !key.is_empty()),
            "s3.access_key_id",
            || "s3.bucket needs s3.access_key_id and s3.secret_access_key".into(),
        )?;
        require(!s3.region.is_empty(), "s3.region", || "must not be empty".into())
    }

    /// Host and port of the Wyoming speech-to-text server, if one is named.
    pub fn wyoming_server(&self) -> Option<&str> {
        let server = self.stt.wyoming_uri.strip_prefix("tcp://")?.trim_end_matches('/');
        let (host, port) = server.rsplit_once(':')?;
        (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(server)
    }
}

/// Whether `text` is where a server is: no query, and nobody's password.
fn is_base_url(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

/// The text is not repeated where it may hold a password.
fn bad_url(text: &str) -> String {
    let shown = if text.contains('@') { "it".into() } else { format!("`{text}`") };
    format!("{shown} is not of the form https://host:port/path; a key has a key of its own here")
}

fn address(key: &str, listen: &str) -> Result<()> {
    require(listen.parse::<SocketAddr>().is_ok(), key, || {
        format!("`{listen}` is not an address and port, such as 0.0.0.0:8000 or [::]:8000")
    })
}

fn device(key: &str, name: &str) -> Result<()> {
    require(name.chars().any(|c| c.is_ascii_alphanumeric()), key, || {
        format!("`{name}` holds no letter or digit")
    })
}

/// The network that `text` names: `10.0.0.0/8`, or one address.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Whether a browser can call `text` the origin of a page: no path, and no `*`,
/// since every page would act for whoever is logged in.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
    })
}

fn positive(key: &str, value: Duration) -> Result<()> {
    require(!value.is_zero(), key, || "must be longer than zero".into())
}

fn require(holds: bool, key: &str, why: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::new(Kind::Config, format!("{key}: {}", why()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn a_bad_value_is_named() {
        let mut config = Config::default();
        config.server.listen = "somewhere".into();
        let message = config.validate().unwrap_err().to_string();
        assert!(message.starts_with("server.listen: `somewhere`"), "{message}");

        for (proxy, good) in
            [("10.0.0.0/8", true), ("127.0.0.1", true), ("fd00::/8", true), ("10.0.0", false)]
        {
            let mut config = Config::default();
            config.server.trusted_proxies = vec![proxy.into()];
            assert_eq!(config.validate().is_ok(), good, "{proxy}");
        }
        for (origin, good) in [
            ("https://dash.example.com", true),
            ("http://[fd00::1]:5173", true),
            ("100.64.0.0/10", true),
            ("100.64.0.0/40", false),
            ("*", false),
            ("https://", false),
            ("https://dash.example.com/", false),
        ] {
            let mut config = Config::default();
            config.server.cors_origins = vec![origin.into()];
            assert_eq!(config.validate().is_ok(), good, "{origin}");
        }

        for (set, key) in [
            (&|c: &mut Config| c.stt.engines = vec!["deepgram".into()], "deepgram.api_key"),
            (&|c: &mut Config| c.stt.engines = vec!["wyoming".into()], "stt.wyoming_uri"),
            (&|c: &mut Config| c.stt.engines = vec!["vosk".into()], "stt.engines"),
            (&|c: &mut Config| c.stt.wyoming_uri = "localhost:1".into(), "stt.wyoming_uri"),
            (&|c: &mut Config| c.llm.engine = "gpt".into(), "llm.engine"),
            (&|c: &mut Config| c.llm.fallback = "ollama".into(), "llm.fallback"),
            (&|c: &mut Config| c.ollama.url = "http://me:pw@host".into(), "ollama.url"),
            (&|c: &mut Config| c.openai.embed_url = "host/v1".into(), "openai.embed_url"),
            (&|c: &mut Config| c.index.engine = "faiss".into(), "index.engine"),
            (&|c: &mut Config| c.qdrant.url = "ftp://qdrant".into(), "qdrant.url"),
            (&|c: &mut Config| c.qdrant.collection = "a/b".into(), "qdrant.collection"),
            (&|c: &mut Config| c.graph.engine = "oracle".into(), "graph.engine"),
            (&|c: &mut Config| c.graph.widen = 1000, "graph.widen"),
            (&|c: &mut Config| c.neo4j.uri = "http://graph:7474".into(), "neo4j.uri"),
            (&|c: &mut Config| c.neo4j.uri = "bolt://me:secret@graph".into(), "neo4j.uri"),
        ] as [(&dyn Fn(&mut Config), &str); 15]
        {
            let mut config = Config::default();
            set(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{key}: ")), "{message}");
            assert!(!message.contains("pw"), "{message}");
        }
        let mut config = Config::default();
        assert_eq!(config.speech_engines(), ["whisper"]);
        config.deepgram.api_key = super::super::Secret::new("key");
        config.stt.wyoming_uri = "tcp://asr.lan:10300/".into();
        config.validate().unwrap();
        assert_eq!(config.speech_engines(), ["deepgram", "wyoming", "whisper"]);
        assert_eq!(config.wyoming_server(), Some("asr.lan:10300"));

        let mut config = Config::default();
        config.wyoming.listen = "10300".into();
        assert!(config.validate().unwrap_err().to_string().starts_with("wyoming.listen: `10300`"));
        config.wyoming.listen = String::new();
        config.validate().unwrap();

        let mut config = Config::default();
        config.transcribe.window_max = super::super::Interval::from_secs(40);
        assert!(config.validate().is_err());
    }
}
