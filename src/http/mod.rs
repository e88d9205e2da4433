//! The HTTP edge: the server, logins, and the REST and WebSocket routes.

pub mod api;
pub mod auth;
pub mod error;
pub mod health;
pub mod params;
mod request_id;
mod routes;
pub mod server;

pub use routes::router;
