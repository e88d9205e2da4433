//! The daemon with services outside that come and go: nothing that was said is
//! lost or doubled, the log says each change once, and the work is caught up with.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::harness::client::{Client, PATIENCE, Socket, until};
use crate::harness::daemon::{Daemon, count, program};
use crate::harness::faulty::{Fault, Proxy};
use crate::harness::services::{KEY, Server};
use crate::harness::{speech, wer};

/// The only conversation, once `windows` of its windows are transcribed.
async fn transcribed(client: &Client, windows: usize) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(id) = client.conversations().await.first().map(|c| c["conversation_id"].clone())
        {
            let path = format!("/api/conversations/{}", id.as_str().unwrap());
            let one = client.get(&path).await["conversation"].clone();
            let done = |window: &&Value| window["state"] == "done";
            if one["windows"].as_array().unwrap().iter().filter(done).count() >= windows {
                return one;
            }
        }
        assert!(Instant::now() < until, "{windows} windows were not transcribed in time");
        sleep(Duration::from_millis(200)).await;
    }
}

/// Says a sentence, and is quiet for so long that its window ends.
async fn say(socket: &mut Socket, samples: &[i16]) {
    socket.stream(samples, 8.0).await;
    socket.stream(&[0; 3 * 16_000], 8.0).await;
}

#[tokio::test]
async fn a_conversation_over_three_speech_engines_has_every_word_once() {
    let (mut deepgram, mut wyoming) = (Server::deepgram(), Server::wyoming());
    let daemon = Daemon::with(&[
        ("DEEPGRAM_API_KEY", KEY),
        ("DEEPGRAM__URL", &format!("http://{}", deepgram.address())),
        // It would wait for the end otherwise.
        ("DEEPGRAM__LIVE", "true"),
        ("OFFLINE_ASR_TCP_URI", &format!("tcp://{}", wyoming.address())),
        ("STT__MODEL", "whisper-tiny"),
        ("TRANSCRIBE__FLUSH_AFTER", "1s"),
        ("MEMORY__ENABLED", "false"),
        // Whoever is away stays so to the end.
        ("REMOTE__PAUSE", "1m"),
    ]);
    let client = daemon.admin().await;
    let (sentences, jfk) = (speech::librivox(), speech::jfk());
    let said = [&sentences[0], &jfk, &sentences[3]];
    let mut socket = client.socket("phone").await;
    socket.event("audio-start", None).await;
    let health = async |part: &str| client.get("/health").await["services"][part].clone();
    assert_eq!(health("deepgram").await["breaker"], "closed");

    let mut spoken = 0;
    for (n, sample) in said.iter().enumerate() {
        match n {
            1 => deepgram.kill(),
            2 => wyoming.kill(),
            _ => {}
        }
        say(&mut socket, &speech::samples(&sample.path)).await;
        let one = transcribed(&client, spoken + 1).await;
        spoken = one["windows"].as_array().unwrap().len();
    }
    socket.event("audio-stop", None).await;
    let one = client.settled().await;
    socket.close().await;

    assert_eq!(one["transcription_status"], "COMPLETED");
    let engines: Vec<&str> =
        one["windows"].as_array().unwrap().iter().map(|w| w["engine"].as_str().unwrap()).collect();
    for engine in ["deepgram/nova-3 (live)", "wyoming", "whisper/ggml-tiny.bin"] {
        assert!(engines.contains(&engine), "{engines:?}");
    }
    let heard = one["transcript"].as_str().unwrap();
    let reference = said.map(|sample| sample.text.as_str()).join(" ");
    let rate = wer::rate(&reference, heard);
    assert!(rate < 0.15, "{rate}: {heard}");
    for phrase in ["leisure to consider", "ask not what your country", "respectable than he was"] {
        assert_eq!(heard.to_lowercase().matches(phrase).count(), 1, "{phrase}: {heard}");
    }

    let log = daemon.log();
    for service in ["deepgram", "wyoming"] {
        assert_eq!(health(service).await["breaker"], "open");
        assert_eq!(health(service).await["status"], format!("❌ {service} cannot be reached"));
        assert_eq!(count(&log, &format!("WARN friend_lite::remote::breaker: {service} ")), 1);
    }
    assert_eq!(health("speech_to_text").await["healthy"], true);
    assert!(!log.contains(KEY));
    let metrics = client.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("friend_lite_service_breaker{service=\"deepgram\"} 2"), "{metrics}");
}

/// Who speaks in each window of a conversation, and who transcribed it.
fn speakers(one: &Value) -> Vec<(String, String)> {
    let time = |value: &Value| value.as_f64().unwrap();
    let who = |window: &Value| {
        let spans = window["spans"].as_array().unwrap();
        let (start, end) = (time(&spans[0]["start"]), time(&spans.last().unwrap()["end"]));
        let mut words = HashMap::new();
        for segment in one["segments"].as_array().unwrap() {
            let inside = (start..end).contains(&time(&segment["start"]));
            let speaker = segment["speaker"].as_str().filter(|_| inside);
            *words.entry(speaker.unwrap_or("nobody").to_owned()).or_insert(0) +=
                if inside { segment["words"].as_array().unwrap().len() } else { 0 };
        }
        let most = words.into_iter().max_by_key(|(_, words)| *words).unwrap();
        (most.0, window["engine"].as_str().unwrap().to_owned())
    };
    one["windows"].as_array().unwrap().iter().map(who).collect()
}

#[tokio::test]
async fn speakers_are_the_same_through_a_conversation_and_no_second_is_paid_for_twice() {
    let (mut deepgram, wyoming) = (Server::deepgram(), Server::wyoming());
    let daemon = Daemon::with(&[
        ("DEEPGRAM_API_KEY", KEY),
        ("DEEPGRAM__URL", &format!("http://{}", deepgram.address())),
        ("OFFLINE_ASR_TCP_URI", &format!("tcp://{}", wyoming.address())),
        ("STT__ENGINES", "deepgram,wyoming"),
        ("TRANSCRIBE__FLUSH_AFTER", "1s"),
        ("MEMORY__ENABLED", "false"),
        ("REMOTE__PAUSE", "30s"),
        ("JOBS__RETRY_PAUSE", "100ms"),
    ]);
    let client = daemon.admin().await;
    let (sentences, jfk) = (speech::librivox(), speech::jfk());
    let said = [&sentences[0], &jfk, &sentences[3]];
    let phrases = ["leisure to consider", "ask not what your country", "respectable than he was"];
    let once = |one: &Value| {
        let heard = one["transcript"].as_str().unwrap().to_lowercase();
        for phrase in phrases {
            assert_eq!(heard.matches(phrase).count(), 1, "{phrase}: {heard}");
        }
    };
    let mut socket = client.socket("phone").await;
    socket.event("audio-start", None).await;
    for sample in said {
        say(&mut socket, &speech::samples(&sample.path)).await;
    }
    // It is sent when it is over.
    let open = transcribed(&client, 0).await;
    assert!(open["windows"].as_array().unwrap().iter().all(|w| w["state"] == "waiting"), "{open}");
    socket.event("audio-stop", None).await;
    let one = client.settled().await;
    once(&one);
    let of = |speaker: &str| (speaker.to_owned(), "deepgram/nova-3".to_owned());
    let expected = ["Speaker 0", "Speaker 1", "Speaker 0"].map(of);
    assert_eq!(speakers(&one), expected, "{one}");
    assert_eq!(count(&deepgram.log(), "heard "), 1, "{}", deepgram.log());

    // The same again, by another request for all.
    let id = one["conversation_id"].as_str().unwrap().to_owned();
    let path = format!("/api/conversations/{id}/reprocess-transcript");
    assert!(client.request("POST", &path).send().await.unwrap().status().is_success());
    until("it is not transcribed again", async || {
        count(&deepgram.log(), "heard ") == 2
            && client.settled().await["transcript_versions"][1]["is_active"] == true
    })
    .await;
    let again = client.settled().await;
    once(&again);
    assert_eq!(speakers(&again), expected, "{again}");
    assert_eq!(count(&deepgram.log(), "heard "), 2, "{}", deepgram.log());

    // Away: another steps in, at the close and while a conversation goes on.
    deepgram.kill();
    let path = format!("/api/conversations/{id}");
    assert!(client.request("DELETE", &path).send().await.unwrap().status().is_success());
    socket.event("audio-start", None).await;
    say(&mut socket, &speech::samples(&said[0].path)).await;
    socket.event("audio-stop", None).await;
    let alone = client.settled().await;
    assert_eq!(speakers(&alone)[0].1, "wyoming", "{alone}");
    let path = format!("/api/conversations/{}", alone["conversation_id"].as_str().unwrap());
    assert!(client.request("DELETE", &path).send().await.unwrap().status().is_success());
    socket.event("audio-start", None).await;
    say(&mut socket, &speech::samples(&said[0].path)).await;
    transcribed(&client, 1).await;
    // And back: what is said from then on is sent when it is over.
    deepgram.restart();
    until("it is never asked again", async || {
        client.get("/health").await["services"]["deepgram"]["breaker"] != "open"
    })
    .await;
    for sample in &said[1..] {
        say(&mut socket, &speech::samples(&sample.path)).await;
    }
    socket.event("audio-stop", None).await;
    let mixed = client.settled().await;
    socket.close().await;
    once(&mixed);
    let engines: Vec<String> = speakers(&mixed).into_iter().map(|(_, engine)| engine).collect();
    assert_eq!(engines, ["wyoming", "deepgram/nova-3", "deepgram/nova-3"], "{mixed}");
    assert_eq!(count(&deepgram.log(), "heard "), 3, "{}", deepgram.log());
}

/// Every event of a conversation that is being recorded, until it is over.
async fn listen(client: Client, id: String) -> Vec<Value> {
    let path = format!("/api/conversations/{id}/live");
    let until = Instant::now() + PATIENCE;
    // Its row is there a moment before anybody listens.
    let mut answer = loop {
        let answer = client.request("GET", &path).send().await.unwrap();
        if answer.status() == 200 || Instant::now() > until {
            break answer;
        }
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(text).unwrap();
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    events.map(|event| serde_json::from_str(event).unwrap()).collect()
}

#[tokio::test]
async fn what_deepgram_hears_live_is_there_at_once_and_once() {
    let mut deepgram = Server::deepgram();
    let daemon = Daemon::with(&[
        ("DEEPGRAM_API_KEY", KEY),
        ("DEEPGRAM__URL", &format!("http://{}", deepgram.address())),
        ("DEEPGRAM__LIVE", "true"),
        ("STT__ENGINES", "deepgram"),
        ("TRANSCRIBE__FLUSH_AFTER", "1s"),
        ("MEMORY__ENABLED", "false"),
        ("REMOTE__PAUSE", "200ms"),
        ("JOBS__RETRY_PAUSE", "100ms"),
    ]);
    let client = daemon.admin().await;
    let (sentences, jfk) = (speech::librivox(), speech::jfk());
    let said = [&sentences[0], &jfk, &sentences[3]];
    let mut socket = client.socket("phone").await;
    socket.event("audio-start", None).await;
    // The first chunk opens the conversation.
    socket.stream(&[0; 1_600], 0.0).await;
    let until = Instant::now() + PATIENCE;
    let id = loop {
        assert!(Instant::now() < until, "no conversation");
        if let Some(one) = client.conversations().await.first() {
            break one["conversation_id"].as_str().unwrap().to_owned();
        }
    };
    let events = tokio::spawn(listen(client.clone(), id));
    say(&mut socket, &speech::samples(&said[0].path)).await;
    let first = transcribed(&client, 1).await;
    assert_eq!(first["windows"][0]["engine"], "deepgram/nova-3 (live)", "{first}");
    // Away in the middle of a sentence; what it missed is sent again.
    let samples = speech::samples(&said[1].path);
    let (half, rest) = samples.split_at(samples.len() / 2);
    socket.stream(half, 4.0).await;
    deepgram.kill();
    say(&mut socket, rest).await;
    deepgram.restart();
    say(&mut socket, &speech::samples(&said[2].path)).await;
    socket.event("audio-stop", None).await;
    let one = client.settled().await;
    socket.close().await;

    assert_eq!(one["transcription_status"], "COMPLETED", "{one}");
    let heard = one["transcript"].as_str().unwrap();
    let rate = wer::rate(&said.map(|sample| sample.text.as_str()).join(" "), heard);
    assert!(rate < 0.15, "{rate}: {heard}");
    let phrases = ["leisure to consider", "can do for your country", "respectable than he was"];
    for phrase in phrases {
        assert_eq!(heard.to_lowercase().matches(phrase).count(), 1, "{phrase}: {heard}");
    }
    let events = events.await.unwrap();
    let text = |last: bool| -> String {
        let events = events.iter().filter(|event| event["is_final"] == last);
        events.map(|event| event["text"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
    };
    // What it has not heard by the close is left to the recording.
    let finals = text(true).to_lowercase();
    assert_eq!(finals.matches(phrases[0]).count(), 1, "{events:#?}");
    assert!(!text(false).is_empty(), "{events:#?}");
    let none = client.request(
        "GET",
        &format!("/api/conversations/{}/live", one["conversation_id"].as_str().unwrap()),
    );
    assert_eq!(none.send().await.unwrap().status(), 404);
    assert!(!daemon.log().contains(KEY));
}

#[tokio::test]
async fn what_the_language_model_is_needed_for_waits_until_it_is_back() {
    let mut server = Server::openai_chat();
    let proxy = Proxy::before(server.port).await;
    let daemon = Daemon::with(&[
        ("LLM_PROVIDER", "openai"),
        ("OPENAI_API_KEY", KEY),
        ("OPENAI_BASE_URL", &format!("http://127.0.0.1:{}/v1", proxy.port)),
        ("OPENAI_MODEL", "qwen"),
        ("STT__MODEL", "whisper-tiny"),
        ("REMOTE__PAUSE", "200ms"),
        ("JOBS__RETRY_PAUSE", "100ms"),
        // An outage takes none of these but the first.
        ("JOBS__MAX_ATTEMPTS", "2"),
    ]);
    let client = daemon.admin().await;
    // No model of its own is loaded for it.
    assert!(!client.get("/health").await["models"].to_string().contains("\"llm\""));
    server.kill();
    let mut socket = client.socket("phone").await;
    socket.session(&speech::samples(&speech::jfk().path), 8.0).await;
    transcribed(&client, 1).await;
    let until = Instant::now() + PATIENCE;
    while client.get("/health").await["services"]["openai"]["healthy"] == true {
        assert!(Instant::now() < until, "nobody noticed");
        sleep(Duration::from_millis(200)).await;
    }
    // Long enough for many more attempts than a job has.
    sleep(Duration::from_secs(8)).await;
    let one = client.conversations().await.remove(0);
    assert_eq!(one["memory_processing_status"], "PENDING", "{one}");
    assert_eq!(client.get("/health").await["status"], "degraded");
    server.restart();
    proxy.set(Fault::None);
    let one = client.settled().await;
    assert_eq!(one["memory_processing_status"], "COMPLETED", "{one}\n{}", daemon.log());
    let log = daemon.log();
    let warned = "WARN friend_lite::remote::breaker: openai ";
    assert_eq!(count(&log, warned), 1, "{log}");
    assert_eq!(count(&log, "openai answers again"), 1, "{log}");
    assert!(!log.contains(KEY));
    assert_eq!(client.get("/health").await["services"]["openai"]["breaker"], "closed");
    socket.close().await;
}

#[tokio::test]
async fn the_doctor_asks_every_service() {
    let (deepgram, ollama) = (Server::deepgram(), Server::ollama());
    let dir = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::new(program("friend-lite"))
        .args(["doctor", "--quick", "--json", "--config", "/dev/null", "--state-dir"])
        .arg(dir.path())
        .env("DEEPGRAM_API_KEY", KEY)
        .env("FRIEND_LITE__DEEPGRAM__URL", format!("http://{}", deepgram.address()))
        // Nobody is there.
        .env("OFFLINE_ASR_TCP_URI", "tcp://127.0.0.1:1")
        .env("LLM_PROVIDER", "ollama")
        .env("OLLAMA_BASE_URL", format!("http://{}", ollama.address()))
        .env("OLLAMA_MODEL", "some-chat")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let findings: Vec<Value> = serde_json::from_str(&said).unwrap();
    let verdict = |check: &str| {
        let finding = findings.iter().find(|finding| finding["check"] == check).unwrap();
        (finding["verdict"].as_str().unwrap(), finding["says"].as_str().unwrap())
    };
    assert_eq!(verdict("deepgram"), ("good", "answers, and takes the key"));
    assert_eq!(verdict("wyoming").0, "bad");
    let (bad, says) = verdict("ollama");
    assert!(bad == "bad" && says.contains("friend-lite models pull"), "{says}");
    assert_eq!(verdict("language"), ("skipped", "a service outside does it"));
    assert!(!said.contains(KEY));
}

#[tokio::test]
async fn the_local_model_steps_in_where_it_may() {
    let daemon = Daemon::with(&[
        ("LLM_PROVIDER", "ollama"),
        // Nobody is there.
        ("OLLAMA_BASE_URL", "http://127.0.0.1:1"),
        ("LLM__FALLBACK", "llama"),
        ("LLM__MODEL", "qwen2.5-coder-0.5b"),
        ("STT__MODEL", "whisper-tiny"),
    ]);
    let client = daemon.admin().await;
    let mut socket = client.socket("phone").await;
    socket.session(&speech::samples(&speech::jfk().path), 8.0).await;
    let one = client.settled().await;
    socket.close().await;
    assert_eq!(one["memory_processing_status"], "COMPLETED", "{one}");
    let services = client.get("/health").await["services"].clone();
    assert_eq!(services["ollama"]["status"], "❌ ollama cannot be reached");
    assert_eq!(services["llm"]["healthy"], true, "{services}");
    assert_eq!(count(&daemon.log(), "WARN friend_lite::remote::breaker: ollama "), 1);
}
