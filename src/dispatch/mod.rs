//! In the middle: what is kept, and when it goes.

pub mod dispatcher;
pub mod flush;
pub mod metrics;
pub mod pack;
pub mod queue;
pub mod sender;
pub mod spool;
