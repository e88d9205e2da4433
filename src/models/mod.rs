//! The models that the engines run: which exist, which suits this machine,
//! where they lie, and how to get them.
//!
//! [`Catalog`] is `models/catalog.toml`, compiled in. [`fetch()`] tries a model's
//! sources in order and puts a file in place only when its SHA-256 is the
//! catalog's, so a file in the models directory is whole or not there.

mod archive;
mod catalog;
mod check;
mod convert;
mod fetch;
mod https;
mod place;
mod progress;
mod registry;
mod resolve;
mod supply;

pub use catalog::{Catalog, Entry, ModelKind};
pub use check::{is_present, verify};
pub use fetch::{MARGIN, Place, fetch};
pub use place::models_dir;
pub use progress::{Progress, Quiet};
pub use resolve::ModelRef;
pub use supply::{ModelView, Stage, Supply};
