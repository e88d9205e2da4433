//! Keeps the invariants of `src/lib.rs` that a compiler does not: imports point
//! downward, only `app` names adapters, only `base::clock` reads a clock, only
//! `supervisor` starts tasks.

use std::fs;
use std::path::{Path, PathBuf};

/// Layers from the top; a module may import its own layer and those below.
const LAYERS: &[&[&str]] = &[
    &["main", "cli"],
    &["app"],
    &["ingest", "http", "discovery", "systemd"],
    &["upkeep", "pipeline", "jobs"],
    &["stt", "llm", "embed", "store", "index", "graph"],
    &["models", "engine", "recording"],
    &["remote", "wyoming", "audio"],
    &["supervisor"],
    &["domain", "config"],
    &["base"],
];

/// Concrete adapters, which only `app` may name outside their own port.
const ADAPTERS: &[(&str, &str)] = &[
    ("stt", "deepgram"),
    ("stt", "failover"),
    ("stt", "openai"),
    ("stt", "whisper"),
    ("stt", "wyoming"),
    ("llm", "failover"),
    ("llm", "llama"),
    ("llm", "ollama"),
    ("llm", "openai"),
    ("embed", "llama"),
    ("embed", "ollama"),
    ("embed", "openai"),
    ("store", "mongodb"),
    ("store", "sqlite"),
    ("graph", "neo4j"),
    ("graph", "sqlite"),
    ("index", "mongodb"),
    ("index", "qdrant"),
    ("index", "sqlite_vec"),
];

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&module)).unwrap_or_else(|| {
        panic!("`{module}` is in no layer: add it to the map in src/lib.rs and here")
    })
}

/// Whether a file below `src` holds tests alone.
fn is_test(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    let below = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
    name.ends_with("tests.rs") || below.components().any(|part| part.as_os_str() == "tests")
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") && !is_test(&path) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

/// The top module of a file below `src`: `store` of `store/sqlite/mod.rs`.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    below.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// Code alone: without comments, and without the tests at the end of a file.
fn code(text: &str) -> String {
    text.split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Paths below the crate that `text` names: `store::sqlite::SqliteStore`.
fn crate_paths(text: &str) -> Vec<String> {
    text.match_indices("crate::")
        .map(|(at, prefix)| {
            text[at + prefix.len()..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
                .collect()
        })
        .collect()
}

#[test]
fn imports_point_downward() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = module(&path);
        if matches!(own.as_str(), "lib" | "bin") {
            continue;
        }
        for import in crate_paths(&code(&text)) {
            let target = import.split("::").next().unwrap_or_default();
            if layer(target) < layer(&own) {
                wrong.push(format!("{}: {own} must not import {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_app_names_adapters() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = module(&path);
        for import in crate_paths(&code(&text)) {
            let mut parts = import.split("::");
            let named = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            // Adapters of one database share it.
            let inside = ADAPTERS.iter().any(|(port, _)| *port == own);
            if ADAPTERS.contains(&named) && own != "app" && !inside {
                wrong.push(format!("{}: names {}::{}", path.display(), named.0, named.1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn clocks_and_tasks_have_one_home() {
    let rules = [
        ("SystemTime::now", "base/clock.rs"),
        ("Instant::now", "base/clock.rs"),
        ("tokio::spawn", "supervisor.rs"),
        ("spawn_blocking", "supervisor.rs"),
        ("thread::spawn", "supervisor.rs"),
        ("thread::Builder", "supervisor.rs"),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        // The engines are programs of their own; the command line is a client.
        if matches!(module(&path).as_str(), "bin" | "cli") {
            continue;
        }
        let code = code(&text);
        for (call, home) in rules {
            if code.contains(call) && !path.ends_with(home) {
                wrong.push(format!("{}: {call} belongs in {home}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_library_links_no_model_runtime() {
    for (path, text) in sources() {
        let shown = path.to_string_lossy();
        let engine_side = shown.contains("engine/whisper") || shown.contains("engine/llama");
        if module(&path) == "bin" || engine_side {
            continue;
        }
        let code = code(&text);
        for runtime in ["whisper_rs", "llama_cpp_2", "llama_cpp_sys_2"] {
            assert!(!code.contains(runtime), "{} names {runtime}", path.display());
        }
    }
    let engine =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/mod.rs"))
            .unwrap();
    let engine = code(&engine);
    assert!(!engine.contains("mod whisper") && !engine.contains("mod llama"));
}
