use axum::body::Body;
use axum::http::{Request, header};
use serde_json::json;

use super::{Answer, PASSWORD, World};
use crate::store::{UserData, UserUpdate};

async fn post(world: &World, content_type: &str, body: &str) -> Answer {
    let request = Request::post("/auth/jwt/login")
        .header(header::CONTENT_TYPE, content_type)
        .body(Body::from(body.to_owned()))
        .unwrap();
    world.send(request).await
}

async fn login(world: &World, email: &str, password: &str) -> Answer {
    let form = format!("username={}&password={}", email.replace('@', "%40"), password);
    post(world, "application/x-www-form-urlencoded", &form.replace(' ', "+")).await
}

#[tokio::test]
async fn the_token_of_a_login_opens_the_api() {
    let world = World::new().await;
    let mut ann = world.person("ann", false).await;
    let answer = login(&world, "Ann@Example.com", PASSWORD).await;
    let body = answer.is(200);
    assert_eq!(body["token_type"], "bearer");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-request-id").len(), 16);
    ann.token = body["access_token"].as_str().unwrap().to_owned();
    let me = world.get("/users/me", &ann).await.is(200);
    assert_eq!(
        me,
        json!({
            "id": ann.user.id, "email": "ann@example.com", "is_active": true,
            "is_superuser": false, "is_verified": true, "display_name": "ann",
            "registered_clients": {}, "primary_speakers": [],
        })
    );
}

#[tokio::test]
async fn a_multipart_form_logs_in_too() {
    let world = World::new().await;
    world.person("ann", false).await;
    let part = |name: &str, value: &str| {
        format!("--XyZ\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let form =
        [part("username", "ann@example.com"), part("password", PASSWORD), "--XyZ--\r\n".into()];
    let content_type = "multipart/form-data; boundary=XyZ";
    let body = post(&world, content_type, &form.concat()).await.is(200);
    assert!(body["access_token"].is_string());
    post(&world, content_type, "--XyZ\r\nContent-Dis").await.is(400);
    post(&world, "multipart/form-data", &form.concat()).await.is(400);
}

#[tokio::test]
async fn wrong_and_missing_credentials_are_told_apart() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let refusal = json!({ "detail": "LOGIN_BAD_CREDENTIALS" });
    assert_eq!(login(&world, "ann@example.com", "wrong").await.is(400), refusal);
    assert_eq!(login(&world, "nobody@example.com", PASSWORD).await.is(400), refusal);
    let update = UserUpdate { is_active: Some(false), ..UserUpdate::default() };
    world.api.store.update_user(&ann.user.id, update).await.unwrap();
    assert_eq!(login(&world, "ann@example.com", PASSWORD).await.is(400), refusal);

    let missing = |field: &str| json!({ "type": "missing", "loc": ["body", field], "msg": "Field required", "input": null });
    let urlencoded = "application/x-www-form-urlencoded";
    let both = json!({ "detail": [missing("username"), missing("password")] });
    assert_eq!(post(&world, urlencoded, "").await.is(422), both);
    assert_eq!(post(&world, "application/json", "{}").await.is(422), both);
    let one = json!({ "detail": [missing("password")] });
    assert_eq!(post(&world, urlencoded, "username=a&password=").await.is(422), one);
    post(&world, urlencoded, &"x".repeat(70_000)).await.is(413);
}

#[tokio::test]
async fn guessing_is_slowed_down_and_the_rest_is_not() {
    let world = World::new().await;
    world.person("ann", false).await;
    for _ in 0..3 {
        login(&world, "ann@example.com", "wrong").await.is(400);
    }
    let answer = login(&world, "ann@example.com", PASSWORD).await;
    let body = answer.is(429);
    assert_eq!(body, json!({ "detail": "Too many failed logins; try again in 5 minutes" }));
    assert_eq!(answer.header("retry-after"), "300");
    world.ask("GET", "/api/auth/config", None).await.is(200);
    world.clock.advance(std::time::Duration::from_secs(300));
    login(&world, "ann@example.com", PASSWORD).await.is(200);
}

#[tokio::test]
async fn a_token_ends_with_time_a_new_password_or_its_user() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let refusal = json!({ "detail": "Unauthorized" });
    world.get("/users/me", &ann).await.is(200);

    let update = UserUpdate { end_tokens: true, ..UserUpdate::default() };
    world.api.store.update_user(&ann.user.id, update).await.unwrap();
    assert_eq!(world.get("/users/me", &ann).await.is(401), refusal);
    let fresh = login(&world, "ann@example.com", PASSWORD).await.is(200);
    let token = fresh["access_token"].as_str().unwrap().to_owned();
    let ann = super::Person { token, ..ann };
    world.get("/users/me", &ann).await.is(200);

    world.api.deletion.user(&ann.user.id, UserData::default(), None).await.unwrap();
    world.get("/users/me", &ann).await.is(401);

    world.get("/users/me", &ben).await.is(200);
    world.clock.advance(std::time::Duration::from_secs(3600));
    world.get("/users/me", &ben).await.is(401);
}

#[tokio::test]
async fn a_password_hash_of_the_original_is_renewed_at_the_login_and_tokens_stay() {
    let world = World::new().await;
    let mut ann = world.person("ann", false).await;
    let hash = async || world.api.store.user(&ann.user.id).await.unwrap().unwrap().password_hash;
    // PASSWORD, as argon2-cffi hashes it with little work.
    let imported = "$argon2id$v=19$m=1024,t=2,p=2$q7q0iqN7yOOi1YOLd9AXKQ\
                    $4LpTAa7argOEO+Vd+seuSTiAfnRnI17Ok3iXdzo8Y7Y";
    let update = UserUpdate { password_hash: Some(imported.into()), ..UserUpdate::default() };
    world.api.store.update_user(&ann.user.id, update).await.unwrap();
    login(&world, "ann@example.com", "wrong").await.is(400);
    assert_eq!(hash().await, imported);
    let first = login(&world, "ann@example.com", PASSWORD).await.is(200);
    let renewed = hash().await;
    assert!(renewed.starts_with("$2b$04$"), "{renewed}");
    login(&world, "ann@example.com", PASSWORD).await.is(200);
    assert_eq!(hash().await, renewed);
    ann.token = first["access_token"].as_str().unwrap().to_owned();
    world.get("/users/me", &ann).await.is(200);
}

#[tokio::test]
async fn logging_out_ends_that_token_and_leaves_the_others() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let again = login(&world, "ann@example.com", PASSWORD).await.is(200);
    let token = again["access_token"].as_str().unwrap().to_owned();
    let other = super::Person { token, user: ann.user.clone() };

    world.ask("POST", "/auth/jwt/logout", Some(&ann)).await.is(204);
    world.get("/users/me", &ann).await.is(401);
    world.ask("POST", "/auth/jwt/logout", Some(&ann)).await.is(401);
    world.ask("POST", "/auth/jwt/logout", None).await.is(401);
    world.get("/users/me", &other).await.is(200);
    let audited = world.fixture.number("SELECT count(*) FROM audit WHERE action = 'logout'").await;
    assert_eq!(audited, 1);

    // A daemon that starts again knows it still.
    let store = world.api.store.clone();
    let restarted = super::Auth::new(store, world.clock.clone(), &world.api.config).await.unwrap();
    assert!(restarted.verify(&ann.token).await.is_err());
    assert!(restarted.verify(&other.token).await.is_ok());

    // It is forgotten when the token would have expired by itself.
    let kept = "SELECT count(*) FROM ended_tokens";
    world.clock.advance(std::time::Duration::from_secs(3599));
    world.ask("POST", "/auth/jwt/logout", Some(&other)).await.is(204);
    assert_eq!(world.fixture.number(kept).await, 2);
    world.clock.advance(std::time::Duration::from_secs(1));
    let last = login(&world, "ann@example.com", PASSWORD).await.is(200);
    let token = last["access_token"].as_str().unwrap().to_owned();
    let last = super::Person { token, user: ann.user };
    world.ask("POST", "/auth/jwt/logout", Some(&last)).await.is(204);
    assert_eq!(world.fixture.number(kept).await, 1);
}

#[tokio::test]
async fn a_cookie_login_sets_the_cookie_and_its_logout_takes_it_back() {
    let world = World::new().await;
    world.person("ann", false).await;
    let request = Request::post("/auth/cookie/login")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from("username=ann%40example.com&password=correct+horse+battery"))
        .unwrap();
    let answer = world.send(request).await;
    answer.is(204);
    let set = answer.header("set-cookie").to_owned();
    let (pair, attributes) = set.split_once("; ").unwrap();
    assert_eq!(attributes, "HttpOnly; Max-Age=3600; Path=/; SameSite=lax");
    let send = async |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "pi.local")
            .header("origin", "http://pi.local")
            .header("cookie", pair);
        world.send(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(send("GET", "/users/me").await.is(200)["email"], "ann@example.com");
    let answer = send("POST", "/auth/cookie/logout").await;
    answer.is(204);
    let forget = "fastapiusersauth=; HttpOnly; Max-Age=0; Path=/; SameSite=lax";
    assert_eq!(answer.header("set-cookie"), forget);
    send("GET", "/users/me").await.is(401);

    let wrong = Request::post("/auth/cookie/login")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from("username=ann%40example.com&password=wrong"))
        .unwrap();
    let answer = world.send(wrong).await;
    assert_eq!(answer.is(400), json!({ "detail": "LOGIN_BAD_CREDENTIALS" }));
    assert!(answer.headers.get("set-cookie").is_none());
}

#[tokio::test]
async fn a_user_id_or_its_suffix_logs_in_where_it_says_who() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let id = ann.user.id.as_str();
    login(&world, id, PASSWORD).await.is(200);
    login(&world, &id.to_uppercase(), PASSWORD).await.is(200);
    login(&world, ann.user.id.suffix(), PASSWORD).await.is(200);
    login(&world, &id[4..], PASSWORD).await.is(400);

    // Somebody else of the same suffix: it no longer says who.
    let mut twin = ann.user.clone();
    twin.id = crate::domain::ids::UserId::from_text(format!("{:f<18}{}", "", ann.user.id.suffix()));
    twin.email = "twin@example.com".into();
    world.api.store.add_user(&twin).await.unwrap();
    login(&world, ann.user.id.suffix(), PASSWORD).await.is(400);
    login(&world, id, PASSWORD).await.is(200);
}

#[tokio::test]
async fn the_names_of_one_account_do_not_give_more_guesses() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    for name in ["ann@example.com", ann.user.id.as_str(), ann.user.id.suffix()] {
        login(&world, name, "wrong").await.is(400);
    }
    // From another address, so that it is the account that is guarded.
    let other = [198, 51, 100, 1].into();
    let error = world.api.auth.login("ann@example.com", PASSWORD, other).await.unwrap_err();
    assert_eq!(error.kind(), crate::base::error::Kind::Busy);
}

#[tokio::test]
async fn logins_are_on_record() {
    let world = World::new().await;
    world.person("ann", false).await;
    login(&world, "ann@example.com", "wrong").await.is(400);
    let count = |sql| world.fixture.number(sql);
    assert_eq!(count("SELECT count(*) FROM audit WHERE action = 'login'").await, 1);
    assert_eq!(count("SELECT count(*) FROM audit WHERE action = 'login-failed'").await, 1);
    assert_eq!(count("SELECT count(*) FROM audit WHERE action = 'user-created'").await, 1);
    assert_eq!(count("SELECT count(*) FROM audit WHERE subject LIKE '%horse%'").await, 0);
}

#[tokio::test]
async fn a_cookie_reads_anywhere_and_writes_from_our_pages_only() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let send = async |method: &str, path: &str, extra: &[(&str, &str)]| {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "pi.local:8000")
            .header("cookie", format!("theme=dark; fastapiusersauth={}", ann.token));
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        world.send(request.body(Body::empty()).unwrap()).await
    };
    send("GET", "/users/me", &[]).await.is(200);
    let logout = "/auth/jwt/logout";
    assert_eq!(send("POST", logout, &[]).await.is(403), json!({ "detail": "Forbidden" }));
    send("POST", logout, &[("origin", "http://evil.example")]).await.is(403);
    send("POST", logout, &[("sec-fetch-site", "cross-site")]).await.is(403);
    send("POST", logout, &[("origin", "http://pi.local:8000")]).await.is(204);
    // That token has ended now.
    send("GET", "/users/me", &[]).await.is(401);
    let ann = world.person("ann2", false).await;
    let request = Request::post(logout)
        .header("cookie", format!("fastapiusersauth={}", ann.token))
        .header("sec-fetch-site", "same-origin");
    world.send(request.body(Body::empty()).unwrap()).await.is(204);
    // A header that is there decides: no falling back to the cookie.
    send("GET", "/users/me", &[("authorization", "Bearer nonsense")]).await.is(401);
    send("GET", "/users/me", &[("authorization", "Basic YTpi")]).await.is(401);
}

#[tokio::test]
async fn every_private_route_asks_who_is_there() {
    let world = World::new().await;
    let refusal = json!({ "detail": "Unauthorized" });
    let document = world.ask("GET", "/openapi.json", None).await.is(200);
    let mut public = Vec::new();
    for (method, path) in crate::http::openapi::tests::operations(&document) {
        let operation = &document["paths"][&path][method.to_lowercase()];
        if operation["security"] == json!([]) {
            public.push(path);
        } else {
            let answer = world.ask(&method, &path.replace(['{', '}'], ""), None).await;
            let body = answer.is(401);
            // Clients of OpenAI read the error in OpenAI's form.
            if path.starts_with("/v1/") {
                assert_eq!(body["error"]["code"], "invalid_api_key", "{method} {path}");
            } else {
                assert_eq!(body, refusal, "{method} {path}");
            }
        }
    }
    // Whoever makes a route public says so here too.
    assert_eq!(public, PUBLIC);
}

const PUBLIC: &[&str] = &[
    "/",
    "/api/auth/config",
    "/api/auth/health",
    "/api/chat/health",
    "/api/health",
    "/api/queue/health",
    "/audio/",
    "/auth/cookie/login",
    "/auth/health",
    "/auth/jwt/login",
    "/docs",
    "/health",
    "/openapi.json",
    "/readiness",
    "/setup",
    "/webhook/audio_bytes",
];

#[tokio::test]
async fn the_signing_key_survives_and_a_configured_one_wins() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let store = world.api.store.clone();
    let mut config = (*world.api.config).clone();
    let again = super::Auth::new(store.clone(), world.clock.clone(), &config).await.unwrap();
    assert_eq!(again.verify(&ann.token).await.unwrap(), ann.user);
    config.auth.secret_key = crate::config::Secret::new("another key, quite long");
    let other = super::Auth::new(store, world.clock.clone(), &config).await.unwrap();
    assert!(other.verify(&ann.token).await.is_err());
}

#[tokio::test]
async fn pages_of_configured_origins_use_the_api_and_no_others() {
    let dash = "https://dash.example.com";
    let configured = vec![dash.to_owned(), "100.64.0.0/10".to_owned()];
    let world = World::with(|config| config.server.cors_origins = configured).await;
    let ann = world.person("ann", false).await;
    let ask = async |method: &str, origin: &str| {
        let request = Request::builder()
            .method(method)
            .uri("/users/me")
            .header("origin", origin)
            .header("sec-fetch-site", "cross-site")
            .header("cookie", format!("fastapiusersauth={}", ann.token))
            .header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "content-type");
        world.send(request.body(Body::from("{}")).unwrap()).await
    };
    let answer = ask("OPTIONS", dash).await;
    assert_eq!(answer.header("access-control-allow-origin"), dash);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert_eq!(answer.header("access-control-allow-methods"), "PATCH");
    let answer = ask("PATCH", dash).await;
    answer.is(200);
    assert_eq!(answer.header("access-control-allow-origin"), dash);

    let tailscale = "http://100.101.102.103:5173";
    let answer = ask("PATCH", tailscale).await;
    answer.is(200);
    assert_eq!(answer.header("access-control-allow-origin"), tailscale);

    let answer = ask("PATCH", "https://evil.example").await;
    answer.is(403);
    assert!(answer.headers.get("access-control-allow-origin").is_none());
    let plain = World::new().await.ask("OPTIONS", "/users/me", None).await;
    plain.is(405);
}

#[tokio::test]
async fn behind_a_trusted_proxy_it_is_the_client_that_is_slowed_down() {
    let world =
        World::with(|config| config.server.trusted_proxies = vec!["192.0.2.1".into()]).await;
    world.person("ann", false).await;
    let attempt = async |from: &str, user: &str, password: &str| {
        let form = format!("username={user}%40example.com&password={password}");
        let request = Request::post("/auth/jwt/login")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("x-forwarded-for", from)
            .body(Body::from(form));
        world.send(request.unwrap()).await.status.as_u16()
    };
    for user in ["a", "b", "c"] {
        assert_eq!(attempt("198.51.100.7", user, "wrong").await, 400);
    }
    assert_eq!(attempt("198.51.100.7", "ann", "correct+horse+battery").await, 429);
    assert_eq!(attempt("198.51.100.8", "ann", "correct+horse+battery").await, 200);
    let trail = "SELECT count(*) FROM audit WHERE subject = 'ann@example.com from 198.51.100.8'";
    assert_eq!(world.fixture.number(trail).await, 1);
}

#[tokio::test]
async fn the_cookie_keeps_to_https_where_that_is_configured() {
    let world = World::with(|config| config.auth.cookie_secure = true).await;
    world.person("ann", false).await;
    let request = Request::post("/auth/cookie/login")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from("username=ann%40example.com&password=correct+horse+battery"));
    let answer = world.send(request.unwrap()).await;
    assert!(answer.header("set-cookie").ends_with("SameSite=lax; Secure"));
}
