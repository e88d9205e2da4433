//! Transcription as OpenAI's clients ask for it. Nothing of it is stored.

mod format;
mod problem;

use std::sync::Arc;

use axum::Json;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::format::{Brief, Format, Verbose, Wanted};
use self::problem::{Problem, Problems};
use crate::domain::user::User;
use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::multipart::Form;
use crate::pipeline::file::transcribe_file;

/// The name that most clients ask for, whatever serves them.
const USUAL_MODEL: &str = "whisper-1";

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(transcribe))
        .layer(DefaultBodyLimit::disable())
        .routes(routes!(models))
        .routes(routes!(model))
}

/// Somebody with a token, else an error in OpenAI's form.
struct Bearer(#[allow(dead_code, reason = "who it is does not matter")] User);

impl FromRequestParts<Arc<Api>> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        match CurrentUser::from_request_parts(parts, api).await {
            Ok(CurrentUser(user)) => Ok(Self(user)),
            Err(error) => Err(Problem::of_login(&error)),
        }
    }
}

/// What to transcribe, and how to answer.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a schema")]
struct TranscriptionForm {
    /// An audio file: WAV, FLAC, MP3, Ogg, M4A, AAC or WebM.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// One of `/v1/models`.
    model: Option<String>,
    /// ISO 639-1 code of the language spoken.
    language: Option<String>,
    /// Accepted and not used.
    prompt: Option<String>,
    response_format: Option<Format>,
    /// Accepted and not used: the engine chooses it.
    temperature: Option<f32>,
    /// `word` or `segment`, for `verbose_json`.
    #[schema(rename = "timestamp_granularities[]")]
    timestamp_granularities: Option<Vec<String>>,
    /// Accepted and not used, as for `whisper-1`.
    stream: Option<bool>,
}

/// A transcript, as JSON.
#[derive(Serialize, ToSchema)]
#[schema(as = TranscriptionAnswer)]
#[serde(untagged)]
#[allow(dead_code, reason = "a schema")]
enum Transcription {
    /// For `json`.
    Brief(Brief),
    /// For `verbose_json`.
    Verbose(Verbose),
}

/// Transcribes an audio file, ahead of all other work.
#[utoipa::path(post, path = "/v1/audio/transcriptions", tag = "openai",
    request_body(content = TranscriptionForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The transcript", content(
            (Transcription = "application/json"), (String = "text/plain"))),
        (status = 400, description = "A parameter is wrong, or the file is not audio", body = Problems),
        (status = 401, description = "Not logged in", body = Problems),
        (status = 404, description = "No such model", body = Problems),
        (status = 413, description = "Too large", body = Problems),
        (status = 503, description = "The model is not there yet", body = Problems),
    ))]
async fn transcribe(
    State(api): State<Arc<Api>>,
    _: Bearer,
    request: Request,
) -> Result<Response, Problem> {
    let mut form = Form::receive(&api, request).await?;
    if let Some(model) = form.get("model") {
        known_model(&api, model)?;
    }
    let wanted = Wanted::of(&form)?;
    let language = form.get("language").filter(|text| !text.is_empty()).map(str::to_owned);
    if language.as_ref().is_some_and(|code| code.len() != 2 && code.len() != 3) {
        let text = "language must be an ISO 639-1 code such as en";
        return Err(Problem::parameter("language", text));
    }
    if form.get("temperature").is_some_and(|text| !is_temperature(text)) {
        let text = "temperature must be a number from 0 to 1";
        return Err(Problem::parameter("temperature", text));
    }
    let offer = form.files.pop();
    let offer = offer.ok_or_else(|| Problem::parameter("file", "you must provide a file"))?;
    let file = offer.file.map_err(|error| Problem::from(error).about("file"))?;
    if !api.speech.is_ready() {
        let text = "no speech engine can be asked now: its model is not there yet \
                    (`friend-lite models fetch` fetches it), or its service is away";
        return Err(Problem::unavailable(text));
    }
    let file = file.into_file(&offer.filename).await?;
    let config = &api.config.transcribe;
    let heard =
        transcribe_file(api.speech.as_ref(), config, file, language.as_deref(), |_| ()).await?;
    Ok(wanted.answer(&heard))
}

fn is_temperature(text: &str) -> bool {
    text.trim().parse::<f32>().is_ok_and(|value| (0.0..=1.0).contains(&value))
}

/// Models, as OpenAI lists them.
#[derive(Serialize, ToSchema)]
struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

/// One model.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiModel)]
struct Model {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
}

impl Model {
    fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), object: "model", created: 0, owned_by: "friend-lite" }
    }
}

/// The models there are: the configured one, under its own name and under the
/// one that most clients ask for.
#[utoipa::path(get, path = "/v1/models", tag = "openai",
    responses(
        (status = 200, description = "The models", body = ModelList),
        (status = 401, description = "Not logged in", body = Problems),
    ))]
async fn models(State(api): State<Arc<Api>>, _: Bearer) -> Json<ModelList> {
    let data = vec![Model::new(USUAL_MODEL), Model::new(own_model(&api))];
    Json(ModelList { object: "list", data })
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "openai",
    responses(
        (status = 200, description = "The model", body = Model),
        (status = 401, description = "Not logged in", body = Problems),
        (status = 404, description = "No such model", body = Problems),
    ))]
async fn model(
    State(api): State<Arc<Api>>,
    _: Bearer,
    Path(id): Path<String>,
) -> Result<Json<Model>, Problem> {
    known_model(&api, &id)?;
    Ok(Json(Model::new(id)))
}

/// The configured model without its engine: `ggml-base.bin`.
fn own_model(api: &Api) -> String {
    let name = api.speech.name();
    name.rsplit('/').next().unwrap_or(&name).to_owned()
}

fn known_model(api: &Api, id: &str) -> Result<(), Problem> {
    let own = own_model(api);
    if id == USUAL_MODEL || id == own || id == api.speech.name() {
        return Ok(());
    }
    Err(Problem::no_model(id, &[USUAL_MODEL, &own]))
}

/// So that a [`Problem`] can be the answer of an extractor.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.answer()
    }
}
