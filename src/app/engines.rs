//! Who transcribes, writes and embeds: engines on this machine, services outside,
//! and what steps in for what.

use std::sync::Arc;

use super::services;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::system;
use crate::config::{Config, Interval};
use crate::embed::Embedder;
use crate::embed::llama::LlamaEmbedder;
use crate::engine::gate::Gate;
use crate::engine::process::Engine;
use crate::engine::{self, Settings};
use crate::http::health::{Health, Part, State};
use crate::llm::LanguageModel;
use crate::llm::failover::Failover as LlmFailover;
use crate::llm::llama::LlamaEngine;
use crate::models::{self, Catalog, ModelKind};
use crate::recording::Recordings;
use crate::remote::Service;
use crate::stt::SpeechToText;
use crate::stt::failover::Failover as SpeechFailover;
use crate::stt::live::Listener;
use crate::stt::whisper::WhisperEngine;
use crate::supervisor::Supervisor;

/// Below this much memory two large models are never resident together.
const EXCLUSIVE_BELOW: u64 = 3 << 30;

/// The models.
#[derive(Clone)]
pub(super) struct Engines {
    pub(super) stt: Arc<dyn SpeechToText>,
    pub(super) llm: Arc<dyn LanguageModel>,
    pub(super) embedder: Arc<dyn Embedder>,
    /// Who hears conversations while they are recorded, if anybody does.
    pub(super) listener: Option<Arc<dyn Listener>>,
    /// Processes of the local ones, for their figures.
    pub(super) processes: Vec<Arc<Engine>>,
    /// The services outside that are used.
    pub(super) services: Vec<Arc<Service>>,
    /// Which parts no model on this machine does.
    outside: [(Part, bool); 3],
}

impl Engines {
    /// What `config` asks for; nothing is started or connected yet.
    pub(super) fn new(
        config: &Config,
        recordings: &Recordings,
        supervisor: &Supervisor,
        clock: &Clock,
    ) -> Result<Self> {
        let exclusive = match config.engines.exclusive.as_str() {
            "yes" => true,
            "no" => false,
            _ => system::total_memory() < EXCLUSIVE_BELOW,
        };
        let gate = Gate::new(exclusive);
        let mut made = Made { recordings: Some(recordings.clone()), ..Made::default() };
        let stt = made.speech(config, &gate, supervisor, clock)?;
        let llm = made.language(config, &gate, supervisor, clock)?;
        let embedder = made.embedder(config, supervisor, clock)?;
        let Made { services, processes, listener, .. } = made;
        let outside = [
            (Part::Stt, !config.uses_whisper()),
            (Part::Llm, !config.uses_llama()),
            (Part::Embed, config.embed.engine != "llama"),
        ];
        Ok(Self { stt, llm, embedder, listener, processes, services, outside })
    }
}

/// What has been made for the engines so far.
#[derive(Default)]
struct Made {
    /// What may be listened to; none for the command line.
    recordings: Option<Recordings>,
    services: Vec<Arc<Service>>,
    processes: Vec<Arc<Engine>>,
    listener: Option<Arc<dyn Listener>>,
}

impl Made {
    fn service(&mut self, name: &'static str, config: &Config, clock: &Clock) -> Arc<Service> {
        let service = Arc::new(Service::new(name, config.remote.pause.get(), clock.clone()));
        self.services.push(service.clone());
        service
    }

    fn deepgram(
        &mut self,
        config: &Config,
        supervisor: &Supervisor,
        clock: &Clock,
    ) -> Result<Arc<dyn SpeechToText>> {
        let mut deepgram = services::deepgram(config, self.service("deepgram", config, clock))?;
        if let (true, Some(recordings)) = (config.deepgram.live, &self.recordings) {
            deepgram = deepgram.listening(recordings.clone(), supervisor.clone());
            self.listener = Some(Arc::new(deepgram.clone()));
        }
        Ok(Arc::new(deepgram))
    }

    fn speech(
        &mut self,
        config: &Config,
        gate: &Gate,
        supervisor: &Supervisor,
        clock: &Clock,
    ) -> Result<Arc<dyn SpeechToText>> {
        let mut engines: Vec<Arc<dyn SpeechToText>> = Vec::new();
        for name in config.speech_engines() {
            engines.push(match name {
                "deepgram" => self.deepgram(config, supervisor, clock)?,
                "wyoming" => services::wyoming(config, self.service("wyoming", config, clock))?,
                "openai" => {
                    services::openai_speech(config, self.service("openai_speech", config, clock))?
                }
                _ => {
                    let whisper = whisper(config, gate, supervisor)?;
                    self.processes.push(whisper.engine().clone());
                    Arc::new(whisper)
                }
            });
        }
        // One engine needs nobody to choose.
        if engines.len() == 1
            && let Some(only) = engines.pop()
        {
            return Ok(only);
        }
        Ok(Arc::new(SpeechFailover::new(engines)))
    }

    fn language(
        &mut self,
        config: &Config,
        gate: &Gate,
        supervisor: &Supervisor,
        clock: &Clock,
    ) -> Result<Arc<dyn LanguageModel>> {
        let outside: Option<Arc<dyn LanguageModel>> = match config.llm.engine.as_str() {
            "openai" => {
                Some(services::openai_model(config, self.service("openai", config, clock))?)
            }
            "ollama" => {
                Some(services::ollama_model(config, self.service("ollama", config, clock))?)
            }
            _ => None,
        };
        let local: Option<Arc<dyn LanguageModel>> = match config.uses_llama() {
            true => {
                let (model, deadline) = (&config.llm.model, config.llm.deadline);
                let settings = settings(config, engine::LLAMA, ModelKind::Llm, model, deadline)?;
                let llama = LlamaEngine::new(&settings, config.llm.context, gate, supervisor);
                self.processes.push(llama.engine().clone());
                Some(Arc::new(llama))
            }
            false => None,
        };
        match (outside, local) {
            (Some(first), Some(second)) => Ok(Arc::new(LlmFailover::new(first, second))),
            (Some(only), None) | (None, Some(only)) => Ok(only),
            (None, None) => Err(Error::new(Kind::Config, "llm.engine names no language model")),
        }
    }

    fn embedder(
        &mut self,
        config: &Config,
        supervisor: &Supervisor,
        clock: &Clock,
    ) -> Result<Arc<dyn Embedder>> {
        match config.embed.engine.as_str() {
            "openai" => {
                services::openai_embedder(config, self.service("openai_embeddings", config, clock))
            }
            "ollama" => {
                services::ollama_embedder(config, self.service("ollama_embeddings", config, clock))
            }
            _ => {
                let (model, deadline) = (&config.embed.model, config.embed.deadline);
                let settings = settings(config, engine::LLAMA, ModelKind::Embed, model, deadline)?;
                let llama = LlamaEmbedder::new(&settings, supervisor);
                self.processes.push(llama.engine().clone());
                Ok(Arc::new(llama))
            }
        }
    }
}

/// Notes which models can be asked; whether one can be that could not before.
pub(super) fn watch_models(engines: &Engines, health: &Health) -> bool {
    let mut back = false;
    for (part, outside) in engines.outside {
        let (model, ready) = match part {
            Part::Stt => (engines.stt.name(), engines.stt.is_ready()),
            Part::Llm => (engines.llm.name(), engines.llm.is_ready()),
            Part::Embed => (engines.embedder.name(), engines.embedder.is_ready()),
        };
        let state = match (ready, outside) {
            (true, _) => State::Ready { model },
            (false, false) => State::ModelMissing { model },
            (false, true) => State::Failing { reason: format!("{model} is away") },
        };
        back |= health.set(part, state);
    }
    back
}

fn whisper(config: &Config, gate: &Gate, supervisor: &Supervisor) -> Result<WhisperEngine> {
    let settings =
        settings(config, engine::WHISPER, ModelKind::Stt, &config.stt.model, config.stt.deadline)?;
    Ok(WhisperEngine::new(&settings, &config.stt.language, gate, supervisor))
}

/// The speech engines alone, for the command line.
///
/// # Errors
/// `Unavailable` when the only one's model is not on this machine, `Config` when
/// they cannot be used.
pub fn speech_engine(config: &Config, supervisor: &Supervisor) -> Result<Arc<dyn SpeechToText>> {
    if config.speech_engines() == ["whisper"] {
        on_this_machine(config, ModelKind::Stt, &config.stt.model)?;
    }
    let mut made = Made::default();
    made.speech(config, &Gate::new(false), supervisor, &Clock::system())
}

/// The embedding engine alone, for the command line.
///
/// # Errors
/// `Unavailable` when its model is to be on this machine and is not, `Config` when
/// it cannot be used.
pub fn embedder(config: &Config, supervisor: &Supervisor) -> Result<Arc<dyn Embedder>> {
    if config.embed.engine == "llama" {
        on_this_machine(config, ModelKind::Embed, &config.embed.model)?;
    }
    let mut made = Made::default();
    made.embedder(config, supervisor, &Clock::system())
}

/// How to run one engine. A model that is not there yet gets the place where it
/// will be: the daemon records without it, and uses it once it is fetched.
fn settings(
    config: &Config,
    program: &str,
    kind: ModelKind,
    wanted: &str,
    deadline: Interval,
) -> Result<Settings> {
    let catalog = Catalog::builtin()?;
    let dir = models::models_dir(config);
    let memory = system::total_memory();
    let model = match catalog.resolve(kind, wanted, memory, &dir) {
        Ok(model) => model.path,
        Err(error) => match catalog.wanted(kind, wanted, memory) {
            Some(entry) if error.kind() == Kind::Unavailable => {
                match config.models.fetch {
                    true => tracing::info!("the {kind} model {} is not here yet", entry.name),
                    false => tracing::warn!("{}", error.message()),
                }
                dir.join(&entry.file)
            }
            _ => return Err(error),
        },
    };
    let threads = match (kind, config.engines.threads) {
        // A sentence takes milliseconds: a second thread only gets in the way.
        (ModelKind::Embed, _) => 1,
        (_, 0) => system::inference_threads(),
        (_, threads) => threads,
    };
    let program = engine::program(program, &config.engines.dir)?;
    tracing::info!("{} runs in {}", model.display(), program.display());
    Ok(Settings {
        program,
        model,
        threads,
        nice: config.engines.nice,
        start_timeout: config.engines.start_timeout.get(),
        idle_timeout: config.engines.idle_timeout.get(),
        deadline: deadline.get(),
    })
}

/// Whether a model is here, which the daemon would wait for.
fn on_this_machine(config: &Config, kind: ModelKind, model: &str) -> Result<()> {
    let dir = models::models_dir(config);
    Catalog::builtin()?.resolve(kind, model, system::total_memory(), &dir).map(drop)
}
