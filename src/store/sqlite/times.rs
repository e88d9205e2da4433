//! The last known time, and putting times right after the clock was set.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::{SqliteStore, rows};
use crate::base::clock::{Step, Timestamp};
use crate::base::error::{Context, Kind, Result};
use crate::store::{KnownTime, Timekeeping};

/// The setting that holds the last known time, as JSON.
const KNOWN: &str = "known_time";

/// Where times that have been are kept. What is still to come is in [`AHEAD`].
const PAST: &[(&str, &[&str])] = &[
    ("users", &["created_at"]),
    ("devices", &["first_seen", "last_seen"]),
    ("audit", &["at"]),
    ("conversations", &["started_at", "ended_at", "audio_deleted_at"]),
    ("jobs", &["created_at", "updated_at"]),
    ("memories", &["created_at", "updated_at"]),
    ("memory_history", &["at"]),
    ("shelved_memories", &["created_at", "updated_at"]),
    ("transcript_versions", &["created_at", "completed_at"]),
    ("memory_versions", &["created_at", "completed_at"]),
    ("crops", &["at"]),
    ("chats", &["created_at", "updated_at"]),
    ("chat_messages", &["at"]),
    ("upload_jobs", &["created_at"]),
    ("uploads", &["started_at", "ended_at"]),
    ("deletions", &["at"]),
    ("objects", &["verified_at"]),
];

/// Where times that are to come are kept.
const AHEAD: &[(&str, &str)] = &[("jobs", "run_at"), ("ended_tokens", "expires_at")];

#[async_trait]
impl Timekeeping for SqliteStore {
    async fn known_time(&self) -> Result<Option<KnownTime>> {
        let text: Option<String> = self
            .read(|db| {
                let sql = "select value from settings where key = ?1";
                rows::first(db, sql, [KNOWN], |row| row.get(0))
            })
            .await?;
        // One that cannot be read is as good as none.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn note_time(&self, known: &KnownTime) -> Result<()> {
        let known = known.clone();
        self.write(move |tx| note(tx, &known)).await
    }

    async fn clock_stepped(
        &self,
        step: Step,
        since: Option<Timestamp>,
        known: &KnownTime,
    ) -> Result<usize> {
        let known = known.clone();
        self.write(move |tx| {
            let mut corrected = 0;
            if let Some(since) = since {
                for (table, columns) in PAST {
                    for column in *columns {
                        move_past(tx, table, column, since, step)?;
                    }
                }
                corrected = rows::run(
                    tx,
                    "update conversations set time_estimated = 0
                     where time_estimated and started_at between ?1 and ?2",
                    params![since.moved(step.by() - HELD).millis(), step.to.millis()],
                )?;
            }
            for (table, column) in AHEAD {
                let sql = format!("update {table} set {column} = {column} + ?1");
                rows::run(tx, &sql, [step.by()])?;
            }
            note(tx, &known)?;
            Ok(corrected)
        })
        .await
    }
}

/// A conversation begins up to so many milliseconds before it is opened: with
/// what was held from before the first speech.
const HELD: i64 = 60_000;

fn move_past(
    tx: &Connection,
    table: &str,
    column: &str,
    since: Timestamp,
    step: Step,
) -> Result<usize> {
    let held = if (table, column) == ("conversations", "started_at") { HELD } else { 0 };
    // What is older than the estimate was written when the time was known.
    let known = if held > 0 { " and time_estimated" } else { "" };
    let sql = format!(
        "update {table} set {column} = {column} + ?1 where {column} between ?2 and ?3{known}"
    );
    let (since, until) = (since.moved(-held).millis(), step.from.millis());
    rows::run(tx, &sql, params![step.by(), since, until])
}

fn note(tx: &Connection, known: &KnownTime) -> Result<()> {
    let text = serde_json::to_string(known).context(Kind::Internal, "cannot note the time")?;
    let sql = "insert into settings (key, value) values (?1, ?2)
               on conflict do update set value = excluded.value";
    rows::run(tx, sql, [KNOWN, &text])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::testing::Fixture;

    #[tokio::test]
    async fn every_time_in_the_schema_is_carried_over_a_step() {
        let fixture = Fixture::new();
        let columns: Vec<(String, String)> = fixture
            .store
            .read(|db| {
                rows::all(
                    db,
                    "select t.name, c.name from sqlite_schema t, pragma_table_info(t.name) c
                     where t.type = 'table' and c.type = 'INTEGER'
                       and (c.name in ('at', 'first_seen', 'last_seen') or c.name like '%\\_at' escape '\\')",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
            })
            .await
            .unwrap();
        assert!(columns.len() > 20, "{columns:?}");
        for (table, column) in &columns {
            let past = PAST.iter().any(|(t, c)| t == table && c.contains(&column.as_str()));
            let ahead = AHEAD.iter().any(|(t, c)| t == table && c == column);
            assert!(past != ahead, "{table}.{column} is in one of the two lists");
        }
        for (table, names) in PAST {
            for name in *names {
                assert!(columns.iter().any(|(t, c)| t == table && c == name), "{table}.{name}");
            }
        }
    }
}
