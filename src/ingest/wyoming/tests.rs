use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::connection::MAX_COMPLAINTS;
use super::*;
use crate::audio::synthetic::speech;
use crate::base::clock::Clock;
use crate::base::error::Kind;
use crate::config::{Config, Interval};
use crate::domain::conversation::CloseReason;
use crate::ingest::asr::tests::Ear;
use crate::ingest::fake_store::Row;
use crate::ingest::session::tests::{Bench, bench, bytes, user};
use crate::wyoming;
use crate::wyoming::event::{
    AudioChunk, AudioStart, Body, Event, Ping, Pong, Transcribe, Transcript, TranscriptStop,
};

type Client = wyoming::Connection<TcpStream>;

struct Server {
    bench: Bench,
    ear: Arc<Ear>,
    address: SocketAddr,
}

async fn start(ear: Arc<Ear>, change: impl FnOnce(&mut Config)) -> Server {
    let bench = bench(Clock::system(), |config| {
        config.conversation.reconnect_grace = Interval::from_secs(0);
        change(config);
    });
    bench.store.state().users.push(user('1'));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ingest, stt) = (bench.ingest.clone(), ear.clone());
    bench.supervisor.once(async move { serve(&listener, ingest, stt).await.unwrap() });
    Server { bench, ear, address }
}

impl Server {
    async fn connect(&self) -> Client {
        Client::new("daemon", TcpStream::connect(self.address).await.unwrap())
    }

    async fn raw(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// Waits for `count` closed conversations: their samples and reasons.
    async fn closed(&self, count: usize) -> Vec<(usize, CloseReason)> {
        for _ in 0..1_000 {
            let rows = self.bench.store.rows();
            if rows.len() == count && rows.iter().all(|row| !row.conversation.is_open()) {
                let reason = |row: &Row| {
                    (self.bench.recorded(row).len(), row.conversation.close_reason.unwrap())
                };
                return rows.iter().map(reason).collect();
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.bench.store.rows());
    }
}

fn chunk(samples: &[i16]) -> Event {
    Event::of(&AudioChunk::default()).with_payload(bytes(samples))
}

async fn kinds(client: &mut Client) -> Vec<String> {
    let mut kinds = Vec::new();
    while let Ok(event) = client.receive().await {
        let text = event.data.get("text").and_then(|text| text.as_str()).unwrap_or_default();
        kinds.push(format!("{} {text}", event.kind).trim().to_owned());
        if event.kind == TranscriptStop::KIND {
            break;
        }
    }
    kinds
}

/// The next line; empty at the end of the connection.
async fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    timeout(Duration::from_secs(10), stream.read_line(&mut line)).await.unwrap().unwrap();
    line
}

#[tokio::test]
async fn says_what_it_can_do() {
    let server = start(Ear::new(), |_| {}).await;
    let mut client = server.connect().await;
    let info = client.describe().await.unwrap();
    let program = &info.asr[0];
    assert!(program.installed && program.supports_transcript_streaming);
    assert_eq!(program.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    let model = &program.models[0];
    assert!(
        model.installed && model.languages == ["de", "en"] && !model.attribution.name.is_empty()
    );
    client.send(Event::of(&Ping { text: Some("hey".into()) })).await.unwrap();
    assert_eq!(client.answer::<Pong>().await.unwrap().0.text.as_deref(), Some("hey"));
    client.send(Event::bare("run-pipeline")).await.unwrap();
    assert_eq!(client.transcribe(&[], None).await.unwrap().transcript.text, "");
}

#[tokio::test]
async fn a_transcript_comes_in_pieces_to_those_who_know_them() {
    let server = start(Ear::new(), |_| {}).await;
    let sound = [speech(16.0), vec![0; 16_000 * 7], speech(4.0)].concat();
    let mut client = server.connect().await;
    for event in [Event::of(&AudioStart::default()), chunk(&sound), Event::bare("audio-stop")] {
        client.send(event).await.unwrap();
    }
    let told = kinds(&mut client).await;
    let text = told[told.len() - 2].strip_prefix("transcript ").unwrap();
    let pieces: Vec<&str> =
        told.iter().filter_map(|kind| kind.strip_prefix("transcript-chunk ")).collect();
    assert!(pieces.len() == 2 && text.starts_with(pieces[0]), "{told:?}");
    assert_eq!(text.split_once(' ').unwrap().0, pieces[0].split_once(' ').unwrap().0);
    assert_eq!((&*told[0], told.last().unwrap().as_str()), ("transcript-start", "transcript-stop"));

    // One that tells no version, or an old one, gets the transcript alone.
    for version in ["", r#","version":"1.5.4""#, r#","version":7"#] {
        let mut raw = server.raw().await;
        let audio = bytes(&speech(3.0));
        let header =
            format!("{{\"type\":\"audio-chunk\",\"payload_length\":{}{version}}}\n", audio.len());
        raw.write_all(header.as_bytes()).await.unwrap();
        raw.write_all(&audio).await.unwrap();
        raw.write_all(format!("{{\"type\":\"audio-stop\"{version}}}\n").as_bytes()).await.unwrap();
        let answer = line(&mut raw).await;
        assert!(answer.contains(r#""type":"transcript""#) && answer.contains("3 s"), "{answer}");
    }
}

#[tokio::test]
async fn requests_that_do_not_wait_are_answered_in_turn() {
    let server = start(Ear::new(), |_| {}).await;
    server.ear.turns.forget_permits(1_000);
    let mut client = server.connect().await;
    for seconds in [3.0, 5.0] {
        client.send(Event::of(&Transcribe::default())).await.unwrap();
        client.send(Event::of(&AudioStart::default())).await.unwrap();
        client.send(chunk(&speech(seconds))).await.unwrap();
        client.send(Event::bare("audio-stop")).await.unwrap();
        // Answered at once, whatever waits for the engine.
        if seconds < 4.0 {
            client.send(Event::of(&Ping::default())).await.unwrap();
            client.answer::<Pong>().await.unwrap();
        }
    }
    server.ear.turns.add_permits(2);
    for expected in ["3 s", "5 s"] {
        assert_eq!(client.answer::<Transcript>().await.unwrap().0.text, expected);
    }
}

#[tokio::test]
async fn a_failed_request_is_said_and_ends_the_connection_at_its_stop() {
    let deaf = Arc::new(Ear { ready: false, ..Arc::into_inner(Ear::new()).unwrap() });
    let deaf = start(deaf, |_| {}).await;
    let mut client = deaf.connect().await;
    let error = client.transcribe(&speech(1.0), None).await.unwrap_err();
    assert!(error.message().contains("friend-lite models fetch"), "{error}");
    assert!(client.receive().await.is_err(), "closed: some pass over errors and wait");

    let server =
        start(Ear::new(), |config| config.wyoming.max_length = Interval::from_secs(5)).await;
    let mut client = server.connect().await;
    let error = client.transcribe(&speech(9.0), None).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (Kind::BadInput, "daemon: audio is longer than 5s")
    );
    *server.ear.failures.lock().unwrap() = vec![Kind::Unavailable; 2];
    let mut client = server.connect().await;
    let error = client.transcribe(&speech(2.0), None).await.unwrap_err();
    assert!(error.message().ends_with("the log says why"), "{error}");
    assert!(client.receive().await.is_err());
    for data in [r#"{"rate":0}"#, r#"{"rate":16000,"width":"two"}"#, r#"{"channels":900}"#] {
        let mut raw = server.raw().await;
        raw.write_all(format!("{{\"type\":\"audio-start\",\"data\":{data}}}\n").as_bytes())
            .await
            .unwrap();
        let answer = line(&mut raw).await;
        assert!(answer.contains("\"error\"") && answer.contains("bad-input"), "{answer}");
    }
}

#[tokio::test]
async fn hostile_bytes_are_answered_and_cut_off() {
    let server = start(Ear::new(), |config| {
        config.server.stream_timeout = Interval::from(Duration::from_millis(400));
        config.wyoming.idle_timeout = Interval::from(Duration::from_millis(900));
    })
    .await;
    let mut long = vec![b'x'; 70_000];
    long.push(b'\n');
    for (bytes, answer) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "header of an event is not valid"),
        (
            b"{\"type\":\"audio-chunk\",\"payload_length\":99999999999}\n",
            "payload of an event is longer",
        ),
        (b"{\"type\":\"transcribe\",\"data_length\":5}\nnull\n", "data of an event is not valid"),
        (&long, "header of an event is longer"),
        // Begun, and never ended.
        (b"{\"type\":\"audio-chunk\",\"payload_length\":1000}\n12345", "nothing was heard"),
        (b"{\"type\":", "nothing was heard"),
        // In the middle of a request.
        (b"{\"type\":\"transcribe\"}\n", "nothing was heard"),
        // A guest who says nothing.
        (b"", "nothing was heard"),
    ] {
        let mut raw = server.raw().await;
        raw.write_all(bytes).await.unwrap();
        let said = line(&mut raw).await;
        assert!(said.contains(r#""type":"error""#) && said.contains(answer), "{answer}: {said}");
        assert_eq!(line(&mut raw).await, "", "{answer}");
    }
    let mut raw = server.raw().await;
    for _ in 0..=MAX_COMPLAINTS {
        raw.write_all(b"{\"type\":\"transcribe\",\"data\":{\"language\":4}}\n").await.unwrap();
    }
    let mut last = String::new();
    while let said @ 1.. = raw.read_line(&mut last).await.unwrap() {
        last.drain(..last.len() - said);
    }
    assert!(last.contains("too many"), "{last}");
}

#[tokio::test]
async fn audio_that_nobody_asked_about_is_recorded_for_the_user() {
    let server = start(Ear::new(), |config| {
        config.wyoming.user = "1@example.com".into();
        config.wyoming.device = "kitchen".into();
    })
    .await;
    // With boundaries; a request on the same connection is not recorded.
    let mut client = server.connect().await;
    client.send(Event::of(&AudioStart::default())).await.unwrap();
    client.send(chunk(&speech(2.0))).await.unwrap();
    client.send(Event::bare("audio-stop")).await.unwrap();
    assert_eq!(client.transcribe(&speech(3.0), None).await.unwrap().transcript.text, "3 s");
    assert_eq!(server.closed(1).await, [(32_000, CloseReason::AudioStop)]);
    // A satellite: no boundaries, and gone without a word.
    client.send(Event::bare("streaming-started")).await.unwrap();
    for _ in 0..4 {
        client.send(chunk(&speech(1.0))).await.unwrap();
        client.send(Event::of(&Ping::default())).await.unwrap();
        client.answer::<Pong>().await.unwrap();
    }
    let mut second = server.connect().await;
    second.send(chunk(&speech(1.0))).await.unwrap();
    second.send(Event::of(&Ping::default())).await.unwrap();
    second.answer::<Pong>().await.unwrap();
    let clients = server.bench.ingest.clients().list(None);
    let ids: Vec<String> = clients.iter().map(|c| c.client_id.to_string()).collect();
    assert_eq!(ids, ["439011-kitchen", "439011-kitchen-2"]);
    // What makes no sense is refused, and the rest goes on.
    let mut nonsense = chunk(&speech(1.0));
    nonsense.data.insert("rate".into(), 5.into());
    second.send(nonsense).await.unwrap();
    let error = second.answer::<Pong>().await.unwrap_err();
    assert!(error.message().contains("5 Hz"), "{error}");
    second.send(chunk(&speech(1.0))).await.unwrap();
    second.send(Event::bare("audio-stop")).await.unwrap();
    second.send(Event::of(&Ping::default())).await.unwrap();
    second.answer::<Pong>().await.unwrap();
    drop(client);
    let mut closed = server.closed(3).await;
    closed.sort_unstable_by_key(|(samples, _)| *samples);
    assert!((63_000..=64_000).contains(&closed[2].0), "{closed:?}");
    assert_eq!(closed[2].1, CloseReason::Disconnect);
    assert!((31_000..=32_000).contains(&closed[1].0), "{closed:?}");
    assert_eq!(server.ear.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_satellite_sent_before_it_went_is_kept() {
    let server = start(Ear::new(), |config| config.wyoming.user = "1@example.com".into()).await;
    let mut client = server.connect().await;
    // It goes with the answer to the first unread, which resets the connection
    // before the others are answered, and the audio between them is read.
    client.send(Event::of(&Ping::default())).await.unwrap();
    client.answer::<Pong>().await.unwrap();
    for _ in 0..20 {
        client.send(Event::of(&Ping::default())).await.unwrap();
        client.send(chunk(&speech(0.1))).await.unwrap();
    }
    drop(client);
    assert_eq!(server.closed(1).await, [(32_000, CloseReason::Disconnect)]);
}

#[tokio::test]
async fn a_satellite_that_falls_quiet_ends_its_conversation() {
    let server = start(Ear::new(), |config| {
        config.wyoming.user = "1@example.com".into();
        config.conversation.silence_timeout = Interval::from(Duration::from_millis(300));
    })
    .await;
    let mut client = server.connect().await;
    client.send(chunk(&speech(2.0))).await.unwrap();
    assert_eq!(server.closed(1).await[0].1, CloseReason::Silence);
    client.send(Event::of(&Ping::default())).await.unwrap();
    client.answer::<Pong>().await.unwrap();
}

#[tokio::test]
async fn without_its_user_nothing_is_taken() {
    let server =
        start(Ear::new(), |config| config.wyoming.user = "nobody@example.com".into()).await;
    let mut client = server.connect().await;
    client.send(chunk(&speech(1.0))).await.unwrap();
    let error = client.answer::<Transcript>().await.unwrap_err();
    assert!(error.message().contains("wyoming.user"), "{error}");
    assert!(client.receive().await.is_err());
    assert_eq!(
        server.connect().await.transcribe(&speech(2.0), None).await.unwrap().transcript.text,
        "2 s"
    );
}

#[tokio::test]
async fn a_stop_of_the_daemon_is_told() {
    let server = start(Ear::new(), |config| config.wyoming.user = "1@example.com".into()).await;
    server.ear.turns.forget_permits(1_000);
    let mut waiting = server.connect().await;
    waiting.send(Event::of(&Transcribe::default())).await.unwrap();
    waiting.send(chunk(&speech(2.0))).await.unwrap();
    waiting.send(Event::bare("audio-stop")).await.unwrap();
    let mut recording = server.connect().await;
    recording.send(chunk(&speech(2.0))).await.unwrap();
    recording.send(Event::of(&Ping::default())).await.unwrap();
    recording.answer::<Pong>().await.unwrap();
    server.bench.supervisor.stop();
    for mut client in [waiting, recording] {
        let error = client.answer::<Transcript>().await.unwrap_err();
        assert!(error.message().contains("stopping"), "{error}");
    }
    assert_eq!(server.closed(1).await[0].1, CloseReason::Shutdown);
}
