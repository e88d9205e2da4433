//! Looking after the database itself: where it contradicts itself, and making
//! again what can be made from the rest.

use std::path::Path;

use async_trait::async_trait;
use rusqlite::{Connection, Transaction, params};

use super::queue::enqueue;
use super::{SqliteStore, conversations, copies, deletions, rows, vectors};
use crate::base::clock::Timestamp;
use crate::base::error::Result;
use crate::domain::finding::{Fault, Finding};
use crate::domain::ids::{ConversationId, UserId};
use crate::domain::job::{JobKind, Lane, NewJob, Payload};
use crate::store::{Nodes, Upkeep};

/// Conversations whose figures are not those of their windows.
const MISCOUNTED: &str = "conversations c left join speech s on s.conversation_id = c.id
    where (c.transcribed, c.waiting, c.failed) <>
          (coalesce(s.transcribed, 0), coalesce(s.waiting, 0), coalesce(s.failed, 0))";

/// Nobody else has its database.
impl Nodes for SqliteStore {}

#[async_trait]
impl Upkeep for SqliteStore {
    async fn back_up(&self, to: &Path) -> Result<()> {
        let to = to.to_owned();
        self.read(move |db| copies::copy(db, &to)).await
    }

    async fn contradictions(&self) -> Result<Vec<Finding>> {
        self.read(|db| {
            // One transaction, so that all of it is of one moment.
            let tx = db.unchecked_transaction()?;
            let mut found = references(&tx)?;
            found.extend(jobs(&tx)?);
            found.extend(figures(&tx)?);
            found.extend(memories(&tx)?);
            Ok(found)
        })
        .await
    }

    async fn rebuild(&self) -> Result<usize> {
        self.write(|tx| {
            let wrong: Vec<i64> = unindexed(tx)?
                .into_iter()
                .map(|(seq, ..)| seq)
                .chain(leftovers(tx)?.into_iter().map(|(seq, _)| seq))
                .collect();
            wrong.iter().try_for_each(|seq| index_again(tx, *seq))?;
            let recounted = tx.execute(
                &format!(
                    "update conversations set (transcribed, waiting, failed) = (
                         select coalesce(max(s.transcribed), 0), coalesce(max(s.waiting), 0),
                                coalesce(max(s.failed), 0)
                         from speech s where s.conversation_id = conversations.id)
                     where id in (select c.id from {MISCOUNTED})"
                ),
                [],
            )?;
            Ok(wrong.len() + recounted)
        })
        .await
    }

    async fn rename_recording(&self, id: &ConversationId, from: &str, to: &str) -> Result<bool> {
        let (id, from, to) = (id.clone(), from.to_owned(), to.to_owned());
        self.write(move |tx| {
            if deletions::is_noted(tx, &to)? {
                return Ok(false);
            }
            let sql = "update conversations set audio_path = ?3 where id = ?1 and audio_path = ?2";
            Ok(rows::run(tx, sql, params![id.as_str(), from, to])? > 0)
        })
        .await
    }

    async fn crops(&self) -> Result<Vec<(ConversationId, String)>> {
        self.read(|db| {
            let sql = "select conversation_id, audio_path from crops
                       where audio_path is not null order by audio_path";
            rows::all(db, sql, [], |row| Ok((rows::conversation_id(row)?, row.get(1)?)))
        })
        .await
    }

    async fn crop_again(&self, id: &ConversationId, at: Timestamp) -> Result<()> {
        let id = id.clone();
        self.write(move |tx| {
            rows::run(tx, "delete from crops where conversation_id = ?1", [id.as_str()])?;
            let payload = Payload::Conversation(id);
            enqueue(tx, &NewJob { kind: JobKind::Crop, payload, lane: Lane::Backlog }, at)
        })
        .await
    }
}

/// Rows that speak of rows which are not there.
fn references(db: &Connection) -> Result<Vec<Finding>> {
    let broken = rows::all(db, "pragma foreign_key_check", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, String>(2)?))
    })?;
    let tell = |(table, row, parent): (String, Option<i64>, String)| {
        let row = row.map_or_else(String::new, |row| format!(" {row}"));
        let message = format!("row{row} of {table} belongs to a row of {parent} that is not there");
        Finding::new(Fault::ReferenceBroken, table, message)
    };
    Ok(broken.into_iter().map(tell).collect())
}

/// Work that waits and that nobody will do.
fn jobs(db: &Connection) -> Result<Vec<Finding>> {
    let tell = |job: NewJob| {
        let subject = match &job.payload {
            Payload::Window(id) => format!("window {id}"),
            Payload::Conversation(id) => format!("conversation {id}"),
        };
        let message = format!("{subject} waits ({}), and no job does it", job.kind.as_str());
        Finding::new(Fault::JobMissing, subject, message)
    };
    Ok(conversations::lost_jobs(db)?.into_iter().map(tell).collect())
}

/// Figures that are not those of the windows.
fn figures(db: &Connection) -> Result<Vec<Finding>> {
    let sql = format!("select c.id from {MISCOUNTED} order by c.id");
    let wrong = rows::all(db, &sql, [], |row| row.get::<_, String>(0))?;
    let tell = |id: String| {
        let message = format!(
            "what is noted as transcribed, waiting and failed of conversation {id} is not what \
             its windows say"
        );
        Finding::new(Fault::CoverageWrong, id, message)
    };
    Ok(wrong.into_iter().map(tell).collect())
}

/// Memories and their indexes that do not match.
fn memories(db: &Connection) -> Result<Vec<Finding>> {
    let missing = unindexed(db)?.into_iter().map(|(_, id, what)| {
        let message = format!("memory {id} is missing in {what}");
        Finding::new(Fault::MemoryNotIndexed, id, message)
    });
    let left = leftovers(db)?.into_iter().map(|(seq, what)| {
        let message = format!("{what} holds an entry {seq} of no memory");
        Finding::new(Fault::IndexEntryLeft, seq.to_string(), message)
    });
    Ok(missing.chain(left).collect())
}

/// Memories that an index lacks: number, id, and which index.
fn unindexed(db: &Connection) -> Result<Vec<(i64, String, &'static str)>> {
    let mut found = Vec::new();
    for (what, entries) in indexes(db)? {
        let sql = format!("select seq, id from memories where seq not in ({entries}) order by seq");
        let missing = rows::all(db, &sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        found.extend(missing.into_iter().map(|(seq, id)| (seq, id, what)));
    }
    Ok(found)
}

/// Entries of an index that no memory has: number, and which index.
fn leftovers(db: &Connection) -> Result<Vec<(i64, &'static str)>> {
    let mut found = Vec::new();
    for (what, entries) in indexes(db)? {
        let sql = format!("{entries} except select seq from memories");
        let left = rows::all(db, &sql, [], |row| row.get(0))?;
        found.extend(left.into_iter().map(|seq| (seq, what)));
    }
    Ok(found)
}

/// The indexes, each with the query for the numbers of its entries.
fn indexes(db: &Connection) -> Result<Vec<(&'static str, &'static str)>> {
    let mut indexes = vec![("the full-text index", "select id from memories_fts_docsize")];
    // Without an embedding model there are no memories either.
    if vectors::is_bound(db)? {
        indexes.push(("the vector index", "select seq from memory_vectors"));
    }
    Ok(indexes)
}

/// Takes the entries of that number out of the indexes, and puts those of its
/// memory in, where there is one.
fn index_again(tx: &Transaction<'_>, seq: i64) -> Result<()> {
    vectors::delete(tx, seq)?;
    rows::run(tx, "delete from memories_fts where rowid = ?1", [seq])?;
    let sql = "select user_id, text, embedding from memories where seq = ?1";
    let memory = rows::first(tx, sql, [seq], |row| {
        let user = UserId::from_text(row.get::<_, String>(0)?);
        Ok((user, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
    })?;
    let Some((user, text, embedding)) = memory else { return Ok(()) };
    rows::run(tx, "insert into memories_fts (rowid, text) values (?1, ?2)", params![seq, text])?;
    vectors::put(tx, seq, &user, &vectors::from_blob(&embedding))
}
