//! Users.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::error::Result;
use crate::domain::ids::{ClientId, UserId};
use crate::domain::user::User;
use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::error::ApiError;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(me))
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
        let devices = devices.into_iter().map(|device| {
            let client = RegisteredClient {
                is_active: api.ingest.clients().get(&device.client_id).is_some(),
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

/// The caller, with their devices.
#[utoipa::path(get, path = "/users/me", tag = "users",
    responses((status = 200, description = "The caller", body = UserView)))]
async fn me(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<UserView>, ApiError> {
    Ok(Json(UserView::of(&api, user).await?))
}
