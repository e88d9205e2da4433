//! The schema, as numbered steps that only go forward.

use rusqlite::{Connection, TransactionBehavior};

use crate::base::error::{Error, Kind, Result};

/// Step n brings a database of version n - 1 to version n. Steps that have
/// shipped are never edited.
const STEPS: &[&str] = &[
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
    include_str!("migrations/0007.sql"),
    include_str!("migrations/0008.sql"),
    include_str!("migrations/0009.sql"),
    include_str!("migrations/0010.sql"),
    include_str!("migrations/0011.sql"),
    include_str!("migrations/0012.sql"),
];

/// Whether the schema is older than this program. `Conflict` when it is newer.
pub(super) fn pending(connection: &Connection) -> Result<bool> {
    Ok(version(connection)? < STEPS.len())
}

/// Whether no step has been taken yet.
pub(super) fn is_empty(connection: &Connection) -> Result<bool> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(version == 0)
}

/// Brings the schema up to date, each step in a transaction of its own.
///
/// A step may make a table anew: references to it are not followed meanwhile,
/// and all are checked before the step is committed.
pub(super) fn run(connection: &mut Connection) -> Result<()> {
    connection.pragma_update(None, "foreign_keys", false)?;
    while step(connection)? {}
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// Takes the next step; false when there is none.
fn step(connection: &mut Connection) -> Result<bool> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = version(&tx)?;
    let Some(step) = STEPS.get(done) else { return Ok(false) };
    tx.execute_batch(step)?;
    let dangling = tx.prepare("pragma foreign_key_check")?.exists([])?;
    if dangling {
        let message = format!("schema step {} leaves references to rows that are gone", done + 1);
        return Err(Error::new(Kind::Storage, message));
    }
    tx.pragma_update(None, "user_version", sql_version(done + 1))?;
    tx.commit()?;
    tracing::debug!(version = done + 1, "database schema brought up to date");
    Ok(true)
}

/// The version of the schema; 0 is an empty database.
pub(super) fn version(connection: &Connection) -> Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match usize::try_from(version) {
        Ok(known) if known <= STEPS.len() => Ok(known),
        _ => Err(Error::new(
            Kind::Conflict,
            format!(
                "the database has schema version {version}, and this friend-lite knows versions \
                 up to {}; install the newer friend-lite that wrote it",
                STEPS.len()
            ),
        )),
    }
}

fn sql_version(version: usize) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_once_and_refuses_a_newer_schema() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert!(pending(&connection).unwrap());
        run(&mut connection).unwrap();
        assert!(!pending(&connection).unwrap());
        run(&mut connection).unwrap();

        connection.pragma_update(None, "user_version", sql_version(STEPS.len() + 1)).unwrap();
        let error = pending(&connection).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.message().contains("install the newer"), "{}", error.message());
    }

    /// A row in every table that a schema has, the later ones where they are.
    fn fill(connection: &Connection, version: usize) {
        let mut sql = String::from(
            "insert into users values ('u', 'u@example.com', 'h', null, 1, 0, 1, 0, 0);
             insert into devices values ('c', 'u', 'phone', 1, 2);
             insert into settings values ('key', 'value');
             insert into audit (at, action, subject) values (1, 'login', 'u');
             insert into conversations
                 (id, user_id, client_id, audio_path, started_at, ended_at, close_reason, samples,
                  transcription, memory)
             values ('done', 'u', 'c', 'a.wav', 1, 9, 'silence', 64000, 'COMPLETED', 'COMPLETED'),
                    ('open', 'u', 'c', 'b.wav', 2, null, null, 32000, 'PENDING', 'PENDING');
             insert into memories (id, user_id, text, conversation_id, prompt_version,
                                   created_at, updated_at, embedding)
             values ('m', 'u', 'fact', 'done', '1', 3, 3, x'');
             insert into memory_history (memory_id, user_id, event, new_text, at)
             values ('m', 'u', 'ADD', 'fact', 3);
             insert into memories_fts (rowid, text) values (1, 'fact');",
        );
        sql += match version {
            1 => {
                "insert into windows (id, conversation_id, seq, spans, state, segments) values
                     (7, 'done', 0, '[{\"start\":0,\"end\":16000}]', 'done', '[1]'),
                     (9, 'open', 0, '[{\"start\":0,\"end\":8000}]', 'waiting', '[]');"
            }
            _ => {
                "insert into transcript_versions values
                     ('done', 1, 1, 'COMPLETED', 1, 9), ('open', 1, 1, 'PENDING', 2, null);
                 insert into windows (id, conversation_id, version, seq, spans, state, segments)
                 values (7, 'done', 1, 0, '[{\"start\":0,\"end\":16000}]', 'done', '[1]'),
                        (9, 'open', 1, 0, '[{\"start\":0,\"end\":8000}]', 'waiting', '[]');
                 insert into memory_versions (conversation_id, version, active,
                                              transcript_version, state, created_at)
                 values ('done', 1, 1, 1, 'COMPLETED', 1);
                 insert into shelved_memories (id, user_id, text, conversation_id, version,
                                               prompt_version, created_at, updated_at, embedding)
                 values ('s', 'u', 'shelved', 'done', 1, '1', 3, 3, x'');
                 insert into crops values ('done', 'cropped_done.wav', '[]', 4);"
            }
        };
        sql += "insert into jobs (kind, window_id, unique_key, lane, state, run_at, created_at,
                                  updated_at)
                values ('transcribe', 9, 'transcribe:9', 1, 'ready', 0, 0, 0);";
        let followed = if version < 10 {
            "insert into memory_follower values (1, 'an index');
             insert into memory_news (memory_id) values ('gone');"
        } else {
            "insert into memory_follower values ('index', 'an index');
             insert into memory_news (follower, memory_id) values ('index', 'gone');"
        };
        let later = [
            (3, "insert into ended_tokens values ('t', 'u', 99);"),
            (
                4,
                "insert into chats values ('t', 'u', 'A talk', 1, 2);
                 insert into chat_messages (chat_id, role, content, at)
                 values ('t', 'user', 'Hello', 1);",
            ),
            (
                5,
                "insert into upload_jobs values ('j', 'u', 'c', 1);
                 insert into uploads (job_id, seq, filename, bytes, sha256, state, duplicate)
                 values ('j', 0, 'talk.m4a', 5, '', 'done', 0);",
            ),
            (6, "insert into deletions values ('gone.wav', 1);"),
            (8, followed),
            (
                9,
                "insert into entities values ('e', 'u', 'berlin', 'Berlin', 'place'),
                                             ('f', 'u', 'max', 'Max', 'person');
                 insert into mentions values ('m', 'e'), ('m', 'f');
                 insert into relations (memory_id, subject_id, predicate, object_id)
                 values ('m', 'f', 'lives in', 'e');",
            ),
        ];
        for (since, more) in later {
            if version >= since {
                sql += more;
            }
        }
        connection.execute_batch(&sql).unwrap();
    }

    fn at_version(version: usize) -> Connection {
        super::super::vectors::register().unwrap();
        let connection = Connection::open_in_memory().unwrap();
        for step in &STEPS[..version] {
            connection.execute_batch(step).unwrap();
        }
        connection.pragma_update(None, "user_version", sql_version(version)).unwrap();
        connection
    }

    /// How many rows each table has.
    fn census(connection: &Connection) -> std::collections::BTreeMap<String, i64> {
        let tables = "select name from sqlite_schema where type = 'table'
                      and name not like 'sqlite_%' and name not like 'memories_fts_%'";
        let mut tables = connection.prepare(tables).unwrap();
        let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let count = |table: String| {
            let sql = format!("select count(*) from {table}");
            let rows = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
            (table, rows)
        };
        tables.map(|table| count(table.unwrap())).collect()
    }

    #[test]
    fn every_earlier_schema_comes_up_to_date_with_all_its_rows() {
        for version in 1..=STEPS.len() {
            let mut connection = at_version(version);
            fill(&connection, version);
            let before = census(&connection);
            run(&mut connection).unwrap();
            let after = census(&connection);
            for (table, rows) in &before {
                assert_eq!(after.get(table), Some(rows), "{table} of version {version}");
            }
            let text = |sql: &str| -> String {
                connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
            };
            assert_eq!(text("pragma integrity_check"), "ok", "version {version}");
            let figures = "select group_concat(id || transcribed || '/' || waiting, ' ')
                           from (select * from conversations order by id)";
            assert_eq!(text(figures), "done16000/0 open0/8000", "version {version}");
            let windows = "select group_concat(id || ':' || version || segments, ' ') from windows";
            assert_eq!(text(windows), "7:1[1] 9:1[]", "version {version}");
            assert_eq!(text("select text from memories"), "fact", "version {version}");
            let dangling = connection.prepare("pragma foreign_key_check").unwrap().exists([]);
            assert!(!dangling.unwrap(), "version {version}");
        }
    }

    #[test]
    fn the_database_from_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        super::super::vectors::register().unwrap();
        let older = Connection::open(dir.path().join("friend-lite.db")).unwrap();
        for step in &STEPS[..3] {
            older.execute_batch(step).unwrap();
        }
        older.pragma_update(None, "user_version", 3).unwrap();
        fill(&older, 3);
        let before = census(&older);
        drop(older);
        use crate::store::sqlite::{Access, SqliteStore};
        drop(SqliteStore::open(dir.path(), Access::Exclusive).unwrap());
        let kept = Connection::open(dir.path().join("friend-lite.schema-0003.db")).unwrap();
        assert_eq!((version(&kept).unwrap(), census(&kept)), (3, before));
        drop(SqliteStore::open(dir.path(), Access::Exclusive).unwrap());
        let copies = std::fs::read_dir(dir.path()).unwrap().flatten();
        let copies = copies.filter(|e| e.file_name().to_string_lossy().contains("schema"));
        assert_eq!(copies.count(), 1, "nothing is copied when nothing changes");
    }

    #[test]
    fn what_an_older_version_wrote_is_kept() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(STEPS[0]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        connection
            .execute_batch(
                "insert into users values ('u', 'u@example.com', 'h', null, 1, 0, 1, 0, 0);
                 insert into conversations values
                     ('done', 'u', 'c', 'a.wav', 1, 9, 'silence', 5, 'COMPLETED', 'COMPLETED', null, null),
                     ('open', 'u', 'c', 'b.wav', 2, null, null, 5, 'PENDING', 'PENDING', null, null);
                 insert into windows (id, conversation_id, seq, spans, state, segments) values
                     (7, 'done', 0, '[]', 'done', '[1]'), (9, 'open', 0, '[]', 'waiting', '[]');
                 insert into jobs (kind, window_id, unique_key, lane, state, run_at, created_at, updated_at)
                     values ('transcribe', 9, 'transcribe:9', 1, 'ready', 0, 0, 0);
                 insert into memories (id, user_id, text, conversation_id, prompt_version,
                                       created_at, updated_at, embedding)
                     values ('m', 'u', 'fact', 'done', '1', 3, 3, x'');",
            )
            .unwrap();
        run(&mut connection).unwrap();

        let text = |sql: &str| -> String {
            connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
        };
        let list = "select group_concat(id || ':' || version || ':' || seq || ':' || segments, ' ')
                    from windows";
        assert_eq!(text(list), "7:1:0:[1] 9:1:0:[]");
        assert_eq!(text("select group_concat(window_id, ' ') from jobs"), "9");
        let versions = "select group_concat(conversation_id || version || active || state, ' ')";
        assert_eq!(
            text(&format!("{versions} from transcript_versions")),
            "done11COMPLETED open11PENDING"
        );
        assert_eq!(text(&format!("{versions} from memory_versions")), "done11COMPLETED");
        assert_eq!(text("select id || version from memories"), "m1");
        assert_eq!(text("select cast(foreign_keys as text) from pragma_foreign_keys"), "1");
    }
}
