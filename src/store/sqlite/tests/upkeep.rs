use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::store::sqlite::testing::{Fixture, add, at, directory, user};
use crate::store::sqlite::{Access, SqliteStore};
use crate::store::{Follower, Outbox, Upkeep, Users};

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Writes over pages in the middle of a database.
fn damage(path: &Path) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(4096 + 100)).unwrap();
    file.write_all(&[0x55; 64 * 1024]).unwrap();
}

fn recover(dir: &Path, copies: &[PathBuf], always: bool) -> SqliteStore {
    SqliteStore::open_or_recover(dir, copies.to_vec(), always, at(0)).unwrap()
}

async fn emails(store: &SqliteStore) -> Vec<String> {
    store.users().await.unwrap().into_iter().map(|user| user.email).collect()
}

/// A closed database with user `a`, and a log as a crash leaves one.
async fn crashed(f: Fixture) -> tempfile::TempDir {
    f.user("a").await;
    let Fixture { store, dir } = f;
    let log = std::fs::read(dir.path().join("state/friend-lite.db-wal")).unwrap();
    drop(store);
    std::fs::write(dir.path().join("state/friend-lite.db-wal"), log).unwrap();
    dir
}

#[tokio::test]
async fn a_whole_database_is_kept_however_it_was_left() {
    let dir = crashed(Fixture::new()).await;
    for always in [false, true] {
        let store = recover(&dir.path().join("state"), &[], always);
        assert_eq!(emails(&store).await, ["a@example.com"]);
    }
    assert_eq!(SqliteStore::damage(&dir.path().join("state")).unwrap(), []);
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_the_newest_whole_copy_takes_its_place() {
    let dir = crashed(Fixture::new()).await;
    let state = dir.path().join("state");
    let older = Fixture::new();
    older.user("older").await;
    let newer = Fixture::new();
    newer.user("newer").await;
    let copies: Vec<PathBuf> = [older, newer]
        .into_iter()
        .enumerate()
        .map(|(n, Fixture { store, dir: from })| {
            drop(store);
            let copy = dir.path().join(format!("{n}.db"));
            std::fs::copy(from.path().join("state/friend-lite.db"), &copy).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(n as u64 + 1);
            std::fs::File::open(&copy).unwrap().set_modified(time).unwrap();
            copy
        })
        .collect();
    let broken = dir.path().join("broken.db");
    std::fs::write(&broken, b"no database at all, though it is the newest").unwrap();

    damage(&state.join("friend-lite.db"));
    // The log would make good what is damaged: it has all pages.
    std::fs::write(state.join("friend-lite.db-wal"), [0x55; 4096]).unwrap();
    assert!(!SqliteStore::damage(&state).unwrap().is_empty());
    let all = [copies[0].clone(), copies[1].clone(), broken];
    let store = recover(&state, &all, false);
    assert_eq!(emails(&store).await, ["newer@example.com"]);
    let aside = "friend-lite.damaged-20250722T131320Z.db";
    let names = files(&state);
    assert!(names.contains(&aside.into()) && names.contains(&format!("{aside}-wal")), "{names:?}");

    // With none that is whole, a new one is begun; the second set aside has a
    // name of its own.
    drop(store);
    damage(&state.join("friend-lite.db"));
    let store = recover(&state, &all[2..], true);
    assert!(emails(&store).await.is_empty());
    assert!(files(&state).contains(&"friend-lite.damaged-20250722T131320Z-2.db".into()));
}

#[tokio::test]
async fn a_log_whose_database_was_set_aside_is_not_taken_for_the_next_ones() {
    let dir = crashed(Fixture::new()).await;
    let state = dir.path().join("state");
    std::fs::remove_file(state.join("friend-lite.db")).unwrap();
    let store = recover(&state, &[], false);
    assert!(emails(&store).await.is_empty());
    assert!(files(&state).contains(&"friend-lite.damaged-20250722T131320Z.db-wal".into()));
}

#[tokio::test]
async fn a_command_that_looks_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(SqliteStore::open(dir.path(), Access::Look).is_err());
    assert!(SqliteStore::damage(dir.path()).is_err());
    assert!(files(dir.path()).is_empty());
    let f = Fixture::new();
    assert!(SqliteStore::is_held(&f.dir.path().join("state")).unwrap());
    let looking = SqliteStore::open(&f.dir.path().join("state"), Access::Look).unwrap();
    drop(f.store);
    looking.add_user(&user("a")).await.unwrap();
    assert!(!SqliteStore::is_held(&f.dir.path().join("state")).unwrap());
}

#[tokio::test]
async fn a_copy_is_kept_before_the_schema_changes() {
    let f = Fixture::new();
    f.user("a").await;
    let Fixture { store, dir } = f;
    let state = dir.path().join("state");
    drop(store);
    let database = rusqlite::Connection::open(state.join("friend-lite.db")).unwrap();
    for version in [3, 5, 6] {
        crate::store::sqlite::copies::keep(&database, &state, version).unwrap();
    }
    drop(database);
    let kept: Vec<String> =
        files(&state).into_iter().filter(|name| name.contains("schema")).collect();
    assert_eq!(kept, ["friend-lite.schema-0005.db", "friend-lite.schema-0006.db"]);
    // They are databases of their own, and stand in for a damaged one.
    damage(&state.join("friend-lite.db"));
    let store = recover(&state, &[], true);
    assert_eq!(emails(&store).await, ["a@example.com"]);
}

#[tokio::test]
async fn a_database_that_has_lost_its_log_with_everything_is_no_new_one() {
    let f = Fixture::new();
    f.user("a").await;
    let state = f.dir.path().join("state");
    let copy = f.dir.path().join("copy.db");
    // All of it is in the log still, and that goes.
    let lost = std::fs::read(state.join("friend-lite.db")).unwrap();
    let Fixture { store, dir: _kept } = f;
    drop(store);
    std::fs::copy(state.join("friend-lite.db"), &copy).unwrap();
    std::fs::write(state.join("friend-lite.db"), lost).unwrap();
    assert!(!SqliteStore::damage(&state).unwrap().is_empty());
    let store = recover(&state, &[copy], false);
    assert_eq!(emails(&store).await, ["a@example.com"]);
}

#[tokio::test]
async fn a_copy_is_followed_by_nobody() {
    let f = Fixture::new();
    let anna = f.user("anna").await;
    f.remember(&anna, &[add("a fact", 1)]).await;
    f.store.follow_memories(Follower::Index, Some("there"), false).await.unwrap();
    let place = directory();
    f.store.back_up(&place.path().join("friend-lite.db")).await.unwrap();
    let copy = SqliteStore::open(place.path(), Access::Exclusive).unwrap();
    assert!(copy.memory_news(Follower::Index, 100).await.unwrap().is_empty());
    assert!(copy.follow_memories(Follower::Index, Some("there"), false).await.unwrap());
    assert_eq!(copy.memory_news(Follower::Index, 100).await.unwrap().len(), 1);
    assert!(!f.store.follow_memories(Follower::Index, Some("there"), false).await.unwrap());
}
