use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use super::World;
use crate::store::sqlite::testing::window;

#[tokio::test]
async fn the_streaming_pages_show_devices_and_queues_and_clear_nothing() {
    let world = World::new().await;
    let (ann, admin) = (world.person("ann", false).await, world.person("root", true).await);
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.close(&id, &[window(0), window(1)]).await;
    let _session = world.api.ingest.connect(&ann.user, Some("phone")).await.unwrap();
    let status = world.get("/api/streaming/status", &ann).await.is(200);
    assert_eq!(status["active_sessions"].as_array().unwrap().len(), 1);
    assert_eq!(
        status["active_sessions"],
        world.get("/api/queue/sessions", &ann).await.is(200)["sessions"]
    );
    assert_eq!(status["queues"], json!({ "transcription": { "ready": 2 } }));
    for path in ["/api/streaming/cleanup", "/api/streaming/cleanup-sessions?older_than_seconds=60"]
    {
        world.ask("POST", path, Some(&ann)).await.is(403);
        assert_eq!(world.ask("POST", path, Some(&admin)).await.is(200)["cleared_count"], 0);
    }
}

#[tokio::test]
async fn jobs_are_shown_to_their_owners_and_to_administrators() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.close(&id, &[window(0), window(1), window(2)]).await;

    let page = world.get("/api/queue/jobs?limit=2", &ann).await.is(200);
    assert_eq!(
        page["pagination"],
        json!({ "total": 3, "limit": 2, "offset": 0, "has_more": true })
    );
    let job = &page["jobs"][0];
    assert_eq!((&job["status"], &job["queue"]), (&json!("queued"), &json!("transcription")));
    assert_eq!(job["meta"]["conversation_id"], json!(id));
    let page = world.get("/api/queue/jobs?limit=2&offset=2", &ann).await.is(200);
    assert_eq!(page["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(page["pagination"]["has_more"], false);
    let total =
        async |path: &str, who| world.get(path, who).await.is(200)["pagination"]["total"].clone();
    assert_eq!(total("/api/queue/jobs", &ben).await, 0);
    assert_eq!(total("/api/queue/jobs", &admin).await, 3);
    assert_eq!(total("/api/queue/jobs?queue_name=memory", &ann).await, 0);
    assert_eq!(total("/api/queue/jobs?queue_name=transcription", &ann).await, 3);
    assert_eq!(total("/api/queue/jobs?queue_name=unheard-of", &ann).await, 0);

    let path = format!("/api/queue/jobs/{}", job["job_id"].as_str().unwrap());
    assert_eq!(&world.get(&path, &ann).await.is(200), job);
    let gone = json!({ "error": "Job not found" });
    assert_eq!(world.get(&path, &ben).await.is(404), gone);
    assert_eq!(world.ask("DELETE", &path, Some(&ben)).await.is(404), gone);
    assert_eq!(world.ask("POST", &format!("{path}/retry"), Some(&ben)).await.is(404), gone);
    for odd in ["x", "-1", "99999999999999999999"] {
        assert_eq!(world.get(&format!("/api/queue/jobs/{odd}"), &admin).await.is(404), gone);
    }

    let client = page["jobs"][0]["meta"]["client_id"].as_str().unwrap();
    for session in [id.as_str(), client] {
        let path = format!("/api/queue/jobs/by-session/{session}");
        assert_eq!(world.get(&path, &ann).await.is(200)["total"], 3);
        assert_eq!(world.get(&path, &ben).await.is(200)["total"], 0);
    }
    assert_eq!(world.get("/api/queue/stats", &ann).await.is(200)["queued_jobs"], 3);
    assert_eq!(world.get("/api/queue/stats", &ben).await.is(200)["total_jobs"], 0);
    assert_eq!(world.ask("GET", "/api/queue/health", None).await.is(200)["queued"], 3);
    let page = world.get(&format!("/api/queue/dashboard?expanded_sessions={id}"), &ann).await;
    let page = page.is(200);
    assert_eq!(page["jobs"]["queued"].as_array().unwrap().len(), 3);
    assert_eq!(page["session_jobs"][id.as_str()].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_job_is_cancelled_retried_and_taken_off_the_list() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let admin = world.person("root", true).await;
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.close(&id, &[window(0)]).await;
    let jobs = world.get("/api/queue/jobs", &ann).await.is(200);
    let path = format!("/api/queue/jobs/{}", jobs["jobs"][0]["job_id"].as_str().unwrap());
    let status = async || world.get(&path, &ann).await.is(200)["status"].clone();

    world.ask("POST", &format!("{path}/retry"), Some(&ann)).await.is(404);
    let done = world.ask("DELETE", &path, Some(&ann)).await.is(200);
    assert_eq!(done["action"], "cancelled");
    assert_eq!(status().await, "failed");
    let conversation = format!("/api/conversations/{id}");
    let seen = world.get(&conversation, &ann).await.is(200)["conversation"].clone();
    assert_eq!(seen["windows"][0]["state"], "failed");
    world.ask("POST", &format!("{path}/retry"), Some(&ann)).await.is(200);
    assert_eq!(status().await, "queued");
    let seen = world.get(&conversation, &ann).await.is(200)["conversation"].clone();
    assert_eq!(seen["windows"][0]["state"], "waiting");

    world.fixture.transcribe("Good").await;
    assert_eq!(status().await, "completed");
    let done = world.ask("DELETE", &path, Some(&ann)).await.is(200);
    assert_eq!(done["action"], "deleted");
    world.get(&path, &ann).await.is(404);

    // The transcript does not depend on the list, nor does what still waits.
    let seen = world.get(&conversation, &ann).await.is(200);
    assert_eq!(seen["conversation"]["transcript"], "Good");
    world.ask("POST", "/api/queue/flush-all", Some(&ann)).await.is(403);
    let flushed = world.ask("POST", "/api/queue/flush-all", Some(&admin)).await.is(200);
    assert_eq!(flushed["total_removed"], 0);
    assert_eq!(world.get("/api/queue/stats", &ann).await.is(200)["queued_jobs"], 1);
}

#[tokio::test]
async fn only_finished_jobs_of_some_age_are_flushed() {
    let world = World::new().await;
    let admin = world.person("root", true).await;
    let id = world.fixture.opened(&admin.user).await;
    world.fixture.close(&id, &[window(0)]).await;
    world.fixture.transcribe("Good").await;
    let flush = async |body: Value| {
        let request = Request::post("/api/queue/flush")
            .header(header::AUTHORIZATION, format!("Bearer {}", admin.token))
            .body(Body::from(body.to_string()))
            .unwrap();
        world.send(request).await.is(200)["total_removed"].clone()
    };
    assert_eq!(flush(json!({})).await, 0);
    assert_eq!(flush(json!({ "older_than_hours": 0, "statuses": ["failed"] })).await, 0);
    assert_eq!(flush(json!({ "older_than_hours": 0 })).await, 1);
}

#[tokio::test]
async fn the_processor_says_how_far_each_device_has_come() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.close(&id, &[window(0)]).await;
    let client = format!("{}-phone", ann.user.id.suffix());
    let path = format!("/api/processor/tasks/{client}");
    let tasks = world.get(&path, &ann).await.is(200);
    assert_eq!(tasks["status"], "processing");
    assert_eq!(tasks["stages"]["audio"]["completed"], true);
    assert_eq!(tasks["stages"]["transcription"]["completed"], false);
    assert_eq!(tasks["stages"]["memory"]["completed"], false);
    let nothing = json!({ "client_id": client, "status": "no_tasks", "stages": {} });
    assert_eq!(world.get(&path, &ben).await.is(200), nothing);

    let all = world.get("/api/processor/tasks", &admin).await.is(200);
    assert_eq!(all[&client]["status"], "processing");
    let status = world.get("/api/processor/status", &admin).await.is(200);
    assert_eq!(status["queues"]["transcription"], 1);
    for path in ["/api/processor/tasks", "/api/processor/status", "/api/metrics", "/metrics"] {
        world.get(path, &ben).await.is(403);
        assert_eq!(world.get(path, &admin).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn metrics_open_to_administrators_and_to_their_own_token() {
    let world = World::with(|config| {
        config.server.metrics_token = crate::config::Secret::new("0123456789abcdef");
    })
    .await;
    let ask = async |token: &str| {
        let request = Request::get("/metrics")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::empty());
        world.send(request.unwrap()).await
    };
    assert_eq!(ask("0123456789abcdeF").await.status, 401);
    assert_eq!(ask("").await.status, 401);
    let id = world.fixture.opened(&world.person("ann", false).await.user).await;
    world.fixture.close(&id, &[window(0)]).await;
    let answer = ask("0123456789abcdef").await;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    for line in [
        "friend_lite_jobs{kind=\"transcribe\",state=\"ready\"} 1",
        "friend_lite_streams 0",
        "friend_lite_audio_seconds{state=\"waiting\"} 1",
        "friend_lite_audio_seconds{state=\"silent\"} 9",
        "# TYPE process_cpu_seconds_total counter",
        "friend_lite_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"401\"}",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // Each line is a comment, or a name, labels and a number.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(name.starts_with("friend_lite_") || name.starts_with("process_"), "{line}");
    }
}

#[tokio::test]
async fn the_pages_of_speakers_are_told_that_there_are_none() {
    let world = World::new().await;
    let (ann, admin) = (world.person("ann", false).await, world.person("root", true).await);
    let body = world.get("/api/enrolled-speakers", &ann).await.is(200);
    assert_eq!((&body["speakers"], &body["service_available"]), (&json!([]), &json!(false)));
    assert_eq!(
        world.get("/api/speaker-configuration", &ann).await.is(200)["primary_speakers"],
        json!([])
    );
    world.get("/api/diarization-settings", &ann).await.is(403);
    world.get("/api/diarization-settings", &admin).await.is(200);
    world.get("/api/speaker-service-status", &admin).await.is(200);
    world.ask("POST", "/api/speaker-configuration", Some(&ann)).await.is(400);
}
