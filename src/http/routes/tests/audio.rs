use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::{Answer, Person, World};

const SIZE: usize = 100_000;

async fn recorded(world: &World, person: &Person) -> String {
    let id = world.fixture.opened(&person.user).await;
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    std::fs::write(world.audio_dir().join(format!("{id}.wav")), bytes).unwrap();
    format!("/audio/{id}.wav")
}

async fn fetch(world: &World, path: &str, person: &Person, extra: &[(&str, &str)]) -> Answer {
    let mut request =
        Request::get(path).header("authorization", format!("Bearer {}", person.token));
    for (name, value) in extra {
        request = request.header(*name, *value);
    }
    world.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_recording_is_sent_whole_or_in_part() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let path = recorded(&world, &ann).await;

    let whole = fetch(&world, &format!("{path}?t=1&r=2"), &ann, &[]).await;
    assert_eq!(whole.status, 200);
    assert_eq!(whole.body.len(), SIZE);
    assert_eq!(whole.header("content-type"), "audio/x-wav");
    assert_eq!(whole.header("content-length"), SIZE.to_string());
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert!(whole.header("last-modified").ends_with(" GMT"));

    let part = fetch(&world, &path, &ann, &[("range", "bytes=99000-")]).await;
    assert_eq!(part.status, 206);
    assert_eq!(part.header("content-range"), "bytes 99000-99999/100000");
    assert_eq!(part.body, whole.body.slice(99_000..));
    let suffix = fetch(&world, &path, &ann, &[("range", "bytes=-10")]).await;
    assert_eq!(suffix.body, whole.body.slice(99_990..));

    let beyond = fetch(&world, &path, &ann, &[("range", "bytes=100000-")]).await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), "bytes */100000");
    let garbage = fetch(&world, &path, &ann, &[("range", "bytes=a-b")]).await;
    assert_eq!((garbage.status.as_u16(), garbage.body.len()), (200, SIZE));
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let path = recorded(&world, &ann).await;
    let first = fetch(&world, &path, &ann, &[]).await;
    let (etag, date) = (first.header("etag"), first.header("last-modified"));

    for known in [("if-none-match", etag), ("if-none-match", "*"), ("if-modified-since", date)] {
        let answer = fetch(&world, &path, &ann, &[known]).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0), "{known:?}");
    }
    let other = [("if-none-match", "\"other\""), ("if-modified-since", date)];
    assert_eq!(fetch(&world, &path, &ann, &other).await.status, 200);
    let range = ("range", "bytes=0-9");
    assert_eq!(fetch(&world, &path, &ann, &[range, ("if-range", etag)]).await.status, 206);
    assert_eq!(fetch(&world, &path, &ann, &[range, ("if-range", "\"old\"")]).await.status, 200);
}

#[tokio::test]
async fn head_tells_the_size_and_the_directory_answers() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let path = recorded(&world, &ann).await;
    let head = world.ask("HEAD", &path, Some(&ann)).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), SIZE.to_string());
    world.ask("HEAD", "/audio/", None).await.is(200);
}

#[tokio::test]
async fn recordings_are_private_and_nothing_else_is_served() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    let path = recorded(&world, &ann).await;
    world.ask("GET", &path, None).await.is(401);
    assert_eq!(fetch(&world, &path, &ann, &[]).await.status, 200);
    assert_eq!(fetch(&world, &path, &admin, &[]).await.status, 200);
    let gone = json!({ "detail": "Not Found" });
    assert_eq!(world.get(&path, &ben).await.is(404), gone);

    std::fs::write(world.audio_dir().join("stray.wav"), b"no row").unwrap();
    for path in [
        "/audio/stray.wav",
        "/audio/nothing.wav",
        "/audio/..%2Fstate%2Ffriend-lite.db",
        "/audio/%2Fetc%2Fpasswd",
        "/audio/../state/friend-lite.db",
        "/audio/a/b.wav",
        "/audio/%00",
    ] {
        assert_eq!(world.get(path, &admin).await.is(404), gone, "{path}");
    }
    // A row without its file is an answer, not a failure.
    let id = world.fixture.opened(&ann.user).await;
    world.get(&format!("/audio/{id}.wav"), &ann).await.is(404);
}

#[tokio::test]
async fn a_deleted_recording_is_gone_and_its_conversation_says_so() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let path = recorded(&world, &ann).await;
    let id = world.api.store.conversations(None, 1).await.unwrap().remove(0).id;
    world.fixture.close(&id, &[]).await;
    world.fixture.finish().await;
    assert_eq!(world.api.deletion.audio(&id).await.unwrap(), SIZE as u64);
    world.get(&path, &ann).await.is(410);
    let answer = world.get(&format!("/api/conversations/{id}"), &ann).await.is(200);
    assert_eq!(answer["conversation"]["audio_path"], json!(null));
    assert!(answer["conversation"]["audio_deleted_at"].is_string(), "{answer}");
}

#[tokio::test]
async fn a_cookie_plays_a_recording() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let path = recorded(&world, &ann).await;
    let request = Request::get(&path)
        .header("cookie", format!("fastapiusersauth={}", ann.token))
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.send(request).await.status, 200);
}
