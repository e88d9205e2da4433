use super::*;
use crate::supervisor::Supervisor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// How a test server treats a request.
#[derive(Clone, Copy, Default)]
pub(in crate::models) struct Manner {
    /// Bytes of a body after which the connection is cut, but for the last request.
    pub(in crate::models) cut_after: Option<usize>,
    pub(in crate::models) ignore_range: bool,
    /// Requests answered with 503 first.
    pub(in crate::models) busy: usize,
    pub(in crate::models) missing: bool,
}

/// A web server on loopback that has one file.
pub(in crate::models) struct Server {
    pub(in crate::models) url: String,
    /// The byte from which each request asked.
    pub(in crate::models) starts: Arc<Mutex<Vec<usize>>>,
    supervisor: Supervisor,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.supervisor.stop();
    }
}

pub(in crate::models) async fn serve(content: Vec<u8>, manner: Manner) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/model.bin", listener.local_addr().unwrap());
    let (supervisor, starts) = (Supervisor::new(), Arc::new(Mutex::new(Vec::new())));
    let (stop, seen, busy) =
        (supervisor.stop_token(), starts.clone(), AtomicUsize::new(manner.busy));
    supervisor.once(async move {
        loop {
            let mut socket = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = stop.cancelled() => return,
            };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap().to_lowercase();
            let range = request.split("range: bytes=").nth(1).and_then(|r| r.split('-').next());
            let start: usize = range.map_or(0, |start| start.parse().unwrap());
            seen.lock().unwrap().push(start);
            let refusal = match busy.load(Ordering::SeqCst) {
                0 if manner.missing => Some("404 Not Found"),
                0 => None,
                n => {
                    busy.store(n - 1, Ordering::SeqCst);
                    Some("503 Service Unavailable")
                }
            };
            if let Some(status) = refusal {
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                socket.write_all(head.as_bytes()).await.unwrap();
                continue;
            }
            let total = content.len();
            let (status, start) = match range {
                Some(_) if !manner.ignore_range => (
                    format!(
                        "206 Partial Content\r\nContent-Range: bytes {start}-{}/{total}",
                        total - 1
                    ),
                    start,
                ),
                _ => ("200 OK".to_owned(), 0),
            };
            let body = &content[start..];
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            let cut = manner.cut_after.unwrap_or(usize::MAX).min(body.len());
            let _ = socket.write_all(&body[..cut]).await;
        }
    });
    Server { url, starts, supervisor }
}

fn content() -> Vec<u8> {
    (0..300_000_u32).map(|n| (n % 251) as u8).collect()
}

async fn download(server: &Server, bytes: u64, path: &Path) -> Result<()> {
    let remote = Remote { name: "model.bin".into(), bytes, url: server.url.clone() };
    let downloader = Downloader::new(Duration::from_millis(1)).unwrap();
    downloader.download(&remote, path, &Report::quiet()).await
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    let server = serve(content(), Manner { cut_after: Some(130_000), ..Manner::default() }).await;
    download(&server, 300_000, &path).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content());
    assert_eq!(*server.starts.lock().unwrap(), [0, 130_000, 260_000]);
}

#[tokio::test]
async fn what_an_earlier_run_left_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    std::fs::write(&path, &content()[..299_990]).unwrap();
    let server = serve(content(), Manner::default()).await;
    download(&server, 300_000, &path).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content());
    assert_eq!(*server.starts.lock().unwrap(), [299_990]);
    download(&server, 300_000, &path).await.unwrap();
    assert_eq!(server.starts.lock().unwrap().len(), 1, "a whole file needs no request");
}

#[tokio::test]
async fn a_server_without_ranges_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    std::fs::write(&path, vec![0xff; 1000]).unwrap();
    let server = serve(content(), Manner { ignore_range: true, ..Manner::default() }).await;
    download(&server, 300_000, &path).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content());
}

#[tokio::test]
async fn a_server_that_always_cuts_at_the_same_byte_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let manner = Manner { ignore_range: true, cut_after: Some(1000), ..Manner::default() };
    let server = serve(content(), manner).await;
    let error = download(&server, 300_000, &dir.path().join("part")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(server.starts.lock().unwrap().len(), 1 + MAX_FAILURES as usize);
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_a_missing_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    let server = serve(content(), Manner { busy: 3, ..Manner::default() }).await;
    download(&server, 300_000, &path).await.unwrap();

    let server = serve(content(), Manner { missing: true, ..Manner::default() }).await;
    let error = download(&server, 300_001, &path).await.unwrap_err();
    assert!(error.message().contains("404"));
    assert_eq!(server.starts.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_of_another_size_is_refused_before_it_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    let server = serve(content(), Manner::default()).await;
    let error = download(&server, 200_000, &path).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    assert!(!path.exists());
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let server = Server { url, starts: Arc::default(), supervisor: Supervisor::new() };
    let error = download(&server, 1, &dir.path().join("part")).await.unwrap_err();
    assert!(error.report().contains("cannot connect"), "{}", error.report());
}

#[test]
fn content_ranges_are_read() {
    assert_eq!(parse_content_range("bytes 100-199/200"), Some((100, Some(200))));
    assert_eq!(parse_content_range("bytes 0-9/*"), Some((0, None)));
    assert_eq!(parse_content_range("bytes */200"), None);
    assert_eq!(parse_content_range("items 1-2/3"), None);
}
