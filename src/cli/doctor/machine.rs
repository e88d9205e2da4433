//! The machine: its disk, memory, processor and clock.

use std::path::Path;
use std::time::Duration;

use super::{Finding, Patient};
use crate::base::error::Kind;
use crate::base::{clock, system, thermal};
use crate::cli::status::size;
use crate::engine::{self, place};
use crate::models::{Catalog, is_present, models_dir};
use crate::recording::probe;
use crate::supervisor::blocking;

/// Above this, one sync a second for each stream is felt.
const SLOW_DISK: Duration = Duration::from_millis(150);

/// A clock that stands before this was never set: 2025-01-01.
const PLAUSIBLE: i64 = 1_735_689_600;

/// Everything of this file.
pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    let mut findings = vec![room(patient), latency(patient).await];
    findings.extend(memory(patient));
    findings.push(processor(patient));
    findings.push(heat());
    findings.push(time());
    findings
}

/// `dir`, or the nearest directory above it that is there.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.is_dir()).unwrap_or_else(|| Path::new("."))
}

fn room(patient: &Patient) -> Finding {
    let dir = patient.config.state_dir();
    let free = match probe::free(existing(&dir)) {
        Ok(free) => free,
        Err(error) => {
            return Finding::bad("disk", error.report(), "check that the disk is mounted");
        }
    };
    let reserve = patient.config.disk.reserve();
    let missing: u64 = Catalog::builtin().map_or(0, |catalog| {
        let models = models_dir(&patient.config);
        let wanted = catalog.defaults(&patient.config, system::total_memory());
        wanted.iter().filter(|e| !is_present(e, &models)).map(|e| e.bytes).sum()
    });
    let says = format!("{} free in {}", size(free), dir.display());
    if free < reserve {
        return Finding::bad(
            "disk",
            format!("{says}, less than the {} that are to stay free", size(reserve)),
            "new audio is refused: make room, or lower disk.reserve_mib",
        );
    }
    if free < reserve.saturating_add(missing) {
        return Finding::warning(
            "disk",
            format!("{says}; the models that are missing need {}", size(missing)),
            "they are not fetched until there is room; or set models.dir to another disk",
        );
    }
    Finding::good("disk", says)
}

async fn latency(patient: &Patient) -> Finding {
    const CHECK: &str = "disk speed";
    let dir = patient.config.state_dir();
    if !dir.is_dir() {
        let says = format!("{} is not there yet: the daemon has not run", dir.display());
        return Finding::skipped(CHECK, says);
    }
    let shown = dir.display().to_string();
    let measured = blocking(move || probe::sync_time(&dir)).await;
    match measured {
        Ok(took) if took > SLOW_DISK => Finding::warning(
            CHECK,
            format!("a write takes {} ms to be safe", took.as_millis()),
            "use a faster card or a USB SSD, or set recording.sync_interval to some seconds",
        ),
        Ok(took) => Finding::good(
            CHECK,
            format!("a write is safe within {:.1} ms", took.as_secs_f64() * 1000.0),
        ),
        Err(error) if error.kind() == Kind::NoSpace => {
            Finding::bad(CHECK, error.report(), "make room on the disk")
        }
        Err(error) => Finding::bad(
            CHECK,
            error.report(),
            format!("the daemon must be able to write in {shown}: check its owner and the disk"),
        ),
    }
}

fn memory(patient: &Patient) -> Vec<Finding> {
    let total = system::total_memory();
    let config = &patient.config;
    let Ok(catalog) = Catalog::builtin() else { return Vec::new() };
    let wanted = catalog.defaults(config, total);
    let too_large: Vec<&str> =
        wanted.iter().filter(|entry| !entry.fits(total)).map(|entry| entry.name.as_str()).collect();
    let says = format!("{} in all, {} to be had", size(total), size(system::free_memory()));
    let finding = match too_large.as_slice() {
        [] => {
            let names: Vec<&str> = wanted.iter().map(|entry| entry.name.as_str()).collect();
            Finding::good("memory", format!("{says}; enough for {}", names.join(", ")))
        }
        names => Finding::warning(
            "memory",
            format!("{says}; too little for {}", names.join(", ")),
            "set the model to `auto`, which takes one that fits",
        ),
    };
    vec![finding]
}

fn processor(patient: &Patient) -> Finding {
    let builds = place::builds().join(", ");
    let says = format!("{} cores, runs {builds}", system::cores());
    let dir = &patient.config.engines.dir;
    let programs = [engine::WHISPER, engine::LLAMA].map(|name| engine::program(name, dir));
    match programs {
        [Ok(whisper), Ok(_)] => {
            let place = whisper.parent().unwrap_or(&whisper).display();
            Finding::good("processor", format!("{says}; engines in {place}"))
        }
        [Err(error), _] | [_, Err(error)] => Finding::bad(
            "processor",
            format!("{says}; {}", error.report()),
            "install the package again",
        ),
    }
}

fn heat() -> Finding {
    let temperature = thermal::temperature();
    let says = temperature.map_or("temperature unknown".into(), |t| format!("{t:.0} °C"));
    match (temperature, thermal::throttling()) {
        (_, Some(reasons)) if !reasons.is_empty() => Finding::warning(
            "heat",
            format!("{says}; slowed down: {}", reasons.join(", ")),
            "use a better power supply, or cool it",
        ),
        (Some(degrees), _) if degrees >= 80.0 => {
            Finding::warning("heat", says, "cool it: it slows down when it gets hotter")
        }
        (None, None) => Finding::skipped("heat", "this machine does not tell"),
        _ => Finding::good("heat", says),
    }
}

fn time() -> Finding {
    let now = clock::Clock::system().now();
    if now.seconds() < PLAUSIBLE {
        return Finding::warning(
            "clock",
            format!("stands at {now}"),
            "recordings get wrong dates until it is set: connect the machine to a network",
        );
    }
    if system::clock_is_synchronized() {
        return Finding::good("clock", "is kept right");
    }
    Finding::warning(
        "clock",
        "nothing keeps it right",
        "install a time service: `apt install systemd-timesyncd`",
    )
}
