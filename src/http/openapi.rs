//! The OpenAPI document, made from the handlers, and a page to read it.
//!
//! # How to add a route
//!
//! 1. Put `#[utoipa::path(...)]` over the handler: method, path, `tag`,
//!    `params` for what [`Params`](super::params::Params) reads (path parameters
//!    are found by themselves), and `responses` with a struct that derives
//!    `Serialize` and `ToSchema` for each body. Errors have theirs in
//!    [`super::error`]: `ErrorText`, `MessageText`, `Detail`, `ValidationError`.
//!    The handler's doc comment becomes the description.
//! 2. Add `.routes(routes!(handler))` to `routes()` of its file. Handlers of one
//!    path go in one `routes!(read, change, remove)`; an alias is
//!    `.routes(at("/other/path", routes!(handler)))`.
//!
//! What every route has is added here: who may ask (bearer or cookie; a public
//! route says `security(())`), 401 and 403 where a login is needed, and `5XX`.
//! Any other status a handler answers with must be in its `responses`: the tests
//! send what the document allows and compare what comes back with it.
//!
//! The name of a schema is that of its struct, so two structs of that name in
//! different files need `#[schema(as = OtherName)]` on one of them.

use std::sync::Arc;

use axum::extract::Extension;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::Paths;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::api::Api;
use super::auth::COOKIE;
use super::docs_page;
use super::error::{Detail, ErrorText, Failure, MessageText, ValidationError};

#[derive(OpenApi)]
#[openapi(
    info(title = "Friend-Lite", description = "Private, offline memory for spoken conversations."),
    components(schemas(Detail, ErrorText, MessageText, ValidationError, Failure))
)]
struct Base;

/// The document and the page, as they are sent.
pub(super) struct Rendered {
    json: String,
    page: String,
}

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(document)).routes(routes!(page))
}

/// A router to merge the others into.
pub(super) fn base() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Base::openapi())
}

/// The handler of `routes` under another `path`.
pub(super) fn at(
    path: &str,
    (schemas, routes, router): UtoipaMethodRouter<Arc<Api>>,
) -> UtoipaMethodRouter<Arc<Api>> {
    let mut moved = Paths::new();
    moved.paths.extend(routes.paths.into_values().map(|item| (path.to_owned(), item)));
    (schemas, moved, router)
}

/// This API as an OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", tag = "system", security(()),
    responses((status = 200, description = "The document", body = Object)))]
async fn document(Extension(rendered): Extension<Arc<Rendered>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], rendered.json.clone())
}

/// This page.
#[utoipa::path(get, path = "/docs", tag = "system", security(()),
    responses((status = 200, description = "The page", content_type = "text/html", body = String)))]
async fn page(Extension(rendered): Extension<Arc<Rendered>>) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 2] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, docs_page::POLICY),
    ];
    (headers, rendered.page.clone())
}

/// Renders the document that the routers collected.
pub(super) fn render(collected: &utoipa::openapi::OpenApi) -> Arc<Rendered> {
    let document = complete(collected);
    Arc::new(Rendered { json: document.to_string(), page: docs_page::render(&document) })
}

/// Adds what every route has.
fn complete(collected: &utoipa::openapi::OpenApi) -> Value {
    let mut document = json!(collected);
    document["security"] = json!([{ "bearer": [] }, { "cookie": [] }]);
    document["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
        "cookie": { "type": "apiKey", "in": "cookie", "name": COOKIE },
    });
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete_operation(method, path, operation);
        }
    }
    document
}

fn complete_operation(method: &str, path: &str, operation: &mut Value) {
    let name = path.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    operation["operationId"] = json!(format!("{method}_{}", name.trim_matches('_')));
    let public = operation["security"] == json!([{}]);
    if public {
        operation["security"] = json!([]);
    }
    let responses = &mut operation["responses"];
    if !public {
        add_response(responses, "401", "Not logged in", "Detail");
        add_response(responses, "403", "Not allowed", "Detail");
    }
    add_response(responses, "5XX", "The daemon cannot do it now", "Failure");
}

/// Adds a JSON answer; where the handler has one of that status, it is either.
fn add_response(responses: &mut Value, status: &str, description: &str, schema: &str) {
    let added = json!({ "$ref": format!("#/components/schemas/{schema}") });
    let pointer = format!("/{status}/content/application~1json/schema");
    match responses.pointer_mut(&pointer) {
        Some(own) if *own != added => *own = json!({ "anyOf": [own.take(), added] }),
        Some(_) => {}
        None => {
            responses[status] = json!({
                "description": description,
                "content": { "application/json": { "schema": added } },
            });
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every operation of a document as (method, path), in upper case and as written.
    pub(in crate::http) fn operations(document: &Value) -> Vec<(String, String)> {
        let paths = document["paths"].as_object().unwrap();
        let methods = |(path, item): (&String, &Value)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        paths.iter().flat_map(methods).collect()
    }

    #[test]
    fn an_answer_of_the_same_status_is_either() {
        let mut operation = json!({ "responses": {
            "403": { "content": { "application/json": { "schema": { "type": "object" } } } },
        }});
        complete_operation("post", "/api/x/{id}/close", &mut operation);
        assert_eq!(operation["operationId"], "post_api_x__id__close");
        let schema = &operation["responses"]["403"]["content"]["application/json"]["schema"];
        assert_eq!(schema["anyOf"][0]["type"], "object");
        assert_eq!(schema["anyOf"][1]["$ref"], "#/components/schemas/Detail");
        assert!(operation["responses"]["401"].is_object());
        assert!(operation["responses"]["5XX"].is_object());
    }

    #[test]
    fn a_public_route_asks_for_no_login() {
        let mut operation = json!({ "security": [{}], "responses": {} });
        complete_operation("get", "/health", &mut operation);
        assert_eq!(operation["security"], json!([]));
        assert!(operation["responses"].get("401").is_none());
    }
}
