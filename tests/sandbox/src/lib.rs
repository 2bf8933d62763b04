//! A small, faithful Lambda sandbox and Kinesis endpoint.
