//! The vectors of memories, indexed by sqlite-vec in the same database.
//!
//! sqlite-vec compares the query with every vector of a user. Over floats that
//! adds up one product after another, since a compiler may not reorder sums of
//! floats; over small integers it may, and uses the machine's vector
//! instructions on any processor. So the index keeps vectors rounded to one
//! byte a value and compares them by L1, sqlite-vec's one distance for them that
//! is all integers; the nearest of those are then put in order by the whole
//! vectors, which stay in `memories`.

use rusqlite::auto_extension::{RawAutoExtension, register_auto_extension};
use rusqlite::{Connection, params};

use super::{rows, sql_limit};
use crate::base::error::Result;
use crate::domain::ids::{MemoryId, UserId};
use crate::store::vectors::{WIDEST, check, dot, not_bound, other_model, unusable};
pub(super) use crate::store::vectors::{from_blob, to_blob};

/// Candidates at least: few results need proportionally more.
const FEWEST_CANDIDATES: usize = 64;
/// The most that sqlite-vec returns.
const MOST_CANDIDATES: usize = 4096;

/// Makes every connection opened from now on know sqlite-vec. A second time
/// changes nothing.
#[allow(unsafe_code)]
pub(super) fn register() -> Result<()> {
    // SAFETY: sqlite3_vec_init is the entry point of an extension: the crate
    // declares it without its parameters, and in C it has exactly those of
    // RawAutoExtension. It opens and closes no database and leaves the list of
    // extensions alone.
    unsafe {
        register_auto_extension(std::mem::transmute::<*const (), RawAutoExtension>(
            sqlite_vec::sqlite3_vec_init as *const (),
        ))?;
    }
    Ok(())
}

/// Ties the vectors to a model the first time. `Conflict` when they are tied to
/// another.
pub(super) fn bind(tx: &Connection, model: &str, width: usize) -> Result<()> {
    match bound(tx)? {
        None => create(tx, model, width),
        Some((known, known_width)) if known == model && known_width == width => Ok(()),
        Some((known, known_width)) => Err(other_model((&known, known_width), (model, width))),
    }
}

/// Ties the vectors to another model, with an empty index.
pub(super) fn rebind(tx: &Connection, model: &str, width: usize) -> Result<()> {
    tx.execute_batch("drop table if exists memory_vectors; delete from embedding_model")?;
    create(tx, model, width)
}

fn create(tx: &Connection, model: &str, width: usize) -> Result<()> {
    if width == 0 || width > WIDEST {
        return Err(unusable(width));
    }
    rows::run(
        tx,
        "insert into embedding_model (only, model, width) values (1, ?1, ?2)",
        params![model, i64::try_from(width).unwrap_or(i64::MAX)],
    )?;
    tx.execute_batch(&format!(
        "create virtual table memory_vectors using vec0 (
             seq integer primary key,
             user_id text partition key,
             rounded int8[{width}] distance_metric=L1
         )"
    ))?;
    Ok(())
}

/// Whether there is an index: there is none before the first vector.
pub(super) fn is_bound(db: &Connection) -> Result<bool> {
    Ok(bound(db)?.is_some())
}

/// Indexes the vector of the memory `seq` of `user`, in place of an earlier one.
pub(super) fn put(tx: &Connection, seq: i64, user: &UserId, vector: &[f32]) -> Result<()> {
    let width = width(tx)?.ok_or_else(not_bound)?;
    check(vector, width)?;
    // vec0 has no INSERT OR REPLACE.
    delete(tx, seq)?;
    rows::run(
        tx,
        "insert into memory_vectors (seq, user_id, rounded) values (?1, ?2, vec_int8(?3))",
        params![seq, user.as_str(), rounded(vector)],
    )?;
    Ok(())
}

/// Takes the memory `seq` out of the index.
pub(super) fn delete(tx: &Connection, seq: i64) -> Result<()> {
    if width(tx)?.is_some() {
        rows::run(tx, "delete from memory_vectors where seq = ?1", [seq])?;
    }
    Ok(())
}

/// The `k` memories of `user` nearest to `vector`, nearest first, with their
/// cosine similarity; none while no model is bound. `Conflict` for a vector of
/// another width than the index has.
pub(crate) fn nearest(
    db: &Connection,
    user: &UserId,
    vector: &[f32],
    k: usize,
) -> Result<Vec<(MemoryId, f32)>> {
    let Some(width) = width(db)? else { return Ok(Vec::new()) };
    check(vector, width)?;
    if k == 0 {
        return Ok(Vec::new());
    }
    let mut statement = db.prepare_cached(
        "select m.id, m.embedding from memory_vectors v cross join memories m on m.seq = v.seq
         where v.rounded match vec_int8(?1) and v.k = ?2 and v.user_id = ?3",
    )?;
    let mut found = statement
        .query_map(params![rounded(vector), sql_limit(candidates(k)), user.as_str()], |row| {
            Ok((rows::memory_id(row)?, dot(vector, row.get_ref(1)?.as_blob()?)))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    found.truncate(k);
    Ok(found)
}

/// How many to look at in full for `k` results. Half as many again is enough to
/// undo the rounding, and sqlite-vec's time grows with each: it goes over all its
/// distances once for every result.
fn candidates(k: usize) -> usize {
    k.saturating_add(k / 2).clamp(FEWEST_CANDIDATES, MOST_CANDIDATES)
}

fn bound(db: &Connection) -> Result<Option<(String, usize)>> {
    rows::first(db, "select model, width from embedding_model", [], |row| {
        Ok((row.get(0)?, usize::from(row.get::<_, u16>(1)?)))
    })
}

/// How wide the vectors are; none while no model is bound.
pub(super) fn width(db: &Connection) -> Result<Option<usize>> {
    Ok(bound(db)?.map(|(_, width)| width))
}

/// A unit vector in one byte a value. In `width` dimensions a value is about
/// `1 / sqrt(width)`; four times that fills the byte, and the few beyond are cut.
fn rounded(vector: &[f32]) -> Vec<u8> {
    let scale = 127.0 / 4.0 * (vector.len() as f32).sqrt();
    let round = |value: &f32| (value * scale).round().clamp(-127.0, 127.0) as i8;
    vector.iter().map(|value| round(value).cast_unsigned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_uses_the_byte_and_keeps_the_sign() {
        let signed = |vector: &[f32]| -> Vec<i8> {
            rounded(vector).into_iter().map(u8::cast_signed).collect()
        };
        assert_eq!(signed(&[0.25, -0.25, 0.0, 0.9]), [16, -16, 0, 57]);
        assert_eq!(signed(&[1.0, -1.0].repeat(32)), [127, -127].repeat(32));
    }
}
