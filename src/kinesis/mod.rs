//! Downstream: what Kinesis takes. Records, PutRecords requests, signatures, answers. Knows neither Lambda nor the queue.

pub mod batch;
pub mod credentials;
pub mod endpoint;
pub mod gzip;
pub mod kpl;
pub mod proxy;
pub mod put_records;
pub mod record;
pub mod sign;
pub mod skew;
pub mod sts;
pub mod way;
