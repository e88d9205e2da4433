//! A SQLite store for tests, in a directory of its own.

use std::path::Path;

use super::{Access, SqliteStore};
use crate::domain::job::JobKind;
use crate::index::Index;
use crate::index::sqlite_vec::SqliteVecIndex;
use crate::store::testing::{Rows, Tested};

pub(crate) use crate::store::testing::{
    WIDTH, add, at, conversation, directory, unit, user, vector, window,
};

pub(crate) type Fixture = crate::store::testing::Fixture<SqliteStore>;

fn open(place: &Path) -> SqliteStore {
    SqliteStore::open(&place.join("state"), Access::Exclusive).unwrap()
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = directory();
        let store = open(dir.path());
        Self { store, dir }
    }

    /// Runs a query that gives one number, on the database itself.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        number(&self.store, sql).await
    }
}

async fn number(store: &SqliteStore, sql: &'static str) -> i64 {
    store.read(move |db| Ok(db.query_row(sql, [], |row| row.get(0))?)).await.unwrap()
}

impl Tested for SqliteStore {
    const NAME: &str = "sqlite";

    async fn open_at(place: &Path) -> Self {
        open(place)
    }

    fn index(&self) -> impl Index {
        SqliteVecIndex::new(self)
    }

    async fn count(&self, rows: Rows) -> u64 {
        let sql = match rows {
            Rows::Conversations => "select count(*) from conversations",
            Rows::Windows => "select count(*) from windows",
            Rows::Jobs => "select count(*) from jobs",
            Rows::Memories => "select count(*) from memories",
            Rows::Tea => "select count(*) from memories_fts where memories_fts match 'tea'",
            Rows::Vectors => "select count(*) from memory_vectors",
            Rows::History => "select count(*) from memory_history",
            Rows::Shelved => "select count(*) from shelved_memories",
            Rows::EndedTokens => "select count(*) from ended_tokens",
        };
        u64::try_from(number(self, sql).await).unwrap()
    }

    async fn actions(&self) -> Vec<String> {
        self.read(|db| {
            let mut statement = db.prepare("select action from audit order by id")?;
            let actions = statement.query_map([], |row| row.get(0))?;
            Ok(actions.collect::<Result<_, _>>()?)
        })
        .await
        .unwrap()
    }

    async fn lose_jobs(&self, kind: JobKind) {
        let sql = "delete from jobs where kind = ?1";
        self.write(move |tx| Ok(tx.execute(sql, [kind.as_str()])?)).await.unwrap();
    }

    async fn unsettle_transcripts(&self) {
        let sql = "update transcript_versions set state = 'PENDING'";
        self.write(move |tx| Ok(tx.execute(sql, [])?)).await.unwrap();
    }
}
