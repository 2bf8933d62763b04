//! In the middle: what is kept, and when it goes.

pub mod dispatcher;
pub mod flush;
pub mod queue;
pub mod sender;
