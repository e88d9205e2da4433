//! The engines, with two seconds of speech and a sentence.

use super::{Finding, Patient};
use crate::app;
use crate::base::error::{Error, Result};
use crate::base::system;
use crate::domain::job::Lane;
use crate::stt::Speech;
use crate::supervisor::Supervisor;

/// "And so, my fellow Americans": 16 kHz mono, 16 bits, little-endian, of the
/// inaugural address that tests/speech/README.md names.
const SPEECH: &[u8] = include_bytes!("speech.s16");
/// Of which the engine must understand this much.
const WORD: &str = "american";

/// On a machine with less memory a second engine beside the daemon's would push
/// that one out.
const ROOM_FOR_TWO: u64 = 3 << 29;

/// Runs the speech and the embedding engine once.
pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    const CHECK: &str = "engines";
    if patient.quick {
        return vec![Finding::skipped(CHECK, "not tried: --quick")];
    }
    if patient.running.is_some() && system::total_memory() < ROOM_FOR_TWO {
        let says = "not tried beside the daemon's own: too little memory; stop it first";
        return vec![Finding::skipped(CHECK, says)];
    }
    let supervisor = Supervisor::new();
    let mut findings = vec![
        judge("hearing", speech(patient, &supervisor).await),
        judge("likeness", sentence(patient, &supervisor).await),
    ];
    supervisor.stop();
    supervisor.drain(std::time::Duration::from_secs(5)).await;
    findings.retain(|finding| !finding.says.is_empty());
    findings
}

fn judge(check: &'static str, outcome: Result<String>) -> Finding {
    match outcome {
        Ok(says) => Finding::good(check, says),
        Err(error) => Finding::bad(
            check,
            error.report(),
            "fetch the model (`friend-lite models fetch`), or install the package again",
        ),
    }
}

async fn speech(patient: &Patient, supervisor: &Supervisor) -> Result<String> {
    let engine = app::speech_engine(&patient.config, supervisor)?;
    let samples: Vec<i16> = SPEECH
        .chunks_exact(2)
        .filter_map(|bytes| bytes.try_into().ok().map(i16::from_le_bytes))
        .collect();
    let language = engine.languages().contains(&"en").then(|| "en".to_owned());
    let speech = Speech { samples, lane: Lane::Interactive, language, place: None };
    let text = engine.transcribe(speech).await?.text();
    if text.to_lowercase().contains(WORD) {
        return Ok(format!("{} heard \u{201c}{}\u{201d}", engine.name(), text.trim()));
    }
    let kind = crate::base::error::Kind::Unavailable;
    let message = format!(
        "{} heard \u{201c}{}\u{201d} for \u{201c}And so, my fellow Americans\u{201d}",
        engine.name(),
        text.trim()
    );
    Err(Error::new(kind, message))
}

async fn sentence(patient: &Patient, supervisor: &Supervisor) -> Result<String> {
    let engine = app::embedder(&patient.config, supervisor)?;
    let texts = ["My sister gets married in June.", "The wedding of my sister is in June."];
    let rows = engine.embed(&texts.map(str::to_owned)).await?;
    let (Some(one), Some(other)) = (rows.first(), rows.get(1)) else {
        return Err(Error::new(crate::base::error::Kind::Internal, "no vectors"));
    };
    let alike: f32 = one.iter().zip(other).map(|(a, b)| a * b).sum();
    if alike > 0.5 {
        return Ok(format!("{} finds two like sentences {alike:.2} alike", engine.name()));
    }
    let message = format!("{} finds two like sentences {alike:.2} alike", engine.name());
    Err(Error::new(crate::base::error::Kind::Unavailable, message))
}
