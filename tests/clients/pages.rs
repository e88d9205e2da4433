//! Those who look at what was recorded: the Streamlit dashboard, the React web
//! interface, and the script that deletes everything. One conversation, with
//! memories, for all of them.

use super::PATIENCE;
use crate::harness::client::Client;
use crate::harness::daemon::{ADMIN_EMAIL, ADMIN_PASSWORD, Daemon};
use crate::harness::{python, speech, wer};

/// Waits until the conversation's speech is cropped, which comes last.
async fn cropped(client: &Client) -> serde_json::Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let conversation = client.settled().await;
        if !conversation["cropped_at"].is_null() {
            return conversation;
        }
        assert!(tokio::time::Instant::now() < deadline, "not cropped in time: {conversation}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn dashboards_show_change_and_delete_what_was_said() {
    let daemon =
        Daemon::with(&[("STT__MODEL", "whisper-tiny"), ("LLM__MODEL", "qwen2.5-coder-0.5b")]);
    let client = daemon.admin().await;
    let sample = speech::jfk();
    let samples = speech::samples(&sample.path);
    let mut socket = client.socket("webui-simple-recorder").await;
    socket.session(&samples, 8.0).await;
    let conversation = cropped(&client).await;
    socket.close().await;
    assert_eq!(wer::rate(&sample.text, conversation["transcript"].as_str().unwrap()), 0.0);

    // The cropped recording is the speech of the whole one, sample by sample.
    let audio = async |path: &serde_json::Value| {
        let path = format!("/audio/{}", path.as_str().unwrap());
        let bytes = client.request("GET", &path).send().await.unwrap().bytes().await.unwrap();
        let wav = hound::WavReader::new(std::io::Cursor::new(bytes)).unwrap();
        wav.into_samples::<i16>().map(Result::unwrap).collect::<Vec<i16>>()
    };
    let place =
        |seconds: &serde_json::Value| (seconds.as_f64().unwrap() * 16_000.0).round() as usize;
    let speech: Vec<i16> = conversation["speech_segments"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|span| samples[place(&span["start"])..place(&span["end"])].to_vec())
        .collect();
    assert!(audio(&conversation["cropped_audio_path"]).await == speech);

    let client_id = conversation["client_id"].as_str().unwrap();
    let login = [daemon.url.as_str(), ADMIN_EMAIL, ADMIN_PASSWORD];
    let shown =
        python::script("dashboard.py", &[&login[..], &[client_id]].concat(), PATIENCE).await;
    assert_eq!(shown.trim(), "ok");
    let answer = python::script("webui.py", &login, PATIENCE).await;
    assert!(!answer.trim().is_empty());
    let deleted = python::script("delete_all_conversations.py", &login, PATIENCE).await;
    assert_eq!(deleted.trim(), "1");
    let left: Vec<_> = std::fs::read_dir(daemon.state_dir().join("audio")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
