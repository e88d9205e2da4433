//! The daemon as a service: what systemd is told, and how it stops.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::daemon::Daemon;

/// Stands where systemd's socket would, and hears what is said there.
struct Systemd(UnixDatagram);

impl Systemd {
    fn listen(at: &Path) -> Self {
        let socket = UnixDatagram::bind(at).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self(socket)
    }

    /// What comes within `time`.
    fn hear(&self, time: Duration) -> Vec<String> {
        let (deadline, mut heard) = (Instant::now() + time, Vec::new());
        while Instant::now() < deadline {
            let mut bytes = [0; 4096];
            match self.0.recv(&mut bytes) {
                Ok(length) => heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned()),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
        }
        heard
    }

    /// Waits until something with `word` in it comes; what came before it.
    fn await_word(&self, word: &str) -> Vec<String> {
        let (deadline, mut before) = (Instant::now() + Duration::from_secs(60), Vec::new());
        loop {
            let heard = self.hear(Duration::from_millis(100));
            if heard.iter().any(|text| text.contains(word)) {
                return before;
            }
            before.extend(heard);
            assert!(Instant::now() < deadline, "{word} never came, only {before:?}");
        }
    }
}

/// A directory with engines that are never started: there are no models.
fn engines(place: &Path) -> String {
    for name in [friend_lite::engine::WHISPER, friend_lite::engine::LLAMA] {
        std::fs::write(place.join(name), "").unwrap();
    }
    place.to_str().unwrap().to_owned()
}

#[test]
fn the_watchdog_is_fed_only_while_the_writer_moves() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path().join("notify");
    let systemd = Systemd::listen(&at);
    let mut daemon = Daemon::without_models(
        place.path(),
        &[
            ("ENGINES__DIR", &engines(place.path())),
            ("NOTIFY_SOCKET", at.to_str().unwrap()),
            ("WATCHDOG_USEC", "6000000"),
        ],
    );
    let before = systemd.await_word("READY=1");
    assert!(before.iter().any(|text| text.contains("EXTEND_TIMEOUT_USEC=")), "{before:?}");
    assert!(!before.iter().any(|text| text.contains("WATCHDOG=1")), "{before:?}");
    systemd.await_word("WATCHDOG=1");

    // Somebody else holds the database: the writer waits, and waits.
    let database = daemon.state_dir().join("friend-lite.db");
    let holder = rusqlite::Connection::open(database).unwrap();
    holder.execute_batch("begin immediate").unwrap();
    systemd.hear(Duration::from_secs(5));
    let heard = systemd.hear(Duration::from_secs(3));
    assert!(!heard.iter().any(|text| text.contains("WATCHDOG=1")), "fed while stuck: {heard:?}");
    assert!(daemon.log().contains("the database writer has not moved"), "{}", daemon.log());
    holder.execute_batch("rollback").unwrap();
    systemd.await_word("WATCHDOG=1");

    daemon.signal(Signal::TERM);
    systemd.await_word("STOPPING=1");
    assert!(daemon.ended().success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let place = tempfile::tempdir().unwrap();
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut daemon =
            Daemon::without_models(place.path(), &[("ENGINES__DIR", &engines(place.path()))]);
        // A request whose body never comes: the first signal waits for it.
        let mut request = TcpStream::connect(daemon.url.strip_prefix("http://").unwrap()).unwrap();
        request
            .write_all(
                b"POST /auth/jwt/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\
                  Content-Type: application/x-www-form-urlencoded\r\n\r\n",
            )
            .unwrap();
        std::thread::sleep(Duration::from_millis(500));
        daemon.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(500));
        let signalled = Instant::now();
        daemon.signal(second);
        assert_eq!(daemon.ended().code(), Some(code));
        assert!(signalled.elapsed() < Duration::from_secs(5), "{:?}", signalled.elapsed());
    }
}
