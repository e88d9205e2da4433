//! nginx as packaging/full-deployment configures it, before daemons of a test.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::services::{fetched, free_port};

/// A file of packaging/full-deployment.
pub fn shipped(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/full-deployment");
    std::fs::read_to_string(dir.join(name)).unwrap()
}

/// A running nginx, ended with the test.
pub struct Nginx {
    child: Child,
    pub url: String,
    _dir: tempfile::TempDir,
}

impl Nginx {
    /// Before daemons at those addresses, with the configuration that is shipped: as its
    /// comments say, one more daemon is one more line.
    pub fn before(daemons: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut site = shipped("nginx.conf");
        let line = |daemon: &str| format!("server {daemon} max_fails=2 fail_timeout=10s;");
        let (first, second) = (line("friend-lite-1:8000"), line("friend-lite-2:8000"));
        let all: Vec<String> = daemons.iter().map(|daemon| line(daemon)).collect();
        for (from, to) in [
            (first.as_str(), all.join(" ").as_str()),
            (&second, ""),
            ("listen 80;", &format!("listen 127.0.0.1:{port};")),
        ] {
            assert_eq!(site.matches(from).count(), 1, "{from}");
            site = site.replace(from, to);
        }
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};", dir.path().join(kind).display()))
            .concat();
        // Everything else as Debian and the image have it.
        let whole = format!(
            "daemon off; pid nginx.pid; error_log stderr; events {{}} \
             http {{ access_log off; {temp} {site} }}"
        );
        std::fs::write(dir.path().join("nginx.conf"), whole).unwrap();
        let nginx = |more: &[&str]| {
            let mut command = Command::new(fetched("nginx"));
            command.args(["-p", dir.path().to_str().unwrap(), "-c", "nginx.conf"]).args(more);
            command
        };
        let tested = nginx(&["-t"]).output().unwrap();
        assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
        let child = nginx(&[]).stderr(Stdio::null()).spawn().unwrap();
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, url: format!("http://127.0.0.1:{port}"), _dir: dir }
    }
}

impl Drop for Nginx {
    /// Its workers end with it when it is asked, and not when it is killed.
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}
