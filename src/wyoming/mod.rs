//! The Wyoming protocol: events of a JSON header, JSON data and a binary
//! payload, as spoken by Home Assistant's voice services, by the clients that
//! stream audio here, and by our own engines over a pipe.
//!
//! <https://github.com/OHF-Voice/wyoming>

pub mod client;
pub mod codec;
pub mod event;

pub use client::Connection;
pub use codec::{Codec, FrameError, Header, Limits};
pub use event::Event;
