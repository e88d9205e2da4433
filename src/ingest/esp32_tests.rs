use tokio::io::AsyncWriteExt;

use super::super::session::tests::{Bench, bench, user};
use super::*;
use crate::audio::synthetic::speech;
use crate::base::clock::Clock;
use crate::config::{Config, Interval};

async fn start(change: impl FnOnce(&mut Config)) -> (Bench, SocketAddr) {
    let bench = bench(Clock::system(), |config| {
        config.esp32.user = "1@example.com".into();
        config.conversation.reconnect_grace = Interval::from_secs(0);
        change(config);
    });
    bench.store.state().users.push(user('1'));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ingest = bench.ingest.clone();
    bench.supervisor.once(async move { serve(&listener, ingest).await.unwrap() });
    (bench, address)
}

/// Samples as the board's microphone interface gives them: its noise below the
/// 16 bits, and another signal on the right.
fn stereo(samples: &[i16]) -> Vec<u8> {
    let frame = |s: &i16| [(i32::from(*s) << 16) | 0x1234, i32::from(s.wrapping_mul(7)) << 16];
    samples.iter().flat_map(frame).flat_map(i32::to_le_bytes).collect()
}

async fn closed(bench: &Bench, count: usize) -> Vec<(Vec<i16>, CloseReason)> {
    for _ in 0..1_000 {
        let rows = bench.store.rows();
        if rows.len() == count && rows.iter().all(|row| !row.conversation.is_open()) {
            let what = |row: &super::super::fake_store::Row| {
                (bench.recorded(row), row.conversation.close_reason.unwrap())
            };
            return rows.iter().map(what).collect();
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", bench.store.rows());
}

#[tokio::test]
async fn the_left_channel_is_recorded_however_it_is_cut() {
    let (bench, address) = start(|_| {}).await;
    let mut board = TcpStream::connect(address).await.unwrap();
    let sound = speech(3.0);
    for piece in stereo(&sound).chunks(1_003) {
        board.write_all(piece).await.unwrap();
    }
    // Half a frame, as a cut connection leaves it.
    board.write_all(&[1, 2, 3]).await.unwrap();
    drop(board);
    let (recorded, reason) = closed(&bench, 1).await.remove(0);
    assert_eq!(reason, CloseReason::Disconnect);
    // From a little before speech, which is at once.
    assert!(recorded.len() > sound.len() - 1_600, "{}", recorded.len());
    assert_eq!(recorded, sound[sound.len() - recorded.len()..]);
}

#[tokio::test]
async fn boards_are_told_apart_and_one_that_vanishes_is_let_go() {
    let (bench, address) =
        start(|config| config.server.stream_timeout = Interval::from(Duration::from_millis(300)))
            .await;
    let mut boards = Vec::new();
    for _ in 0..2 {
        let mut board = TcpStream::connect(address).await.unwrap();
        board.write_all(&stereo(&speech(2.0))).await.unwrap();
        boards.push(board);
    }
    let _knocks = TcpStream::connect(address).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..500 {
        seen = bench.ingest.clients().list(None);
        if seen.len() == 2 {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    let ids: Vec<String> = seen.iter().map(|client| client.client_id.to_string()).collect();
    assert_eq!(ids, ["439011-havpe", "439011-havpe-2"]);
    // Both stay open and say nothing more.
    let closed = closed(&bench, 2).await;
    assert!(closed.iter().all(|(_, reason)| *reason == CloseReason::Disconnect));
    assert!(bench.ingest.clients().list(None).is_empty());
    drop(boards);
}

#[tokio::test]
async fn a_board_that_is_back_soon_goes_on_with_its_conversation() {
    let (bench, address) =
        start(|config| config.conversation.reconnect_grace = Interval::from_secs(20)).await;
    let sound = speech(2.0);
    let mut lost = TcpStream::connect(address).await.unwrap();
    lost.write_all(&stereo(&sound)).await.unwrap();
    while bench.store.rows().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    // The network is gone, and nobody has noticed.
    sleep(LOST + Duration::from_millis(100)).await;
    let mut board = TcpStream::connect(address).await.unwrap();
    board.write_all(&stereo(&sound)).await.unwrap();
    assert!(!matches!(lost.read(&mut [0]).await, Ok(1..)), "the old connection is ended");
    drop(board);
    // All of it has been read once the session waits for the board again.
    let id = loop {
        let client = bench.ingest.clients().list(None).remove(0);
        if !client.connected {
            break client.client_id;
        }
        sleep(Duration::from_millis(5)).await;
    };
    bench.ingest.clients().close_conversation(&id).await.unwrap();
    let (recorded, reason) = closed(&bench, 1).await.remove(0);
    assert_eq!(reason, CloseReason::Request);
    assert!(recorded.len() > 2 * sound.len() - 1_600, "{}", recorded.len());
}

#[tokio::test]
async fn without_its_user_a_board_is_sent_away() {
    let (bench, address) = start(|config| config.esp32.user = "x@example.com".into()).await;
    let mut board = TcpStream::connect(address).await.unwrap();
    board.write_all(&stereo(&speech(1.0))).await.unwrap();
    // Closed or reset: there is nothing to read either way.
    assert!(!matches!(board.read(&mut [0]).await, Ok(1..)));
    assert!(bench.store.rows().is_empty());
}
