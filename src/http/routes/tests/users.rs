use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use super::{Answer, PASSWORD, Person, World};

async fn send(world: &World, method: &str, path: &str, who: &Person, body: Value) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", who.token))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    world.send(request).await
}

#[tokio::test]
async fn users_are_made_by_any_of_three_names() {
    let world = World::new().await;
    let (admin, ben) = (world.person("root", true).await, world.person("ben", false).await);
    for (n, path) in ["/api/users", "/api/users/create", "/api/create_user"].iter().enumerate() {
        let email = format!("Person{n}@Example.com");
        let form = json!({ "email": email, "password": PASSWORD, "extra": 1 });
        let made = send(&world, "POST", path, &admin, form.clone()).await.is(201);
        assert_eq!(made["user_email"], email.to_lowercase());
        assert_eq!(made["user_id"].as_str().unwrap().len(), 24);
        assert!(made["message"].is_string());
        let taken = send(&world, "POST", path, &admin, form.clone()).await.is(409);
        assert_eq!(taken, json!({ "message": format!("{} is taken", email.to_lowercase()) }));
        let answer = send(&world, "POST", path, &ben, form).await;
        assert_eq!(answer.is(403), json!({ "detail": "Forbidden" }));
    }
    for (form, field) in [
        (json!({ "password": PASSWORD }), "email"),
        (json!({ "email": "x@y" }), "password"),
        (json!({ "email": "nobody", "password": PASSWORD }), "email"),
        (json!({ "email": "x@y", "password": "short" }), "password"),
        (json!({ "email": "x@y", "password": "x".repeat(73) }), "password"),
        (json!({ "email": "x@y", "password": PASSWORD, "is_superuser": "?" }), "is_superuser"),
    ] {
        let body = send(&world, "POST", "/api/users", &admin, form).await.is(422);
        assert_eq!(body["detail"][0]["loc"], json!(["body", field]));
    }
    let audited = "SELECT count(*) FROM audit WHERE action = 'user-created' AND actor IS NOT NULL";
    assert_eq!(world.fixture.number(audited).await, 3);
}

#[tokio::test]
async fn the_list_shows_everybody_and_no_hash() {
    let world = World::new().await;
    let (admin, ben) = (world.person("root", true).await, world.person("ben", false).await);
    let list = world.get("/api/users", &admin).await.is(200);
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 2);
    let entry = list.iter().find(|user| user["email"] == "ben@example.com").unwrap();
    assert_eq!(entry["id"], json!(ben.user.id));
    assert_eq!(entry["_id"], json!(ben.user.id));
    assert_eq!(entry["registered_clients"], json!({}));
    assert!(!json!(list).to_string().contains("hash"));
    world.get("/api/users", &ben).await.is(403);
}

#[tokio::test]
async fn users_change_what_is_theirs_and_administrators_the_rest() {
    let world = World::new().await;
    let (admin, ben) = (world.person("root", true).await, world.person("ben", false).await);
    let wish = json!({ "display_name": "Benjamin", "is_superuser": true, "is_active": false });
    let me = send(&world, "PATCH", "/users/me", &ben, wish).await.is(200);
    assert_eq!(me["display_name"], "Benjamin");
    assert_eq!((&me["is_superuser"], &me["is_active"]), (&json!(false), &json!(true)));
    send(&world, "PATCH", "/users/me", &ben, json!({ "email": "root@example.com" })).await.is(409);
    send(&world, "PATCH", "/users/me", &ben, json!({ "email": "nobody" })).await.is(422);

    let path = format!("/users/{}", ben.user.id);
    send(&world, "PATCH", &path, &ben, json!({})).await.is(403);
    world.get(&path, &ben).await.is(403);
    assert_eq!(world.get(&path, &admin).await.is(200)["display_name"], "Benjamin");
    let up = send(&world, "PATCH", &path, &admin, json!({ "is_superuser": true })).await.is(200);
    assert_eq!(up["is_superuser"], true);
    world.get("/api/users", &ben).await.is(200);
    let path = format!("/api/users/{}", ben.user.id);
    let down = json!({ "is_superuser": false, "display_name": "Ben" });
    let changed = send(&world, "PUT", &path, &admin, down).await.is(200);
    assert_eq!(changed["user"]["display_name"], "Ben");
    world.get("/api/users", &ben).await.is(403);

    let me = format!("/api/users/{}", admin.user.id);
    send(&world, "PUT", &me, &admin, json!({ "is_active": false })).await.is(409);
    for (path, status) in [("/api/users/x", 400), ("/api/users/507f1f77bcf86cd799439011", 404)] {
        assert!(
            send(&world, "PUT", path, &admin, json!({})).await.is(status)["message"].is_string()
        );
    }
    let audit = "SELECT count(*) FROM audit WHERE action = 'user-changed'";
    assert_eq!(world.fixture.number(audit).await, 3);
    let subject = "SELECT count(*) FROM audit WHERE subject = 'ben@example.com: is_superuser'";
    assert_eq!(world.fixture.number(subject).await, 1);
}

#[tokio::test]
async fn a_new_password_ends_every_token() {
    let world = World::new().await;
    let ben = world.person("ben", false).await;
    let new = json!({ "password": "another long password" });
    send(&world, "PATCH", "/users/me", &ben, new).await.is(200);
    world.get("/users/me", &ben).await.is(401);
    let peer = [192, 0, 2, 9].into();
    assert!(world.api.auth.login("ben@example.com", PASSWORD, peer).await.is_err());
    world.api.auth.login("ben@example.com", "another long password", peer).await.unwrap();
}

#[tokio::test]
async fn users_are_removed_by_administrators_who_stay_themselves() {
    let world = World::new().await;
    let (admin, ben) = (world.person("root", true).await, world.person("ben", false).await);
    let eve = world.person("eve", false).await;
    let path = |person: &Person| format!("/api/users/{}", person.user.id);
    world.ask("DELETE", &path(&ben), Some(&eve)).await.is(403);
    let body = world.ask("DELETE", &path(&admin), Some(&admin)).await.is(403);
    assert!(body["message"].is_string());
    world.ask("DELETE", "/api/users/x", Some(&admin)).await.is(400);
    let odd = format!("{}?delete_memories=perhaps", path(&ben));
    world.ask("DELETE", &odd, Some(&admin)).await.is(422);

    let body = world.ask("DELETE", &path(&ben), Some(&admin)).await.is(200);
    assert_eq!(body["deleted_data"]["user_deleted"], true);
    world.get("/users/me", &ben).await.is(401);
    world.ask("DELETE", &path(&ben), Some(&admin)).await.is(404);

    let by_query = format!("/api/delete_user?user_id={}", eve.user.id);
    world.ask("DELETE", &by_query, Some(&admin)).await.is(200);
    world.ask("DELETE", "/api/delete_user", Some(&admin)).await.is(422);
    let audit = "SELECT count(*) FROM audit WHERE action = 'user-removed' AND actor IS NOT NULL";
    assert_eq!(world.fixture.number(audit).await, 2);
}
