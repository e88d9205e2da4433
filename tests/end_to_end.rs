//! Speech in over a WebSocket, a searchable memory out, on real models.

use std::time::Duration;

use serde_json::Value;

use crate::harness::client::{Client, PATIENCE};
use crate::harness::daemon::Daemon;
use crate::harness::{speech, wer};

fn text(conversation: &Value) -> String {
    conversation["transcript"].as_str().unwrap_or_default().to_owned()
}

async fn memories(client: &Client) -> Vec<Value> {
    client.get("/api/memories").await["memories"].as_array().unwrap().clone()
}

#[tokio::test]
async fn speech_becomes_a_transcript_a_memory_and_a_search_hit() {
    let daemon = Daemon::start();
    let client = daemon.admin().await;
    let sample = speech::jfk();
    let samples = speech::samples(&sample.path);

    let mut socket = client.socket("Wearable%20One").await;
    socket.session(&samples, 4.0).await;
    let conversation = client.settled().await;
    socket.close().await;

    assert_eq!(conversation["transcription_status"], "COMPLETED");
    assert_eq!(wer::rate(&sample.text, &text(&conversation)), 0.0, "{}", text(&conversation));
    let client_id = conversation["client_id"].as_str().unwrap();
    assert!(client_id.ends_with("-wearableon"), "{client_id}");

    // Words lie inside the audio, in order.
    let words: Vec<&Value> = conversation["segments"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|segment| segment["words"].as_array().unwrap())
        .collect();
    assert!(words.len() >= 20, "{words:?}");
    let mut last = 0.0;
    for word in words {
        let (start, end) = (word["start"].as_f64().unwrap(), word["end"].as_f64().unwrap());
        assert!(start >= last && end >= start && end <= 11.5, "{word}");
        last = start;
    }

    // Every sample is on disk, in a file anything can play.
    let audio = conversation["audio_path"].as_str().unwrap();
    let response = client.request("GET", &format!("/audio/{audio}")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let file = response.bytes().await.unwrap();
    let wav = hound::WavReader::new(std::io::Cursor::new(&file)).unwrap();
    let recorded: Vec<i16> = wav.into_samples::<i16>().map(Result::unwrap).collect();
    assert_eq!(recorded, samples);

    // Memories are about what was said, and the search finds one by meaning.
    let memories = memories(&client).await;
    assert!(!memories.is_empty(), "{}", daemon.log());
    for memory in &memories {
        let fact = memory["memory"].as_str().unwrap().to_lowercase();
        assert!(fact.contains("ask") || fact.contains("country"), "{fact}");
        assert_eq!(memory["metadata"]["audio_uuid"], conversation["audio_uuid"]);
    }
    let hits =
        client.get("/api/memories/search?query=what+should+citizens+do+for+their+nation").await;
    assert!(!hits["results"].as_array().unwrap().is_empty(), "{hits}");

    let id = memories[0]["id"].as_str().unwrap();
    assert_eq!(client.call("DELETE", &format!("/api/memories/{id}")).await.0, 200);
    assert_eq!(client.call("DELETE", &format!("/api/memories/{id}")).await.0, 404);
}

#[tokio::test]
async fn a_stream_without_boundaries_is_recorded_from_its_first_speech() {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;

    let daemon = Daemon::with(&[("MEMORY__ENABLED", "false")]);
    let client = daemon.admin().await;
    let mut socket = client.socket("havpe").await;
    let sample = speech::jfk();
    // A relay sends bare PCM, silence and all, and never says stop.
    let mut stream = vec![0_i16; 16_000 * 10];
    stream.extend(speech::samples(&sample.path));
    for chunk in stream.chunks(512) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|s| s.to_le_bytes()).collect();
        socket.stream.send(Message::binary(bytes)).await.unwrap();
    }
    drop(socket);
    let conversation = client.settled().await;
    assert_eq!(wer::rate(&sample.text, &text(&conversation)), 0.0, "{}", text(&conversation));
    let seconds = conversation["duration_seconds"].as_f64().unwrap();
    assert!((10.5..=13.5).contains(&seconds), "2 s before speech and 11 s of it, not {seconds} s");
}

#[tokio::test]
async fn silence_and_noise_give_no_text_and_no_memory() {
    let daemon = Daemon::start();
    let client = daemon.admin().await;
    for (device, samples) in [
        ("silence", vec![0_i16; 16_000 * 12]),
        ("hiss", speech::noise(12.0, 300.0)),
        ("storm", speech::noise(12.0, 8_000.0)),
    ] {
        let mut socket = client.socket(device).await;
        socket.session(&samples, 0.0).await;
        socket.close().await;
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let conversations = loop {
        let all = client.conversations().await;
        let done = |c: &Value| c["transcription_status"] != "PENDING";
        if all.len() == 3 && all.iter().all(done) {
            break all;
        }
        assert!(tokio::time::Instant::now() < deadline, "{all:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for conversation in conversations {
        let id = conversation["conversation_id"].as_str().unwrap();
        let one = client.get(&format!("/api/conversations/{id}")).await["conversation"].clone();
        assert_eq!(one["transcription_status"], "EMPTY", "{one}");
        assert_eq!(text(&one), "", "{one}");
        // The audio is kept all the same.
        assert!((one["duration_seconds"].as_f64().unwrap() - 12.0).abs() < 0.05, "{one}");
    }
    assert!(memories(&client).await.is_empty());
}

#[tokio::test]
async fn a_killed_engine_costs_nothing_but_time() {
    let daemon = Daemon::with(&[("MEMORY__ENABLED", "false")]);
    let client = daemon.admin().await;
    let (samples, reference) = speech::reading(0.3);
    let mut socket = client.socket("phone").await;
    socket.session(&samples, 0.0).await;

    // Wait for the engine to be at work on a window, and kill it there.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let engine = loop {
        if let Some(&pid) = daemon.engines("friend-lite-whisper").first()
            && cpu_ticks(pid) > 30
        {
            break pid;
        }
        assert!(tokio::time::Instant::now() < deadline, "no engine was started: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let pid = rustix::process::Pid::from_raw(i32::try_from(engine).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();

    let conversation = client.settled().await;
    assert_eq!(conversation["transcription_status"], "COMPLETED");
    let rate = wer::rate(&reference, &text(&conversation));
    assert!(rate <= 0.06, "{rate}: {}", text(&conversation));
    let log = daemon.log();
    let told = log.lines().filter(|line| line.contains("WARN") && line.contains("SIGKILL")).count();
    assert_eq!(told, 1, "the log says once what happened:\n{log}");
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.get(11).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_killed_daemon_goes_on_where_its_disk_ends() {
    let mut daemon =
        Daemon::with(&[("MEMORY__ENABLED", "false"), ("RECORDING__SYNC_INTERVAL", "0")]);
    let client = daemon.admin().await;
    let sample = speech::jfk();
    let samples = speech::samples(&sample.path);
    let mut socket = client.socket("phone").await;
    socket.event("audio-start", None).await;
    socket.stream(&samples, 0.0).await;
    // All of it has arrived once the daemon has it on disk.
    let audio = daemon.state_dir().join("audio");
    let whole = 44 + 2 * samples.len() as u64;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while std::fs::read_dir(&audio)
        .unwrap()
        .flatten()
        .next()
        .map_or(0, |f| f.metadata().unwrap().len())
        < whole
    {
        assert!(tokio::time::Instant::now() < deadline, "the recording is not complete");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.kill_and_restart();

    let client = daemon.admin().await;
    let conversation = client.settled().await;
    assert_eq!(wer::rate(&sample.text, &text(&conversation)), 0.0, "{}", text(&conversation));
    assert!((conversation["duration_seconds"].as_f64().unwrap() - 11.0).abs() < 0.01);
}

#[tokio::test]
async fn a_stop_closes_what_is_open_and_exits_cleanly() {
    let mut daemon = Daemon::with(&[("MEMORY__ENABLED", "false")]);
    let client = daemon.admin().await;
    let samples = speech::samples(&speech::jfk().path);
    let mut socket = client.socket("phone").await;
    socket.event("audio-start", None).await;
    socket.stream(&samples[..16_000 * 5], 0.0).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while client.conversations().await.is_empty() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    daemon.stop_clean();
    daemon.kill_and_restart();
    let conversation = daemon.admin().await.settled().await;
    assert_eq!(conversation["close_reason"], "shutdown", "{conversation}");
    assert!((conversation["duration_seconds"].as_f64().unwrap() - 5.0).abs() < 0.01);
}
