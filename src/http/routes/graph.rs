//! Who and what memories speak of.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::memories::{MemoryEntry, entry};
use crate::domain::graph::{End, Entity, EntityKind, Relation};
use crate::domain::ids::{EntityId, MemoryId, UserId};
use crate::domain::user::User;
use crate::graph::EntityQuery;
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, MessageText, Problem, ValidationError};
use crate::http::params::Params;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(read)).routes(routes!(path))
}

/// Somebody or something that memories speak of.
#[derive(Serialize, ToSchema)]
struct EntityEntry {
    id: EntityId,
    user_id: UserId,
    /// As it was first read.
    name: String,
    kind: EntityKind,
    /// RFC 3339: when the first memory that speaks of it was made.
    first_seen: String,
    /// RFC 3339: when one of them last changed.
    last_seen: String,
}

/// One end of a relation.
#[derive(Serialize, ToSchema)]
struct RelationEnd {
    id: EntityId,
    name: String,
}

/// How two entities are related, in the words of a memory.
#[derive(Serialize, ToSchema)]
struct RelationEntry {
    subject: RelationEnd,
    predicate: String,
    object: RelationEnd,
    /// The memory that says so.
    memory_id: MemoryId,
}

/// Entities of one user.
#[derive(Serialize, ToSchema)]
struct EntityList {
    /// The one that was spoken of last comes first.
    entities: Vec<EntityEntry>,
    /// In this answer.
    count: usize,
    /// In all that were asked for.
    total_count: u64,
    user_id: UserId,
}

/// An entity with what is known of it.
#[derive(Serialize, ToSchema)]
struct EntityDetails {
    entity: EntityEntry,
    /// Oldest first.
    relations: Vec<RelationEntry>,
    /// Those that speak of it, newest first.
    memories: Vec<MemoryEntry>,
}

/// How one entity leads to another.
#[derive(Serialize, ToSchema)]
struct EntityPath {
    /// Whether there is a chain.
    found: bool,
    /// One of the shortest, from the first entity to the last; either may be the
    /// subject.
    relations: Vec<RelationEntry>,
}

impl From<Entity> for EntityEntry {
    fn from(entity: Entity) -> Self {
        Self {
            id: entity.id,
            user_id: entity.user_id,
            name: entity.name,
            kind: entity.kind,
            first_seen: entity.first_seen.to_rfc3339(),
            last_seen: entity.last_seen.to_rfc3339(),
        }
    }
}

impl From<Relation> for RelationEntry {
    fn from(relation: Relation) -> Self {
        let end = |End { id, name }| RelationEnd { id, name };
        Self {
            subject: end(relation.subject),
            predicate: relation.predicate,
            object: end(relation.object),
            memory_id: relation.memory_id,
        }
    }
}

/// The people, places and things that a user's memories speak of.
#[utoipa::path(get, path = "/api/graph/entities", tag = "graph",
    params(
        ("kind" = Option<EntityKind>, Query, description = "Of that kind"),
        ("name" = Option<String>, Query, description = "With this in the name"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000),
        ("offset" = Option<usize>, Query, minimum = 0, maximum = 1_000_000),
        ("user_id" = Option<String>, Query, description = "Whose, for administrators"),
    ),
    responses(
        (status = 200, description = "The entities", body = EntityList),
        (status = 404, description = "No such user", body = MessageText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn list(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<EntityList>, ApiError> {
    let query = EntityQuery {
        kind: params.get("kind").map(kind).transpose()?,
        name: params.get("name").unwrap_or_default().to_owned(),
        limit: params.integer("limit", 50, 1..=1000)?,
        offset: params.integer("offset", 0, 0..=1_000_000)?,
    };
    let owner = api.owner(&user, params.get("user_id")).await.map_err(ApiError::as_message)?;
    let found = api.graph.entities(&owner.id, &query).await;
    let (entities, total_count) = found.map_err(ApiError::as_message)?;
    let entities: Vec<_> = entities.into_iter().map(EntityEntry::from).collect();
    Ok(Json(EntityList { count: entities.len(), entities, total_count, user_id: owner.id }))
}

/// An entity, its relations, and the memories behind them.
#[utoipa::path(get, path = "/api/graph/entities/{id}", tag = "graph",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 1000,
        description = "At most so many relations, and as many memories")),
    responses(
        (status = 200, description = "The entity", body = EntityDetails),
        (status = 404, description = "No such entity", body = MessageText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn read(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<EntityDetails>, ApiError> {
    let limit = params.integer("limit", 100, 1..=1000)?;
    let entity = own(&api, &user, &EntityId::from_text(id)).await?;
    let owner = api.owner(&user, Some(entity.user_id.as_str())).await;
    let owner = owner.map_err(ApiError::as_message)?;
    let relations = api.graph.relations(&entity.id, limit).await.map_err(ApiError::as_message)?;
    let memories = api.graph.memories(&entity.id, limit).await.map_err(ApiError::as_message)?;
    Ok(Json(EntityDetails {
        entity: entity.into(),
        relations: relations.into_iter().map(Into::into).collect(),
        memories: memories.into_iter().map(|memory| entry(memory, &owner.email, None)).collect(),
    }))
}

/// The shortest chain of relations between two entities.
#[utoipa::path(get, path = "/api/graph/path", tag = "graph",
    params(
        ("from" = String, Query, description = "The id of an entity"),
        ("to" = String, Query, description = "The id of another one of the same user"),
        ("max_hops" = Option<usize>, Query, minimum = 1, maximum = 6),
    ),
    responses(
        (status = 200, description = "The chain", body = EntityPath),
        (status = 404, description = "No such entity", body = MessageText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn path(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<EntityPath>, ApiError> {
    let (from, to) = (params.required("from")?, params.required("to")?);
    let hops = params.integer("max_hops", 4, 1..=6)?;
    let from = own(&api, &user, &EntityId::from_text(from)).await?;
    let to = own(&api, &user, &EntityId::from_text(to)).await?;
    let chain = api.graph.path(&from.id, &to.id, hops).await.map_err(ApiError::as_message)?;
    let found = chain.is_some();
    let relations = chain.into_iter().flatten().map(Into::into).collect();
    Ok(Json(EntityPath { found, relations }))
}

/// The entity of that id, which `user` may see; 404 without one.
async fn own(api: &Api, user: &User, id: &EntityId) -> Result<Entity, ApiError> {
    let found = api.graph.entity(id).await.map_err(ApiError::as_message)?;
    found
        .filter(|entity| may_see(user, &entity.user_id))
        .ok_or_else(|| ApiError::message(StatusCode::NOT_FOUND, "Entity not found"))
}

/// The kind in a parameter; 422 when it is none.
fn kind(text: &str) -> Result<EntityKind, ApiError> {
    EntityKind::from_name(text).ok_or_else(|| {
        let msg = "Input should be 'person', 'place', 'organization', 'event' or 'thing'";
        ApiError::validation(vec![Problem::new("enum", "query", "kind", msg, Some(text))])
    })
}
