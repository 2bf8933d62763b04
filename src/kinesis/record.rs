//! The form of one Kinesis record. Pure.

/// How events are packed into Kinesis records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// Many events a record, one a line.
    Lines,
    /// One event a record.
    Event,
    /// Many events a record, in the KPL aggregated format.
    Kpl,
}

/// What is done to a record's data; in an aggregate, to each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// One gzip member.
    Gzip,
}
