//! Users.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::error::{Error, Kind, Result};
use crate::domain::client::ClientView;
use crate::domain::ids::{ClientId, UserId};
use crate::domain::user::User;
use crate::http::api::Api;
use crate::http::auth::{CurrentUser, NewUser, Superuser, add_user, check_email, normal_email};
use crate::http::body::Body;
use crate::http::error::{ApiError, Detail, ErrorText, MessageText, Problem, ValidationError};
use crate::http::openapi::at;
use crate::http::params::Params;
use crate::store::{Deleted, UserData, UserUpdate};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(me, change_me))
        .routes(routes!(one, change_one, remove_one))
        .routes(routes!(list, create))
        .routes(at("/api/users/create", routes!(create)))
        .routes(at("/api/create_user", routes!(create)))
        .routes(routes!(change, remove))
        .routes(routes!(remove_by_query))
}

/// A user, as clients see one.
#[derive(Serialize, ToSchema)]
struct UserView {
    id: UserId,
    email: String,
    is_active: bool,
    is_superuser: bool,
    is_verified: bool,
    display_name: Option<String>,
    /// The user's devices by client id.
    registered_clients: BTreeMap<String, RegisteredClient>,
    /// Always empty: speakers are not told apart by voice.
    primary_speakers: Vec<String>,
}

/// A device that has connected at least once.
#[derive(Serialize, ToSchema)]
struct RegisteredClient {
    client_id: ClientId,
    /// The name the device gave.
    device_name: Option<String>,
    /// RFC 3339.
    first_seen: String,
    /// RFC 3339.
    last_seen: String,
    /// Connected now.
    is_active: bool,
}

impl UserView {
    async fn of(api: &Api, user: User) -> Result<Self> {
        let devices = api.store.devices(Some(&user.id)).await?;
        let connected = api.ingest.clients_everywhere(Some(&user.id)).await?;
        let devices = devices.into_iter().map(|device| {
            let same = |one: &ClientView| one.client_id == device.client_id && one.connected;
            let client = RegisteredClient {
                is_active: connected.iter().any(same),
                first_seen: device.first_seen.to_rfc3339(),
                last_seen: device.last_seen.to_rfc3339(),
                client_id: device.client_id,
                device_name: device.device_name,
            };
            (client.client_id.to_string(), client)
        });
        Ok(Self {
            registered_clients: devices.collect(),
            id: user.id,
            email: user.email,
            is_active: user.is_active,
            is_superuser: user.is_superuser,
            is_verified: user.is_verified,
            display_name: user.display_name,
            primary_speakers: Vec::new(),
        })
    }
}

/// A user in the list of all, with the id as both versions of the original
/// call it.
#[derive(Serialize, ToSchema)]
struct ListedUser {
    #[serde(rename = "_id")]
    raw_id: UserId,
    #[serde(flatten)]
    user: UserView,
}

/// A user to be made.
#[derive(Deserialize, ToSchema)]
struct UserCreate {
    email: String,
    /// At least 8 characters, at most 72 bytes.
    password: String,
    display_name: Option<String>,
    #[serde(default = "yes")]
    is_active: bool,
    #[serde(default)]
    is_superuser: bool,
    #[serde(default = "yes")]
    is_verified: bool,
}

fn yes() -> bool {
    true
}

/// A user that was made.
#[derive(Serialize, ToSchema)]
struct UserCreated {
    message: String,
    user_id: UserId,
    user_email: String,
}

/// What to change in a user; what is not there stays.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct UserChanges {
    email: Option<String>,
    /// At least 8 characters, at most 72 bytes. A change ends all tokens.
    password: Option<String>,
    display_name: Option<String>,
    /// For administrators to change.
    is_active: Option<bool>,
    /// For administrators to change.
    is_superuser: Option<bool>,
    /// For administrators to change.
    is_verified: Option<bool>,
}

/// A user that was changed.
#[derive(Serialize, ToSchema)]
struct UserChanged {
    message: String,
    user_id: UserId,
    user: UserView,
}

/// What a removal took with it.
#[derive(Serialize, ToSchema)]
struct UserRemoved {
    message: String,
    deleted_data: DeletedData,
}

/// What was deleted.
#[derive(Serialize, ToSchema)]
struct DeletedData {
    user_deleted: bool,
    conversations_deleted: u64,
    memories_deleted: u64,
}

/// The caller, with their devices.
#[utoipa::path(get, path = "/users/me", tag = "users",
    responses((status = 200, description = "The caller", body = UserView)))]
async fn me(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<UserView>, ApiError> {
    Ok(Json(UserView::of(&api, user).await?))
}

/// Changes the caller's own address, name or password. What only administrators
/// may change is left as it is.
#[utoipa::path(patch, path = "/users/me", tag = "users", request_body = UserChanges,
    responses(
        (status = 200, description = "The caller, changed", body = UserView),
        (status = 409, description = "The address is taken", body = ErrorText),
        (status = 422, description = "Wrong values", body = ValidationError),
    ))]
async fn change_me(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Body(changes): Body<UserChanges>,
) -> Result<Json<UserView>, ApiError> {
    let allowed = UserChanges { is_active: None, is_superuser: None, is_verified: None, ..changes };
    let changed = apply(&api, &user, &user.id, allowed).await?;
    Ok(Json(UserView::of(&api, changed).await?))
}

/// Any user, for administrators.
#[utoipa::path(get, path = "/users/{id}", tag = "users",
    responses(
        (status = 200, description = "The user", body = UserView),
        (status = 404, description = "No such user", body = Detail),
    ))]
async fn one(
    State(api): State<Arc<Api>>,
    _admin: Superuser,
    Path(id): Path<String>,
) -> Result<Json<UserView>, ApiError> {
    let user = find(&api, &id).await?.ok_or_else(ApiError::not_found)?;
    Ok(Json(UserView::of(&api, user).await?))
}

/// Changes any user, for administrators.
#[utoipa::path(patch, path = "/users/{id}", tag = "users", request_body = UserChanges,
    responses(
        (status = 200, description = "The user, changed", body = UserView),
        (status = 404, description = "No such user", body = Detail),
        (status = 409, description = "The address is taken, or no administrator would be left", body = ErrorText),
        (status = 422, description = "Wrong values", body = ValidationError),
    ))]
async fn change_one(
    State(api): State<Arc<Api>>,
    Superuser(admin): Superuser,
    Path(id): Path<String>,
    Body(changes): Body<UserChanges>,
) -> Result<Json<UserView>, ApiError> {
    let user = find(&api, &id).await?.ok_or_else(ApiError::not_found)?;
    let changed = apply(&api, &admin, &user.id, changes).await?;
    Ok(Json(UserView::of(&api, changed).await?))
}

/// Removes a user who owns no conversations and no memories, for
/// administrators.
#[utoipa::path(delete, path = "/users/{id}", tag = "users",
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "No such user", body = Detail),
        (status = 409, description = "The user still owns something", body = ErrorText),
    ))]
async fn remove_one(
    State(api): State<Arc<Api>>,
    Superuser(admin): Superuser,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let user = find(&api, &id).await?.ok_or_else(ApiError::not_found)?;
    if user.is_superuser {
        return Err(ApiError::forbidden());
    }
    erase(&api, &admin, &user, UserData::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Everybody, for administrators.
#[utoipa::path(get, path = "/api/users", tag = "users",
    responses((status = 200, description = "The users, oldest first", body = Vec<ListedUser>)))]
async fn list(
    State(api): State<Arc<Api>>,
    _admin: Superuser,
) -> Result<Json<Vec<ListedUser>>, ApiError> {
    let mut users = Vec::new();
    for user in api.store.users().await? {
        let raw_id = user.id.clone();
        users.push(ListedUser { raw_id, user: UserView::of(&api, user).await? });
    }
    Ok(Json(users))
}

/// Makes a user, for administrators.
#[utoipa::path(post, path = "/api/users", tag = "users", request_body = UserCreate,
    responses(
        (status = 201, description = "The user was made", body = UserCreated),
        (status = 409, description = "The address is taken", body = MessageText),
        (status = 422, description = "Wrong values", body = ValidationError),
    ))]
async fn create(
    State(api): State<Arc<Api>>,
    Superuser(admin): Superuser,
    Body(form): Body<UserCreate>,
) -> Result<(StatusCode, Json<UserCreated>), ApiError> {
    check_email(&form.email).map_err(|error| wrong("email", error))?;
    let password_hash =
        api.auth.hash(&form.password).await.map_err(|error| wrong("password", error))?;
    let new = NewUser {
        email: form.email,
        password_hash,
        display_name: form.display_name,
        is_active: form.is_active,
        is_superuser: form.is_superuser,
        is_verified: form.is_verified,
    };
    let made = add_user(&*api.store, &api.clock, Some(&admin.id), new).await;
    let user = made.map_err(|error| match error.kind() {
        Kind::BadInput => wrong("email", error),
        _ => ApiError::as_message(error),
    })?;
    let made = UserCreated {
        message: format!("User {} created successfully", user.email),
        user_id: user.id,
        user_email: user.email,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Changes any user, for administrators.
#[utoipa::path(put, path = "/api/users/{id}", tag = "users", request_body = UserChanges,
    responses(
        (status = 200, description = "The user, changed", body = UserChanged),
        (status = 400, description = "This is no user id", body = MessageText),
        (status = 404, description = "No such user", body = MessageText),
        (status = 409, description = "The address is taken, or no administrator would be left", body = ErrorText),
        (status = 422, description = "Wrong values", body = ValidationError),
    ))]
async fn change(
    State(api): State<Arc<Api>>,
    Superuser(admin): Superuser,
    Path(id): Path<String>,
    Body(changes): Body<UserChanges>,
) -> Result<Json<UserChanged>, ApiError> {
    let user = find_or_say(&api, &id).await?;
    let changed = apply(&api, &admin, &user.id, changes).await?;
    Ok(Json(UserChanged {
        message: format!("User {} updated successfully", changed.email),
        user_id: changed.id.clone(),
        user: UserView::of(&api, changed).await?,
    }))
}

/// Removes a user who is no administrator, for administrators.
#[utoipa::path(delete, path = "/api/users/{id}", tag = "users",
    params(
        ("delete_conversations" = Option<bool>, Query, description = "With their conversations"),
        ("delete_memories" = Option<bool>, Query, description = "With their memories"),
    ),
    responses(
        (status = 200, description = "The user was removed", body = UserRemoved),
        (status = 400, description = "This is no user id", body = MessageText),
        (status = 403, description = "The user is an administrator", body = MessageText),
        (status = 404, description = "No such user", body = MessageText),
        (status = 409, description = "The user owns what was not asked to be deleted", body = MessageText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn remove(
    State(api): State<Arc<Api>>,
    Superuser(admin): Superuser,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<UserRemoved>, ApiError> {
    remove_with(&api, &admin, &id, &params).await
}

/// Removes a user who is no administrator, as the first dashboard asks for it.
#[utoipa::path(delete, path = "/api/delete_user", tag = "users",
    params(
        ("user_id" = String, Query),
        ("delete_conversations" = Option<bool>, Query, description = "With their conversations"),
        ("delete_memories" = Option<bool>, Query, description = "With their memories"),
    ),
    responses(
        (status = 200, description = "The user was removed", body = UserRemoved),
        (status = 400, description = "This is no user id", body = MessageText),
        (status = 403, description = "The user is an administrator", body = MessageText),
        (status = 404, description = "No such user", body = MessageText),
        (status = 409, description = "The user owns what was not asked to be deleted", body = MessageText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn remove_by_query(
    State(api): State<Arc<Api>>,
    Superuser(admin): Superuser,
    params: Params,
) -> Result<Json<UserRemoved>, ApiError> {
    let id = params.required("user_id")?;
    remove_with(&api, &admin, id, &params).await
}

async fn remove_with(
    api: &Api,
    admin: &User,
    id: &str,
    params: &Params,
) -> Result<Json<UserRemoved>, ApiError> {
    let data = UserData {
        conversations: params.flag("delete_conversations")?,
        memories: params.flag("delete_memories")?,
    };
    let user = find_or_say(api, id).await?;
    if user.is_superuser {
        let message = "Administrators cannot be deleted; take the role away first";
        return Err(ApiError::message(StatusCode::FORBIDDEN, message));
    }
    let deleted = erase(api, admin, &user, data).await.map_err(ApiError::as_message)?;
    Ok(Json(UserRemoved {
        message: format!("User {} deleted successfully", user.email),
        deleted_data: DeletedData {
            user_deleted: true,
            conversations_deleted: deleted.conversations,
            memories_deleted: deleted.memories,
        },
    }))
}

async fn erase(api: &Api, admin: &User, user: &User, data: UserData) -> Result<Deleted> {
    api.deletion.user(&user.id, data, Some(&admin.id)).await
}

async fn find(api: &Api, id: &str) -> Result<Option<User>> {
    match UserId::parse(id) {
        Some(id) => api.store.user(&id).await,
        None => Ok(None),
    }
}

async fn find_or_say(api: &Api, id: &str) -> Result<User, ApiError> {
    if UserId::parse(id).is_none() {
        let message = "A user id is 24 hexadecimal digits";
        return Err(ApiError::message(StatusCode::BAD_REQUEST, message));
    }
    let found = find(api, id).await.map_err(ApiError::as_message)?;
    found.ok_or_else(|| ApiError::message(StatusCode::NOT_FOUND, "User not found"))
}

/// Changes a user, and writes down who did it and to which fields.
async fn apply(
    api: &Api,
    actor: &User,
    id: &UserId,
    changes: UserChanges,
) -> Result<User, ApiError> {
    if let Some(email) = &changes.email {
        check_email(email).map_err(|error| wrong("email", error))?;
    }
    let fields = [
        ("email", changes.email.is_some()),
        ("password", changes.password.is_some()),
        ("display_name", changes.display_name.is_some()),
        ("is_active", changes.is_active.is_some()),
        ("is_superuser", changes.is_superuser.is_some()),
        ("is_verified", changes.is_verified.is_some()),
    ];
    let fields: Vec<&str> = fields.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    let password_hash = match &changes.password {
        Some(password) => {
            Some(api.auth.hash(password).await.map_err(|error| wrong("password", error))?)
        }
        None => None,
    };
    let update = UserUpdate {
        email: changes.email.as_deref().map(normal_email),
        password_hash,
        display_name: changes.display_name,
        is_active: changes.is_active,
        is_superuser: changes.is_superuser,
        is_verified: changes.is_verified,
        end_tokens: false,
    };
    let user = api.store.update_user(id, update).await?;
    let subject = format!("{}: {}", user.email, fields.join(", "));
    api.auth.audit(Some(&actor.id), "user-changed", &subject).await;
    Ok(user)
}

/// A field of the body that cannot be used, as FastAPI says it.
fn wrong(field: &str, error: Error) -> ApiError {
    if error.kind() != Kind::BadInput {
        return error.into();
    }
    ApiError::validation(vec![Problem::new("value_error", "body", field, error.message(), None)])
}
