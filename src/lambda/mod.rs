//! Upstream: what Lambda says. The Extensions API, the Telemetry API's listener, and the bodies it posts.

pub mod api;
pub mod body;
pub mod destination;
pub mod filter;
pub mod listener;
pub mod repair;
pub mod scan;
