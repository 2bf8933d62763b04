//! One PutRecords call: send, and one outcome per record.
//!
//! Runs on the dispatcher's thread. The HTTP agent, and with it TLS, is made with the first call: nothing of it stands on the way to `/next`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Request as HttpRequest};
use serde::Deserialize;

use super::batch::Request;
use super::credentials::Chain;
use super::endpoint::{Endpoint, Stream};
use super::skew::Skew;
use super::way::{Answer, Way, exchange};
use super::{sign, sts};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::sandbox::Sandbox;

/// No call starts with less time left than this.
pub const LEAST_TIME: Duration = Duration::from_millis(10);
/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// It has a sequence number.
    Taken,
    /// To be sent again; the error code says why.
    Failed(String),
}

/// What to do about a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Again, after a throttling pause.
    Throttled,
    /// Again, after a short pause.
    Transient,
    /// The local clock was wrong and is now corrected: again at once, once.
    ClockCorrected,
    /// Something that only a person can mend: permission, stream, key, certificate.
    Person,
    /// Kinesis refuses these records as they are: take them apart.
    Split,
}

/// A request that failed as a whole.
#[derive(Clone, Debug)]
pub struct Failure {
    /// AWS's error code, or a short name for what happened on the way.
    pub code: String,
    /// One clause, for a person. Never quotes a body.
    pub message: String,
    /// What to do about it.
    pub remedy: Remedy,
    /// Whether Kinesis may have taken the records all the same.
    pub ambiguous: bool,
    /// Whether it can be a pooled connection that had died, so that a fresh one is worth a try at once.
    pub stale: bool,
    /// Whether Kinesis says that the signature's time is too far from its own.
    pub about_time: bool,
    /// AWS's own words, for the person who runs `--check`. In no log line.
    pub detail: Option<String>,
}

impl Failure {
    /// Whether the keys are refused as such, so that other ones may do.
    fn is_about_keys(&self) -> bool {
        let code = self.code.strip_prefix(sts::FAILED).unwrap_or(&self.code);
        matches!(code, "ExpiredTokenException" | "ExpiredToken" | "UnrecognizedClientException" | "InvalidClientTokenId")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

/// Sends PutRecords requests to one stream.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    stream: Stream,
    way: Way,
    chain: Chain,
    agent: Option<ureq::Agent>,
    skew: Skew,
    /// A connection may be waiting in the pool.
    pooled: bool,
    restores: Restores,
}

impl Client {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(config: &Config, sandbox: Arc<Sandbox>) -> Client {
        Client {
            endpoint: config.endpoint.clone(),
            stream: config.stream.clone(),
            way: config.way.clone(),
            chain: Chain::new(config.credentials.clone(), config.role.clone(), config.way.clone()),
            agent: None,
            skew: Skew::default(),
            pooled: false,
            restores: Restores::new(config.snap_start, sandbox),
        }
    }

    /// Sends `request` once and says what became of each of its records, in their order. Once more where Kinesis refuses keys that can be had
    /// anew.
    ///
    /// # Errors
    /// A [`Failure`] when the request failed as a whole or its answer cannot be trusted.
    pub fn put(&mut self, request: &mut Request, deadline: &Deadline) -> Result<Vec<RecordOutcome>, Failure> {
        if self.restores.happened() {
            // Sockets are dead, TLS sessions are known to other sandboxes, and keys may be old.
            self.agent = None;
            self.pooled = false;
            self.chain.forget();
        }
        match self.put_once(request, deadline) {
            Err(failure) if failure.is_about_keys() && self.chain.forget() => self.put_once(request, deadline),
            other => other,
        }
    }

    fn put_once(&mut self, request: &mut Request, deadline: &Deadline) -> Result<Vec<RecordOutcome>, Failure> {
        let sent = request.len();
        let hash = request.finish(&self.stream);
        let (status, headers, body) = self.post(request.body(), hash, deadline)?;
        if status == 200 {
            return read_answer(&body, sent);
        }
        let failure = read_failure(status, &headers, &body);
        let corrected = failure.about_time && self.skew.learn(&headers);
        Err(if corrected { Failure { remedy: Remedy::ClockCorrected, ..failure } } else { failure })
    }

    fn post(&mut self, body: &[u8], hash: String, deadline: &Deadline) -> Result<Answer, Failure> {
        let keys = self.chain.keys(&mut self.skew, deadline)?;
        let scope = sign::Scope { url: self.endpoint.url(), region: self.endpoint.region(), service: "kinesis", time: self.skew.now() };
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "Kinesis_20131202.PutRecords")];
        let signature = sign::headers(&scope, &keys, &headers, hash).map_err(|message| person("BadCredentials", message))?;
        let mut post = HttpRequest::post(self.endpoint.url());
        for (name, value) in headers {
            post = post.header(name, value);
        }
        for (name, value) in signature {
            post = post.header(name, value);
        }
        let post = post.body(body).map_err(|error| person("BadRequest", error.to_string()))?;

        let reused = std::mem::take(&mut self.pooled);
        let agent = match &self.agent {
            Some(agent) => agent.clone(),
            None => self.agent.insert(self.way.agent(self.endpoint.url())?).clone(),
        };
        let answer = exchange(&agent, post, deadline, reused)?;
        self.pooled = true;
        Ok(answer)
    }

    /// Seconds that AWS's clock was found to be ahead of the local one; 0 while it was near enough.
    #[must_use]
    pub fn skew_seconds(&self) -> i64 {
        self.skew.seconds()
    }
}

/// Whether the sandbox was restored from a snapshot since the last look: Lambda says so, or, under SnapStart, the wall clock has jumped.
#[derive(Debug)]
struct Restores {
    snap_start: bool,
    sandbox: Arc<Sandbox>,
    known: u16,
    seen: (Instant, SystemTime),
}

impl Restores {
    /// More than a clock that is being set right moves by.
    const JUMP: Duration = Duration::from_secs(5);

    fn new(snap_start: bool, sandbox: Arc<Sandbox>) -> Restores {
        Restores { snap_start, sandbox, known: 0, seen: (Instant::now(), SystemTime::now()) }
    }

    fn happened(&mut self) -> bool {
        if !self.snap_start {
            return false;
        }
        let now = (Instant::now(), SystemTime::now());
        let (elapsed, told) = (now.0.saturating_duration_since(self.seen.0), now.1.duration_since(self.seen.1));
        self.seen = now;
        let jumped = told.map_or(true, |told| told.abs_diff(elapsed) > Self::JUMP);
        let known = std::mem::replace(&mut self.known, self.sandbox.restores());
        jumped || known != self.known
    }
}

pub(super) fn person(code: &str, message: String) -> Failure {
    Failure { code: code.to_owned(), message, remedy: Remedy::Person, ambiguous: false, stale: false, about_time: false, detail: None }
}

pub(super) fn is_about_time(code: &str, message: &str) -> bool {
    match code {
        "RequestTimeTooSkewed" | "RequestExpired" => true,
        "InvalidSignatureException" | "SignatureDoesNotMatch" => {
            message.contains("Signature expired") || message.contains("Signature not yet current")
        }
        _ => false,
    }
}

/// The answer to a request that Kinesis took: one outcome per record.
///
/// `FailedRecordCount` is not read: emulators are known to send it wrong. A record is taken if it has a sequence number and no error code.
///
/// # Errors
/// If the body is no such answer, or is about another number of records: then nothing is known about any of them.
pub fn read_answer(body: &[u8], sent: usize) -> Result<Vec<RecordOutcome>, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        records: Vec<Entry>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        sequence_number: Option<String>,
        error_code: Option<String>,
    }
    let untrusted = |message: String| Failure { remedy: Remedy::Transient, ambiguous: true, ..person("UnreadableAnswer", message) };
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| untrusted(format!("a 200 that is no answer to PutRecords: {:?}", error.classify())))?;
    if answer.records.len() != sent {
        return Err(untrusted(format!("an answer about {} records to a request of {sent}", answer.records.len())));
    }
    let outcome = |entry: Entry| match (entry.error_code.filter(|code| !code.is_empty()), entry.sequence_number) {
        (None, Some(number)) if !number.is_empty() => RecordOutcome::Taken,
        (code, _) => RecordOutcome::Failed(code.unwrap_or_else(|| "NoSequenceNumber".to_owned())),
    };
    Ok(answer.records.into_iter().map(outcome).collect())
}

/// The answer to a request that failed as a whole. The body may be JSON of any case, XML, HTML, or empty.
#[must_use]
pub fn read_failure(status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
    #[derive(Deserialize, Default)]
    struct Reason {
        #[serde(rename = "__type")]
        kind: Option<String>,
        #[serde(alias = "Message")]
        message: Option<String>,
    }
    let reason: Reason = serde_json::from_slice(body).unwrap_or_default();
    let header = headers.get("x-amzn-errortype").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let code = reason.kind.or(header).map(|kind| {
        // `com.amazon.coral.service#ExpiredTokenException`, `ExpiredTokenException:http://…`
        let kind = kind.rsplit('#').next().unwrap_or_default();
        kind.split(':').next().unwrap_or_default().chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(64).collect::<String>()
    });
    let code = code.filter(|code| !code.is_empty()).unwrap_or_else(|| format!("Http{status}"));
    let remedy = remedy(&code, status);
    // No body is quoted: neither AWS's nor a proxy's. The request id is what AWS's support asks for.
    let request_id = headers.get("x-amzn-requestid").and_then(|v| v.to_str().ok());
    let message = request_id.map_or_else(|| format!("HTTP {status}"), |id| format!("HTTP {status}, request id {id}"));
    let about_time = is_about_time(&code, reason.message.as_deref().unwrap_or_default());
    // A gateway's 5xx may hide a request that went through; Kinesis's own 500 says that it did not.
    let ambiguous = matches!(status, 502 | 504) || code == "RequestTimeout" || code == "RequestTimeoutException";
    Failure { remedy, ambiguous, about_time, detail: reason.message, ..person(&code, message) }
}

/// By the code first, then by the status: Kinesis answers most errors with 400.
pub(super) fn remedy(code: &str, status: u16) -> Remedy {
    match code {
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottledException"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "SlowDown"
        | "PriorRequestNotComplete"
        | "TransactionInProgressException"
        | "KMSThrottlingException" => Remedy::Throttled,
        "InternalFailure"
        | "InternalFailureException"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException" => Remedy::Transient,
        "InvalidArgumentException" | "ValidationException" | "SerializationException" => Remedy::Split,
        _ => match status {
            429 => Remedy::Throttled,
            413 => Remedy::Split,
            500.. => Remedy::Transient,
            _ => Remedy::Person,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_a_sequence_number_and_no_error_code() {
        let body = br#"{"FailedRecordCount":0,"Records":[
            {"SequenceNumber":"1","ShardId":"s"},{"SequenceNumber":"2","ErrorCode":null,"ErrorMessage":null},
            {"ErrorCode":"InternalFailure","ErrorMessage":"x"},{"SequenceNumber":"","ShardId":"s"},{},
            {"SequenceNumber":"3","ErrorCode":"ProvisionedThroughputExceededException"}]}"#;
        let failed = |code: &str| RecordOutcome::Failed(code.to_owned());
        assert_eq!(
            read_answer(body, 6).unwrap(),
            [
                RecordOutcome::Taken,
                RecordOutcome::Taken,
                failed("InternalFailure"),
                failed("NoSequenceNumber"),
                failed("NoSequenceNumber"),
                failed("ProvisionedThroughputExceededException"),
            ]
        );
    }

    #[test]
    fn an_answer_that_cannot_be_trusted_is_ambiguous() {
        for body in [b"".as_slice(), b"<html>", b"{}", br#"{"Records":[]}"#, br#"{"Records":[{"SequenceNumber":"1"}]}"#] {
            assert!(read_answer(body, 2).unwrap_err().ambiguous);
        }
    }

    #[test]
    fn failures_are_told_apart_by_code_then_status() {
        for (status, body, code, remedy) in [
            (
                400,
                r#"{"__type":"ProvisionedThroughputExceededException","message":"m"}"#,
                "ProvisionedThroughputExceededException",
                Remedy::Throttled,
            ),
            (400, r#"{"__type":"com.amazon.coral.service#ExpiredTokenException","Message":"m"}"#, "ExpiredTokenException", Remedy::Person),
            (400, r#"{"__type":"KMSThrottlingException"}"#, "KMSThrottlingException", Remedy::Throttled),
            (400, r#"{"__type":"InvalidArgumentException"}"#, "InvalidArgumentException", Remedy::Split),
            (500, r#"{"__type":"InternalFailure"}"#, "InternalFailure", Remedy::Transient),
            (503, "<html>", "Http503", Remedy::Transient),
            (403, "", "Http403", Remedy::Person),
            (413, "", "Http413", Remedy::Split),
            (429, "", "Http429", Remedy::Throttled),
            (400, r#"{"__type":"AccessDeniedException","Message":"m"}"#, "AccessDeniedException", Remedy::Person),
        ] {
            let failure = read_failure(status, &HeaderMap::new(), body.as_bytes());
            assert_eq!((failure.code.as_str(), failure.remedy), (code, remedy), "{body}");
            assert!(!failure.message.contains("html"));
        }
    }

    #[test]
    fn a_restore_is_told_by_lambda_or_by_a_clock_that_jumped() {
        let sandbox = Arc::new(Sandbox::default());
        let mut elsewhere = Restores::new(false, Arc::clone(&sandbox));
        let mut restores = Restores::new(true, Arc::clone(&sandbox));
        assert!(!restores.happened());
        sandbox.restored();
        assert!(restores.happened() && !restores.happened());
        restores.seen.1 -= Duration::from_secs(60);
        assert!(restores.happened() && !restores.happened());
        restores.seen.1 += Duration::from_secs(60);
        assert!(restores.happened() && !restores.happened());
        assert!(!elsewhere.happened());
    }

    #[test]
    fn the_code_may_stand_in_a_header() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-errortype", "AccessDeniedException:http://internal.amazon.com/".parse().unwrap());
        assert_eq!(read_failure(400, &headers, b"").code, "AccessDeniedException");
    }
}
