//! From what the configuration asks for to a file on this machine.

use std::path::{Path, PathBuf};

use super::catalog::{Catalog, Entry, ModelKind};
use super::check::is_present;
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;

/// A model that is there to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef {
    /// The catalog's name, or the file's name without its extension.
    pub name: String,
    /// What it is for.
    pub kind: ModelKind,
    /// The file's name.
    pub file: String,
    /// Where the file is.
    pub path: PathBuf,
}

impl Catalog {
    /// The models of `kind` that suit a machine with `total_memory` bytes, the
    /// most capable first.
    pub fn suited(&self, kind: ModelKind, total_memory: u64) -> Vec<&Entry> {
        let mut entries: Vec<_> = self
            .entries()
            .iter()
            .filter(|entry| entry.kind == kind && entry.fits(total_memory))
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.least_memory_mib, entry.bytes)));
        entries
    }

    /// The catalog's model that `wanted` (`auto`, a name, or a path) means on a
    /// machine with `total_memory` bytes. None: a path, or no model suits it.
    pub fn wanted(&self, kind: ModelKind, wanted: &str, total_memory: u64) -> Option<&Entry> {
        match wanted {
            "auto" => self.suited(kind, total_memory).first().copied(),
            name => self.get(name).filter(|entry| entry.kind == kind),
        }
    }

    /// The catalog's models that `config` asks for on a machine with
    /// `total_memory` bytes, in the order in which they are of use.
    pub fn defaults(&self, config: &Config, total_memory: u64) -> Vec<&Entry> {
        let wanted = [
            (ModelKind::Stt, &config.stt.model, config.uses_whisper()),
            (ModelKind::Embed, &config.embed.model, config.embed.engine == "llama"),
            (ModelKind::Llm, &config.llm.model, config.uses_llama()),
        ];
        wanted
            .iter()
            .filter(|(_, _, used)| *used)
            .filter_map(|(kind, wanted, _)| self.wanted(*kind, wanted, total_memory))
            .collect()
    }

    /// The file to load for `wanted`: `auto`, a model of the catalog, or a path
    /// to any other file. `auto` takes the best model that suits a machine with
    /// `total_memory` bytes, or a smaller one when only that is in `dir`.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when the model is not in `dir` or none suits the
    /// machine; [`Kind::Config`] when `wanted` names nothing known.
    pub fn resolve(
        &self,
        kind: ModelKind,
        wanted: &str,
        total_memory: u64,
        dir: &Path,
    ) -> Result<ModelRef> {
        if wanted == "auto" {
            return self.automatic(kind, total_memory, dir);
        }
        if let Some(entry) = self.get(wanted) {
            if entry.kind != kind {
                return Err(Error::new(
                    Kind::Config,
                    format!("the model {wanted} is for {}, not for {kind}", entry.kind),
                ));
            }
            return match is_present(entry, dir) {
                true => Ok(found(entry, dir)),
                false => Err(missing(entry, dir)),
            };
        }
        let path = Path::new(wanted);
        match (path.file_stem(), path.file_name()) {
            (Some(stem), Some(file)) if path.is_file() => Ok(ModelRef {
                name: stem.to_string_lossy().into_owned(),
                kind,
                file: file.to_string_lossy().into_owned(),
                path: path.to_owned(),
            }),
            _ => Err(Error::new(Kind::Config, self.unknown(wanted, Some(kind)))),
        }
    }

    /// What to say of a name that is neither a model nor a file.
    pub(crate) fn unknown(&self, wanted: &str, kind: Option<ModelKind>) -> String {
        let known: Vec<_> = self
            .entries()
            .iter()
            .filter(|entry| kind.is_none_or(|kind| entry.kind == kind))
            .map(|entry| entry.name.as_str())
            .collect();
        let file = if kind.is_some() { " nor a file" } else { "" };
        format!("`{wanted}` is not a model{file}; there are {}", known.join(", "))
    }

    fn automatic(&self, kind: ModelKind, total_memory: u64, dir: &Path) -> Result<ModelRef> {
        let suited = self.suited(kind, total_memory);
        let Some(best) = suited.first() else {
            let mib = total_memory >> 20;
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "no {kind} model suits a machine with {mib} MiB of memory; set {kind}.model to one by name to use it all the same"
                ),
            ));
        };
        let Some(present) = suited.iter().find(|entry| is_present(entry, dir)) else {
            return Err(missing(best, dir));
        };
        if present.name != best.name {
            tracing::info!(
                "using the {kind} model {}; this machine could run {}: `friend-lite models fetch {}`",
                present.name,
                best.name,
                best.name
            );
        }
        Ok(found(present, dir))
    }
}

fn found(entry: &Entry, dir: &Path) -> ModelRef {
    ModelRef {
        name: entry.name.clone(),
        kind: entry.kind,
        file: entry.file.clone(),
        path: dir.join(&entry.file),
    }
}

fn missing(entry: &Entry, dir: &Path) -> Error {
    Error::new(
        Kind::Unavailable,
        format!(
            "the {} model {} is not in {}: run `friend-lite models fetch {}`",
            entry.kind,
            entry.name,
            dir.display(),
            entry.name
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// Gives `dir` a file of the right size without its content.
    fn put(catalog: &Catalog, name: &str, dir: &Path) {
        let entry = catalog.get(name).unwrap();
        let file = std::fs::File::create(dir.join(&entry.file)).unwrap();
        file.set_len(entry.bytes).unwrap();
    }

    #[test]
    fn each_class_of_machine_gets_its_defaults() {
        let catalog = Catalog::builtin().unwrap();
        let names = |memory: u64| {
            ModelKind::ALL.map(|kind| catalog.wanted(kind, "auto", memory).map(|e| e.name.as_str()))
        };
        let (tiny, base) = (Some("whisper-tiny"), Some("whisper-base"));
        let (small, large) = (Some("qwen2.5-coder-0.5b"), Some("qwen2.5-coder-1.5b"));
        let embed = Some("all-minilm-l6-v2-q8_0");
        assert_eq!(names(300 << 20), [None, None, None]);
        assert_eq!(names(900 << 20), [tiny, small, embed]);
        assert_eq!(names(1850 << 20), [base, small, embed]);
        assert_eq!(names(3790 << 20), [base, large, embed]);
        assert_eq!(names(64 * GIB), [base, large, embed]);
    }

    #[test]
    fn automatic_takes_the_best_that_is_there() {
        let catalog = Catalog::builtin().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let resolve = |memory| catalog.resolve(ModelKind::Stt, "auto", memory, dir.path());

        let error = resolve(4 * GIB).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.message().contains("friend-lite models fetch whisper-base"), "{error}");

        put(&catalog, "whisper-tiny", dir.path());
        assert_eq!(resolve(4 * GIB).unwrap().name, "whisper-tiny");
        put(&catalog, "whisper-base", dir.path());
        assert_eq!(resolve(4 * GIB).unwrap().name, "whisper-base");
        assert_eq!(resolve(GIB).unwrap().name, "whisper-tiny");
        assert!(resolve(GIB / 8).unwrap_err().message().contains("stt.model"));
    }

    #[test]
    fn names_and_paths_are_taken_as_they_are() {
        let catalog = Catalog::builtin().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let resolve = |kind, wanted: &str| catalog.resolve(kind, wanted, GIB, dir.path());

        let missing = resolve(ModelKind::Llm, "qwen2.5-coder-1.5b").unwrap_err();
        assert!(missing.message().contains("models fetch qwen2.5-coder-1.5b"));
        put(&catalog, "qwen2.5-coder-1.5b", dir.path());
        let large = resolve(ModelKind::Llm, "qwen2.5-coder-1.5b").unwrap();
        assert_eq!(large.path, dir.path().join(&large.file));
        assert_eq!(resolve(ModelKind::Stt, "qwen2.5-coder-1.5b").unwrap_err().kind(), Kind::Config);

        let own = dir.path().join("mine.gguf");
        std::fs::write(&own, "x").unwrap();
        let model = resolve(ModelKind::Llm, &own.to_string_lossy()).unwrap();
        assert_eq!((model.name.as_str(), model.path), ("mine", own));
        let error = resolve(ModelKind::Llm, "gpt").unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.message().contains("qwen2.5-coder-0.5b"));
    }

    #[test]
    fn a_file_of_another_size_is_not_the_model() {
        let catalog = Catalog::builtin().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ggml-tiny.bin"), "half").unwrap();
        assert!(catalog.resolve(ModelKind::Stt, "whisper-tiny", GIB, dir.path()).is_err());
    }
}
