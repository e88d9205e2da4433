//! Who and what memories speak of, as steps on the database.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params};

use super::memories::select_memory;
use super::{rows, sql_limit};
use crate::base::error::Result;
use crate::domain::graph::{End, Entity, EntityKind, Reading, Relation, key};
use crate::domain::ids::{EntityId, MemoryId, UserId};
use crate::domain::memory::Memory;
use crate::graph::{EntityQuery, MAX_ATTEMPTS};

/// Memories that have not been read as they are now.
pub(crate) fn unread(db: &Connection, limit: usize) -> Result<Vec<Memory>> {
    let sql = select_memory(
        "join unread_memories on memory_id = id where attempts < ?1
         order by attempts, user_id, seq limit ?2",
    );
    rows::all(db, &sql, [MAX_ATTEMPTS, sql_limit(limit)], rows::memory)
}

/// Puts `reading` in place of what is known from `memory`, if that is as it was
/// when it was read.
pub(crate) fn learn(tx: &Connection, memory: &Memory, reading: &Reading) -> Result<()> {
    let (id, user) = (memory.id.as_str(), &memory.user_id);
    let sql = "delete from unread_memories where memory_id = (
                   select id from memories where id = ?1 and user_id = ?2 and text = ?3)";
    if rows::run(tx, sql, [id, user.as_str(), &memory.text])? == 0 {
        return Ok(());
    }
    rows::run(tx, "delete from relations where memory_id = ?1", [id])?;
    rows::run(tx, "delete from mentions where memory_id = ?1", [id])?;
    for seen in &reading.entities {
        let entity = EntityId::of(user, &seen.name);
        rows::run(
            tx,
            "insert into entities (id, user_id, key, name, kind) values (?1, ?2, ?3, ?4, ?5)
             on conflict do nothing",
            [entity.as_str(), user.as_str(), &key(&seen.name), &seen.name, seen.kind.as_str()],
        )?;
        rows::run(tx, "insert or ignore into mentions values (?1, ?2)", [id, entity.as_str()])?;
    }
    for stated in &reading.relations {
        let (subject, object) =
            (EntityId::of(user, &stated.subject), EntityId::of(user, &stated.object));
        rows::run(
            tx,
            "insert or ignore into relations (memory_id, subject_id, predicate, object_id)
             values (?1, ?2, ?3, ?4)",
            [id, subject.as_str(), &stated.predicate, object.as_str()],
        )?;
    }
    Ok(())
}

/// Counts a failed attempt to read `memories`.
pub(crate) fn failed(tx: &Connection, memories: &[MemoryId]) -> Result<()> {
    for id in memories {
        let sql = "update unread_memories set attempts = attempts + 1 where memory_id = ?1";
        rows::run(tx, sql, [id.as_str()])?;
    }
    Ok(())
}

/// A query for entities, with when memories speak of them.
fn select_entity(rest: &str) -> String {
    format!(
        "select e.id, e.user_id, e.name, e.kind,
                min(m.created_at) as first_seen, max(m.updated_at) as last_seen
         from entities e join mentions n on n.entity_id = e.id
                         join memories m on m.id = n.memory_id
         {rest}"
    )
}

/// Entities of `user`, the one that was spoken of last first; how many in all.
pub(crate) fn entities(
    db: &Connection,
    user: &UserId,
    query: &EntityQuery,
) -> Result<(Vec<Entity>, u64)> {
    let wanted = "where user_id = ?1 and kind = coalesce(?2, kind) and instr(key, ?3)";
    let (kind, name) = (query.kind.map(EntityKind::as_str), key(&query.name));
    let sql = format!("select count(*) from entities {wanted}");
    let total =
        rows::first(db, &sql, params![user.as_str(), kind, name], |row| row.get::<_, i64>(0))?;
    let sql = select_entity(&format!(
        "where e.id in (select id from entities {wanted})
         group by e.id order by last_seen desc, e.id limit ?4 offset ?5"
    ));
    let page = params![user.as_str(), kind, name, sql_limit(query.limit), sql_limit(query.offset),];
    Ok((rows::all(db, &sql, page, rows::entity)?, total.unwrap_or_default().unsigned_abs()))
}

/// One entity.
pub(crate) fn entity(db: &Connection, id: &EntityId) -> Result<Option<Entity>> {
    rows::first(db, &select_entity("where e.id = ?1 group by e.id"), [id.as_str()], rows::entity)
}

/// The relations of an entity, oldest first.
pub(crate) fn relations(db: &Connection, id: &EntityId, limit: usize) -> Result<Vec<Relation>> {
    let sql = "select r.*, s.name as subject, o.name as object
               from relations r join entities s on s.id = r.subject_id
                                join entities o on o.id = r.object_id
               where r.subject_id = ?1 or r.object_id = ?1 order by r.id limit ?2";
    rows::all(db, sql, params![id.as_str(), sql_limit(limit)], relation)
}

/// The memories that speak of an entity, newest first.
pub(crate) fn memories(db: &Connection, id: &EntityId, limit: usize) -> Result<Vec<Memory>> {
    let sql = select_memory(
        "where id in (select memory_id from mentions where entity_id = ?1)
         order by created_at desc, seq desc limit ?2",
    );
    rows::all(db, &sql, params![id.as_str(), sql_limit(limit)], rows::memory)
}

/// A shortest chain of at most `hops` relations between two entities. What can be
/// reached is found from the far end, each entity once for each number of hops;
/// then the chain follows the falling numbers.
pub(crate) fn path(
    db: &Connection,
    from: &EntityId,
    to: &EntityId,
    hops: usize,
) -> Result<Option<Vec<Relation>>> {
    let sql = "with recursive reached (entity, hops) as (
                   select ?1, 0
                   union
                   select iif(r.subject_id = entity, r.object_id, r.subject_id), hops + 1
                   from reached join relations r on entity in (r.subject_id, r.object_id)
                   where hops < ?2)
               select entity, min(hops) from reached group by entity";
    let reached = rows::all(db, sql, params![to.as_str(), sql_limit(hops)], |row| {
        Ok((EntityId::from_text(row.get::<_, String>(0)?), row.get::<_, i64>(1)?))
    })?;
    let reached: HashMap<EntityId, i64> = reached.into_iter().collect();
    let (mut chain, mut here) = (Vec::new(), from.clone());
    let Some(mut left) = reached.get(from).copied() else { return Ok(None) };
    while left > 0 {
        left -= 1;
        let next = relations(db, &here, usize::MAX)?.into_iter().find_map(|relation| {
            let end =
                if relation.subject.id == here { &relation.object } else { &relation.subject };
            (reached.get(&end.id) == Some(&left)).then(|| (end.id.clone(), relation.clone()))
        });
        let Some((end, relation)) = next else { return Ok(None) };
        chain.push(relation);
        here = end;
    }
    Ok(Some(chain))
}

/// Memories of `user` that speak of what `memories` speak of, those first that
/// share what few speak of.
pub(crate) fn neighbours(
    db: &Connection,
    user: &UserId,
    memories: &[MemoryId],
    limit: usize,
) -> Result<Vec<MemoryId>> {
    let sql = "with hits as (select value as id from json_each(?2)),
                    spoken_of as (
                        select distinct entity_id from mentions join entities e on e.id = entity_id
                        where memory_id in (select id from hits) and e.user_id = ?1),
                    shares as (
                        select entity_id, 1.0 / count(*) as share
                        from mentions join spoken_of using (entity_id) group by entity_id)
               select memory_id from mentions join shares using (entity_id)
               where memory_id not in (select id from hits)
               group by memory_id order by sum(share) desc, memory_id limit ?3";
    let hits = serde_json::json!(memories).to_string();
    rows::all(db, sql, params![user.as_str(), hits, sql_limit(limit)], |row| {
        Ok(MemoryId::from_text(row.get::<_, String>(0)?))
    })
}

fn relation(row: &Row<'_>) -> rusqlite::Result<Relation> {
    let end = |id, name| {
        Ok::<_, rusqlite::Error>(End {
            id: EntityId::from_text(row.get::<_, String>(id)?),
            name: row.get(name)?,
        })
    };
    Ok(Relation {
        subject: end("subject_id", "subject")?,
        predicate: row.get("predicate")?,
        object: end("object_id", "object")?,
        memory_id: MemoryId::from_text(row.get::<_, String>("memory_id")?),
    })
}
