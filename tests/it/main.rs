//! Drives the built binary from outside.
