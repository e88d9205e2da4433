//! How the daemon is, for administrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::api::Api;
use crate::http::auth::Superuser;
use crate::http::status::{self, Status};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(show))
}

/// How the daemon is, in full: streams, engines, models, memory, disk, heat.
#[utoipa::path(get, path = "/api/admin/status", tag = "system",
    responses((status = 200, description = "How it is", body = Status)))]
async fn show(State(api): State<Arc<Api>>, _: Superuser) -> Json<Status> {
    Json(status::status(&api).await)
}
