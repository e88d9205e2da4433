use axum::body::Body;
use axum::http::{Request, header};
use serde_json::json;

use super::{Answer, Person, World};
use crate::recording::Refusal;

/// Offers a second of noise, as a WAV file.
async fn offer(world: &World, path: &str, person: &Person) -> Answer {
    let samples: Vec<u8> =
        (0..16_000_u32).flat_map(|n| ((n * 7_919) as u16).to_le_bytes()).collect();
    let mut wav = b"RIFF\x24\x7d\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    wav.extend([16_000_u32.to_le_bytes(), 32_000_u32.to_le_bytes()].concat());
    wav.extend(b"\x02\0\x10\0data\x00\x7d\0\0");
    wav.extend(samples);
    let head =
        "--XyZ\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.wav\"\r\n\r\n";
    let body = [head.as_bytes(), &wav, b"\r\n--XyZ--\r\n"].concat();
    let request = Request::post(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", person.token))
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=XyZ");
    world.send(request.body(Body::from(body)).unwrap()).await
}

fn spooled(world: &World) -> usize {
    std::fs::read_dir(world.audio_dir().with_file_name("uploads")).unwrap().count()
}

#[tokio::test]
async fn a_request_waits_for_its_transcripts_a_minute_and_they_go_on() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    // Nobody transcribes here. Time passes as fast as nothing happens.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let answer = offer(&world, "/api/process-audio-files", &ann).await.is(200);
    let waited = began.elapsed();
    tokio::time::resume();
    assert!((60..61).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!(answer["conversations"][0]["status"], "timed_out");
    assert_eq!(answer["files"][0]["status"], "processed");
    let jobs = world.get("/api/process-audio-files/jobs", &ann).await.is(200);
    assert_eq!(jobs["active_jobs"], 1);
}

#[tokio::test]
async fn nothing_is_taken_while_nothing_can_be_recorded() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let paths = ["/api/process-audio-files", "/api/process-audio-files-async", "/api/audio/upload"];
    for (refusal, status) in [(Refusal::FULL, 507), (Refusal::READ_ONLY, 503)] {
        world.api.recordings.refuse(Some(refusal.clone()));
        for path in paths {
            let body = offer(&world, path, &ann).await.is(status);
            assert_eq!(body, json!({ "error": refusal.message }), "{path}");
        }
        let body = offer(&world, "/v1/audio/transcriptions", &ann).await.is(status);
        assert_eq!(body["error"]["message"], refusal.message);
    }
    assert_eq!(spooled(&world), 0);
    let jobs = world.get("/api/process-audio-files/jobs", &ann).await.is(200);
    assert_eq!(jobs, json!({ "active_jobs": 0, "jobs": [] }));
    world.api.recordings.refuse(None);
    offer(&world, "/api/audio/upload", &ann).await.is(200);
    assert_eq!(spooled(&world), 1);
}
