//! Upstream: what Lambda says. The Extensions API, the Telemetry API's listener, and the bodies it posts.

pub mod api;
pub mod destination;
mod envelope;
mod fields;
pub mod filter;
pub mod intake;
pub mod listener;
mod repair;
mod text_log;
