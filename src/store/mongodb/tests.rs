//! The suite of the port on a real server, and what is MongoDB's own.

use super::testing::{config, open, service};
use super::{MongoStore, client};
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::error::Kind;
use crate::config::{Mongodb, Remote, Secret};
use crate::index::Index;
use crate::store::sqlite::testing::Fixture as SqliteFixture;
use crate::store::testing::{Fixture, at, vector};
use crate::store::transfer::{RowKind, Transfer, transfer};
use crate::store::{KnownTime, Memories, Outbox, Timekeeping, Upkeep, Users};

crate::store::tests::every_test!(crate::store::mongodb::MongoStore);

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

/// Rows in every table, with everything in them that may be missing and is not.
const EVERYTHING: &str = r#"
    insert into users values
        ('u1', 'anna@example.com', 'hash', 'Anna "A" Ä', 1, 1, 0, 3, 10),
        ('u2', 'ben@example.com', 'hash', null, 1, 0, 1, 0, 10);
    insert into ended_tokens values ('t2', 'u1', 99), ('t1', 'u1', 98);
    insert into devices values ('c1', 'u1', 'phone', 1, 2), ('c2', 'u2', null, 1, 2);
    insert into settings values ('key', 'value');
    insert into audit (at, actor, action, subject) values
        (5, 'u1', 'login', 'u1'), (5, 'u1', 'login', 'u1'), (4, null, 'deleted', 'x');
    insert into conversations (id, user_id, client_id, audio_path, started_at, ended_at,
                               close_reason, samples, transcription, memory, error, title,
                               audio_deleted_at, time_estimated, summary, speakers)
    values ('k1', 'u1', 'c1', 'a.wav', 1, 9, 'silence', 64000, 'COMPLETED', 'COMPLETED', null,
            'Tea', null, 0, 'About tea', '["Anna","Ben"]'),
           ('k2', 'u1', 'c1', 'b.wav', 1, 8, 'audio-stop', 32000, 'PENDING', 'PENDING', 'away',
            null, 7, 1, null, '[]');
    insert into transcript_versions values
        ('k1', 1, 0, 'COMPLETED', 1, 9), ('k1', 2, 1, 'COMPLETED', 2, 9),
        ('k2', 1, 1, 'PENDING', 1, null);
    insert into windows (id, conversation_id, version, seq, spans, state, segments, engine) values
        (7, 'k1', 1, 0, '[{"start":0,"end":16000}]', 'done',
         '[{"start":0.1,"end":0.30000000000000004,"text":"one","confidence":0.87}]', 'whisper'),
        (8, 'k1', 2, 0, '[{"start":0,"end":9000},{"start":10000,"end":16000}]', 'done',
         '[{"start":0.1,"end":1.5,"text":"tea","speaker":"Anna","confidence":0.9,"words":[
            {"text":"tea","start":0.1,"end":1.5,"confidence":0.1}]}]', 'whisper'),
        (9, 'k1', 2, 1, '[{"start":16000,"end":32000}]', 'done', '[]', 'deepgram'),
        (40, 'k2', 1, 0, '[{"start":0,"end":8000}]', 'waiting', '[]', null);
    insert into memory_versions values
        ('k1', 1, 0, 1, 'COMPLETED', 'llm', 'v1', 1, 9, '["m9"]'),
        ('k1', 2, 1, 2, 'COMPLETED', null, null, 1, 9, '[]');
    insert into crops values ('k1', 'cropped_a.wav', '[{"start":0,"end":16000}]', 4),
                             ('k2', null, '[]', 4);
    insert into jobs (id, kind, window_id, conversation_id, unique_key, lane, state, attempts,
                      epoch, owner, run_at, last_error, created_at, updated_at) values
        (3, 'transcribe', 40, null, 'transcribe:40', 1, 'leased', 2, 5, 'w', 1, 'late', 1, 2),
        (90, 'crop', null, 'k1', 'crop:k1', 2, 'done', 1, 1, null, 1, null, 1, 2);
    insert into memories (seq, id, user_id, text, conversation_id, client_id, prompt_version,
                          created_at, updated_at, embedding, version) values
        (5, 'm1', 'u1', 'likes tea', 'k1', 'c1', 'v1', 3, 4, ?1, 2),
        (60, 'm2', 'u1', 'likes rain', null, null, '', 3, 4, ?2, 1);
    insert into shelved_memories (seq, id, user_id, text, conversation_id, version, client_id,
                                  prompt_version, created_at, updated_at, embedding,
                                  by_conversation, by_version) values
        (2, 'm3', 'u1', 'likes milk', 'k1', 1, 'c1', 'v1', 3, 4, ?1, null, null),
        (4, 'm9', 'u2', 'has a dog', null, 1, null, '', 3, 4, ?2, 'k1', 1);
    insert into memory_history (id, memory_id, user_id, event, old_text, new_text, at) values
        (1, 'm1', 'u1', 'ADD', null, 'likes tea', 3), (700, 'm0', 'u2', 'DELETE', 'old', null, 3);
    insert into memory_follower values ('index', 'qdrant somewhere');
    insert into memory_news (number, follower, memory_id) values (9, 'index', 'm2'),
                                                                 (30, 'index', 'gone');
    insert into chats values ('h1', 'u1', 'Tea?', 1, 2), ('h2', 'u1', 'Rain?', 1, 2);
    insert into chat_messages (id, chat_id, role, content, memories, at) values
        (6, 'h1', 'user', 'What do I like?', '[]', 1),
        (50, 'h1', 'assistant', 'Tea.', '["m1"]', 2);
    insert into upload_jobs (rowid, id, user_id, client_id, created_at) values
        (4, 'j1', 'u1', 'c1', 1);
    insert into uploads values
        ('j1', 0, 'a.mp3', 10, 'aa', 'spooled', 'recorded', 'k2', 0, 0.1, null, null, 1, null),
        ('j1', 1, 'b.mp3', 20, '', null, 'failed', null, 1, null, 'note', 'error', 1, 2);
    insert into deletions values ('old.wav', 5);
    insert into objects values ('a.wav', 10, 'ff', 6), ('b.wav', 0, '', null);
    insert into imported values ('conversation', 'k1', 'k1'), ('user', 'u0', 'u1'),
                                ('audio', 'k1', 'k1');
"#;

async fn filled() -> SqliteFixture {
    let f = SqliteFixture::new();
    f.store.bind_embedding("test-model", vector(0).len()).await.unwrap();
    let blob = |axis| crate::store::vectors::to_blob(&vector(axis));
    let fill = move |tx: &rusqlite::Transaction<'_>| {
        // Parameters are for one statement only.
        let literal = |axis| format!("x'{}'", hex::encode(blob(axis)));
        let sql = EVERYTHING.replace("?1", &literal(3)).replace("?2", &literal(4));
        tx.execute_batch(&sql)?;
        Ok(())
    };
    f.store.write(fill).await.unwrap();
    f.store.rebuild().await.unwrap();
    f
}

async fn all_rows(store: &dyn Transfer) -> Vec<Vec<crate::store::transfer::Row>> {
    let mut all = Vec::new();
    for of in RowKind::ALL {
        all.push(store.rows(of, None, 1000).await.unwrap());
    }
    all
}

#[tokio::test]
async fn everything_goes_to_mongodb_and_comes_back_the_same() {
    let (old, there) = (filled().await, Fixture::<MongoStore>::open().await);
    let known = KnownTime {
        at: at(5),
        boot: None,
        since_boot: Duration::ZERO,
        estimated_since: None,
        steady_since: at(0),
        history: Clock::simulated(at(0)).history(),
    };
    old.store.note_time(&known).await.unwrap();
    let before = all_rows(&old.store).await;
    for (of, rows) in RowKind::ALL.into_iter().zip(&before) {
        assert!(!rows.is_empty(), "no {}", of.as_str());
        assert_eq!(old.store.count_rows(of).await.unwrap(), rows.len() as u64, "{}", of.as_str());
    }

    let carried = transfer(&old.store, &there.store, |_, _| {}).await.unwrap();
    for (of, rows) in carried {
        assert_eq!(there.store.count_rows(of).await.unwrap(), rows, "{}", of.as_str());
    }
    assert_eq!(there.store.known_time().await.unwrap(), Some(known.clone()));
    let contradictions = old.store.contradictions().await.unwrap();
    assert_eq!(there.store.contradictions().await.unwrap(), contradictions);
    // Numbers go on after those that are taken.
    let tx = there.store.steps();
    assert_eq!(tx.number("jobs").await.unwrap(), 91);
    assert_eq!(tx.number("windows").await.unwrap(), 41);

    let back = SqliteFixture::new();
    transfer(&there.store, &back.store, |_, _| {}).await.unwrap();
    assert_eq!(all_rows(&back.store).await, before);
    assert_eq!(back.store.known_time().await.unwrap(), Some(known));
    assert_eq!(back.store.contradictions().await.unwrap(), contradictions);
    let user = crate::domain::ids::UserId::from_text("u1");
    for store in [&old.store, &back.store] {
        let found = Memories::search_text(store, &user, "tea", 5).await.unwrap();
        assert_eq!(found.len(), 1);
        let index = crate::index::sqlite_vec::SqliteVecIndex::new(store);
        assert_eq!(index.nearest(&user, &vector(4), 1).await.unwrap()[0].0.as_str(), "m2");
    }
    assert_eq!(back.store.embedding_width().await.unwrap(), Some(vector(0).len()));
}
