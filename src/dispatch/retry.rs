//! When to try again: pauses with full jitter, a bound on requests that deliver nothing, and the
//! breaker, which says whether an invocation may be held for Kinesis at all. Pure: time and seed
//! come in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// No more requests of a sandbox than this may deliver nothing in any [`WINDOW`].
pub const MOST_FRUITLESS: usize = 10;
/// Of these, what one process sends: the last one is for another that takes its place within the
/// same window.
const SHARE: usize = MOST_FRUITLESS - 1;
/// See [`MOST_FRUITLESS`].
pub const WINDOW: Duration = Duration::from_secs(1);
/// The longest pause after the first fruitless request; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The same for throttling: a shard's limit is one of each second.
const FIRST_THROTTLED_PAUSE: Duration = Duration::from_millis(200);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The time between probes while the breaker is open: the first, and the longest.
const PROBE_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A small generator (SplitMix64) with a seed of its own, so that a run can be repeated.
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Any seed will do.
    #[must_use]
    pub fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// Evenly from zero to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(bits % (micros + 1))
    }

    /// The pause before try number `tries` (from 1), with full jitter.
    pub fn pause(&mut self, tries: u32, throttled: bool) -> Duration {
        let first = if throttled { FIRST_THROTTLED_PAUSE } else { FIRST_PAUSE };
        self.up_to(first.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(LONGEST_PAUSE))
    }
}

/// See the module's page. Ages are the core's own time, which a freeze moves on.
#[derive(Debug)]
pub struct Retry {
    jitter: Jitter,
    /// Requests in a row that delivered nothing.
    failures: u32,
    /// Of those, the ones after which nothing is sent for a while.
    pauses: u32,
    /// No request before this age: a pause is over after a freeze, even if the monotonic clock
    /// stood still.
    resume: Option<Duration>,
    /// When the last fruitless requests were sent.
    fruitless: VecDeque<Instant>,
    /// Flushes in a row that delivered nothing, and the age from which the next probe may go.
    breaker: Option<(u32, Duration)>,
}

impl Retry {
    /// `seed` decides all jitter.
    #[must_use]
    pub fn new(seed: u64) -> Retry {
        Retry {
            jitter: Jitter::new(seed),
            failures: 0,
            pauses: 0,
            resume: None,
            fruitless: VecDeque::with_capacity(SHARE),
            breaker: None,
        }
    }

    /// The pause before a record that failed so often is due again.
    pub fn pause(&mut self, tries: u32, throttled: bool) -> Duration {
        self.jitter.pause(tries, throttled)
    }

    /// A request is sent, and may turn out to deliver nothing.
    pub fn sending(&mut self, now: Instant) {
        if self.fruitless.len() == SHARE {
            self.fruitless.pop_front();
        }
        self.fruitless.push_back(now);
    }

    /// The process before this one in the sandbox may have sent its share until now.
    pub fn takes_over(&mut self, now: Instant) {
        (1..SHARE).for_each(|_| self.sending(now));
    }

    /// The request that was sent last has delivered something.
    pub fn delivered(&mut self) {
        self.fruitless.pop_back();
        (self.failures, self.pauses) = (0, 0);
        self.resume = None;
        self.breaker = None;
    }

    /// The request that was sent last has delivered nothing, and it makes no sense to send another
    /// one at once.
    pub fn failed(&mut self, age: Duration, throttled: bool) {
        self.failures = self.failures.saturating_add(1);
        self.pause_all(age, throttled);
    }

    /// The same, where that says nothing of Kinesis: each record was refused for what it holds.
    pub fn pause_all(&mut self, age: Duration, throttled: bool) {
        self.pauses = self.pauses.saturating_add(1);
        self.resume = Some(age.saturating_add(self.jitter.pause(self.pauses, throttled)));
    }

    /// There is little time left: pauses begin anew. The bound on requests that deliver nothing
    /// stays.
    pub fn renew(&mut self) {
        (self.pauses, self.resume) = (0, None);
    }

    /// Requests in a row that have delivered nothing.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Until when nothing may be sent; `None`: now.
    #[must_use]
    pub fn wait_until(&self, now: Instant, age: Duration) -> Option<Instant> {
        let resume = self.resume.and_then(|resume| now.checked_add(resume.saturating_sub(age)));
        resume.into_iter().chain(self.bound_until(now)).max().filter(|until| *until > now)
    }

    /// The same, with no regard to the pause: until the bound on requests that deliver nothing
    /// allows another one.
    #[must_use]
    pub fn bound_until(&self, now: Instant) -> Option<Instant> {
        let full = self.fruitless.len() == SHARE;
        let oldest =
            self.fruitless.front().filter(|_| full).and_then(|oldest| oldest.checked_add(WINDOW));
        oldest.filter(|until| *until > now)
    }

    /// A flush or a probe has asked Kinesis and delivered nothing: from now on no invocation is
    /// held, and Kinesis is only probed.
    pub fn open(&mut self, age: Duration) {
        let flushes = self.breaker.map_or(0, |(flushes, _)| flushes);
        let (first, longest) = PROBE_EVERY;
        let pause = first.saturating_mul(1 << flushes.min(8)).min(longest);
        // At least half of it: a probe costs an invocation its time.
        let pause = pause / 2 + self.jitter.up_to(pause / 2);
        self.breaker = Some((flushes + 1, age + pause));
        self.resume = None;
    }

    /// Whether Kinesis is only probed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.breaker.is_some()
    }

    /// The age from which the next probe may go; `None` where none is needed.
    #[must_use]
    pub fn probe_at(&self) -> Option<Duration> {
        self.breaker.map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_jittered_and_grow_up_to_a_bound() {
        let mut jitter = Jitter::new(7);
        for tries in 1..40 {
            let bound = FIRST_PAUSE.saturating_mul(1 << (tries - 1).min(10)).min(LONGEST_PAUSE);
            let pauses: Vec<Duration> = (0..200).map(|_| jitter.pause(tries, false)).collect();
            assert!(pauses.iter().all(|pause| *pause <= bound), "{tries}");
            assert!(
                pauses.iter().any(|pause| *pause > bound * 3 / 4)
                    && pauses.iter().any(|pause| *pause < bound / 4),
                "{tries}"
            );
        }
        assert!((0..200).any(|_| jitter.pause(1, true) > FIRST_PAUSE));
        assert_eq!(jitter.up_to(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn nine_fruitless_requests_a_second_and_no_more() {
        let start = Instant::now();
        let (mut retry, mut now, mut sent) = (Retry::new(1), start, Vec::new());
        while now < start + Duration::from_secs(5) {
            if retry.wait_until(now, Duration::ZERO).is_none() {
                retry.sending(now);
                // As if each could go again at once.
                sent.push(now);
            }
            now += Duration::from_millis(7);
        }
        assert!(
            sent.windows(SHARE + 1).all(|window| *window.last().unwrap() - window[0] >= WINDOW)
        );
        assert!(sent.len() >= 43, "{}", sent.len());
        // What delivers is not bounded.
        let mut retry = Retry::new(1);
        for _ in 0..100 {
            assert_eq!(retry.wait_until(now, Duration::ZERO), None);
            retry.sending(now);
            retry.delivered();
        }
    }

    #[test]
    fn a_failure_pauses_and_a_delivery_forgets_all() {
        let now = Instant::now();
        let mut retry = Retry::new(3);
        for _ in 0..6 {
            retry.sending(now);
            retry.failed(Duration::ZERO, false);
        }
        assert_eq!(retry.failures(), 6);
        let until = retry.wait_until(now, Duration::ZERO).unwrap();
        assert!(until <= now + FIRST_PAUSE * 32);
        assert_eq!(retry.wait_until(until, until - now), None);
        assert_eq!(
            retry.wait_until(now, Duration::from_secs(60)),
            None,
            "a freeze ends the pause, even where this clock stood still"
        );
        retry.open(Duration::ZERO);
        assert!(retry.is_open());
        retry.sending(now);
        retry.delivered();
        assert_eq!(
            (retry.failures(), retry.is_open(), retry.wait_until(now, Duration::ZERO)),
            (0, false, None)
        );
    }

    /// Before a reset one process sent ten in the last second, and the next one ten in its first.
    #[test]
    fn who_takes_over_sends_one_more_in_the_first_second() {
        let now = Instant::now();
        let mut retry = Retry::new(3);
        retry.takes_over(now);
        for _ in 0..3 {
            assert_eq!(retry.bound_until(now), None);
            retry.sending(now);
            assert_eq!(retry.bound_until(now), Some(now + WINDOW));
            retry.delivered();
        }
        retry.sending(now);
        assert_eq!(retry.bound_until(now + WINDOW), None);
    }

    /// The first numbers of SplitMix64 for that seed, as its author gives them.
    #[test]
    fn the_generator_is_splitmix64() {
        let mut jitter = Jitter::new(1_234_567);
        let most = Duration::from_micros(u64::MAX - 1);
        for number in [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
        ] {
            assert_eq!(jitter.up_to(most), Duration::from_micros(number));
        }
        assert!(jitter.up_to(Duration::MAX) <= most);
    }

    #[test]
    fn pauses_that_are_renewed_begin_anew_and_the_bound_stays() {
        let (now, age) = (Instant::now(), Duration::ZERO);
        let mut retry = Retry::new(3);
        for _ in 0..SHARE {
            retry.sending(now);
            retry.failed(age, false);
        }
        assert!(retry.wait_until(now + WINDOW, age).is_some());
        retry.renew();
        assert_eq!(retry.bound_until(now), Some(now + WINDOW));
        assert_eq!(retry.bound_until(now + WINDOW), None);
        assert_eq!(retry.wait_until(now + WINDOW, age), None);
        retry.failed(age, false);
        let until = retry.wait_until(now + WINDOW, age);
        assert!(until.is_none_or(|until| until <= now + WINDOW + FIRST_PAUSE));
    }

    #[test]
    fn probes_become_rarer() {
        let mut retry = Retry::new(9);
        let mut bounds = Vec::new();
        for _ in 0..10 {
            let age = Duration::from_secs(1000);
            retry.open(age);
            bounds.push(retry.probe_at().unwrap() - age);
        }
        assert!(bounds[0] >= Duration::from_millis(500) && bounds[0] <= Duration::from_secs(1));
        assert!(
            bounds.iter().all(|pause| *pause <= Duration::from_secs(30))
                && bounds[9] >= Duration::from_secs(15)
        );
    }
}
