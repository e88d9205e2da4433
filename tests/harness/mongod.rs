//! A real MongoDB, in a replica set of one: transactions need one.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server. It ends when this is dropped, or when the process does that
/// started it.
pub(crate) struct Mongod {
    /// Waits for the end of its input, and ends the server then.
    keeper: Child,
    /// The server itself.
    pub(crate) pid: u32,
    pub(crate) port: u16,
}

/// What `./dev servers` has fetched.
fn program() -> PathBuf {
    let program = directories::ProjectDirs::from("", "", "friend-lite")
        .expect("a home directory")
        .cache_dir()
        .join("test-servers/mongod-7.0.11/mongod");
    assert!(program.is_file(), "MongoDB is missing: run `./dev servers` once");
    program
}

/// A directory for a server's files that is gone with this process; in memory
/// where the system has such a place, since each commit is synced.
pub(crate) fn directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    base.join(format!("friend-lite-mongod-{}", std::process::id()))
}

/// Starts the server and removes its files once the input ends or it has ended.
const KEEP: &str = r#"
dir=$1; shift
"$@" >&2 &
echo $!
cat >/dev/null
kill -9 $! 2>/dev/null
wait
[ -z "$REMOVE" ] || rm -rf "$dir"
"#;

impl Mongod {
    /// Starts it at `port`, or one that is free, over the files in `dir`, and
    /// waits until it takes writes. The directory goes with it.
    pub(crate) fn start(port: u16, dir: &Path) -> Self {
        Self::launch(port, dir, true)
    }

    /// The same, and leaves the directory.
    pub(crate) fn launch(port: u16, dir: &Path, remove: bool) -> Self {
        let server = Self::spawn(port, dir, remove, &[]);
        server.initiate();
        server
    }

    /// Over the files in `dir`, which a server at that port has left there, with
    /// `arguments`; returns when it listens.
    #[allow(dead_code, reason = "for the tests, which share this with those of the library")]
    pub(crate) fn again(port: u16, dir: &Path, arguments: &[String]) -> Self {
        let server = Self::spawn(port, dir, false, arguments);
        let limit = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < limit, "MongoDB did not start; see its log beside its files");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn spawn(port: u16, dir: &Path, remove: bool, arguments: &[String]) -> Self {
        let port = match port {
            0 => TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
            port => port,
        };
        std::fs::create_dir_all(dir).unwrap();
        let log = OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", KEEP, "sh"])
            .arg(dir)
            .arg(program())
            .args(["--bind_ip", "127.0.0.1", "--replSet", "rs0", "--wiredTigerCacheSizeGB", "0.25"])
            .args(["--nounixsocket", "--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(["--port", &port.to_string(), "--dbpath"])
            .arg(dir)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        if remove {
            command.env("REMOVE", "1");
        }
        let mut keeper = command.spawn().expect("a shell");
        let pid = first_line(&mut keeper);
        Self { keeper, pid, port }
    }

    /// Sends the server itself a signal.
    #[allow(dead_code, reason = "for the tests, which share this with those of the library")]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.unwrap(), signal).unwrap();
    }

    pub(crate) fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// Has it be a set of its own, unless it is, and waits until it writes.
    fn initiate(&self) {
        let limit = Instant::now() + Duration::from_secs(60);
        let mut initiated = false;
        while Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(100));
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { continue };
            let hello =
                ask(&mut stream, &document(&[field(b'\x10', "hello", &1_i32.to_le_bytes())]));
            let Some(hello) = hello else { continue };
            if has(&hello, b"\x08isWritablePrimary\0\x01") {
                return;
            }
            if !initiated && !has(&hello, b"\x02setName\0") {
                let host = text(&format!("127.0.0.1:{}", self.port));
                let member = document(&[
                    field(b'\x10', "_id", &0_i32.to_le_bytes()),
                    field(b'\x02', "host", &host),
                ]);
                let set = document(&[
                    field(b'\x02', "_id", &text("rs0")),
                    field(b'\x04', "members", &document(&[field(b'\x03', "0", &member)])),
                ]);
                initiated = ask(&mut stream, &document(&[field(b'\x03', "replSetInitiate", &set)]))
                    .is_some();
            }
        }
        panic!("MongoDB did not start; see its log beside its files");
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn first_line(child: &mut Child) -> u32 {
    let mut line = String::new();
    let mut byte = [0];
    let stdout = child.stdout.as_mut().unwrap();
    while stdout.read_exact(&mut byte).is_ok() && byte != *b"\n" {
        line.push(byte[0].into());
    }
    line.trim().parse().expect("the number of the server's process")
}

// The few commands that there are before a driver can connect, in BSON by hand.

fn field(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], value].concat()
}

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len() + 1).unwrap().to_le_bytes();
    [&length, text.as_bytes(), &[0]].concat()
}

fn document(fields: &[Vec<u8>]) -> Vec<u8> {
    let fields = fields.concat();
    let length = u32::try_from(fields.len() + 5).unwrap().to_le_bytes();
    [&length[..], &fields, &[0]].concat()
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Sends a command to the database `admin`; the answer.
fn ask(stream: &mut TcpStream, command: &[u8]) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let fields = &command[4..command.len() - 1];
    let command = document(&[fields.to_vec(), field(b'\x02', "$db", &text("admin"))]);
    let length = i32::try_from(16 + 5 + command.len()).ok()?;
    let header: Vec<u8> =
        [length, 1, 0, 2013].iter().flat_map(|number| number.to_le_bytes()).collect();
    // OP_MSG: no flags, and one section with the command.
    stream.write_all(&[&header[..], &[0; 5], &command].concat()).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut rest = vec![0; u32::from_le_bytes(length).checked_sub(4)? as usize];
    stream.read_exact(&mut rest).ok()?;
    Some(rest)
}
