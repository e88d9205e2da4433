//! Several nodes on one database.

use std::time::Duration;

use mongodb::bson::doc;

use super::testing::open;
use super::{Beat, MongoStore};
use crate::base::error::Kind;
use crate::domain::client::{ClientView, CurrentConversation};
use crate::domain::ids::ClientId;
use crate::domain::job::{Job, JobKind, Lane, Payload};
use crate::domain::object::Object;
use crate::domain::version::Transcribed;
use crate::store::testing::{Fixture, at, conversation, segment, window};
use crate::store::tests::times::{known, step};
use crate::store::{Audio, Conversations, JobQuery, Jobs, Nodes, Timekeeping, Upkeep, Versions};

#[tokio::test]
async fn nodes_hold_their_own_leases_and_take_over_those_of_the_dead() {
    let f = Fixture::<MongoStore>::open().await;
    let anna = f.user("anna").await;
    for _ in 0..2 {
        let id = f.opened(&anna).await;
        f.close(&id, &[]).await;
    }
    let here = &f.store;
    let there = open(here.inner.database.name(), "there").await.unwrap();
    let claim = async |store: &MongoStore| {
        store.claim_job(&[JobKind::Finish], Lane::Backlog, "w", at(9)).await.unwrap().unwrap()
    };
    here.heartbeat(beat(&[]), at(9)).await.unwrap();
    there.heartbeat(beat(&[]), at(9)).await.unwrap();
    let (ours, theirs) = (claim(here).await, claim(&there).await);
    // The same owner elsewhere is another.
    assert_eq!(here.take_back("w", at(10)).await.unwrap(), 1);
    assert_eq!(here.void_leases(false, at(10)).await.unwrap(), 0);
    assert_eq!(here.heartbeat(beat(&[]), at(10)).await.unwrap(), 0);
    assert_ne!(ours.id, theirs.id);

    silence(here, "there").await;
    assert_eq!(here.heartbeat(beat(&[]), at(11)).await.unwrap(), 1);
    let late = there.fail_job(theirs.lease(), "late", None, at(12)).await.unwrap_err();
    assert_eq!(late.kind(), Kind::Conflict);
    let again = [claim(here).await, claim(here).await];
    assert!(again.iter().any(|job| (job.id, job.epoch) == (theirs.id, theirs.epoch + 1)));
}

fn beat(clients: &[ClientView]) -> Beat<'_> {
    Beat { silence: Duration::from_secs(60), url: "http://here:8000", clients }
}

/// Has a node not be heard of any more.
async fn silence(store: &MongoStore, node: &str) {
    let past = vec![doc! { "$set": { "lives_until": { "$subtract": ["$$NOW", 1] } } }];
    let of = super::schema::NODES;
    steps!(store, |tx| tx.change(of, doc! { "_id": node }, past).await).await.unwrap();
}

#[tokio::test]
async fn a_step_of_the_clock_of_one_node_leaves_the_times_of_others() {
    let f = Fixture::<MongoStore>::open().await;
    let user = f.user("anna").await;
    let here = &f.store;
    let there = open(here.inner.database.name(), "there").await.unwrap();
    here.heartbeat(beat(&[]), at(9)).await.unwrap();
    there.heartbeat(beat(&[]), at(9)).await.unwrap();
    let mut times = Vec::new();
    for store in [here, &there] {
        let mut one = conversation(&user);
        (one.started_at, one.time_estimated) = (at(60), true);
        store.open_conversation(&one).await.unwrap();
        times.push(one);
    }
    let step = step(90);
    assert_eq!(here.clock_stepped(step, Some(at(30)), &known(step.to)).await.unwrap(), 1);
    let (ours, theirs) = (f.get(&times[0].id).await, f.get(&times[1].id).await);
    assert_eq!((ours.started_at, ours.time_estimated), (at(60).moved(step.by()), false));
    assert_eq!((theirs.started_at, theirs.time_estimated), (at(60), true));
    assert_eq!(there.known_time().await.unwrap(), None);
}

#[tokio::test]
async fn two_daemons_of_one_name_are_told() {
    let f = Fixture::<MongoStore>::open().await;
    let name = f.store.inner.database.name().to_owned();
    f.store.heartbeat(beat(&[]), at(1)).await.unwrap();
    f.store.heartbeat(beat(&[]), at(2)).await.unwrap();
    let restarted = open(&name, "here").await.unwrap();
    restarted.heartbeat(beat(&[]), at(3)).await.unwrap();
    let error = f.store.heartbeat(beat(&[]), at(4)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.message().contains("store.node"), "{error}");
}

/// A store of the same database, as the node of that name has it.
async fn node(f: &Fixture<MongoStore>, name: &str) -> MongoStore {
    let store = open(f.store.inner.database.name(), name).await.unwrap();
    store.heartbeat(beat(&[]), at(1)).await.unwrap();
    store
}

async fn claim(store: &MongoStore, kind: JobKind) -> Option<Job> {
    let claimed = store.claim_job(&[kind], Lane::Backlog, "w", at(9)).await.unwrap();
    let next = store.next_due(&[kind], Lane::Backlog).await.unwrap();
    assert!(claimed.is_some() || next.is_none(), "not given out, and yet due");
    claimed
}

#[tokio::test]
async fn a_job_is_done_where_the_audio_is_until_that_is_in_the_bucket() {
    let f = Fixture::<MongoStore>::open().await;
    let (here, there) = (&f.store, node(&f, "there").await);
    here.heartbeat(beat(&[]), at(1)).await.unwrap();
    let id = f.opened(&f.user("anna").await).await;
    f.add_window(&id, 0).await;
    f.close(&id, &[window(1)]).await;
    here.crop_again(&id, at(4)).await.unwrap();
    assert_eq!(there.recorded_elsewhere(&id).await.unwrap().as_deref(), Some("here"));
    assert_eq!(here.recorded_elsewhere(&id).await.unwrap(), None);
    assert!(claim(&there, JobKind::Transcribe).await.is_none());
    // A node that is away takes them along, and that is shown.
    silence(here, "here").await;
    let (jobs, _) = there.jobs(JobQuery { limit: 9, ..JobQuery::default() }).await.unwrap();
    let waits: Vec<_> = jobs.iter().map(|job| job.waits_for.as_deref()).collect();
    assert_eq!(waits, [Some("here"); 3]);
    there.heartbeat(beat(&[]), at(5)).await.unwrap();
    assert!(claim(&there, JobKind::Transcribe).await.is_none());
    assert_eq!(there.requeue_lost(at(5)).await.unwrap(), 0);

    // Here it is done; given back, or given up, it waits here again.
    here.heartbeat(beat(&[]), at(6)).await.unwrap();
    let first = claim(here, JobKind::Transcribe).await.unwrap();
    here.fail_job(first.lease(), "no", None, at(7)).await.unwrap();
    here.retry_job(first.id, at(8)).await.unwrap();
    assert!(claim(&there, JobKind::Transcribe).await.is_none());
    let name = here.conversation(&id).await.unwrap().unwrap().audio_path;
    here.begin_object(&name).await.unwrap();
    assert!(claim(&there, JobKind::Transcribe).await.is_none(), "it is not seen to be there");
    let verified_at = Some(at(8));
    let object = Object { name, bytes: 1, sha256: String::new(), verified_at };
    assert!(here.complete_object(&object, at(8)).await.unwrap());
    let taken =
        [claim(&there, JobKind::Transcribe).await, claim(&there, JobKind::Transcribe).await];
    assert!(taken.iter().all(Option::is_some));
    // What makes a file makes it beside the others.
    assert!(claim(&there, JobKind::Crop).await.is_none());
    assert!(claim(here, JobKind::Crop).await.is_some());
    for job in taken.iter().flatten() {
        let Payload::Window(window) = job.payload else { panic!("{job:?}") };
        let (lease, segments) = (job.lease(), vec![segment("tea")]);
        let result = Transcribed { lease, window, segments, engine: "e".into() };
        there.complete_windows(&[result], at(9)).await.unwrap();
    }
    // And so does a new transcript.
    assert!(claim(&there, JobKind::Finish).await.is_some());
    let other = f.opened(&f.user("ben").await).await;
    f.close(&other, &[window(0)]).await;
    assert!(claim(&there, JobKind::Transcribe).await.is_none());
    f.transcribe("coffee").await;
    f.finish().await;
    here.reprocess_transcript(&other, at(9)).await.unwrap();
    assert!(claim(&there, JobKind::Transcribe).await.is_none());
}

#[tokio::test]
async fn only_one_node_at_a_time_learns_about_a_user() {
    let f = Fixture::<MongoStore>::open().await;
    let there = node(&f, "there").await;
    let (anna, ben) = (f.user("anna").await, f.user("ben").await);
    let mut ids = Vec::new();
    for user in [&anna, &anna, &ben] {
        let id = f.opened(user).await;
        f.close(&id, &[]).await;
        f.finish().await;
        ids.push(id);
    }
    let (one, two) = tokio::join!(claim(&f.store, JobKind::Remember), async {
        there.claim_job(&[JobKind::Remember], Lane::Backlog, "w", at(9)).await.unwrap()
    });
    let of = |job: &Job| job.payload.clone();
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!([&one, &two].iter().any(|job| of(job) == Payload::Conversation(ids[2].clone())));
    assert!(claim(&there, JobKind::Remember).await.is_none());
    for job in [one, two] {
        f.store.fail_job(job.lease(), "no", None, at(9)).await.unwrap();
    }
    assert!(claim(&there, JobKind::Remember).await.is_some());
}

#[tokio::test]
async fn nodes_tell_who_is_connected_and_close_what_they_are_asked_to() {
    let f = Fixture::<MongoStore>::open().await;
    let there = node(&f, "there").await;
    let anna = f.user("anna").await;
    let id = f.opened(&anna).await;
    let client = ClientView {
        client_id: ClientId::for_device(&anna.id, Some("phone"), 1),
        user_id: anna.id.clone(),
        device_name: Some("$phone".into()),
        connected: true,
        connected_at: at(1),
        last_audio_at: Some(at(2)),
        conversation: Some(CurrentConversation { id: id.clone(), started_at: at(1), windows: 3 }),
        conversation_count: 1,
    };
    let clients = std::slice::from_ref(&client);
    f.store.heartbeat(beat(clients), at(3)).await.unwrap();
    assert_eq!(there.clients_elsewhere().await.unwrap(), clients);
    assert!(f.store.clients_elsewhere().await.unwrap().is_empty(), "they are its own");
    let url = there.node_with(&client.client_id).await.unwrap();
    assert_eq!(url.as_deref(), Some("http://here:8000"));
    assert_eq!(f.store.node_with(&client.client_id).await.unwrap(), None);

    assert!(!f.store.ask_to_close(&id).await.unwrap(), "it is its own");
    assert!(there.ask_to_close(&id).await.unwrap() && there.ask_to_close(&id).await.unwrap());
    // A beat in between takes nothing away.
    f.store.heartbeat(beat(clients), at(4)).await.unwrap();
    assert!(there.asked_to_close().await.unwrap().is_empty());
    assert_eq!(f.store.asked_to_close().await.unwrap(), std::slice::from_ref(&id));
    assert!(f.store.asked_to_close().await.unwrap().is_empty());

    silence(&there, "here").await;
    assert!(there.clients_elsewhere().await.unwrap().is_empty());
    assert_eq!(there.node_with(&client.client_id).await.unwrap(), None);
    assert!(!there.ask_to_close(&id).await.unwrap(), "nobody would do it");
    f.close(&id, &[]).await;
    f.store.heartbeat(beat(&[]), at(5)).await.unwrap();
    assert!(!there.ask_to_close(&id).await.unwrap(), "it is closed");
}
