//! What has become of the audio: seconds that add up.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::clock::Timestamp;
use crate::domain::conversation::SAMPLE_RATE;
use crate::domain::coverage::Coverage;
use crate::domain::ids::UserId;
use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, Problem};
use crate::http::params::Params;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(coverage))
}

/// Audio by what became of it. In seconds, and in samples, which add up to the
/// last one: accepted = silent + transcribed + waiting + failed.
#[derive(Serialize, ToSchema)]
#[schema(as = Coverage)]
pub(super) struct CoverageView {
    accepted_seconds: f64,
    /// Of those accepted, what is on disk now.
    on_disk_seconds: f64,
    silent_seconds: f64,
    transcribed_seconds: f64,
    waiting_seconds: f64,
    failed_seconds: f64,
    samples: SamplesView,
}

/// The same in samples, 16,000 a second.
#[derive(Serialize, ToSchema)]
#[schema(as = CoverageSamples)]
struct SamplesView {
    accepted: u64,
    on_disk: u64,
    silent: u64,
    transcribed: u64,
    waiting: u64,
    failed: u64,
}

impl From<Coverage> for CoverageView {
    fn from(coverage: Coverage) -> Self {
        let Coverage { accepted, on_disk, transcribed, waiting, failed } = coverage;
        let silent = coverage.silent();
        let seconds = |samples: u64| samples as f64 / f64::from(SAMPLE_RATE);
        Self {
            accepted_seconds: seconds(accepted),
            on_disk_seconds: seconds(on_disk),
            silent_seconds: seconds(silent),
            transcribed_seconds: seconds(transcribed),
            waiting_seconds: seconds(waiting),
            failed_seconds: seconds(failed),
            samples: SamplesView { accepted, on_disk, silent, transcribed, waiting, failed },
        }
    }
}

/// The coverage of one user's conversations that began on one day.
#[derive(Serialize, ToSchema)]
struct DayView {
    /// In UTC: `2026-11-25`.
    day: String,
    user_id: UserId,
    #[serde(flatten)]
    coverage: CoverageView,
}

/// Coverage day by day, and all of it together.
#[derive(Serialize, ToSchema)]
struct CoverageDays {
    days: Vec<DayView>,
    total: CoverageView,
}

/// What has become of the audio, by user and day; a conversation counts for the
/// day on which it began, in UTC. An administrator sees everybody's, or with
/// `user_id` that of one user.
#[utoipa::path(get, path = "/api/coverage", tag = "conversations",
    params(("user_id" = Option<String>, Query, description = "Whose, for an administrator"),
           ("from" = Option<String>, Query, description = "First day, as 2026-11-25"),
           ("to" = Option<String>, Query, description = "Last day, as 2026-11-25")),
    responses((status = 200, description = "Coverage by day", body = CoverageDays)))]
async fn coverage(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<CoverageDays>, ApiError> {
    let from = day(&params, "from", 0)?.unwrap_or(Timestamp::from_millis(i64::MIN));
    let to = day(&params, "to", 1)?.unwrap_or(Timestamp::from_millis(i64::MAX));
    let owner = match params.get("user_id") {
        None if user.is_superuser => None,
        wanted => Some(api.owner(&user, wanted).await?.id),
    };
    let days = api.store.coverage(owner.as_ref(), from, to).await?;
    let total: Coverage = days.iter().map(|day| day.coverage).sum();
    let days = days.into_iter().map(|day| DayView {
        day: day.day,
        user_id: day.user_id,
        coverage: day.coverage.into(),
    });
    Ok(Json(CoverageDays { days: days.collect(), total: total.into() }))
}

/// The start of the day that a parameter names, `later` days on.
fn day(params: &Params, name: &str, later: i64) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let start = text.parse::<jiff::civil::Date>().ok().and_then(|date| {
        let date = date.checked_add(jiff::Span::new().try_days(later).ok()?).ok()?;
        let start = jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
        Some(Timestamp::from_millis(start.as_millisecond()))
    });
    start.map(Some).ok_or_else(|| {
        let message = "Input should be a valid date, such as 2026-11-25";
        let kind = "date_from_datetime_parsing";
        ApiError::validation(vec![Problem::new(kind, "query", name, message, Some(text))])
    })
}
