//! What goes wrong, and how often: scripted faults, each bounded by a count or a time window.
//!
//! Pure but for the clock that is passed in. Which faults apply to a request is settled once, when it has been read.

use std::time::{Duration, Instant};

/// One thing that goes wrong. Without [`Fault::times`] or [`Fault::lasting`] it does so until
/// [`Kinesis::clear_faults`](super::Kinesis::clear_faults).
#[derive(Clone, Debug)]
pub struct Fault {
    kind: Kind,
    skip: u32,
    left: Option<u32>,
    lasting: Option<Duration>,
    since: Option<Instant>,
}

/// Which records of a request fail.
#[derive(Clone, Debug)]
pub enum Which {
    /// Every one.
    All,
    /// About this share of them, 0 to 1; the same ones in every run.
    Fraction(f64),
    /// Those at these places.
    Indices(Vec<usize>),
    /// Those whose data contains this.
    Containing(Vec<u8>),
}

#[derive(Clone, Debug)]
enum Kind {
    Delay(Duration),
    Refuse(Refuse),
    ResetBefore,
    CutAfterStore,
    Partial(usize),
    Hang { store: bool },
    Records(Which, String, String),
    Lengthen(isize),
    CountLie(u64),
    NullErrors,
    Replace(Vec<u8>),
    Poison(Vec<u8>),
    Dribble(usize, Duration),
    Twice,
    Close,
}

/// A refusal of a whole request, stored nowhere.
#[derive(Clone, Debug)]
pub(crate) struct Refuse {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) code: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Fault {
    fn new(kind: Kind) -> Self {
        Self { kind, skip: 0, left: None, lasting: None, since: None }
    }

    /// Some records of an otherwise good request fail with `code`; the rest are stored.
    #[must_use]
    pub fn records(which: Which, code: &str) -> Self {
        let message = match code {
            "ProvisionedThroughputExceededException" => {
                "Rate exceeded for shard shardId-000000000000 in stream under account."
            }
            _ => "Internal Service Failure",
        };
        Self::new(Kind::Records(which, code.to_owned(), message.to_owned()))
    }

    /// These records are throttled: `ProvisionedThroughputExceededException` inside a 200.
    #[must_use]
    pub fn throttle(which: Which) -> Self {
        Self::records(which, "ProvisionedThroughputExceededException")
    }

    /// The whole request is refused with AWS's JSON error of that name.
    #[must_use]
    pub fn error(status: u16, code: &str) -> Self {
        Self::error_text(status, code, message_of(code))
    }

    /// As [`Fault::error`], with a text of one's own.
    #[must_use]
    pub fn error_text(status: u16, code: &str, message: &str) -> Self {
        let key = if code.starts_with("AccessDenied") { "Message" } else { "message" };
        let body = serde_json::json!({ "__type": code, key: message }).to_string();
        Self::body(status, "application/x-amz-json-1.1", Some(code), body.into_bytes())
    }

    /// The whole request is refused with a load balancer's HTML.
    #[must_use]
    pub fn html(status: u16) -> Self {
        let page = format!(
            "<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\r\n"
        );
        Self::body(status, "text/html", None, page.into_bytes())
    }

    /// The whole request is refused without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self::body(status, "text/plain", None, Vec::new())
    }

    fn body(status: u16, content_type: &'static str, code: Option<&str>, body: Vec<u8>) -> Self {
        Self::new(Kind::Refuse(Refuse {
            status,
            content_type,
            code: code.map(str::to_owned),
            body,
        }))
    }

    /// The connection is reset when the request has been read; nothing is stored.
    #[must_use]
    pub fn reset_before_answer() -> Self {
        Self::new(Kind::ResetBefore)
    }

    /// The request is stored and the connection closed: the answer is lost.
    #[must_use]
    pub fn cut_after_store() -> Self {
        Self::new(Kind::CutAfterStore)
    }

    /// The request is stored, and that many bytes of the answer arrive before the connection closes.
    #[must_use]
    pub fn partial_answer(bytes: usize) -> Self {
        Self::new(Kind::Partial(bytes))
    }

    /// The request is read, not stored, and never answered. Ends only when the client hangs up.
    #[must_use]
    pub fn hang() -> Self {
        Self::new(Kind::Hang { store: false })
    }

    /// The request is stored and never answered.
    #[must_use]
    pub fn hang_after_store() -> Self {
        Self::new(Kind::Hang { store: true })
    }

    /// The request is handled that much later. Goes together with any other fault.
    #[must_use]
    pub fn delay(by: Duration) -> Self {
        Self::new(Kind::Delay(by))
    }

    /// Any request holding a record whose data contains `bytes` is refused with `InvalidArgumentException`.
    #[must_use]
    pub fn poison(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Kind::Poison(bytes.into()))
    }

    /// The answer's `Records` has that many entries more, or fewer when negative. The request is stored.
    #[must_use]
    pub fn wrong_length(by: isize) -> Self {
        Self::new(Kind::Lengthen(by))
    }

    /// `FailedRecordCount` says this, whatever is true.
    #[must_use]
    pub fn lying_count(count: u64) -> Self {
        Self::new(Kind::CountLie(count))
    }

    /// Good records carry `"ErrorCode":null,"ErrorMessage":null`, as one emulator sends.
    #[must_use]
    pub fn null_error_codes() -> Self {
        Self::new(Kind::NullErrors)
    }

    /// The request is stored and answered with 200 and these bytes.
    #[must_use]
    pub fn garbage(body: impl Into<Vec<u8>>) -> Self {
        Self::new(Kind::Replace(body.into()))
    }

    /// The answer comes in pieces of `bytes`, `pause` apart.
    #[must_use]
    pub fn dribble(bytes: usize, pause: Duration) -> Self {
        Self::new(Kind::Dribble(bytes.max(1), pause))
    }

    /// The answer is whole, and the connection is closed after it without having said so.
    #[must_use]
    pub fn close_after_answer() -> Self {
        Self::new(Kind::Close)
    }

    /// The answer comes twice, the second time right behind the first.
    #[must_use]
    pub fn answer_twice() -> Self {
        Self::new(Kind::Twice)
    }

    /// Happens this often.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.left = Some(count);
        self
    }

    /// Happens for this long, counted from when it is set.
    #[must_use]
    pub fn lasting(mut self, window: Duration) -> Self {
        self.lasting = Some(window);
        self
    }

    /// Leaves that many requests alone first.
    #[must_use]
    pub fn after(mut self, requests: u32) -> Self {
        self.skip = requests;
        self
    }
}

fn message_of(code: &str) -> &'static str {
    match code {
        "ProvisionedThroughputExceededException" => "Rate exceeded for stream under account.",
        "ExpiredTokenException" => "The security token included in the request is expired",
        "UnrecognizedClientException" => "The security token included in the request is invalid.",
        "AccessDeniedException" => {
            "User: arn:aws:sts::123456789012:assumed-role/orders/orders is not authorized to perform: \
             kinesis:PutRecords on resource: arn:aws:kinesis:us-east-1:123456789012:stream/telemetry because no \
             identity-based policy allows the kinesis:PutRecords action"
        }
        "ResourceNotFoundException" => "Stream telemetry under account 123456789012 not found.",
        "KMSThrottlingException" => "The request was denied due to request throttling.",
        "ServiceUnavailable" => "Service is unable to handle request.",
        _ => "Internal Service Failure",
    }
}

/// What is to go wrong with one request.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    pub(crate) refuse: Option<Refuse>,
    pub(crate) reset_before: bool,
    pub(crate) hang: Option<bool>,
    pub(crate) cut: bool,
    pub(crate) partial: Option<usize>,
    pub(crate) records: Vec<(Which, String, String)>,
    pub(crate) lengthen: isize,
    pub(crate) count_lie: Option<u64>,
    pub(crate) null_errors: bool,
    pub(crate) replace: Option<Vec<u8>>,
    pub(crate) dribble: Option<(usize, Duration)>,
    pub(crate) close: bool,
    pub(crate) twice: bool,
}

impl Plan {
    /// Whether the request's fate is settled before its records are looked at.
    fn settled(&self) -> bool {
        self.refuse.is_some() || self.reset_before || self.hang.is_some()
    }
}

/// The faults that are set.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn set(&mut self, mut fault: Fault, now: Instant) {
        fault.since = Some(now);
        self.0.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The faults of one request, in the order in which they were set; `contains` looks into its records.
    pub(crate) fn plan(&mut self, now: Instant, contains: impl Fn(&[u8]) -> bool) -> Plan {
        let mut plan = Plan::default();
        self.0.retain(|fault| fault.left != Some(0) && !over(fault, now));
        for fault in &mut self.0 {
            if matches!(&fault.kind, Kind::Poison(bytes) if !contains(bytes)) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if plan.settled() && !matches!(fault.kind, Kind::Delay(_)) {
                continue;
            }
            if let Some(left) = &mut fault.left {
                *left -= 1;
            }
            apply(&fault.kind, &mut plan);
        }
        plan
    }
}

fn over(fault: &Fault, now: Instant) -> bool {
    fault
        .lasting
        .zip(fault.since)
        .is_some_and(|(window, since)| now.saturating_duration_since(since) >= window)
}

fn apply(kind: &Kind, plan: &mut Plan) {
    match kind {
        Kind::Delay(by) => plan.delay += *by,
        Kind::Refuse(refuse) => plan.refuse = Some(refuse.clone()),
        Kind::ResetBefore => plan.reset_before = true,
        Kind::CutAfterStore => plan.cut = true,
        Kind::Partial(bytes) => plan.partial = Some(*bytes),
        Kind::Hang { store } => plan.hang = Some(*store),
        Kind::Records(which, code, message) => {
            plan.records.push((which.clone(), code.clone(), message.clone()))
        }
        Kind::Lengthen(by) => plan.lengthen = *by,
        Kind::CountLie(count) => plan.count_lie = Some(*count),
        Kind::NullErrors => plan.null_errors = true,
        Kind::Replace(body) => plan.replace = Some(body.clone()),
        Kind::Dribble(bytes, pause) => plan.dribble = Some((*bytes, *pause)),
        Kind::Close => plan.close = true,
        Kind::Twice => plan.twice = true,
        Kind::Poison(_) => {
            let text = "1 validation error detected: a record was refused.";
            let body = serde_json::json!({ "__type": "InvalidArgumentException", "message": text })
                .to_string();
            plan.refuse = Some(Refuse {
                status: 400,
                content_type: "application/x-amz-json-1.1",
                code: Some("InvalidArgumentException".to_owned()),
                body: body.into_bytes(),
            });
        }
    }
}

/// Whether the record at `index` of the request numbered `request` is hit.
pub(crate) fn hits(which: &Which, request: u64, index: usize, data: &[u8]) -> bool {
    match which {
        Which::All => true,
        Which::Fraction(share) => unit(request, index as u64) < *share,
        Which::Indices(indices) => indices.contains(&index),
        Which::Containing(bytes) => memchr::memmem::find(data, bytes).is_some(),
    }
}

/// A number in 0..1 from two, the same in every run (splitmix64).
fn unit(a: u64, b: u64) -> f64 {
    let mut z = (a << 32 ^ b).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    f64::from(((z ^ (z >> 31)) >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_ends_after_its_count_and_its_window() {
        let now = Instant::now();
        let mut faults = Faults::default();
        faults.set(Fault::error(500, "InternalFailure").times(2).after(1), now);
        let refused: Vec<bool> =
            (0..5).map(|_| faults.plan(now, |_| false).refuse.is_some()).collect();
        assert_eq!(refused, [false, true, true, false, false]);

        faults.set(Fault::hang().lasting(Duration::from_secs(5)), now);
        assert!(faults.plan(now + Duration::from_secs(4), |_| false).hang.is_some());
        assert!(faults.plan(now + Duration::from_secs(5), |_| false).hang.is_none());
    }

    #[test]
    fn the_first_refusal_wins_and_the_second_keeps_its_count() {
        let now = Instant::now();
        let mut faults = Faults::default();
        faults.set(Fault::error(400, "AccessDeniedException").times(1), now);
        faults.set(Fault::empty(503).times(1), now);
        faults.set(Fault::delay(Duration::from_millis(3)), now);
        let statuses: Vec<Option<u16>> = (0..3)
            .map(|_| faults.plan(now, |_| false).refuse.map(|refuse| refuse.status))
            .collect();
        assert_eq!(statuses, [Some(400), Some(503), None]);
    }

    #[test]
    fn poison_only_hits_requests_that_hold_it() {
        let now = Instant::now();
        let mut faults = Faults::default();
        faults.set(Fault::poison("bad"), now);
        assert!(faults.plan(now, |_| false).refuse.is_none());
        assert_eq!(faults.plan(now, |bytes| bytes == b"bad").refuse.unwrap().status, 400);
    }

    #[test]
    fn a_fraction_is_about_that_and_always_the_same() {
        let hit = |request| {
            (0..500).filter(|index| hits(&Which::Fraction(0.3), request, *index, b"")).count()
        };
        let total: usize = (0..20).map(hit).sum();
        assert!((2700..3300).contains(&total), "{total}");
        assert_eq!(hit(7), hit(7));
    }
}
