//! The adapters of services outside, made from the configuration.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::base::clock::Clock;
use crate::base::error::{Context, Error, Kind, Result};
use crate::config::{Config, Secret};
use crate::embed::Embedder;
use crate::embed::ollama::OllamaEmbedder;
use crate::embed::openai::OpenaiEmbedder;
use crate::graph::neo4j::Client as Neo4jClient;
use crate::index::qdrant::Client as QdrantClient;
use crate::llm::LanguageModel;
use crate::llm::ollama::{self, OllamaModel, Pulled};
use crate::llm::openai::OpenaiModel;
use crate::remote::bucket::Bucket;
use crate::remote::http::Http;
use crate::remote::{Fault, Service};
use crate::stt::SpeechToText;
use crate::stt::deepgram::Deepgram;
use crate::stt::openai::OpenaiSpeech;
use crate::stt::wyoming::WyomingSpeech;
use crate::wyoming::Connection;

/// Time a service has to say how it is.
const CHECK: Duration = Duration::from_secs(8);
/// Time Ollama has to get a model.
const PULL: Duration = Duration::from_secs(24 * 3600);

/// The language that is spoken, where it is configured.
fn language(config: &Config) -> Option<&str> {
    Some(config.stt.language.as_str()).filter(|language| *language != "auto")
}

fn openai(
    name: &'static str,
    at: (&str, &Secret),
    total: Duration,
    config: &Config,
) -> Result<Http> {
    Http::new(name, at.0, ("Bearer", at.1), total, &config.remote)
}

fn ollama(name: &'static str, total: Duration, config: &Config) -> Result<Http> {
    Http::new(name, &config.ollama.url, ("", &Secret::default()), total, &config.remote)
}

fn deepgram_http(total: Duration, config: &Config) -> Result<Http> {
    let at = &config.deepgram;
    Http::new("deepgram", &at.url, ("Token", &at.api_key), total, &config.remote)
}

pub(super) fn deepgram(config: &Config, service: Arc<Service>) -> Result<Deepgram> {
    let http = deepgram_http(config.stt.deadline.get(), config)?;
    Ok(Deepgram::new(service, http, &config.deepgram.model, language(config)))
}

pub(super) fn wyoming(config: &Config, service: Arc<Service>) -> Result<Arc<dyn SpeechToText>> {
    let server = config.wyoming_server();
    let server = server.ok_or_else(|| Error::new(Kind::Config, "stt.wyoming_uri is not set"))?;
    let (connect, deadline) = (config.remote.connect_timeout.get(), config.stt.deadline.get());
    Ok(Arc::new(WyomingSpeech::new(service, server, language(config), connect, deadline)))
}

pub(super) fn openai_speech(
    config: &Config,
    service: Arc<Service>,
) -> Result<Arc<dyn SpeechToText>> {
    let total = config.stt.deadline.get();
    let http = openai(service.name(), config.openai.speech(), total, config)?;
    Ok(Arc::new(OpenaiSpeech::new(service, http, &config.openai.speech_model, language(config))))
}

pub(super) fn openai_model(
    config: &Config,
    service: Arc<Service>,
) -> Result<Arc<dyn LanguageModel>> {
    let at = (config.openai.url.as_str(), &config.openai.api_key);
    let http = openai(service.name(), at, config.llm.deadline.get(), config)?;
    Ok(Arc::new(OpenaiModel::new(service, http, &config.openai.model)))
}

pub(super) fn ollama_model(
    config: &Config,
    service: Arc<Service>,
) -> Result<Arc<dyn LanguageModel>> {
    let http = ollama(service.name(), config.llm.deadline.get(), config)?;
    Ok(Arc::new(OllamaModel::new(service, http, &config.ollama.model, config.llm.context)))
}

pub(super) fn openai_embedder(config: &Config, service: Arc<Service>) -> Result<Arc<dyn Embedder>> {
    let total = config.embed.deadline.get();
    let http = openai(service.name(), config.openai.embed(), total, config)?;
    Ok(Arc::new(OpenaiEmbedder::new(service, http, &config.openai.embed_model)))
}

pub(super) fn ollama_embedder(config: &Config, service: Arc<Service>) -> Result<Arc<dyn Embedder>> {
    let http = ollama(service.name(), config.embed.deadline.get(), config)?;
    Ok(Arc::new(OllamaEmbedder::new(service, http, &config.ollama.embed_model)))
}

/// The models that Ollama is asked for.
fn ollama_models(config: &Config) -> Vec<&str> {
    let ollama = &config.ollama;
    let llm = (config.llm.engine == "ollama").then_some(ollama.model.as_str());
    let embed = (config.embed.engine == "ollama").then_some(ollama.embed_model.as_str());
    llm.into_iter().chain(embed).collect()
}

/// Has Ollama get the models that the configuration names; `told` hears, by
/// model, how far that is.
///
/// # Errors
/// `Config` when none is wanted of it, `Unavailable` when it cannot.
pub async fn pull_models(config: &Config, mut told: impl FnMut(&str, &Pulled)) -> Result<()> {
    let models = ollama_models(config);
    if models.is_empty() {
        let message = "neither llm.engine nor embed.engine is `ollama`: it needs no model";
        return Err(Error::new(Kind::Config, message));
    }
    let http = ollama("ollama", PULL, config)?;
    for model in models {
        ollama::pull(&http, model, |step| told(model, step)).await?;
    }
    Ok(())
}

/// Asks every service outside that is configured how it is: its name, and what
/// it says or what is wrong with it.
pub async fn check_services(config: &Config) -> Vec<(&'static str, Result<String>)> {
    let mut found = Vec::new();
    let openai_at = (config.openai.url.as_str(), &config.openai.api_key);
    for engine in config.speech_engines() {
        match engine {
            "deepgram" => found.push(("deepgram", check_deepgram(config).await)),
            "wyoming" => found.push(("wyoming", check_wyoming(config).await)),
            "openai" => {
                let at = config.openai.speech();
                found.push(("openai_speech", check_openai("openai_speech", at, config).await));
            }
            _ => {}
        }
    }
    if config.llm.engine == "openai" {
        found.push(("openai", check_openai("openai", openai_at, config).await));
    }
    if config.embed.engine == "openai" {
        let name = "openai_embeddings";
        found.push((name, check_openai(name, config.openai.embed(), config).await));
    }
    if !ollama_models(config).is_empty() {
        found.push(("ollama", check_ollama(config).await));
    }
    if config.index.engine == "qdrant" {
        found.push(("qdrant", check_qdrant(config).await));
    }
    if config.graph.enabled && config.graph.engine == "neo4j" {
        found.push(("neo4j", check_neo4j(config).await));
    }
    if config.s3.is_used() {
        found.push(("s3", check_bucket(config).await));
    }
    found
}

/// The bucket that recordings are copied to, if there is one.
///
/// # Errors
/// `Config` when it cannot be used.
pub fn bucket(config: &Config, clock: &Clock) -> Result<Option<Bucket>> {
    if !config.s3.is_used() {
        return Ok(None);
    }
    let service = Arc::new(Service::new("s3", config.remote.pause.get(), clock.clone()));
    Bucket::new(&config.s3, &config.remote, service).map(Some)
}

async fn get(http: &Http, path: &str) -> Result<Value> {
    http.json(http.request(Method::GET, path)).await.map_err(Fault::into_error)
}

async fn check_deepgram(config: &Config) -> Result<String> {
    get(&deepgram_http(CHECK, config)?, "/v1/auth/token").await?;
    Ok("answers, and takes the key".into())
}

async fn check_openai(name: &'static str, at: (&str, &Secret), config: &Config) -> Result<String> {
    get(&openai(name, at, CHECK, config)?, "/models").await?;
    Ok("answers".into())
}

async fn check_ollama(config: &Config) -> Result<String> {
    let listed = get(&ollama("ollama", CHECK, config)?, "/api/tags").await?;
    let listed = listed.get("models").and_then(Value::as_array).cloned().unwrap_or_default();
    let has = |wanted: &str| {
        listed
            .iter()
            .filter_map(|model| model.get("name")?.as_str())
            .any(|name| name == wanted || name.strip_suffix(":latest") == Some(wanted))
    };
    match ollama_models(config).into_iter().find(|model| !has(model)) {
        None => Ok("answers, and has the models".into()),
        Some(model) => Err(Error::new(
            Kind::Unavailable,
            format!("ollama does not have {model}: `friend-lite models pull` has it get that"),
        )),
    }
}

async fn check_qdrant(config: &Config) -> Result<String> {
    let client = QdrantClient::new(&config.qdrant, &config.remote)?;
    client.check().await.map_err(Fault::into_error)
}

async fn check_neo4j(config: &Config) -> Result<String> {
    let client = Neo4jClient::new(&config.neo4j, &config.remote)?;
    client.check().await.map_err(Fault::into_error)
}

async fn check_bucket(config: &Config) -> Result<String> {
    let late = || Error::new(Kind::Timeout, "s3 does not answer in time");
    match bucket(config, &Clock::system())? {
        Some(bucket) => {
            timeout(CHECK, bucket.check()).await.map_err(|_| late())?.map_err(Fault::into_error)
        }
        None => Err(Error::new(Kind::Config, "s3.bucket is not set")),
    }
}

async fn check_wyoming(config: &Config) -> Result<String> {
    let server = config.wyoming_server().unwrap_or_default();
    let connect = timeout(config.remote.connect_timeout.get(), TcpStream::connect(server));
    let late = || Error::new(Kind::Timeout, "wyoming does not answer in time");
    let stream = connect.await.map_err(|_| late())?;
    let stream = stream.context(Kind::Unavailable, "wyoming cannot be reached")?;
    let mut connection = Connection::new("wyoming", stream);
    let info = timeout(CHECK, connection.describe()).await.map_err(|_| late())??;
    match info.asr.first() {
        Some(program) => Ok(format!("{} answers", program.name)),
        None => Err(Error::new(Kind::Unavailable, "wyoming is no speech-to-text server")),
    }
}
