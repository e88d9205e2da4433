//! A daemon in a temporary directory on a free port, ended with the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;

pub const ADMIN_EMAIL: &str = "admin@example.com";
pub const ADMIN_PASSWORD: &str = "correct horse battery";

/// A running daemon and its state.
pub struct Daemon {
    child: Child,
    pub url: String,
    /// Other sources by name, as `127.0.0.1:PORT`.
    pub sources: HashMap<String, String>,
    dir: TempDir,
    env: Vec<(String, String)>,
}

/// How many lines of a log hold `what`.
pub fn count(log: &str, what: &str) -> usize {
    log.lines().filter(|line| line.contains(what)).count()
}

/// The programs under test, beside this one.
pub fn program(name: &str) -> PathBuf {
    let daemon = Path::new(env!("CARGO_BIN_EXE_friend-lite"));
    daemon.with_file_name(name)
}

/// Where the models are: the test variable, else the user's cache.
pub fn models_dir() -> PathBuf {
    if let Ok(dir) = std::env::var("FRIEND_LITE_TEST_MODELS") {
        return dir.into();
    }
    directories::ProjectDirs::from("", "", "friend-lite")
        .expect("a home directory")
        .cache_dir()
        .join("models")
}

impl Daemon {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One that has no models: it records, and transcribes nothing.
    #[allow(dead_code, reason = "for the bench, which shares this harness")]
    pub fn without_models(empty: &Path, keys: &[(&str, &str)]) -> Self {
        Self::with_models(keys, empty)
    }

    /// With configuration keys as `SECTION__KEY`, or variables, and their values.
    pub fn with(keys: &[(&str, &str)]) -> Self {
        Self::with_models(keys, &models_dir())
    }

    /// One whose models are in a directory of the test.
    #[allow(dead_code, reason = "for the tests, which share this harness with the bench")]
    pub fn with_models_in(models: &Path, keys: &[(&str, &str)]) -> Self {
        Self::with_models(keys, models)
    }

    /// One without models, in a directory that `prepare` has been given first;
    /// its state is in `state` below. Where that belongs to another user than
    /// root, the daemon runs as that user.
    #[allow(dead_code, reason = "for the tests, which share this harness with the bench")]
    pub fn prepared(keys: &[(&str, &str)], empty: &Path, prepare: impl FnOnce(&Path)) -> Self {
        Self::make(keys, empty, prepare)
    }

    fn with_models(keys: &[(&str, &str)], models: &Path) -> Self {
        Self::make(keys, models, |_| {})
    }

    fn make(keys: &[(&str, &str)], models: &Path, prepare: impl FnOnce(&Path)) -> Self {
        let mut env: Vec<(String, String)> = [
            ("AUTH__BCRYPT_COST", "4"),
            ("LOG__LEVEL", "friend_lite=debug"),
            ("STT__LANGUAGE", "en"),
            ("CONVERSATION__RECONNECT_GRACE", "1s"),
            ("WYOMING__LISTEN", "127.0.0.1:0"),
            ("ESP32__LISTEN", "127.0.0.1:0"),
            // Nothing leaves this machine.
            ("MODELS__FETCH", "false"),
        ]
        .iter()
        .chain(keys)
        .map(|(key, value)| match key.contains("__") {
            true => (format!("FRIEND_LITE__{key}"), (*value).to_owned()),
            false => ((*key).to_owned(), (*value).to_owned()),
        })
        .collect();
        env.push(("FRIEND_LITE__MODELS__DIR".into(), models.display().to_string()));
        if !env.iter().any(|(name, _)| name == "ADMIN_PASSWORD") {
            env.push(("ADMIN_PASSWORD".into(), ADMIN_PASSWORD.into()));
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        prepare(dir.path());
        let (child, url, sources) = launch(dir.path(), &env);
        Self { child, url, sources, dir, env }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the daemon has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A client logged in as the administrator.
    pub async fn admin(&self) -> Client {
        Client::login(&self.url, ADMIN_EMAIL, ADMIN_PASSWORD).await
    }

    /// Makes a user with the command line and logs in.
    pub async fn user(&self, email: &str) -> Client {
        use std::io::Write;
        let mut child = Command::new(program("friend-lite"))
            .args(["user", "add", email, "--password-stdin", "--state-dir"])
            .arg(self.state_dir())
            .env("FRIEND_LITE__AUTH__BCRYPT_COST", "4")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("friend-lite user add");
        child.stdin.take().unwrap().write_all(b"pass of this user\n").unwrap();
        assert!(child.wait().unwrap().success(), "friend-lite user add {email}");
        Client::login(&self.url, email, "pass of this user").await
    }

    /// Ends the daemon as a power cut would, and starts it again on its state.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Ends the daemon as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        let _ = self.child.wait();
    }

    /// Starts the daemon again on its state.
    pub fn restart(&mut self) {
        (self.child, self.url, self.sources) = launch(self.dir.path(), &self.env);
    }

    /// From the next start on, it has this variable.
    #[allow(dead_code, reason = "for the tests, which share this harness with the bench")]
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the daemon, which is to end by itself: its exit code, and its log.
    #[allow(dead_code, reason = "for the tests, which share this harness with the bench")]
    pub fn refused(&mut self) -> (Option<i32>, String) {
        self.child = spawn(self.dir.path(), &self.env);
        let code = self.ended().code();
        (code, self.log())
    }

    /// Starts the daemon again on its state, as often as it takes: so does whoever looks
    /// after a service that ends because another one is too busy to answer.
    #[allow(dead_code, reason = "for the tests, which share this harness with the bench")]
    pub fn restart_as_a_service(&mut self) {
        for _ in 0..10 {
            if let Some(launched) = try_launch(self.dir.path(), &self.env) {
                (self.child, self.url, self.sources) = launched;
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        self.restart();
    }

    /// Starts the daemon on its state and ends it so soon that it may not be up.
    #[allow(dead_code, reason = "for the oracle, which shares this harness")]
    pub fn start_and_kill_after(&mut self, soon: Duration) {
        self.child = spawn(self.dir.path(), &self.env);
        std::thread::sleep(soon);
        self.kill();
    }

    /// Leaves the directory where it is, and says where, for a look at it.
    #[allow(dead_code, reason = "for the oracle, which shares this harness")]
    pub fn keep(&mut self) {
        self.dir.disable_cleanup(true);
        println!("kept: {}", self.dir.path().display());
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Asks the daemon to stop, and waits until it has.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }

    /// Stops the daemon in order, and has `friend-lite check` find nothing wrong
    /// with what it leaves.
    #[allow(dead_code, reason = "for the tests, which share this harness with the bench")]
    pub fn stop_clean(&mut self) {
        assert!(self.stop().success());
        self.assert_clean();
    }

    /// Has `friend-lite check` find nothing wrong.
    pub fn assert_clean(&self) {
        let (code, said) = self.command(&["check"]);
        assert_eq!(code, Some(0), "{said}");
    }

    /// Runs a command on the state directory: its exit code, and what it printed.
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(program("friend-lite"))
            .args(arguments)
            .args(["--config", "/dev/null", "--state-dir"])
            .arg(self.state_dir())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Waits until the daemon has ended.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon did not stop; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Process ids of the engines of that name which this daemon started.
    pub fn engines(&self, name: &str) -> Vec<u32> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
            let cmdline = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if parent == Some(&self.pid().to_string())
                && cmdline.split('\0').next().is_some_and(|p| p.ends_with(name))
            {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the daemon's log ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

type Launched = (Child, String, HashMap<String, String>);

fn launch(dir: &Path, env: &[(String, String)]) -> Launched {
    try_launch(dir, env).unwrap_or_else(|| {
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        panic!("the daemon did not start:\n{log}");
    })
}

fn try_launch(dir: &Path, env: &[(String, String)]) -> Option<Launched> {
    let mut child = spawn(dir, env);
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut sources = HashMap::new();
    for line in stdout.lines() {
        let line = line.unwrap();
        if let Some((source, address)) = line.split_once(" on tcp://") {
            sources.insert(source.to_owned(), address.to_owned());
        }
        if let Some(url) = line.strip_prefix("listening on ") {
            return Some((child, url.to_owned(), sources));
        }
    }
    let _ = child.wait();
    None
}

fn spawn(dir: &Path, env: &[(String, String)]) -> Child {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = Command::new(program("friend-lite"));
    command.arg("run");
    if let Ok(metadata) = std::fs::metadata(dir.join("state"))
        && metadata.uid() != rustix::process::geteuid().as_raw()
    {
        command.uid(metadata.uid()).gid(metadata.gid());
    }
    // A test may choose the address, and then has it again after a restart.
    if !env.iter().any(|(name, _)| name == "FRIEND_LITE__SERVER__LISTEN") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
        .arg("--state-dir")
        .arg(dir.join("state"))
        // A configuration of the person who runs the tests must not reach them.
        .args(["--config", "/dev/null"])
        // Nor must services of theirs.
        .env_remove("DEEPGRAM_API_KEY")
        .env_remove("OFFLINE_ASR_TCP_URI")
        .env_remove("LLM_PROVIDER")
        .envs(env.iter().cloned())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the daemon")
}
