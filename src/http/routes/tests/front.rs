use axum::body::Body;
use axum::http::{Request, header};

use super::{Answer, World};
use crate::http::auth::bootstrap_admin;

/// A world whose administrator has a generated password, and that password.
async fn fresh() -> (World, String) {
    let world = World::new().await;
    let made = bootstrap_admin(world.api.store.as_ref(), &world.api.config, &world.clock).await;
    let password = made.unwrap().unwrap().password.unwrap();
    (world, password)
}

async fn set_up(world: &World, first: &str, password: &str, again: &str, name: &str) -> Answer {
    let body = format!("first_password={first}&password={password}&again={again}&name={name}");
    let request = Request::post("/setup")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(body))
        .unwrap();
    world.send(request).await
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[tokio::test]
async fn the_first_visit_sets_the_password_and_the_name_once() {
    let (world, first) = fresh().await;
    let page = world.ask("GET", "/", None).await;
    assert!(text(&page).contains("name=\"first_password\""));
    assert!(!text(&page).contains(&first), "the page must not tell it");

    let wrong = set_up(&world, "guess", "my own password", "my own password", "").await;
    assert_eq!(wrong.status, 400);
    assert!(text(&wrong).contains("not the password that was shown"));
    let differ = set_up(&world, &first, "my own password", "another one", "").await;
    assert!(differ.status == 400 && text(&differ).contains("differ"));
    let short = set_up(&world, &first, "short", "short", "").await;
    assert!(short.status == 400 && text(&short).contains("too short"));
    let name = "n".repeat(64);
    let long = set_up(&world, &first, "my own password", "my own password", &name).await;
    assert!(long.status == 400 && text(&long).contains("63 bytes"), "{}", text(&long));

    let done = set_up(&world, &first, "my own password", "my own password", "Kitchen%3Cb%3E").await;
    assert_eq!((done.status.as_u16(), done.header("location")), (303, "/"));
    assert!(done.header("set-cookie").contains("HttpOnly"));
    assert_eq!(*world.api.name.borrow(), "Kitchen<b>");
    let page = text(&world.ask("GET", "/", None).await);
    assert!(page.contains("Kitchen&#60;b&#62;") && !page.contains("first_password"), "{page}");

    let peer = [192, 0, 2, 7].into();
    let email = &world.api.config.auth.admin_email;
    assert!(world.api.auth.login(email, &first, peer).await.is_err());
    world.api.auth.login(email, "my own password", peer).await.unwrap();
    let again = set_up(&world, &first, "a stranger's", "a stranger's", "").await;
    assert_eq!(again.status, 409);
}

#[tokio::test]
async fn a_stranger_has_few_guesses() {
    let (world, _) = fresh().await;
    for _ in 0..3 {
        assert_eq!(set_up(&world, "guess", "a stranger's", "a stranger's", "").await.status, 400);
    }
    let answer = set_up(&world, "guess", "a stranger's", "a stranger's", "").await;
    assert_eq!(answer.status, 429);
    assert!(text(&answer).contains("try again in"));
}

#[tokio::test]
async fn a_chosen_password_leaves_nothing_to_set_up() {
    let world = World::with(|config| {
        config.auth.admin_password = crate::config::Secret::new("chosen in the file");
    })
    .await;
    bootstrap_admin(world.api.store.as_ref(), &world.api.config, &world.clock).await.unwrap();
    assert!(!text(&world.ask("GET", "/", None).await).contains("first_password"));
    assert_eq!(set_up(&world, "", "a stranger's", "a stranger's", "").await.status, 409);
}
