//! Users.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::error::ApiError;

/// The caller, with their devices.
pub(super) async fn me(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<Value>, ApiError> {
    let devices: Map<String, Value> = api
        .store
        .devices(Some(&user.id))
        .await?
        .into_iter()
        .map(|device| {
            let entry = json!({
                "client_id": device.client_id,
                "device_name": device.device_name,
                "first_seen": device.first_seen.to_rfc3339(),
                "last_seen": device.last_seen.to_rfc3339(),
                "is_active": api.ingest.clients().get(&device.client_id).is_some(),
            });
            (device.client_id.to_string(), entry)
        })
        .collect();
    Ok(Json(json!({
        "id": user.id,
        "email": user.email,
        "is_active": user.is_active,
        "is_superuser": user.is_superuser,
        "is_verified": user.is_verified,
        "display_name": user.display_name,
        "registered_clients": devices,
        "primary_speakers": [],
    })))
}
