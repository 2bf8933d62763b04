//! Upstream: what Lambda says. The Extensions API, the Telemetry API's listener, and the bodies it
//! posts.

pub mod api;
mod api_client;
mod appendix;
mod body_reader;
mod candidates;
pub mod chooser;
mod choosing;
mod connections;
pub mod destination;
mod envelope;
mod event_builder;
mod exception;
mod fields;
pub mod filter;
mod framing;
mod handover;
mod header;
mod http;
pub mod intake;
mod invocations;
mod json;
mod json_reader;
pub mod keep;
pub mod listener;
pub mod observed;
mod parsed_body;
mod reading;
mod reading_room;
mod repair;
#[cfg(test)]
mod samples;
mod summary;
mod text_level;
mod unsettled;
pub mod windows;

use self::api::Buffering;
use self::filter::{Filter, Types};

/// What this room needs to know. Made when the environment is read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is shipped, and so subscribed to.
    pub types: Types,
    /// What of that is left out.
    pub filter: Filter,
    /// Which invocations are shipped whole.
    pub keep: keep::Settings,
    /// Of the telemetry listener.
    pub port: u16,
    /// Asked of the Telemetry API.
    pub buffering: Buffering,
}

impl Settings {
    /// Whether there is anything to ship. Summaries are shipped whatever is left out beside them.
    #[must_use]
    pub fn ships_any(&self) -> bool {
        self.keep.summary || self.filter.ships_any()
    }
}
