//! llama.cpp. Compiled into `friend-lite-llama` only.

pub(crate) mod embed;
pub(crate) mod generate;
mod prompt;
mod sampler;

use std::path::Path;

use friend_lite::base::error::{Context, Kind, Result};
use llama_cpp_2::LogOptions;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;

/// A loaded model, and the library that it needs.
#[derive(Debug)]
pub(crate) struct Loaded {
    backend: LlamaBackend,
    model: LlamaModel,
}

impl Loaded {
    /// Loads the model at `path`. Its pages are mapped, so they count as cache.
    ///
    /// # Errors
    /// `Config` when the file is not a model.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        llama_cpp_2::send_logs_to_tracing(LogOptions::default());
        let backend = LlamaBackend::init().context(Kind::Internal, "llama.cpp does not start")?;
        let params = LlamaModelParams::default().with_n_gpu_layers(0).with_use_mmap(true);
        let model = LlamaModel::load_from_file(&backend, path, &params)
            .with_context(Kind::Config, || format!("cannot load the model {}", path.display()))?;
        Ok(Self { backend, model })
    }
}
