//! The suite of the port on a real database, and what is SQLite's own.

mod opening;
mod upkeep;

crate::store::tests::every_test!(crate::store::sqlite::SqliteStore);
