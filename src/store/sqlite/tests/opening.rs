use std::os::unix::fs::PermissionsExt;

use crate::base::error::{Error, Kind, Result};
use crate::store::Users;
use crate::store::sqlite::testing::{Fixture, user};
use crate::store::sqlite::{Access, SqliteStore};

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let f = Fixture::new();
    f.user("a").await;
    let dir = f.dir.path().join("state");
    assert_eq!(mode(&dir), 0o700);
    for file in ["friend-lite.db", "friend-lite.db-wal", "lock"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_a_command_is_not() {
    let f = Fixture::new();
    let dir = f.dir.path().join("state");
    let Err(error) = SqliteStore::open(&dir, Access::Exclusive) else { panic!("two daemons") };
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("another friend-lite"), "{}", error.message());

    let command = SqliteStore::open(&dir, Access::Shared).unwrap();
    command.add_user(&user("added")).await.unwrap();
    assert!(f.store.user_by_email("added@example.com").await.unwrap().is_some());
    drop(command);

    f.reopened().await;
}

#[tokio::test]
async fn a_command_can_be_the_first_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let command = SqliteStore::open(dir.path(), Access::Shared).unwrap();
    command.add_user(&user("first")).await.unwrap();
    let daemon = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
    assert_eq!(daemon.users().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_database_is_durable_and_checks_its_references() {
    let f = Fixture::new();
    let pragma = |name: &'static str| {
        f.store.write(move |tx| {
            Ok(tx.pragma_query_value(None, name, |row| {
                row.get::<_, rusqlite::types::Value>(0).map(|value| format!("{value:?}"))
            })?)
        })
    };
    assert_eq!(pragma("journal_mode").await.unwrap(), "Text(\"wal\")");
    assert_eq!(pragma("synchronous").await.unwrap(), "Integer(2)");
    assert_eq!(pragma("foreign_keys").await.unwrap(), "Integer(1)");
}

#[tokio::test]
async fn readers_cannot_write() {
    let f = Fixture::new();
    let outcome = f.store.read(|db| Ok(db.execute("delete from users", [])?)).await;
    assert_eq!(outcome.unwrap_err().kind(), Kind::Storage);
}

#[tokio::test]
async fn a_panic_in_a_transaction_rolls_back_and_the_writer_lives_on() {
    let f = Fixture::new();
    let outcome: Result<()> = f
        .store
        .write(|tx| {
            tx.execute("insert into settings (key, value) values ('half', 'done')", [])?;
            panic!("a defect");
        })
        .await;
    assert_eq!(outcome.unwrap_err().kind(), Kind::Internal);
    assert_eq!(f.store.setting("half").await.unwrap(), None);
    assert_eq!(f.store.setting_or_insert("half", "again").await.unwrap(), "again");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_the_rest_is_not() {
    let f = Fixture::new();
    f.user("kept").await;
    let undone: Result<()> = f
        .store
        .write(|tx| {
            tx.execute("insert into settings (key, value) values ('torn', 'x')", [])?;
            Err(Error::new(Kind::Internal, "stopped half way"))
        })
        .await;
    assert!(undone.is_err());
    // Not awaited: dropping the store still carries out what was asked for.
    let store = f.store.clone();
    let asked = tokio::spawn(async move { store.setting_or_insert("queued", "yes").await });
    assert_eq!(asked.await.unwrap().unwrap(), "yes");

    let f = f.reopened().await;
    assert_eq!(f.store.users().await.unwrap().len(), 1);
    assert_eq!(f.store.setting("torn").await.unwrap(), None);
    assert_eq!(f.store.setting("queued").await.unwrap().as_deref(), Some("yes"));
    assert_eq!(
        f.number("select count(*) from pragma_integrity_check where integrity_check = 'ok'").await,
        1
    );
}

/// A copy of the files taken while the store is open is what a power cut leaves.
#[tokio::test]
async fn the_files_as_a_power_cut_leaves_them_open_again() {
    let f = Fixture::new();
    f.user("a").await;
    let copy = tempfile::tempdir().unwrap();
    for file in ["friend-lite.db", "friend-lite.db-wal"] {
        std::fs::copy(f.dir.path().join("state").join(file), copy.path().join(file)).unwrap();
    }
    // The last frame of the log is torn.
    let wal = copy.path().join("friend-lite.db-wal");
    let whole = std::fs::metadata(&wal).unwrap().len();
    f.user("b").await;
    let log = std::fs::read(f.dir.path().join("state/friend-lite.db-wal")).unwrap();
    let torn = (usize::try_from(whole).unwrap() + log.len()) / 2;
    std::fs::write(&wal, &log[..torn]).unwrap();

    let store = SqliteStore::open(copy.path(), Access::Exclusive).unwrap();
    let users = store.users().await.unwrap();
    assert_eq!(users.len(), 1);
    assert_eq!(users[0].email, "a@example.com");
}
