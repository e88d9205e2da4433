//! Taking what is over off the list of jobs.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::clock::Timestamp;
use crate::domain::job::JobState;
use crate::domain::user::User;
use crate::http::api::Api;
use crate::http::auth::Superuser;
use crate::http::body::Body;
use crate::http::error::{ApiError, ValidationError};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(flush)).routes(routes!(flush_all))
}

/// Which jobs to take off the list.
#[derive(Deserialize, ToSchema)]
#[serde(default)]
struct Flush {
    /// Only those that ended so long ago.
    older_than_hours: u16,
    /// `completed`, `failed`.
    statuses: Vec<String>,
}

impl Default for Flush {
    fn default() -> Self {
        Self { older_than_hours: 24, statuses: vec!["completed".into()] }
    }
}

/// What was taken off the list.
#[derive(Serialize, ToSchema)]
struct Flushed {
    total_removed: usize,
    message: String,
}

impl Flushed {
    async fn new(
        api: &Api,
        admin: &User,
        done: bool,
        dead: bool,
        age: Duration,
    ) -> Result<Self, ApiError> {
        let now = api.clock.now();
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(now.millis().saturating_sub(age));
        let mut total_removed = 0;
        for (wanted, state) in [(done, JobState::Done), (dead, JobState::Dead)] {
            if wanted {
                total_removed += api.store.forget_jobs(state, before).await?;
            }
        }
        api.auth.audit(Some(&admin.id), "jobs-flushed", &total_removed.to_string()).await;
        let message = format!("{total_removed} jobs were taken off the list");
        Ok(Self { total_removed, message })
    }
}

/// Takes finished jobs off the list; failed ones only when asked to, since they
/// cannot be retried then.
#[utoipa::path(post, path = "/api/queue/flush", tag = "queue", request_body = Flush,
    responses(
        (status = 200, description = "They are gone", body = Flushed),
        (status = 422, description = "Wrong values", body = ValidationError),
    ))]
async fn flush(
    State(api): State<Arc<Api>>,
    Superuser(admin): Superuser,
    Body(wanted): Body<Flush>,
) -> Result<Json<Flushed>, ApiError> {
    let has = |status: &str| wanted.statuses.iter().any(|wanted| wanted == status);
    let age = Duration::from_secs(u64::from(wanted.older_than_hours) * 3600);
    Ok(Json(Flushed::new(&api, &admin, has("completed"), has("failed"), age).await?))
}

/// Takes every finished and failed job off the list. What waits or is being
/// done stays.
#[utoipa::path(post, path = "/api/queue/flush-all", tag = "queue",
    responses((status = 200, description = "They are gone", body = Flushed)))]
async fn flush_all(
    State(api): State<Arc<Api>>,
    Superuser(admin): Superuser,
) -> Result<Json<Flushed>, ApiError> {
    Ok(Json(Flushed::new(&api, &admin, true, true, Duration::ZERO).await?))
}
