//! The models: here, and whole.

use super::{Finding, Patient};
use crate::base::error::{Error, Kind};
use crate::base::system::total_memory;
use crate::models::{Catalog, ModelKind, models_dir, verify};
use crate::supervisor::blocking;

/// One finding for each kind of model.
pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    let config = &patient.config;
    let mut findings = Vec::new();
    for (check, kind, wanted, used) in [
        ("speech", ModelKind::Stt, &config.stt.model, config.uses_whisper()),
        ("language", ModelKind::Llm, &config.llm.model, config.uses_llama()),
        ("embedding", ModelKind::Embed, &config.embed.model, config.embed.engine == "llama"),
    ] {
        findings.push(match used {
            true => one(patient, check, kind, wanted).await,
            false => Finding::skipped(check, "a service outside does it"),
        });
    }
    findings
}

async fn one(patient: &Patient, check: &'static str, kind: ModelKind, wanted: &str) -> Finding {
    let dir = models_dir(&patient.config);
    let catalog = match Catalog::builtin() {
        Ok(catalog) => catalog,
        Err(error) => return Finding::bad(check, error.report(), "install the package again"),
    };
    let model = match catalog.resolve(kind, wanted, total_memory(), &dir) {
        Ok(model) => model,
        Err(error) => {
            let entry = catalog.wanted(kind, wanted, total_memory());
            let half = entry.is_some_and(|entry| dir.join(&entry.file).exists());
            return missing(patient, check, &error, half);
        }
    };
    let entry = match catalog.get(&model.name) {
        Some(entry) if model.path == dir.join(&entry.file) => entry.clone(),
        _ => return Finding::good(check, format!("{} (its own file)", model.path.display())),
    };
    if patient.quick {
        return Finding::good(check, format!("{} is here", model.path.display()));
    }
    match blocking(move || verify(&entry, &dir)).await {
        Ok(()) => Finding::good(check, format!("{} is whole", model.path.display())),
        Err(error) => damaged(check, &error, &model.path.display().to_string(), &model.name),
    }
}

fn missing(patient: &Patient, check: &'static str, error: &Error, half: bool) -> Finding {
    if half {
        let says = format!("{}; a file of that name has another size", error.message());
        return Finding::bad(check, says, "remove that file and fetch the model again");
    }
    let fetching = patient.config.models.fetch && patient.running.is_some();
    let advice = match (error.kind(), fetching) {
        (Kind::Config, _) => "correct the model's name in the configuration",
        (_, true) => "the daemon is fetching it: `friend-lite status` shows how far it is",
        (_, false) => "start the daemon, which fetches it, or run `friend-lite models fetch`",
    };
    Finding::bad(check, error.message(), advice)
}

fn damaged(check: &'static str, error: &Error, path: &str, name: &str) -> Finding {
    Finding::bad(
        check,
        error.report(),
        format!("remove {path} and run `friend-lite models fetch {name}`"),
    )
}
