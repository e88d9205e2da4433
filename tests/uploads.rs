//! Files uploaded the ways clients do it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::client::{Client, PATIENCE};
use crate::harness::daemon::{ADMIN_EMAIL, ADMIN_PASSWORD, Daemon};
use crate::harness::{python, speech, wer};

const SENTENCE: &str = "he was not an ill disposed young man";

fn fixture(name: &str) -> PathBuf {
    speech::jfk().path.with_file_name("formats").join(name)
}

fn form(files: &[(&str, Vec<u8>)]) -> Form {
    files.iter().fold(Form::new(), |form, (name, bytes)| {
        let part = Part::bytes(bytes.clone()).file_name((*name).to_owned());
        form.part("files", part.mime_str("application/octet-stream").unwrap())
    })
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

async fn post(client: &Client, path: &str, files: &[(&str, Vec<u8>)]) -> (u16, Value) {
    let request = client.request("POST", path).multipart(form(files));
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.text().await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}")))
}

/// Asks for `path` until `done`.
async fn poll(client: &Client, path: &str, done: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let body = client.get(path).await;
        if done(&body) {
            return body;
        }
        assert!(Instant::now() < deadline, "{path}: {body}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn transcript(client: &Client, conversation: &Value) -> String {
    let id = conversation.as_str().unwrap();
    let one = client.get(&format!("/api/conversations/{id}")).await["conversation"].clone();
    one["transcript"].as_str().unwrap_or_default().to_owned()
}

/// What is left of uploads on disk.
fn spooled(daemon: &Daemon) -> usize {
    std::fs::read_dir(daemon.state_dir().join("uploads")).unwrap().count()
}

fn without_memory() -> Daemon {
    // Requests that wait do so however busy the machine is.
    Daemon::with(&[("MEMORY__ENABLED", "false"), ("UPLOADS__WAIT", "5m")])
}

#[tokio::test]
async fn files_of_several_formats_become_conversations_and_bad_ones_are_named() {
    let daemon = without_memory();
    let client = daemon.admin().await;
    let files = [
        ("talk.m4a", read(&fixture("speech.m4a"))),
        ("notes.txt", b"these are notes".to_vec()),
        ("talk.opus", read(&fixture("speech.opus"))),
    ];
    let path = "/api/process-audio-files?device_name=file_test_001&auto_generate_client=true";
    let (status, body) = post(&client, path, &files).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((&body["successful"], &body["failed"]), (&json!(2), &json!(1)), "{body}");
    let answers = body["files"].as_array().unwrap();
    assert_eq!(answers[0]["status"], "processed", "{body}");
    assert_eq!((&answers[0]["sample_rate"], &answers[0]["channels"]), (&json!(44100), &json!(2)));
    assert!(answers[0]["client_id"].as_str().unwrap().ends_with("-filetest00"), "{body}");
    assert!((answers[0]["duration_seconds"].as_f64().unwrap() - 3.0).abs() < 0.1, "{body}");
    assert_eq!(answers[1]["status"], "error", "{body}");
    let error = answers[1]["error"].as_str().unwrap();
    assert!(error.contains("notes.txt") && error.contains("FLAC"), "{error}");
    for conversation in body["conversations"].as_array().unwrap() {
        assert_eq!(conversation["status"], "completed", "{body}");
        let text = transcript(&client, &conversation["conversation_id"]).await;
        assert!(wer::rate(SENTENCE, &text) <= 0.25, "{text}");
    }
    assert_eq!(spooled(&daemon), 0);

    // Nothing that can be taken: refused whole, and nothing is left of it.
    let before = client.conversations().await.len();
    for path in ["/api/process-audio-files", "/api/process-audio-files-async", "/api/audio/upload"]
    {
        let (status, body) = post(&client, path, &files[1..2]).await;
        assert_eq!(status, 422, "{path}: {body}");
        assert!(body["error"].as_str().unwrap().contains("notes.txt"), "{path}: {body}");
        let (status, body) = post(&client, path, &[]).await;
        assert_eq!((status, &body["detail"][0]["loc"]), (422, &json!(["body", "files"])), "{path}");
    }
    assert_eq!(client.conversations().await.len(), before);
    assert_eq!(spooled(&daemon), 0);
    let nobody = Client { token: "x.y.z".into(), ..client.clone() };
    assert_eq!(post(&nobody, "/api/audio/upload", &files[..1]).await.0, 401);
}

#[tokio::test]
async fn what_is_too_large_or_too_long_is_refused() {
    let daemon = Daemon::with(&[
        ("UPLOADS__MAX_FILE_MIB", "1"),
        ("UPLOADS__MAX_REQUEST_MIB", "3"),
        ("UPLOADS__MAX_LENGTH", "5s"),
        ("MEMORY__ENABLED", "false"),
    ]);
    let client = daemon.admin().await;
    let (large, long) = (vec![0; 1_100_000], read(&speech::jfk().path));
    let good = read(&fixture("speech.ogg"));
    let path = "/api/audio/upload";
    let (status, body) = post(&client, path, &[("large.wav", large.clone())]).await;
    assert_eq!(status, 413, "{body}");
    assert!(body["error"].as_str().unwrap().contains("large.wav"), "{body}");
    let all = [("large.wav", large.clone()), ("long.wav", long), ("good.ogg", good)];
    let (status, body) = post(&client, path, &all).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["summary"], json!({"total": 3, "processing": 1, "failed": 2}), "{body}");
    let id = body["job_id"].as_str().unwrap();
    let path = format!("/api/process-audio-files/jobs/{id}");
    let job = poll(&client, &path, |job| job["status"] == "completed").await;
    let statuses: Vec<&Value> =
        job["files"].as_array().unwrap().iter().map(|file| &file["status"]).collect();
    assert_eq!(statuses, ["failed", "skipped", "completed"], "{job}");

    // A whole request over the limit, with and without saying so beforehand.
    let files: Vec<_> = (0..4).map(|_| ("large.wav", large.clone())).collect();
    let (status, body) = post(&client, "/api/audio/upload", &files).await;
    assert_eq!(status, 413, "{body}");
    let stream =
        futures_util::stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 100_000])));
    let part = Part::stream(reqwest::Body::wrap_stream(stream)).file_name("endless.wav");
    let request = client.request("POST", "/api/audio/upload");
    let response = request.multipart(Form::new().part("files", part)).send().await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(client.conversations().await.len(), 1);
    assert_eq!(spooled(&daemon), 0);
}

#[tokio::test]
async fn the_same_file_is_not_stored_twice_unless_asked() {
    let daemon = without_memory();
    let client = daemon.admin().await;
    let other = daemon.user("ben@example.com").await;
    let file = || vec![("talk.mp3", read(&fixture("speech.mp3")))];
    let (_, first) = post(&client, "/api/audio/upload", &file()).await;
    let id = first["files"][0]["conversation_id"].clone();
    // Under another name, and while the first is still on its way.
    let renamed = [("again.mp3", read(&fixture("speech.mp3")))];
    let (status, second) = post(&client, "/api/audio/upload", &renamed).await;
    assert_eq!(status, 200, "{second}");
    assert_eq!(second["files"][0]["conversation_id"], id, "{second}");
    assert_eq!(second["files"][0]["duplicate"], true, "{second}");
    let (_, third) = post(&client, "/api/process-audio-files", &renamed).await;
    assert_eq!(third["conversations"][0]["conversation_id"], id, "{third}");
    assert_eq!(third["conversations"][0]["status"], "completed", "{third}");
    assert_eq!(client.conversations().await.len(), 1);

    let (_, forced) = post(&client, "/api/audio/upload?force=true", &file()).await;
    assert_ne!(forced["files"][0]["conversation_id"], id, "{forced}");
    // What somebody else has is no business of anybody.
    let (_, his) = post(&other, "/api/process-audio-files", &file()).await;
    assert_eq!(his["files"][0]["duplicate"], Value::Null, "{his}");
    assert_eq!(other.conversations().await.len(), 1);
    let job = first["job_id"].as_str().unwrap();
    let (status, body) = other.call("GET", &format!("/api/process-audio-files/jobs/{job}")).await;
    assert_eq!((status, body), (404, json!({"error": "Job not found"})));
    assert_eq!(
        other.get("/api/process-audio-files/jobs").await["jobs"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn the_first_upload_client_sees_its_job_through() {
    let daemon = without_memory();
    let client = daemon.admin().await;
    let files =
        [("one.wav", read(&speech::jfk().path)), ("two.flac", read(&fixture("speech.flac")))];
    let path = "/api/process-audio-files-async?device_name=file_upload_batch";
    let (status, begun) = post(&client, path, &files).await;
    assert_eq!(status, 200, "{begun}");
    assert_eq!(begun["total_files"], 2);
    let url = begun["status_url"].as_str().unwrap();
    assert_eq!(url, format!("/api/process-audio-files/jobs/{}", begun["job_id"].as_str().unwrap()));
    let job = poll(&client, url, |job| {
        let status = job["status"].as_str().unwrap();
        assert!(matches!(status, "queued" | "processing" | "completed"), "{job}");
        status == "completed"
    })
    .await;
    assert_eq!((&job["processed_files"], &job["progress_percent"]), (&json!(2), &json!(100.0)));
    for key in ["created_at", "started_at", "completed_at"] {
        assert!(job[key].is_string(), "{key}: {job}");
    }
    let file = &job["files"][0];
    assert_eq!((&file["filename"], &file["status"]), (&json!("one.wav"), &json!("completed")));
    assert_eq!(file["transcription_status"], "COMPLETED", "{job}");
    let text = transcript(&client, &file["audio_uuid"]).await;
    assert_eq!(wer::rate(&speech::jfk().text, &text), 0.0, "{text}");
    let list = client.get("/api/process-audio-files/jobs").await;
    assert_eq!((&list["active_jobs"], list["jobs"].as_array().unwrap().len()), (&json!(0), 1));
    // The recording is what was sent, sample for sample.
    let id = file["audio_uuid"].as_str().unwrap();
    let one = client.get(&format!("/api/conversations/{id}")).await["conversation"].clone();
    assert_eq!(one["close_reason"], "end-of-file", "{one}");
    let audio = one["audio_path"].as_str().unwrap();
    let response = client.request("GET", &format!("/audio/{audio}")).send().await.unwrap();
    let bytes = response.bytes().await.unwrap();
    if audio.ends_with(".wav") {
        let wav = hound::WavReader::new(std::io::Cursor::new(&bytes)).unwrap();
        let recorded: Vec<i16> = wav.into_samples::<i16>().map(Result::unwrap).collect();
        assert_eq!(recorded, speech::samples(&speech::jfk().path));
    }
}

#[tokio::test]
async fn ten_uploads_at_once_all_arrive() {
    let daemon = without_memory();
    let client = daemon.admin().await;
    // Each a little different, so that none is taken for another.
    let uploads = (1..=10_usize).map(|number| {
        let (client, mut file) = (client.clone(), read(&fixture("mulaw.wav")));
        file.truncate(file.len() - number * 80);
        async move { post(&client, "/api/audio/upload", &[("talk.wav", file)]).await }
    });
    let answers = futures_util::future::join_all(uploads).await;
    let mut ids = std::collections::HashSet::new();
    for (status, body) in answers {
        assert_eq!(status, 200, "{body}");
        ids.insert(body["files"][0]["conversation_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 10);
    let jobs =
        poll(&client, "/api/process-audio-files/jobs", |list| list["active_jobs"] == 0).await;
    for job in jobs["jobs"].as_array().unwrap() {
        assert_eq!(job["status"], "completed", "{job}");
        let text = transcript(&client, &job["files"][0]["audio_uuid"]).await;
        assert!(wer::rate(SENTENCE, &text) <= 0.25, "{text}");
    }
    assert_eq!(spooled(&daemon), 0);
}

#[tokio::test]
async fn an_upload_survives_a_power_cut_in_the_middle() {
    let mut daemon = without_memory();
    let client = daemon.admin().await;
    let seconds = 30 * 60;
    let (reading, text) = speech::reading(0.3);
    let mut long = reading.clone();
    long.resize(seconds * 16_000, 0);
    let mut bytes = std::io::Cursor::new(Vec::new());
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    long.iter().for_each(|sample| writer.write_sample(*sample).unwrap());
    writer.finalize().unwrap();
    let (status, body) =
        post(&client, "/api/process-audio-files-async", &[("long.wav", bytes.into_inner())]).await;
    assert_eq!(status, 200, "{body}");
    let url = body["status_url"].as_str().unwrap().to_owned();
    // Into the recording, and cut.
    let audio = daemon.state_dir().join("audio");
    let deadline = Instant::now() + PATIENCE;
    let written = || {
        let entries = std::fs::read_dir(&audio).unwrap().flatten();
        entries.map(|entry| entry.metadata().map_or(0, |m| m.len())).max().unwrap_or(0)
    };
    while written() < 100_000 {
        assert!(Instant::now() < deadline, "nothing is recorded: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    daemon.kill_and_restart();
    let client = daemon.admin().await;
    let job = poll(&client, &url, |job| job["status"] == "completed").await;
    let id = job["files"][0]["audio_uuid"].as_str().unwrap();
    let all = client.conversations().await;
    assert_eq!(all.len(), 1, "{all:?}");
    let one = client.get(&format!("/api/conversations/{id}")).await["conversation"].clone();
    assert_eq!(one["duration_seconds"], f64::from(30 * 60), "{one}");
    let heard = one["transcript"].as_str().unwrap();
    assert!(wer::rate(&text, heard) <= 0.06, "{heard}");
    assert_eq!(spooled(&daemon), 0);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing_behind() {
    use tokio::io::AsyncWriteExt;

    let mut daemon = without_memory();
    let client = daemon.admin().await;
    let address = daemon.url.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /api/audio/upload HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary=cut\r\ncontent-length: 50000000\r\n\r\n\
         --cut\r\ncontent-disposition: form-data; name=\"files\"; filename=\"a.wav\"\r\n\r\n",
        client.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[7; 900_000]).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while spooled(&daemon) == 0 {
        assert!(Instant::now() < deadline, "nothing arrives: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(stream);
    while spooled(&daemon) > 0 {
        assert!(Instant::now() < deadline, "it stays: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // And when the daemon itself is cut off.
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[7; 900_000]).await.unwrap();
    while spooled(&daemon) == 0 {
        assert!(Instant::now() < deadline, "nothing arrives: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon.kill_and_restart();
    assert_eq!(spooled(&daemon), 0);
    assert!(daemon.admin().await.conversations().await.is_empty());
}

/// The upload scripts of July and of November 2025, with the library they use.
#[tokio::test]
async fn both_upload_scripts_see_their_files_through() {
    let daemon = without_memory();
    for (age, files) in [
        ("era", [speech::jfk().path, fixture("speech.flac")]),
        ("newest", [fixture("speech.m4a"), fixture("alaw.wav")]),
    ] {
        let mut args = vec![age, daemon.url.as_str(), ADMIN_EMAIL, ADMIN_PASSWORD];
        args.extend(files.iter().map(|path| path.to_str().unwrap()));
        let printed = python::script("upload_files.py", &args, PATIENCE).await;
        let printed: Value = serde_json::from_str(&printed).unwrap();
        let jobs = printed["jobs"].as_array().unwrap();
        assert!(jobs.iter().all(|job| job["status"] == "completed"), "{printed}");
        assert!(jobs.iter().all(|job| job["job_id"].is_string()), "{printed}");
    }
    let client = daemon.admin().await;
    let all = client.conversations().await;
    assert_eq!(all.len(), 4, "{all:?}");
    for conversation in all {
        let text = transcript(&client, &conversation["conversation_id"]).await;
        let references = [SENTENCE, &speech::jfk().text];
        let rate = references.map(|reference| wer::rate(reference, &text));
        assert!(rate.iter().any(|rate| *rate <= 0.25), "{text}");
    }
}

#[tokio::test]
async fn the_openai_client_is_served() {
    let daemon = Daemon::start();
    let client = daemon.admin().await;
    let (jfk, not_audio) = (speech::jfk(), speech::jfk().path.with_file_name("README.md"));
    let (audio, not_audio) = (jfk.path.to_str().unwrap(), not_audio.to_str().unwrap());
    let args = [daemon.url.as_str(), client.token.as_str(), audio, not_audio];
    let printed = python::script("openai_client.py", &args, PATIENCE).await;
    let heard: Value = serde_json::from_str(&printed).unwrap();
    for (format, text) in heard.as_object().unwrap() {
        assert_eq!(wer::rate(&jfk.text, text.as_str().unwrap()), 0.0, "{format}: {text}");
    }
    assert_eq!(heard.as_object().unwrap().len(), 7);
    // Nothing of it is kept.
    assert!(client.conversations().await.is_empty());
    assert_eq!(spooled(&daemon), 0);
    assert_eq!(std::fs::read_dir(daemon.state_dir().join("audio")).unwrap().count(), 0);
}
