//! What one shard takes: 1 MiB and 1000 records a second, with a burst of one second. Pure, the clock is passed in.

use std::collections::HashMap;
use std::time::Instant;

const BYTES_A_SECOND: f64 = 1_048_576.0;
const RECORDS_A_SECOND: f64 = 1000.0;

/// A bucket of bytes and one of records for each shard.
#[derive(Debug, Default)]
pub(crate) struct ShardLimit(HashMap<usize, Bucket>);

#[derive(Debug)]
struct Bucket {
    bytes: f64,
    records: f64,
    at: Instant,
}

impl ShardLimit {
    /// Whether the shard takes a record of `size` bytes at `now`. One that is larger than the bucket is lent what is missing.
    pub(crate) fn takes(&mut self, shard: usize, size: usize, now: Instant) -> bool {
        let bucket = self.0.entry(shard).or_insert(Bucket {
            bytes: BYTES_A_SECOND,
            records: RECORDS_A_SECOND,
            at: now,
        });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.at = now;
        bucket.bytes = (bucket.bytes + passed * BYTES_A_SECOND).min(BYTES_A_SECOND);
        bucket.records = (bucket.records + passed * RECORDS_A_SECOND).min(RECORDS_A_SECOND);
        let needed = (size as f64).min(BYTES_A_SECOND);
        let takes = bucket.bytes >= needed && bucket.records >= 1.0;
        if takes {
            bucket.bytes -= size as f64;
            bucket.records -= 1.0;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_s_worth_at_once_and_then_as_it_refills() {
        let (mut limit, now) = (ShardLimit::default(), Instant::now());
        let taken = |limit: &mut ShardLimit, shard, size, now| {
            (0..3000).filter(|_| limit.takes(shard, size, now)).count()
        };
        assert_eq!(taken(&mut limit, 0, 100, now), 1000);
        assert_eq!(taken(&mut limit, 0, 100, now + Duration::from_millis(500)), 500);
        assert_eq!(taken(&mut limit, 1, 10_486, now), 99, "bytes, and by shard");
        assert_eq!(taken(&mut limit, 0, 100, now + Duration::from_secs(60)), 1000);
    }

    #[test]
    fn a_record_larger_than_a_second_s_worth_is_taken_and_paid_for_later() {
        let (mut limit, now) = (ShardLimit::default(), Instant::now());
        assert!(limit.takes(0, 3 * 1_048_576, now));
        assert!(!limit.takes(0, 1, now + Duration::from_millis(1900)));
        assert!(limit.takes(0, 1, now + Duration::from_millis(2100)));
    }
}
