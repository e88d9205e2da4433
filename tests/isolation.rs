//! Two users stream at once; neither sees anything of the other by any route.

use serde_json::Value;

use crate::harness::client::Client;
use crate::harness::daemon::Daemon;
use crate::harness::{speech, wer};

#[tokio::test]
async fn two_users_at_once_never_see_each_other() {
    let daemon = Daemon::with(&[("LLM__MODEL", "qwen2.5-coder-0.5b")]);
    let anna = daemon.user("anna@example.com").await;
    let ben = daemon.user("ben@example.com").await;

    let jfk = speech::jfk();
    let (reading, reading_text) = speech::reading(0.3);
    let jfk_samples = speech::samples(&jfk.path);
    let (mut first, mut second) = (anna.socket("phone").await, ben.socket("phone").await);
    tokio::join!(first.session(&jfk_samples, 8.0), second.session(&reading, 8.0));
    let (hers, his) = tokio::join!(anna.settled(), ben.settled());

    let text = |c: &serde_json::Value| c["transcript"].as_str().unwrap_or_default().to_owned();
    assert_eq!(wer::rate(&jfk.text, &text(&hers)), 0.0, "{}", text(&hers));
    assert!(wer::rate(&reading_text, &text(&his)) <= 0.06, "{}", text(&his));

    for (who, other, own) in [(&anna, &his, &hers), (&ben, &hers, &his)] {
        let id = other["conversation_id"].as_str().unwrap();
        let audio = other["audio_path"].as_str().unwrap();
        let client_id = other["client_id"].as_str().unwrap();
        let owner = other["user_id"].as_str().unwrap();

        assert_eq!(who.call("GET", &format!("/api/conversations/{id}")).await.0, 404);
        for method in ["GET", "HEAD"] {
            assert_eq!(who.call(method, &format!("/audio/{audio}")).await.0, 404);
        }
        let close = who.call("POST", &format!("/api/conversations/{client_id}/close")).await.0;
        assert!(close == 403 || close == 404, "{close}");
        let pages = [
            "/api/conversations".to_owned(),
            "/api/conversations?view=list".to_owned(),
            "/api/memories".to_owned(),
            "/api/memories/search?query=country+young+man&limit=100".to_owned(),
            "/api/clients/active".to_owned(),
            "/api/active_clients".to_owned(),
            format!("/api/conversations?user_id={owner}"),
            format!("/api/memories?user_id={owner}"),
            format!("/api/memories/search?query=country&user_id={owner}"),
        ];
        for page in pages {
            let (status, body) = who.call("GET", &page).await;
            assert!(matches!(status, 200 | 403 | 404), "{page}: {status} {body}");
            let body = body.to_string();
            for secret in [id, audio, client_id, owner] {
                assert!(!body.contains(secret), "{page} shows {secret}: {body}");
            }
        }
        assert_eq!(
            who.call("GET", &format!("/audio/{}", own["audio_path"].as_str().unwrap())).await.0,
            200
        );
    }

    let admin = daemon.admin().await;
    for (who, other) in [(&anna, &his), (&ben, &hers)] {
        let owner = other["user_id"].as_str().unwrap();
        let before = belongings(&admin, other).await;
        no_route_opens(who, other, &before).await;
        assert_eq!(belongings(&admin, other).await, before, "of {owner}");
    }

    // A memory of one cannot be deleted by the other.
    let memories = anna.get("/api/memories").await;
    if let Some(id) = memories["memories"][0]["id"].as_str() {
        assert_eq!(ben.call("DELETE", &format!("/api/memories/{id}")).await.0, 404);
        assert_eq!(anna.call("DELETE", &format!("/api/memories/{id}")).await.0, 200);
    }

    // Nobody sees anything without a token.
    let nobody = crate::harness::client::Client { token: "x.y.z".into(), ..anna.clone() };
    for page in ["/api/conversations", "/api/memories", "/api/clients/active", "/users/me"] {
        assert_eq!(nobody.call("GET", page).await.0, 401, "{page}");
    }
}

/// What somebody has, as an administrator sees it.
async fn belongings(admin: &Client, conversation: &Value) -> Value {
    let id = conversation["conversation_id"].as_str().unwrap();
    let owner = conversation["user_id"].as_str().unwrap();
    let user = admin.get(&format!("/users/{owner}")).await;
    serde_json::json!({
        "conversation": admin.get(&format!("/api/conversations/{id}")).await,
        "memories": admin.get(&format!("/api/memories?user_id={owner}")).await["memories"],
        "jobs": admin.get(&format!("/api/queue/jobs/by-session/{id}")).await["jobs"],
        "email": user["email"],
        "display_name": user["display_name"],
    })
}

/// Asks every route of the OpenAPI document for what is somebody else's: reads
/// show none of it, and writes are refused.
async fn no_route_opens(who: &Client, other: &Value, belongings: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut ids: Vec<String> = ["conversation_id", "audio_path", "client_id", "user_id"]
        .map(|key| text(&other[key]))
        .into();
    ids.push(text(&belongings["memories"][0]["id"]));
    ids.push(text(&belongings["jobs"][0]["job_id"]));
    ids.retain(|id| !id.is_empty());
    // A job's number is too short to look for in an answer.
    let secrets: Vec<&String> = ids.iter().filter(|id| id.len() >= 8).collect();

    let document = who.get("/openapi.json").await;
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let takes_user = operation["parameters"]
                .as_array()
                .is_some_and(|all| all.iter().any(|parameter| parameter["name"] == "user_id"));
            let read = method == "get";
            if !read && !path.contains('{') && !takes_user {
                continue;
            }
            for id in &ids {
                let filled: String = path
                    .split('/')
                    .map(|part| if part.starts_with('{') { id } else { part })
                    .collect::<Vec<_>>()
                    .join("/");
                // Parameters that a route must have, so that it comes to the point.
                let query =
                    format!("user_id={}&query=country&speaker_id=x", text(&other["user_id"]));
                let asked_for = format!("{filled}?{query}");
                let (status, body) = who.call(&method.to_uppercase(), &asked_for).await;
                asked += 1;
                assert!(status < 500, "{method} {asked_for}: {status} {body}");
                if !read {
                    assert!(status >= 400, "{method} {asked_for}: {status} {body}");
                }
                // What was sent may be said back.
                let body = body.to_string();
                for secret in secrets.iter().filter(|secret| !asked_for.contains(secret.as_str())) {
                    assert!(
                        !body.contains(secret.as_str()),
                        "{method} {asked_for} shows {secret}: {body}"
                    );
                }
                if !path.contains('{') {
                    break;
                }
            }
        }
    }
    assert!(asked > 100, "{asked}");
}
