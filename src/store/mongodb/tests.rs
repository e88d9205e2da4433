//! The suite of the port on a real server, and what is MongoDB's own.

use super::testing::{config, open, service};
use super::{MongoStore, client};
use crate::base::error::Kind;
use crate::config::{Mongodb, Remote, Secret};
use crate::domain::job::{JobKind, Lane};
use crate::store::testing::{Fixture, at, window};
use crate::store::{Jobs, Users};

crate::store::tests::every_test!(crate::store::mongodb::MongoStore);

#[tokio::test]
async fn nodes_hold_their_own_leases_and_take_over_those_of_the_dead() {
    let f = Fixture::<MongoStore>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.close(&id, &[window(0), window(1)]).await;
    let here = &f.store;
    let there = open(here.inner.database.name(), "there").await.unwrap();
    let claim = async |store: &MongoStore| {
        store.claim_job(&[JobKind::Transcribe], Lane::Backlog, "w", at(9)).await.unwrap().unwrap()
    };
    here.heartbeat(at(9)).await.unwrap();
    there.heartbeat(at(9)).await.unwrap();
    let (ours, theirs) = (claim(here).await, claim(&there).await);
    // The same owner elsewhere is another.
    assert_eq!(here.take_back("w", at(10)).await.unwrap(), 1);
    assert_eq!(here.void_leases(false, at(10)).await.unwrap(), 0);
    assert_eq!(here.heartbeat(at(10)).await.unwrap(), 0);
    assert_ne!(ours.id, theirs.id);

    // The other is heard of for the last time two minutes ago, by the server.
    let past = vec![mongodb::bson::doc! { "$set": {
        "seen": { "$subtract": ["$$NOW", 120_000] },
    } }];
    let of = super::schema::NODES;
    let there_alone = mongodb::bson::doc! { "_id": "there" };
    steps!(here, |tx| tx.change(of, there_alone, past).await).await.unwrap();
    assert_eq!(here.heartbeat(at(11)).await.unwrap(), 1);
    let late = there.fail_job(theirs.lease(), "late", None, at(12)).await.unwrap_err();
    assert_eq!(late.kind(), Kind::Conflict);
    let again = [claim(here).await, claim(here).await];
    assert!(again.iter().any(|job| (job.id, job.epoch) == (theirs.id, theirs.epoch + 1)));
}

#[tokio::test]
async fn two_daemons_of_one_name_are_told() {
    let f = Fixture::<MongoStore>::open().await;
    let name = f.store.inner.database.name().to_owned();
    f.store.heartbeat(at(1)).await.unwrap();
    f.store.heartbeat(at(2)).await.unwrap();
    let restarted = open(&name, "here").await.unwrap();
    restarted.heartbeat(at(3)).await.unwrap();
    let error = f.store.heartbeat(at(4)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.message().contains("store.node"), "{error}");
}

#[tokio::test]
async fn opening_again_changes_nothing_and_a_newer_schema_is_refused() {
    let f = Fixture::<MongoStore>::open().await;
    f.user("anna").await;
    let name = f.store.inner.database.name().to_owned();
    assert_eq!(open(&name, "there").await.unwrap().users().await.unwrap().len(), 1);
    let newer = mongodb::bson::doc! { "$set": { "version": 99_i64 } };
    let meta = f.store.inner.database.collection::<mongodb::bson::Document>("fl_meta");
    let schema = mongodb::bson::doc! { "_id": "schema" };
    meta.update_one(schema.clone(), newer).await.unwrap();
    let error = open(&name, "here").await.err().unwrap();
    // Another test gets this database.
    meta.delete_one(schema).await.unwrap();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("install the newer"), "{error}");
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_told_without_its_password() {
    for uri in ["mongodb://anna:hush@ho st:x/", "anna:hush", "mongodb+srv://anna:hush@x.example"] {
        let config = Mongodb { uri: Secret::new(uri), ..Mongodb::default() };
        let error = client::connect(&config, &Remote::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.message().starts_with("mongodb.uri"), "{error}");
        assert!(!error.report().contains("hush"), "{}", error.report());
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_known_after_a_moment() {
    let uri = Secret::new("mongodb://127.0.0.1:9/?directConnection=true");
    let config = Mongodb { uri, ..config("none") };
    let began = std::time::Instant::now();
    let opened = MongoStore::open(&config, &Remote::default(), "here", service()).await;
    assert_eq!(opened.err().unwrap().kind(), Kind::Timeout);
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
}
