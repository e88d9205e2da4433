//! What is asked of the server, in Cypher.
//!
//! `(FriendLiteMemory)-[MENTIONS]->(FriendLiteEntity)-[RELATES]->(FriendLiteEntity)`:
//! a relation has the id of the memory that it is from, and both of its ends are
//! mentioned by that.

use neo4rs::{BoltMap, BoltType, Query};

use crate::domain::graph::{EntityKind, Reading, key};
use crate::domain::ids::{EntityId, MemoryId, UserId};
use crate::domain::memory::{IndexedMemory, Memory};
use crate::graph::EntityQuery;

/// What makes the others quick; each says no more when it is there already.
pub(super) const PREPARE: &[&str] = &[
    "CREATE CONSTRAINT friend_lite_memory IF NOT EXISTS
     FOR (m:FriendLiteMemory) REQUIRE m.id IS UNIQUE",
    "CREATE CONSTRAINT friend_lite_entity IF NOT EXISTS
     FOR (e:FriendLiteEntity) REQUIRE e.id IS UNIQUE",
    "CREATE INDEX friend_lite_user IF NOT EXISTS FOR (e:FriendLiteEntity) ON (e.user)",
    "CREATE INDEX friend_lite_store IF NOT EXISTS FOR (m:FriendLiteMemory) ON (m.store)",
];

fn query(cypher: &str) -> Query {
    Query::new(cypher.to_owned())
}

fn list<T: AsRef<str>>(ids: &[T]) -> Vec<String> {
    ids.iter().map(|id| id.as_ref().to_owned()).collect()
}

fn number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn map<const N: usize>(entries: [(&str, BoltType); N]) -> BoltType {
    let mut map = BoltMap::default();
    for (name, value) in entries {
        map.put(name.into(), value);
    }
    BoltType::Map(map)
}

/// How many memories of the store `store` there are.
pub(super) fn count(store: &str) -> Query {
    query("MATCH (m:FriendLiteMemory {store: $store}) RETURN count(m) AS count")
        .param("store", store)
}

/// Memories of the store `store`, by id, after `after`.
pub(super) fn page(store: &str, after: &str, limit: usize) -> Query {
    query(
        "MATCH (m:FriendLiteMemory {store: $store}) WHERE m.id > $after
         RETURN m.id AS id ORDER BY id LIMIT $limit",
    )
    .param("store", store)
    .param("after", after)
    .param("limit", number(limit))
}

/// Memories with what they say.
pub(super) fn texts(ids: &[MemoryId]) -> Query {
    query("MATCH (m:FriendLiteMemory) WHERE m.id IN $ids RETURN m.id AS id, m.text AS text")
        .param("ids", list(ids))
}

/// Puts memories of `store` in; when they are `fresh`, to be read.
pub(super) fn put(store: &str, memories: &[(MemoryId, IndexedMemory)], fresh: bool) -> Query {
    let memories: Vec<BoltType> = memories
        .iter()
        .map(|(id, memory)| {
            map([
                ("id", id.as_str().into()),
                ("user", memory.user_id.as_str().into()),
                ("text", memory.text.as_str().into()),
                ("created", memory.created_at.millis().into()),
                ("updated", memory.updated_at.millis().into()),
            ])
        })
        .collect();
    let unread = if fresh { ", m.unread = true, m.attempts = 0" } else { "" };
    query(&format!(
        "UNWIND $memories AS new
         MERGE (m:FriendLiteMemory {{id: new.id}})
         SET m.store = $store, m.user = new.user, m.text = new.text, m.created = new.created,
             m.updated = new.updated{unread}"
    ))
    .param("memories", memories)
    .param("store", store)
}

/// What memories speak of.
pub(super) fn mentioned_by(memories: &[MemoryId]) -> Query {
    query(
        "MATCH (m:FriendLiteMemory)-[:MENTIONS]->(e:FriendLiteEntity) WHERE m.id IN $ids
         RETURN DISTINCT e.id AS id",
    )
    .param("ids", list(memories))
}

/// Takes out what memories say.
pub(super) fn unsay(memories: &[MemoryId]) -> [Query; 2] {
    [
        query(
            "UNWIND $ids AS id
             MATCH (:FriendLiteMemory {id: id})-[:MENTIONS]->(:FriendLiteEntity)
                   -[r:RELATES]->(:FriendLiteEntity)
             WHERE r.memory = id
             DELETE r",
        )
        .param("ids", list(memories)),
        query(
            "MATCH (m:FriendLiteMemory)-[x:MENTIONS]->(:FriendLiteEntity) WHERE m.id IN $ids
             DELETE x",
        )
        .param("ids", list(memories)),
    ]
}

/// Takes memories out, of which nothing is said any more.
pub(super) fn remove_memories(memories: &[MemoryId]) -> Query {
    query("MATCH (m:FriendLiteMemory) WHERE m.id IN $ids DETACH DELETE m")
        .param("ids", list(memories))
}

/// Takes out those of `entities` that no memory speaks of.
pub(super) fn remove_unmentioned(entities: &[String]) -> Query {
    query(
        "MATCH (e:FriendLiteEntity) WHERE e.id IN $ids AND NOT (e)<-[:MENTIONS]-()
         DETACH DELETE e",
    )
    .param("ids", list(entities))
}

/// Memories of `store` that are to be read.
pub(super) fn unread(store: &str, attempts: i64, limit: usize) -> Query {
    query(
        "MATCH (m:FriendLiteMemory {store: $store}) WHERE m.unread AND m.attempts < $attempts
         RETURN m.id AS id, m.attempts AS attempts, m.user AS user, m.created AS created
         ORDER BY attempts, user, created, id LIMIT $limit",
    )
    .param("store", store)
    .param("attempts", attempts)
    .param("limit", number(limit))
}

/// Counts a failed attempt to read memories.
pub(super) fn failed(memories: &[MemoryId]) -> Query {
    query("MATCH (m:FriendLiteMemory) WHERE m.id IN $ids SET m.attempts = m.attempts + 1")
        .param("ids", list(memories))
}

/// Puts `reading` in place of what is known from `memory`, where that says still
/// what was read.
pub(super) fn learn(store: &str, memory: &Memory, reading: &Reading) -> Vec<Query> {
    let user = &memory.user_id;
    let entities: Vec<BoltType> = reading
        .entities
        .iter()
        .map(|seen| {
            map([
                ("id", EntityId::of(user, &seen.name).as_str().into()),
                ("key", key(&seen.name).into()),
                ("name", seen.name.as_str().into()),
                ("kind", seen.kind.as_str().into()),
            ])
        })
        .collect();
    let relations: Vec<BoltType> = reading
        .relations
        .iter()
        .zip(0_i64..)
        .map(|(stated, place)| {
            map([
                ("subject", EntityId::of(user, &stated.subject).as_str().into()),
                ("predicate", stated.predicate.as_str().into()),
                ("object", EntityId::of(user, &stated.object).as_str().into()),
                ("place", place.into()),
            ])
        })
        .collect();
    let of_memory = |cypher: &str| {
        query(&format!("MATCH (m:FriendLiteMemory {{id: $id}}) WHERE m.text = $text {cypher}"))
            .param("id", memory.id.as_str())
            .param("text", memory.text.as_str())
    };
    vec![
        of_memory(
            "MATCH (m)-[:MENTIONS]->(:FriendLiteEntity)-[r:RELATES]->(:FriendLiteEntity)
             WHERE r.memory = $id
             DELETE r",
        ),
        of_memory("MATCH (m)-[x:MENTIONS]->(:FriendLiteEntity) DELETE x"),
        of_memory("SET m.unread = false"),
        of_memory(
            "UNWIND $entities AS new
             MERGE (e:FriendLiteEntity {id: new.id})
             ON CREATE SET e.store = $store, e.user = $user, e.key = new.key, e.name = new.name,
                           e.kind = new.kind
             MERGE (m)-[:MENTIONS]->(e)",
        )
        .param("entities", entities)
        .param("store", store)
        .param("user", user.as_str()),
        of_memory(
            "UNWIND $relations AS new
             MATCH (s:FriendLiteEntity {id: new.subject})
             MATCH (o:FriendLiteEntity {id: new.object})
             MERGE (s)-[r:RELATES {memory: $id, predicate: new.predicate}]->(o)
             ON CREATE SET r.learned = timestamp(), r.place = new.place",
        )
        .param("relations", relations),
    ]
}

const WANTED: &str = "MATCH (e:FriendLiteEntity {user: $user})
                      WHERE ($kind = '' OR e.kind = $kind) AND e.key CONTAINS $name";

fn wanted(rest: &str, user: &UserId, wanted: &EntityQuery) -> Query {
    query(&format!("{WANTED} {rest}"))
        .param("user", user.as_str())
        .param("kind", wanted.kind.map_or("", EntityKind::as_str))
        .param("name", key(&wanted.name))
}

/// How many entities of `user` are asked for.
pub(super) fn count_entities(user: &UserId, query: &EntityQuery) -> Query {
    wanted("RETURN count(e) AS count", user, query)
}

const WITH_TIMES: &str = "MATCH (m:FriendLiteMemory)-[:MENTIONS]->(e)
                          RETURN e.id AS id, e.user AS user, e.name AS name, e.kind AS kind,
                                 min(m.created) AS first, max(m.updated) AS last";

/// A page of them.
pub(super) fn entities(user: &UserId, query: &EntityQuery) -> Query {
    let rest = format!("{WITH_TIMES} ORDER BY last DESC, id SKIP $offset LIMIT $limit");
    wanted(&rest, user, query)
        .param("offset", number(query.offset))
        .param("limit", number(query.limit))
}

/// One entity.
pub(super) fn entity(id: &EntityId) -> Query {
    query(&format!("MATCH (e:FriendLiteEntity {{id: $id}}) {WITH_TIMES}")).param("id", id.as_str())
}

const STATED: &str = "startNode(r).id AS subject, startNode(r).name AS subject_name,
                      r.predicate AS predicate, endNode(r).id AS object,
                      endNode(r).name AS object_name, r.memory AS memory";

/// The relations of an entity.
pub(super) fn relations(id: &EntityId, limit: usize) -> Query {
    query(&format!(
        "MATCH (:FriendLiteEntity {{id: $id}})-[r:RELATES]-(:FriendLiteEntity)
         RETURN {STATED}, r.learned AS learned, r.place AS place
         ORDER BY learned, place LIMIT $limit"
    ))
    .param("id", id.as_str())
    .param("limit", number(limit))
}

/// The memories that speak of an entity.
pub(super) fn memories(id: &EntityId, limit: usize) -> Query {
    query(
        "MATCH (m:FriendLiteMemory)-[:MENTIONS]->(:FriendLiteEntity {id: $id})
         RETURN m.id AS id, m.created AS created ORDER BY created DESC, id DESC LIMIT $limit",
    )
    .param("id", id.as_str())
    .param("limit", number(limit))
}

/// A shortest chain of relations between two entities. The number of hops cannot
/// be a parameter.
pub(super) fn path(from: &EntityId, to: &EntityId, hops: usize) -> Query {
    query(&format!(
        "MATCH (a:FriendLiteEntity {{id: $from}}), (b:FriendLiteEntity {{id: $to}})
         MATCH p = shortestPath((a)-[:RELATES*..{hops}]-(b))
         UNWIND relationships(p) AS r
         RETURN {STATED}"
    ))
    .param("from", from.as_str())
    .param("to", to.as_str())
}

/// Memories of `user` that speak of what `memories` speak of: those first that
/// share what few speak of.
pub(super) fn neighbours(user: &UserId, memories: &[MemoryId], limit: usize) -> Query {
    query(
        "MATCH (h:FriendLiteMemory)-[:MENTIONS]->(e:FriendLiteEntity {user: $user})
         WHERE h.id IN $ids
         WITH DISTINCT e
         MATCH (e)<-[:MENTIONS]-(m:FriendLiteMemory)
         WITH e, collect(m.id) AS found
         UNWIND found AS id
         WITH id, 1.0 / size(found) AS share WHERE NOT id IN $ids
         RETURN id, sum(share) AS shares ORDER BY shares DESC, id LIMIT $limit",
    )
    .param("user", user.as_str())
    .param("ids", list(memories))
    .param("limit", number(limit))
}
