//! The HTTP edge: the server, logins, and the REST and WebSocket routes.

pub mod api;
pub mod auth;
mod body;
mod docs_page;
pub mod error;
pub mod health;
pub mod local;
pub mod multipart;
mod openapi;
pub mod params;
mod relay;
mod request_id;
mod routes;
pub mod server;
pub mod status;
pub mod tls;
pub mod waiting;

pub use routes::router;
