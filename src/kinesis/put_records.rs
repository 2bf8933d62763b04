//! One PutRecords call: send, and one outcome per record.
//!
//! Runs on the dispatcher's thread. The HTTP agent, and with it TLS, is made with the first call: nothing of it stands on the way to `/next`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Request as HttpRequest};
use serde::Deserialize;
use ureq::tls::{PemItem, RootCerts, TlsConfig};

use super::batch::Request;
use super::credentials::Keys;
use super::endpoint::{Endpoint, Stream};
use super::sign;
use crate::deadline::Deadline;

/// No call starts with less time left than this.
pub const LEAST_TIME: Duration = Duration::from_millis(10);
/// An answer for 500 records has about 100 KB; more than this is nobody's answer.
const MAX_ANSWER: u64 = 1024 * 1024;
/// The signature is good for five minutes; from four on, the local clock is taken to be wrong. As the AWS SDK for Rust does.
const SKEW: Duration = Duration::from_secs(4 * 60);

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
    keys: Option<Keys>,
    ca_bundle: Option<std::path::PathBuf>,
    agent: Option<ureq::Agent>,
    /// How far Kinesis's clock is ahead of ours, where it matters.
    skew: Skew,
    /// A connection may be waiting in the pool.
    pooled: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Skew {
    ahead: Duration,
    behind: Duration,
}

impl Skew {
    fn apply(self, time: SystemTime) -> SystemTime {
        time.checked_add(self.ahead).and_then(|t| t.checked_sub(self.behind)).unwrap_or(time)
    }
}

impl Client {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, stream: Stream, keys: Option<Keys>, ca_bundle: Option<std::path::PathBuf>) -> Client {
        Client { endpoint, stream, keys, ca_bundle, agent: None, skew: Skew::default(), pooled: false }
    }

    /// Sends `request` once and says what became of each of its records, in their order.
    ///
    /// # Errors
    /// A [`Failure`] when the request failed as a whole or its answer cannot be trusted.
    pub fn put(&mut self, request: &mut Request, deadline: &Deadline) -> Result<Vec<RecordOutcome>, Failure> {
        let sent = request.len();
        let hash = request.finish(&self.stream);
        let (status, headers, body) = self.post(request.body(), hash, deadline)?;
        if status == 200 {
            return read_answer(&body, sent);
        }
        let failure = read_failure(status, &headers, &body);
        Err(self.correct_clock(failure, &headers))
    }

    fn post(&mut self, body: &[u8], hash: String, deadline: &Deadline) -> Result<(u16, HeaderMap, Vec<u8>), Failure> {
        let keys = self.keys.as_ref().ok_or_else(no_keys)?;
        let scope =
            sign::Scope { url: self.endpoint.url(), region: self.endpoint.region(), service: "kinesis", time: self.skew.apply(SystemTime::now()) };
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "Kinesis_20131202.PutRecords")];
        let signature = sign::headers(&scope, keys, &headers, hash).map_err(|message| person("BadCredentials", message))?;
        let mut post = HttpRequest::post(self.endpoint.url());
        for (name, value) in headers {
            post = post.header(name, value);
        }
        for (name, value) in signature {
            post = post.header(name, value);
        }
        let post = post.body(body).map_err(|error| person("BadRequest", error.to_string()))?;

        let reused = std::mem::take(&mut self.pooled);
        let agent = self.agent()?;
        let left = deadline.left(Instant::now());
        let failed = |error: &ureq::Error| on_the_way(error, deadline, reused);
        let post = agent
            .configure_request(post)
            .timeout_global(Some(left))
            // A little earlier, so that the error tells a connection that never was from an answer that never came.
            .timeout_resolve(Some(left.saturating_sub(Duration::from_millis(2))))
            .timeout_connect(Some(left.saturating_sub(Duration::from_millis(1))))
            .build();
        let mut answer = agent.run(post).map_err(|error| failed(&error))?;
        let bytes = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(|error| failed(&error))?;
        self.pooled = true;
        let (parts, _) = answer.into_parts();
        Ok((parts.status.as_u16(), parts.headers, bytes))
    }

    fn agent(&mut self) -> Result<ureq::Agent, Failure> {
        if let Some(agent) = &self.agent {
            return Ok(agent.clone());
        }
        let roots = match &self.ca_bundle {
            None => RootCerts::WebPki,
            Some(path) => {
                let problem = |what: String| person("AWS_CA_BUNDLE", format!("{}: {what}", path.display()));
                let pem = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
                let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(certificate)) => Some(certificate),
                        _ => None,
                    })
                    .collect();
                if certificates.is_empty() {
                    return Err(problem("holds no PEM certificate".to_owned()));
                }
                RootCerts::Specific(Arc::new(certificates))
            }
        };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .accept("")
            // One connection is all that a single dispatcher uses. A dead one is never tried twice, as it leaves the pool when used.
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            // Freezes are longer than any age that could be set here; a dead connection costs one retry.
            .max_idle_age(Duration::from_secs(3600))
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .into();
        self.agent = Some(agent.clone());
        Ok(agent)
    }

    /// If the failure is about time and the `Date` header is far from our clock, the difference is kept for the signatures to come.
    fn correct_clock(&mut self, failure: Failure, headers: &HeaderMap) -> Failure {
        if !failure.about_time {
            return failure;
        }
        let Some(theirs) = headers.get("date").and_then(|v| v.to_str().ok()).and_then(|v| httpdate::parse_http_date(v).ok()) else { return failure };
        let ours = SystemTime::now();
        let skew = Skew { ahead: theirs.duration_since(ours).unwrap_or_default(), behind: ours.duration_since(theirs).unwrap_or_default() };
        let known = self.skew.apply(ours);
        let off = theirs.duration_since(known).or_else(|_| known.duration_since(theirs)).unwrap_or_default();
        if off < SKEW {
            return failure;
        }
        self.skew = skew;
        Failure { remedy: Remedy::ClockCorrected, ..failure }
    }
}

fn person(code: &str, message: String) -> Failure {
    Failure { code: code.to_owned(), message, remedy: Remedy::Person, ambiguous: false, stale: false, about_time: false }
}

fn no_keys() -> Failure {
    person("NoCredentials", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set".to_owned())
}

/// An error before an answer was complete.
fn on_the_way(error: &ureq::Error, deadline: &Deadline, reused: bool) -> Failure {
    use std::io::ErrorKind as Io;
    use ureq::{Error, Timeout};
    let (code, ambiguous, remedy, stale) = match error {
        Error::Timeout(Timeout::Resolve) => ("DnsTimeout", false, Remedy::Transient, false),
        Error::Timeout(Timeout::Connect) => ("ConnectTimeout", false, Remedy::Transient, false),
        Error::Timeout(_) => ("Timeout", true, Remedy::Transient, false),
        Error::HostNotFound => ("HostNotFound", false, Remedy::Transient, false),
        Error::ConnectionFailed => ("ConnectionFailed", false, Remedy::Transient, false),
        Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) | Error::TlsRequired => ("Tls", false, Remedy::Person, false),
        Error::Io(io) => match io.kind() {
            Io::ConnectionRefused | Io::HostUnreachable | Io::NetworkUnreachable | Io::AddrNotAvailable => {
                ("ConnectionFailed", false, Remedy::Transient, false)
            }
            Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::UnexpectedEof | Io::NotConnected => {
                ("ConnectionReset", true, Remedy::Transient, reused)
            }
            // TLS errors of rustls come wrapped in this kind.
            Io::InvalidData if io.get_ref().is_some() => ("Tls", false, Remedy::Person, false),
            _ if is_lookup_failure(io) => ("HostNotFound", false, Remedy::Transient, false),
            _ => ("Io", true, Remedy::Transient, false),
        },
        _ => ("Http", true, Remedy::Transient, false),
    };
    let message = match error {
        Error::Timeout(phase) => format!("no answer ({phase}) within {}", deadline.limit()),
        other => other.to_string(),
    };
    Failure { code: code.to_owned(), message, remedy, ambiguous, stale, about_time: false }
}

/// `getaddrinfo` failing has no kind of its own in std.
fn is_lookup_failure(error: &std::io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address")
}

fn is_about_time(code: &str, message: &str) -> bool {
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
    let untrusted = |message: String| Failure {
        code: "UnreadableAnswer".to_owned(),
        message,
        remedy: Remedy::Transient,
        ambiguous: true,
        stale: false,
        about_time: false,
    };
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
    Failure { code, message, remedy, ambiguous, stale: false, about_time }
}

/// By the code first, then by the status: Kinesis answers most errors with 400.
fn remedy(code: &str, status: u16) -> Remedy {
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
    fn the_code_may_stand_in_a_header() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-errortype", "AccessDeniedException:http://internal.amazon.com/".parse().unwrap());
        assert_eq!(read_failure(400, &headers, b"").code, "AccessDeniedException");
    }
}
