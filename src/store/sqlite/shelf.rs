//! Memories that no list shows. Those of a set that is not active are put on the
//! shelf; and before a set changes or deletes a memory of another conversation,
//! the memory as it was goes there too, to come back if that set is put away.

use rusqlite::{Connection, params};

use super::memories::Row;
use super::rows;
use crate::base::clock::Timestamp;
use crate::base::error::Result;
use crate::domain::ids::{ConversationId, MemoryId};

const COLUMNS: &str = "id, user_id, text, conversation_id, version, client_id, prompt_version,
                       created_at, updated_at, embedding";

/// The set of memories that a conversation made at one time.
pub(super) type Set<'a> = (&'a ConversationId, u32);

/// Keeps a memory as it is, before the set `by` changes it.
pub(super) fn keep(tx: &Connection, row: &Row, by: Option<Set<'_>>) -> Result<()> {
    let sql = format!(
        "insert into shelved_memories ({COLUMNS}, by_conversation, by_version)
         select {COLUMNS}, ?2, ?3 from memories where seq = ?1"
    );
    let (conversation, version) = (by.map(|by| by.0.as_str()), by.map(|by| by.1));
    rows::run(tx, &sql, params![row.seq, conversation, version])?;
    Ok(())
}

/// Forgets what is kept of a memory.
pub(super) fn forget(tx: &Connection, id: &MemoryId) -> Result<()> {
    rows::run(tx, "delete from shelved_memories where id = ?1", [id.as_str()])?;
    Ok(())
}

/// Shows the memories of a set in place of those of the set that is active.
pub(super) fn activate(
    tx: &Connection,
    id: &ConversationId,
    version: u32,
    at: Timestamp,
) -> Result<()> {
    if active(tx, id)? == Some(version) {
        return Ok(());
    }
    deactivate(tx, id, at)?;
    let replaced: Option<Vec<MemoryId>> = rows::first(
        tx,
        "update memory_versions set active = 1 where conversation_id = ?1 and version = ?2
         returning replaced",
        params![id.as_str(), version],
        |row| rows::json(row, "replaced"),
    )?;
    for memory in replaced.unwrap_or_default() {
        if let Some(row) = Row::find(tx, &memory)? {
            keep(tx, &row, Some((id, version)))?;
            row.delete(tx, &memory, at)?;
        }
    }
    let own = rows::all(
        tx,
        "select seq, id from shelved_memories
         where conversation_id = ?1 and version = ?2 and by_conversation is null order by seq",
        params![id.as_str(), version],
        |row| Ok((row.get::<_, i64>(0)?, rows::memory_id(row)?)),
    )?;
    for (seq, memory) in own {
        if Row::find(tx, &memory)?.is_none() {
            restore(tx, seq, &memory, at)?;
        }
    }
    Ok(())
}

/// Puts the memories of the active set away, and brings back what they had
/// replaced.
pub(super) fn deactivate(tx: &Connection, id: &ConversationId, at: Timestamp) -> Result<()> {
    let Some(version) = active(tx, id)? else { return Ok(()) };
    let own = rows::all(
        tx,
        "select id from memories where conversation_id = ?1 order by seq",
        [id.as_str()],
        rows::memory_id,
    )?;
    for memory in own {
        if let Some(row) = Row::find(tx, &memory)? {
            keep(tx, &row, None)?;
            row.delete(tx, &memory, at)?;
        }
    }
    let mut back: Vec<MemoryId> = Vec::new();
    for (seq, memory, shown) in replaced_by(tx, (id, version))? {
        if Row::find(tx, &memory)?.is_some() {
            // Somebody else has changed it since: from now on, this.
            rows::run(
                tx,
                "update shelved_memories set (by_conversation, by_version) = (
                     select conversation_id, version from memories where id = ?2)
                 where seq = ?1",
                params![seq, memory.as_str()],
            )?;
        } else if shown {
            restore(tx, seq, &memory, at)?;
            back.push(memory);
        } else {
            let sql = "update shelved_memories set by_conversation = null, by_version = null
                       where seq = ?1";
            rows::run(tx, sql, [seq])?;
        }
    }
    rows::run(
        tx,
        "update memory_versions set active = 0, replaced = ?3
         where conversation_id = ?1 and version = ?2",
        params![id.as_str(), version, rows::to_json(&back)?],
    )?;
    Ok(())
}

/// What a set has replaced: where it is on the shelf, and whether the set it is
/// from is active.
fn replaced_by(tx: &Connection, set: Set<'_>) -> Result<Vec<(i64, MemoryId, bool)>> {
    rows::all(
        tx,
        "select seq, id, conversation_id is null or exists (
             select 1 from memory_versions v where v.conversation_id = s.conversation_id
             and v.version = s.version and v.active) as shown
         from shelved_memories s
         where by_conversation = ?1 and by_version = ?2 order by seq desc",
        params![set.0.as_str(), set.1],
        |row| Ok((row.get(0)?, rows::memory_id(row)?, row.get("shown")?)),
    )
}

fn active(tx: &Connection, id: &ConversationId) -> Result<Option<u32>> {
    rows::first(
        tx,
        "select version from memory_versions where conversation_id = ?1 and active",
        [id.as_str()],
        |row| row.get(0),
    )
}

/// Takes a memory from the shelf.
fn restore(tx: &Connection, seq: i64, id: &MemoryId, at: Timestamp) -> Result<()> {
    let sql = format!(
        "insert into memories ({COLUMNS}) select {COLUMNS} from shelved_memories where seq = ?1"
    );
    rows::run(tx, &sql, [seq])?;
    rows::run(tx, "delete from shelved_memories where seq = ?1", [seq])?;
    match Row::find(tx, id)? {
        Some(row) => row.show(tx, id, at),
        None => Ok(()),
    }
}
