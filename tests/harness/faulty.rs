//! A proxy before a service, which answers for it when it is told to.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It reaches the service.
    None,
    /// It is closed at once.
    Closed,
    /// The answer is this status.
    Status(u16),
    /// The answer is bytes of no protocol.
    Garbage,
    /// The answer is a success with something else in it.
    Nonsense,
    /// The first half of the service's answer, and then nothing.
    Half,
}

pub const ALL: [Fault; 6] = [
    Fault::Status(429),
    Fault::Status(500),
    Fault::Garbage,
    Fault::Nonsense,
    Fault::Half,
    Fault::Closed,
];

/// Silence after which a side is taken to have said all.
const QUIET: Duration = Duration::from_millis(400);

/// A running proxy. Its connections end with each change, and with it.
pub struct Proxy {
    pub port: u16,
    fault: Arc<watch::Sender<Fault>>,
}

impl Proxy {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let fault = Arc::new(watch::Sender::new(Fault::None));
        let faults = Arc::downgrade(&fault);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(fault) = faults.upgrade() else { return };
                let mut changes = fault.subscribe();
                let now = *changes.borrow_and_update();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = changes.changed() => {}
                        _ = serve(stream, port, now) => {}
                    }
                });
            }
        });
        Self { port: own, fault }
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn serve(mut client: TcpStream, port: u16, fault: Fault) -> std::io::Result<()> {
    match fault {
        Fault::Closed => Ok(()),
        Fault::None => {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
        Fault::Half => {
            let server = TcpStream::connect(("127.0.0.1", port)).await?;
            let (mut from, mut to) = server.into_split();
            let (mut asked, mut answer) = client.split();
            let mut first = [0];
            let forward = tokio::io::copy(&mut asked, &mut to);
            tokio::select! {
                // Until an answer begins.
                read = from.read_exact(&mut first) => drop(read?),
                sent = forward => return sent.map(drop),
            }
            let mut said = first.to_vec();
            drain(&mut from, &mut said).await;
            answer.write_all(&said[..said.len() / 2]).await?;
            answer.shutdown().await
        }
        said => {
            drain(&mut client, &mut Vec::new()).await;
            let body = match said {
                Fault::Status(status) => format!(
                    "HTTP/1.1 {status} No\r\ncontent-type: application/json\r\nconnection: close\r\n\
                     retry-after: 0\r\ncontent-length: 28\r\n\r\n{{\"error\": \"not just now now\"}}"
                ),
                Fault::Nonsense => {
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 13\r\n\r\n\
                                    <html></html>"
                        .into()
                }
                _ => "\u{1}\u{2}{{{\n\n\0".into(),
            };
            client.write_all(body.as_bytes()).await?;
            client.shutdown().await?;
            drain(&mut client, &mut Vec::new()).await;
            Ok(())
        }
    }
}

/// Reads until nothing more comes for a while.
async fn drain(stream: &mut (impl AsyncReadExt + Unpin), into: &mut Vec<u8>) {
    while let Ok(Ok(1..)) = timeout(QUIET, stream.read_buf(into)).await {}
}
