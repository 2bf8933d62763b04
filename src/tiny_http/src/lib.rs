//! The half of tiny_http 0.12.0 that reads requests from a connection and answers them, with limits.
//! README.md says what was changed.
#![forbid(unsafe_code)]
#![allow(clippy::all, reason = "what was not changed stays as it was")]

pub use client::{ClientConnection, MAX_HEAD};
pub use common::{HTTPVersion, Header, HeaderField, Method, StatusCode};
pub use request::Request;
pub use response::Response;

mod client;
mod common;
mod request;
mod response;
mod util;
