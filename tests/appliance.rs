//! The daemon as people get it: it starts with nothing, and helps itself.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::disk::{Mount, may_mount};
use crate::harness::client::Client;
use crate::harness::daemon::{ADMIN_EMAIL, Daemon, models_dir, program};
use crate::harness::{python, speech};

/// The entry of the model `name` in `/health`.
async fn model(daemon: &Daemon, name: &str) -> Value {
    let health: Value =
        reqwest::get(format!("{}/health", daemon.url)).await.unwrap().json().await.unwrap();
    let models = health["models"].as_array().unwrap();
    models.iter().find(|model| model["name"] == name).unwrap_or_else(|| panic!("{health}")).clone()
}

#[tokio::test]
async fn a_daemon_without_models_records_and_transcribes_once_they_arrive() {
    let (models, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let llm = models_dir().join("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf");
    let daemon = Daemon::with_models_in(
        models.path(),
        &[
            ("MODELS__FETCH", "true"),
            ("MODELS__SOURCES", source.path().to_str().unwrap()),
            ("MODELS__RETRY_PAUSE", "500ms"),
            ("STT__MODEL", "whisper-tiny"),
            ("LLM__MODEL", llm.to_str().unwrap()),
            ("MEMORY__ENABLED", "false"),
        ],
    );
    let admin = daemon.admin().await;
    let mut socket = admin.socket("early").await;
    socket.event("audio-start", None).await;
    socket.stream(&speech::samples(&speech::jfk().path), 0.0).await;
    socket.event("audio-stop", None).await;
    drop(socket);

    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while model(&daemon, "whisper-tiny").await["stage"] != "failed" {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let failed = model(&daemon, "whisper-tiny").await;
    assert!(failed["retry_at"].is_i64(), "{failed}");
    assert_eq!(failed["problem"], Value::Null, "/health is public: {failed}");
    let recorded = admin.conversations().await;
    assert_eq!(recorded.len(), 1, "{recorded:?}");
    assert_eq!(recorded[0]["transcription_status"], "PENDING", "{recorded:?}");

    // The model appears where it is looked for, as on a stick that is plugged in.
    std::fs::copy(models_dir().join("ggml-tiny.bin"), source.path().join("ggml-tiny.bin")).unwrap();
    let conversation = admin.settled().await;
    let text = conversation["transcript"].to_string().to_lowercase();
    assert!(text.contains("country"), "{conversation}");
    assert_eq!(model(&daemon, "whisper-tiny").await["stage"], "present");
    assert!(daemon.log().contains("the stt model whisper-tiny is here"), "{}", daemon.log());
}

/// Runs a subcommand on the state in `dir`: whether it ended well, and all it said.
fn command(dir: &Path, keys: &[(&str, &str)], args: &[&str]) -> (bool, String) {
    let output = subcommand(dir, keys, args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn subcommand(dir: &Path, keys: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(program("friend-lite"));
    let keys = keys.iter().map(|(key, value)| (format!("FRIEND_LITE__{key}"), *value));
    command.args(args).arg("--state-dir").arg(dir).envs(keys);
    if !args.contains(&"--config") {
        command.args(["--config", "/dev/null"]);
    }
    command
}

/// What stands behind `label` in `text`.
fn after<'a>(text: &'a str, label: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.unwrap_or_else(|| panic!("no {label} in {text}")).trim()
}

#[tokio::test]
async fn the_first_password_is_told_until_the_setup_page_has_replaced_it() {
    let daemon = Daemon::with(&[("ADMIN_PASSWORD", "")]);
    let state = daemon.state_dir();
    let (good, said) = command(&state, &[], &["first-run"]);
    assert!(good && said.contains(&daemon.url), "{said}");
    let first = after(&said, "password:").to_owned();
    Client::login(&daemon.url, ADMIN_EMAIL, &first).await;

    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let http = http.build().unwrap();
    let page = http.get(&daemon.url).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("action=\"/setup\"") && !page.contains(&first), "{page}");
    let form = [
        ("first_password", first.as_str()),
        ("password", "a password of mine"),
        ("again", "a password of mine"),
        ("name", "Kitchen"),
    ];
    let done = http.post(format!("{}/setup", daemon.url)).form(&form).send().await.unwrap();
    assert_eq!(done.status(), 303);
    Client::login(&daemon.url, ADMIN_EMAIL, "a password of mine").await;
    let (good, said) = command(&state, &[], &["first-run"]);
    assert!(good && said.contains("has been chosen") && !said.contains(&first), "{said}");
    let (_, status) = command(&state, &[], &["status"]);
    assert!(status.starts_with("Kitchen is "), "{status}");
    let again = http.post(format!("{}/setup", daemon.url)).form(&form).send().await.unwrap();
    assert_eq!(again.status(), 409);
}

#[tokio::test]
async fn the_owner_is_told_how_the_daemon_is() {
    let mut daemon = Daemon::start();
    let state = daemon.state_dir();
    let admin = daemon.admin().await;
    let mut socket = admin.socket("watched").await;
    socket.event("audio-start", None).await;
    socket.stream(&speech::samples(&speech::jfk().path)[..16_000], 0.0).await;

    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let (said, status) = loop {
        let (good, said) = command(&state, &[], &["status", "--json"]);
        let status: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        assert!(good && status["health"] == "healthy", "{said}");
        if status["streams"][0]["recording_seconds"].is_u64() {
            break (said, status);
        }
        assert!(tokio::time::Instant::now() < deadline, "{said}");
    };
    assert_eq!(status["streams"][0]["user"], ADMIN_EMAIL, "{said}");
    assert_eq!(status["pid"], daemon.pid(), "{said}");
    assert_eq!(status["engines"].as_array().unwrap().len(), 3, "{said}");
    assert!(status["memory"]["daemon_bytes"].as_u64().unwrap() > 1 << 20, "{said}");
    let (good, said) = command(&state, &[], &["status"]);
    assert!(good && said.contains("watched") && said.contains("recording for"), "{said}");

    assert_eq!(admin.get("/api/admin/status").await["name"], status["name"]);
    let ann = daemon.user("ann@example.com").await;
    assert_eq!(ann.call("GET", "/api/admin/status").await.0, 403);

    // `top` says it again and again, until it is interrupted.
    let top = subcommand(&state, &[], &["top", "--every", "0.1"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pid = rustix::process::Pid::from_child(&top);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = top.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).matches("STREAMS").count();
    assert!(output.status.success() && shown > 2, "{shown} times");

    if rustix::process::geteuid().is_root() {
        use std::os::unix::process::CommandExt;
        // The directory alone would keep a stranger out; the socket does so too.
        for dir in [state.parent().unwrap(), &state] {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut stranger = subcommand(&state, &[], &["status"]);
        let refused = stranger.uid(65_534).gid(65_534).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("try it with sudo"), "{said}");
    }
    drop(socket);
    assert!(daemon.stop().success());
    let (good, said) = command(&state, &[], &["status"]);
    assert!(!good && said.contains("no daemon is running"), "{said}");
}

#[test]
fn what_root_does_leaves_no_files_of_roots() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: it takes root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    chown(&state, Some(65_534), Some(65_534)).unwrap();
    let mut add = subcommand(&state, &[("AUTH__BCRYPT_COST", "4")], &["user", "add", "a@b.c"]);
    let mut child =
        add.arg("--password-stdin").stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"a password\n").unwrap();
    assert!(child.wait().unwrap().success());
    let files: Vec<_> = std::fs::read_dir(&state).unwrap().map(|f| f.unwrap()).collect();
    assert!(files.iter().any(|file| file.file_name() == "friend-lite.db"));
    for file in files {
        assert_eq!(file.metadata().unwrap().uid(), 65_534, "{}", file.path().display());
    }
}

/// The doctor's findings by check, and whether it found nothing bad.
fn doctor(dir: &Path, keys: &[(&str, &str)], args: &[&str]) -> (bool, Vec<Value>) {
    let llm = models_dir().join("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf");
    let models = models_dir();
    let mut all = vec![
        ("SERVER__LISTEN", "127.0.0.1:0"),
        ("WYOMING__LISTEN", "127.0.0.1:0"),
        ("STT__MODEL", "whisper-tiny"),
        // A file of its own is not read through, which takes long.
        ("LLM__MODEL", llm.to_str().unwrap()),
        ("MODELS__DIR", models.to_str().unwrap()),
        ("MODELS__SOURCES", "path"),
    ];
    all.extend(keys);
    let (good, said) = command(dir, &all, &[&["doctor", "--json"], args].concat());
    let findings = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    (good, findings)
}

/// What the doctor says of `check`, which must be bad and come with advice.
fn ill(dir: &Path, keys: &[(&str, &str)], args: &[&str], check: &str) -> String {
    let (good, findings) = doctor(dir, keys, args);
    assert!(!good, "{findings:?}");
    let bad = |finding: &&Value| finding["check"] == check && finding["verdict"] == "bad";
    let finding = findings.iter().find(bad).unwrap_or_else(|| panic!("{findings:#?}"));
    assert!(finding["advice"].is_string(), "{finding}");
    finding["says"].as_str().unwrap().to_owned()
}

#[test]
fn the_doctor_finds_nothing_on_a_good_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (good, findings) = doctor(dir.path(), &[], &[]);
    assert!(good, "{findings:#?}");
    let says = |check: &str| {
        let finding = findings.iter().find(|finding| finding["check"] == check);
        finding.unwrap_or_else(|| panic!("no {check}: {findings:#?}"))["says"].to_string()
    };
    assert!(says("speech").contains("is whole"));
    assert!(says("hearing").contains("merican"));
    assert!(says("disk speed").contains("safe within"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing");
}

#[test]
fn the_doctor_finds_what_is_wrong_with_models() {
    let (dir, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = [("MODELS__DIR", models.path().to_str().unwrap())];
    let says = ill(dir.path(), &at, &["--quick"], "speech");
    assert!(says.contains("whisper-tiny is not in"), "{says}");
    // The right size, and zeroes.
    let bytes = std::fs::metadata(models_dir().join("ggml-tiny.bin")).unwrap().len();
    let file = std::fs::File::create(models.path().join("ggml-tiny.bin")).unwrap();
    file.set_len(bytes).unwrap();
    let says = ill(dir.path(), &at, &[], "speech");
    assert!(says.contains("SHA-256"), "{says}");
    file.set_len(1000).unwrap();
    let says = ill(dir.path(), &at, &["--quick"], "speech");
    assert!(says.contains("another size"), "{says}");
}

#[test]
fn the_doctor_finds_a_bad_configuration_and_a_taken_port() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[server]\nlisen = \"0.0.0.0:8000\"\n").unwrap();
    let args = ["--quick", "--config", file.to_str().unwrap()];
    let says = ill(dir.path(), &[], &args, "config");
    assert!(says.contains("did you mean `listen`?"), "{says}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let says = ill(dir.path(), &[("WYOMING__LISTEN", &address)], &["--quick"], "ports");
    assert!(says.contains(&address) && says.contains("wyoming.listen"), "{says}");
}

#[test]
fn the_doctor_finds_a_full_disk() {
    if !may_mount("the_doctor_finds_a_full_disk") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("small");
    let _mount = Mount::new(&at, "64k");
    let says = ill(&at, &[], &["--quick"], "disk");
    assert!(says.contains("less than"), "{says}");
    let says = ill(&at, &[], &["--quick"], "disk speed");
    assert!(says.contains("cannot write"), "{says}");
}

#[tokio::test]
async fn the_doctor_finds_services_that_do_not_answer() {
    let place = tempfile::tempdir().unwrap();
    let gone = place.path().join("stick");
    let source = [
        ("MODELS__SOURCES", gone.to_str().unwrap()),
        ("MODELS__DIR", place.path().to_str().unwrap()),
    ];
    let says = ill(place.path(), &source, &["--quick"], "sources");
    assert!(says.contains("stick is not there"), "{says}");

    let daemon = Daemon::start();
    let (good, findings) = doctor(&daemon.state_dir(), &[], &["--quick"]);
    assert!(good, "{findings:#?}");
    // It hangs: its ports take connections, and nothing comes of them.
    daemon.signal(rustix::process::Signal::STOP);
    let says = ill(&daemon.state_dir(), &[], &["--quick"], "daemon");
    daemon.signal(rustix::process::Signal::CONT);
    assert!(says.contains("does not answer"), "{says}");
}

/// Home Assistant's own library finds the daemon, here on loopback.
#[tokio::test]
async fn zeroconf_finds_both_services_and_reads_their_records() {
    let name = format!("Attic {}", std::process::id());
    let daemon = Daemon::with(&[
        ("DISCOVERY__NAME", &name),
        ("DISCOVERY__INTERFACES", "lo"),
        ("LOG__LEVEL", "friend_lite=debug,mdns_sd=debug"),
    ]);
    let said = python::script("discover.py", &[&name, "127.0.0.1"], Duration::from_secs(60)).await;
    let records: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    let port = |address: &str| address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let own = &records["_friend-lite._tcp.local."];
    assert_eq!(own["port"], port(&daemon.url), "{records}");
    assert_eq!(own["properties"]["path"], "/", "{records}");
    assert_eq!(own["properties"]["version"], env!("CARGO_PKG_VERSION"), "{records}");
    let wyoming = &records["_wyoming._tcp.local."];
    assert_eq!(wyoming["port"], port(&daemon.sources["wyoming"]), "{records}");
    for one in [own, wyoming] {
        assert_eq!(one["addresses"], serde_json::json!(["127.0.0.1"]), "{records}");
        assert!(one["server"].as_str().unwrap().ends_with(".local."), "{records}");
    }
}
