use serde_json::{Value, json};

use super::{Person, World};
use crate::domain::conversation::Span;
use crate::domain::ids::ConversationId;
use crate::domain::job::JobKind;
use crate::domain::version::{Crop, Settled};
use crate::store::sqlite::testing::{add, at, window};
use crate::store::{Conversations, Jobs, Versions};

impl World {
    /// A closed conversation of `person` in which "Good morning" was said, with
    /// one memory and an empty recording.
    async fn talked(&self, person: &Person) -> ConversationId {
        let id = self.fixture.opened(&person.user).await;
        let conversation = self.fixture.get(&id).await;
        self.api.recordings.create(&conversation).await.unwrap().close().await;
        self.fixture.close(&id, &[window(0)]).await;
        self.fixture.transcribe("Good morning").await;
        self.fixture.finish().await;
        self.fixture.learn(&id, &[add("It is morning", 0)]).await;
        id
    }

    async fn post(&self, path: &str, person: &Person) -> super::Answer {
        self.ask("POST", path, Some(person)).await
    }
}

#[tokio::test]
async fn a_conversation_is_transcribed_again_and_both_versions_are_kept() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let id = world.talked(&ann).await;
    let path = format!("/api/conversations/{id}");
    let begun = world.post(&format!("{path}/reprocess-transcript"), &ann).await.is(200);
    assert_eq!((&begun["version_id"], &begun["status"]), (&json!("2"), &json!("queued")));
    assert_eq!(begun["job_ids"], json!([begun["job_id"]]));
    world.post(&format!("{path}/reprocess"), &ann).await.is(409);
    world.post(&format!("{path}/activate-transcript/2"), &ann).await.is(409);
    world.post(&format!("{path}/activate-transcript/nine"), &ann).await.is(404);

    world.fixture.transcribe("Good evening").await;
    world.fixture.finish().await;
    let shown = world.get(&path, &ann).await.is(200)["conversation"].clone();
    assert_eq!(shown["transcript"], "Good evening");
    assert_eq!(shown["version_info"]["transcript_count"], 2);
    assert_eq!(shown["active_transcript_version"], "2");
    assert_eq!(shown["transcript_versions"][0]["transcript"], "Good morning");
    assert_eq!(shown["transcript_versions"][1]["is_active"], true);
    // Its memories are awaited; the old ones are shown until then.
    assert_eq!(shown["memory_versions"][1]["status"], "PENDING");
    assert_eq!(shown["memory_count"], 1);

    let back = world.post(&format!("{path}/activate-transcript/1"), &ann).await.is(200);
    assert_eq!(back["version_id"], "1");
    let versions = world.get(&format!("{path}/versions"), &ann).await.is(200);
    assert_eq!(versions["active_transcript_version"], "1");
    assert_eq!(versions["memory_versions"][1]["transcript_version_id"], "2");

    std::fs::remove_file(world.audio_dir().join(format!("{id}.wav"))).unwrap();
    let body = world.post(&format!("{path}/reprocess"), &ann).await.is(404);
    assert_eq!(body, json!({ "error": "Audio file not found on disk" }));
}

#[tokio::test]
async fn a_conversation_is_remembered_again() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let id = world.talked(&ann).await;
    let path = format!("/api/conversations/{id}");
    let active = format!("{path}/reprocess-memory?transcript_version_id=active");
    assert_eq!(world.post(&active, &ann).await.is(200)["version_id"], "2");
    world.post(&active, &ann).await.is(409);
    world.post(&format!("{path}/reprocess-memory?transcript_version_id=7"), &ann).await.is(404);
    world.fixture.learn(&id, &[add("It is early", 0), add("It is day", 1)]).await;
    let texts = async || {
        let body = world.get("/api/memories", &ann).await.is(200);
        let list = body["memories"].as_array().unwrap();
        list.iter().map(|memory| memory["memory"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(texts().await, ["It is day", "It is early"]);
    world.post(&format!("{path}/activate-memory/1"), &ann).await.is(200);
    assert_eq!(texts().await, ["It is morning"]);
    let found = world.get("/api/memories/search?query=day", &ann).await.is(200);
    assert_eq!(found["results"][0]["memory"], "It is morning");
    assert_eq!(found["count"], 1);
}

#[tokio::test]
async fn transcripts_are_corrected() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let id = world.talked(&ann).await;
    let segment = format!("/api/conversations/{id}/transcript/0");
    let put = async |path: &str| world.ask("PUT", path, Some(&ann)).await;
    let error = |text: &str| json!({ "error": text });
    assert_eq!(put(&segment).await.is(400), error("No update parameters provided"));
    let named = format!("{segment}?speaker_id=Ann&start_time=0.25&end_time=2");
    assert_eq!(
        put(&named).await.is(200),
        json!({ "message": "Transcript segment updated successfully" })
    );
    assert_eq!(put(&named).await.is(400), error("No changes were made"));
    put(&format!("{segment}?start_time=9")).await.is(400);
    let far = format!("/api/conversations/{id}/transcript/9?speaker_id=x");
    put(&far).await.is(404);
    for (bad, kind) in [
        (format!("{segment}?start_time=-1"), "greater_than_equal"),
        (format!("{segment}?end_time=soon"), "float_parsing"),
        (format!("{segment}?speaker_id="), "string_too_short"),
        (format!("/api/conversations/{id}/transcript/one?speaker_id=x"), "int_parsing"),
    ] {
        assert_eq!(put(&bad).await.is(422)["detail"][0]["type"], kind, "{bad}");
    }
    let speakers = format!("/api/conversations/{id}/speakers");
    world.post(&speakers, &ann).await.is(422);
    world.post(&format!("{speakers}?speaker_id=Ann"), &ann).await.is(200);

    let list = world.get("/api/conversations?view=list", &ann).await.is(200);
    let entry = &list["conversations"][0];
    assert_eq!(entry["speakers_identified"], json!(["Ann"]));
    let line = &entry["transcript"][0];
    assert_eq!((&line["speaker"], &line["start"]), (&json!("Ann"), &json!(0.25)));
    assert_eq!(line["end"], 2.0);
}

#[tokio::test]
async fn the_cropped_recording_is_described_and_played() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.close(&id, &[]).await;
    let path = format!("/api/conversations/{id}/cropped");
    let none = world.get(&path, &ann).await.is(200);
    assert_eq!((&none["cropped_audio_path"], &none["speech_segments"]), (&json!(null), &json!([])));
    assert_eq!(none["original_audio_path"], format!("{id}.wav"));

    let finish = world.fixture.claim(JobKind::Finish).await.unwrap();
    let job = |kind| crate::domain::job::NewJob {
        kind,
        payload: finish.payload.clone(),
        lane: finish.lane,
    };
    let settled = Settled {
        version: 1,
        transcription: crate::domain::conversation::Progress::Empty,
        memory: crate::domain::conversation::Progress::Skipped,
        next: vec![job(JobKind::Crop)],
    };
    let store = &world.fixture.store;
    store.finish_conversation(finish.lease(), &id, &settled, at(6)).await.unwrap();
    let crop = world.fixture.claim(JobKind::Crop).await.unwrap();
    let name = format!("cropped_{id}.wav");
    let made = Crop {
        audio_path: Some(name.clone()),
        spans: vec![Span { start: 8_000, end: 24_000 }],
        at: at(9),
    };
    store.complete_crop(crop.lease(), &id, &made).await.unwrap();
    std::fs::write(world.audio_dir().join(&name), b"RIFF").unwrap();

    let body = world.get(&path, &ann).await.is(200);
    assert_eq!(body["cropped_audio_path"], json!(name));
    assert_eq!(body["speech_segments"], json!([{ "start": 0.5, "end": 1.5 }]));
    assert_eq!(body["cropped_duration"], 1.0);
    assert_eq!(body["cropped_at"], "2025-07-22T13:13:29.000Z");
    let list = world.get("/api/conversations?view=list", &ann).await.is(200);
    assert_eq!(list["conversations"][0]["cropped_duration"], 1.0);
    assert_eq!(&world.get(&format!("/audio/{name}"), &ann).await.body[..], b"RIFF");
    world.get(&format!("/audio/{name}"), &ben).await.is(404);
    assert!(world.fixture.store.dead_jobs(9).await.unwrap().is_empty());
}

#[tokio::test]
async fn nobody_changes_the_conversations_of_others() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    let id = world.talked(&ann).await;
    let base = format!("/api/conversations/{id}");
    let gone = json!({ "error": "Conversation not found" });
    for (method, path) in [
        ("GET", "versions"),
        ("GET", "cropped"),
        ("POST", "speakers?speaker_id=x"),
        ("PUT", "transcript/0?speaker_id=x"),
        ("POST", "reprocess"),
        ("POST", "reprocess-transcript"),
        ("POST", "reprocess-memory"),
        ("POST", "activate-transcript/1"),
        ("POST", "activate-memory/1"),
        ("DELETE", ""),
    ] {
        let path = format!("{base}/{path}");
        let path = path.trim_end_matches('/');
        assert_eq!(world.ask(method, path, Some(&ben)).await.is(404), gone, "{path}");
        world.ask(method, path, None).await.is(401);
        let nowhere = path.replace(id.as_str(), "nowhere");
        assert_eq!(world.ask(method, &nowhere, Some(&ann)).await.is(404), gone, "{nowhere}");
    }
    world.get(&format!("{base}/versions"), &admin).await.is(200);
    world.post(&format!("{base}/activate-memory/1"), &admin).await.is(200);
}

#[tokio::test]
async fn a_conversation_is_deleted_by_its_owner_with_or_without_its_memories() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let (kept, forgotten) = (world.talked(&ann).await, world.talked(&ann).await);
    let delete = async |path: &str| world.ask("DELETE", path, Some(&ann)).await;
    let path = format!("/api/conversations/{kept}");
    let body = delete(&path).await.is(200);
    assert_eq!(body["conversation_deleted"], true);
    assert_eq!(body["conversation_id"], json!(kept));
    assert_eq!(body["client_id"], format!("{}-phone", ann.user.id.suffix()));
    assert_eq!(body["deleted_files"], json!([format!("{kept}.wav")]));
    assert!(!world.audio_dir().join(format!("{kept}.wav")).exists());
    assert_eq!(delete(&path).await.is(404), json!({ "error": "Conversation not found" }));
    let count = async || world.get("/api/memories", &ann).await.is(200)["total_count"].clone();
    assert_eq!(count().await, 2, "what was learned stays");

    let path = format!("/api/conversations/{forgotten}?delete_memories");
    delete(&format!("{path}=maybe")).await.is(422);
    assert_eq!(delete(&format!("{path}=true")).await.is(200)["memories_deleted"], 1);
    assert_eq!(count().await, 1);
}
