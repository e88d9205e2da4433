//! What everything else stands on: errors, the clock, paced sockets, facts about
//! the machine, counters, and logging. Nothing here knows about audio or storage.

pub mod clock;
pub mod error;
pub mod metrics;
pub mod owner;
pub mod paced;
pub mod planned;
pub mod system;
pub mod telemetry;
pub mod thermal;
pub mod tls;
