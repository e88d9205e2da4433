//! The port's semantics on a real database.

mod audio;
mod conversations;
mod deletions;
mod jobs;
mod memories;
mod model;
mod opening;
mod outbox;
mod upkeep;
mod uploads;
mod users;
mod versions;
