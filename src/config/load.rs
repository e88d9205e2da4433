//! Builds the configuration: defaults ← file ← environment ← command line.
//!
//! All layers are TOML trees laid over the tree of the defaults, so every key,
//! its type and its spelling are known from one place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, service_dir};
use crate::base::error::{Context, Error, Kind, Result};

/// The file read when none is named and it exists.
const SYSTEM_FILE: &str = "/etc/friend-lite/config.toml";

/// Prefix of environment variables that set any key:
/// `FRIEND_LITE__SECTION__KEY`.
const ENV_PREFIX: &str = "FRIEND_LITE__";

/// Friend-Lite's own environment variables and the keys they set here.
const KNOWN_ENV: &[(&str, &str, &str)] = &[
    ("AUTH_SECRET_KEY", "auth", "secret_key"),
    ("ADMIN_EMAIL", "auth", "admin_email"),
    ("ADMIN_PASSWORD", "auth", "admin_password"),
    ("COOKIE_SECURE", "auth", "cookie_secure"),
    ("CORS_ORIGINS", "server", "cors_origins"),
    ("AUDIO_CROPPING_ENABLED", "cropping", "enabled"),
    ("MIN_SPEECH_SEGMENT_DURATION", "cropping", "min_speech"),
    ("CROPPING_CONTEXT_PADDING", "cropping", "padding"),
    ("DEEPGRAM_API_KEY", "deepgram", "api_key"),
    ("OFFLINE_ASR_TCP_URI", "stt", "wyoming_uri"),
    ("LLM_PROVIDER", "llm", "engine"),
    ("OPENAI_API_KEY", "openai", "api_key"),
    ("OPENAI_BASE_URL", "openai", "url"),
    ("OPENAI_MODEL", "openai", "model"),
    ("OPENAI_EMBEDDER_MODEL", "openai", "embed_model"),
    ("OLLAMA_BASE_URL", "ollama", "url"),
    ("OLLAMA_MODEL", "ollama", "model"),
    ("OLLAMA_EMBEDDER_MODEL", "ollama", "embed_model"),
    ("MONGODB_URI", "mongodb", "uri"),
    ("VECTOR_STORE_PROVIDER", "index", "engine"),
    ("QDRANT_BASE_URL", "qdrant", "url"),
    ("QDRANT_API_KEY", "qdrant", "api_key"),
    ("NEO4J_HOST", "neo4j", "uri"),
    ("NEO4J_USER", "neo4j", "user"),
    ("NEO4J_PASSWORD", "neo4j", "password"),
    ("AWS_ACCESS_KEY_ID", "s3", "access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "s3", "secret_access_key"),
];

/// Keys whose values are secrets: these also read `NAME_FILE`.
const SECRETS: &[(&str, &str)] = &[
    ("auth", "secret_key"),
    ("auth", "admin_password"),
    ("server", "metrics_token"),
    ("deepgram", "api_key"),
    ("openai", "api_key"),
    ("openai", "embed_key"),
    ("openai", "speech_key"),
    ("qdrant", "api_key"),
    ("mongodb", "uri"),
    ("neo4j", "password"),
    ("s3", "access_key_id"),
    ("s3", "secret_access_key"),
];

/// What decides the configuration besides the file's own content.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file named on the command line.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Keys given on the command line, as (section, key, value).
    pub overrides: Vec<(&'static str, &'static str, String)>,
}

impl Sources {
    /// From the process's own environment.
    pub fn from_process(file: Option<PathBuf>) -> Self {
        Self { file, env: std::env::vars().collect(), overrides: Vec::new() }
    }
}

/// Loads and validates the configuration. Also returns the file that was read.
///
/// # Errors
/// `Config`, naming the file or variable, the key, and the nearest known key
/// when it is a misspelling.
pub fn load(sources: &Sources) -> Result<(Config, Option<PathBuf>)> {
    let defaults = Table::try_from(Config::default())
        .context(Kind::Internal, "the default configuration cannot be written")?;
    let mut tree = Table::new();

    let file = sources.file.clone().or_else(|| default_file(&sources.env));
    if let Some(path) = &file {
        let text = std::fs::read_to_string(path)
            .with_context(Kind::Config, || format!("cannot read {}", path.display()))?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            Error::new(
                Kind::Config,
                format!("{}: {}", path.display(), error.to_string().trim_end()),
            )
        })?;
        check_keys(&table, &defaults)
            .map_err(|error| Error::new(Kind::Config, format!("{}: {error}", path.display())))?;
        tree = table;
    }
    for (name, section, key, value) in environment(&sources.env)? {
        set(&mut tree, &defaults, &section, &key, &value).map_err(|error| {
            Error::new(Kind::Config, format!("environment variable {name}: {error}"))
        })?;
    }
    for (section, key, value) in &sources.overrides {
        set(&mut tree, &defaults, section, key, value)?;
    }

    let config: Config = tree.try_into().map_err(|error: toml::de::Error| {
        Error::new(Kind::Config, format!("configuration: {}", error.to_string().trim_end()))
    })?;
    config.validate()?;
    Ok((config, file))
}

/// The effective configuration as TOML, secrets hidden.
///
/// # Errors
/// `Internal` when it cannot be written, which a test rules out.
pub fn to_toml(config: &Config) -> Result<String> {
    toml::to_string(config).context(Kind::Internal, "the configuration cannot be written")
}

fn default_file(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let user = directories::ProjectDirs::from("", "", "friend-lite")
        .map(|dirs| dirs.config_dir().join("config.toml"));
    let system = PathBuf::from(SYSTEM_FILE);
    // The service reads no user's file, and root none of its own for it.
    let candidates = if env.contains_key("STATE_DIRECTORY") || service_dir(0).is_some() {
        vec![Some(system)]
    } else {
        vec![user, Some(system)]
    };
    candidates.into_iter().flatten().find(|path| path.is_file())
}

/// Every setting in the environment: (variable, section, key, value).
fn environment(env: &BTreeMap<String, String>) -> Result<Vec<(String, String, String, String)>> {
    let mut found = Vec::new();
    for (name, section, key) in KNOWN_ENV {
        let file =
            SECRETS.contains(&(section, key)).then(|| env.get(&format!("{name}_FILE"))).flatten();
        if let Some(path) = file {
            found.push((
                format!("{name}_FILE"),
                (*section).into(),
                (*key).into(),
                read_secret(Path::new(path))?,
            ));
        }
        if let Some(value) = env.get(*name).filter(|value| !value.is_empty()) {
            found.push(((*name).into(), (*section).into(), (*key).into(), value.clone()));
        }
    }
    if let Some(dir) = env.get("CREDENTIALS_DIRECTORY") {
        for (section, key) in SECRETS {
            let path = Path::new(dir).join(format!("{section}.{key}"));
            if path.is_file() {
                found.push((
                    path.display().to_string(),
                    (*section).into(),
                    (*key).into(),
                    read_secret(&path)?,
                ));
            }
        }
    }
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        let Some((section, key)) = rest.split_once("__") else {
            return Err(Error::new(
                Kind::Config,
                format!("environment variable {name}: write it as {ENV_PREFIX}SECTION__KEY"),
            ));
        };
        found.push((name.clone(), section.to_lowercase(), key.to_lowercase(), value.clone()));
    }
    Ok(found)
}

fn read_secret(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
        .with_context(Kind::Config, || format!("cannot read the secret in {}", path.display()))
}

/// Fails on the first key that the defaults do not have.
fn check_keys(table: &Table, defaults: &Table) -> Result<(), String> {
    for (section, value) in table {
        let known = known_section(defaults, section)?;
        let Value::Table(keys) = value else {
            return Err(format!("`{section}` is a section: write it as [{section}]"));
        };
        for key in keys.keys() {
            known_key(known, section, key)?;
        }
    }
    Ok(())
}

fn known_section<'a>(defaults: &'a Table, section: &str) -> Result<&'a Table, String> {
    match defaults.get(section) {
        Some(Value::Table(table)) => Ok(table),
        _ => Err(format!("unknown section [{section}]{}", nearest(section, defaults))),
    }
}

fn known_key<'a>(section: &'a Table, name: &str, key: &str) -> Result<&'a Value, String> {
    section.get(key).ok_or_else(|| format!("unknown key `{name}.{key}`{}", nearest(key, section)))
}

fn nearest(word: &str, among: &Table) -> String {
    among
        .keys()
        .map(|key| (strsim::jaro_winkler(word, key), key))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| format!("; did you mean `{key}`?"))
        .unwrap_or_else(|| {
            format!("; known are {}", among.keys().cloned().collect::<Vec<_>>().join(", "))
        })
}

/// Sets one key from text, read as the type its default has.
fn set(tree: &mut Table, defaults: &Table, section: &str, key: &str, text: &str) -> Result<()> {
    let fail = |message: String| Error::new(Kind::Config, message);
    let default = known_section(defaults, section)
        .and_then(|known| known_key(known, section, key))
        .map_err(fail)?;
    let bad = |what: &str| fail(format!("{section}.{key}: `{text}` is not {what}"));
    let value = match default {
        Value::Integer(_) => {
            Value::Integer(text.trim().parse().map_err(|_| bad("a whole number"))?)
        }
        Value::Float(_) => Value::Float(text.trim().parse().map_err(|_| bad("a number"))?),
        Value::Boolean(_) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Value::Boolean(true),
            "false" | "no" | "off" | "0" => Value::Boolean(false),
            _ => return Err(bad("true or false")),
        },
        Value::Array(_) => Value::Array(
            text.split(',').map(|part| Value::String(part.trim().to_owned())).collect(),
        ),
        _ => Value::String(text.to_owned()),
    };
    let entry = tree.entry(section.to_owned()).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(table) = entry {
        table.insert(key.to_owned(), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_text(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        load(&Sources { file: Some(path), ..Sources::default() }).map(|(config, _)| config)
    }

    fn from_env(pairs: &[(&str, &str)]) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "").unwrap();
        let env = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        load(&Sources { file: Some(path), env, ..Sources::default() }).map(|(config, _)| config)
    }

    #[test]
    fn the_example_holds_every_key_with_its_default() {
        let text = include_str!("../../config.example.toml");
        assert_eq!(from_text(text).unwrap(), Config::default());
        let example: Table = text.parse().unwrap();
        let defaults = Table::try_from(Config::default()).unwrap();
        for (section, keys) in &defaults {
            for key in keys.as_table().unwrap().keys() {
                assert!(
                    example.get(section).and_then(|s| s.get(key)).is_some(),
                    "config.example.toml lacks {section}.{key}"
                );
            }
        }
    }

    #[test]
    fn the_keys_of_services_are_read_from_files_and_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "dg-key\n").unwrap();
        std::fs::write(dir.path().join("openai.api_key"), "oa-key\n").unwrap();
        let config = from_env(&[
            ("DEEPGRAM_API_KEY_FILE", key.to_str().unwrap()),
            ("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap()),
            ("LLM_PROVIDER", "ollama"),
            ("OLLAMA_BASE_URL", "http://ollama:11434"),
            ("OFFLINE_ASR_TCP_URI", "tcp://asr:8765"),
            ("VECTOR_STORE_PROVIDER", "qdrant"),
            ("QDRANT_BASE_URL", "vectors"),
            ("QDRANT_API_KEY_FILE", key.to_str().unwrap()),
            ("NEO4J_HOST", "graph"),
            ("NEO4J_PASSWORD_FILE", key.to_str().unwrap()),
            ("MONGODB_URI_FILE", key.to_str().unwrap()),
        ])
        .unwrap();
        assert_eq!(config.deepgram.api_key.expose(), "dg-key");
        assert_eq!(config.openai.api_key.expose(), "oa-key");
        assert_eq!(config.mongodb.uri.expose(), "dg-key");
        assert_eq!(config.llm.engine, "ollama");
        assert_eq!(config.speech_engines(), ["deepgram", "wyoming", "whisper"]);
        assert_eq!(config.index.engine, "qdrant");
        assert_eq!(config.qdrant.address(), "http://vectors:6334");
        assert_eq!(config.qdrant.api_key.expose(), "dg-key");
        assert_eq!(config.neo4j.address(), "bolt://graph:7687");
        assert_eq!(config.neo4j.password.expose(), "dg-key");
        let shown = to_toml(&config).unwrap();
        assert!(!shown.contains("-key\""), "{shown}");
    }

    #[test]
    fn a_misspelt_key_names_the_nearest() {
        let message = from_text("[server]\nlisen = \"x\"").unwrap_err().to_string();
        assert!(
            message.contains("unknown key `server.lisen`; did you mean `listen`?"),
            "{message}"
        );
        let message = from_text("[recordng]\n").unwrap_err().to_string();
        assert!(message.contains("did you mean `recording`?"), "{message}");
    }

    #[test]
    fn the_environment_wins_over_the_file_and_keeps_types() {
        let config = from_env(&[
            ("FRIEND_LITE__ENGINES__THREADS", "3"),
            ("FRIEND_LITE__MODELS__SOURCES", "path, registry"),
            ("FRIEND_LITE__MEMORY__ENABLED", "off"),
            ("FRIEND_LITE__CONVERSATION__SILENCE_TIMEOUT", "2m"),
            ("ADMIN_EMAIL", "me@home.lan"),
        ])
        .unwrap();
        assert_eq!(config.engines.threads, 3);
        assert_eq!(config.models.sources, ["path", "registry"]);
        assert!(!config.memory.enabled);
        assert_eq!(config.conversation.silence_timeout.get().as_secs(), 120);
        assert_eq!(config.auth.admin_email, "me@home.lan");

        let message =
            from_env(&[("FRIEND_LITE__ENGINES__THREADS", "many")]).unwrap_err().to_string();
        assert!(message.contains("FRIEND_LITE__ENGINES__THREADS"), "{message}");
        let message = from_env(&[("FRIEND_LITE__ENGINES__THREAD", "1")]).unwrap_err().to_string();
        assert!(message.contains("did you mean `threads`?"), "{message}");
    }

    #[test]
    fn secrets_come_from_files_and_are_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "correct horse\n").unwrap();
        let config = from_env(&[
            ("ADMIN_PASSWORD_FILE", path.to_str().unwrap()),
            ("AUTH_SECRET_KEY", "0123456789abcdef0123"),
        ])
        .unwrap();
        assert_eq!(config.auth.admin_password.expose(), "correct horse");
        let printed = to_toml(&config).unwrap() + &format!("{config:?}");
        assert!(!printed.contains("correct horse") && !printed.contains("0123456789abcdef"));
    }
}
