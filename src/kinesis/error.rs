//! What can go wrong between here and Kinesis: every AWS error code, transport error and HTTP
//! status is classified here, once, with the advice for a person beside it. Log lines and `--check`
//! use the same advice; no other file matches a code.
//!
//! A new code is a row, or a word in a row, of `KINESIS` or `COMMON`. A code without a row is
//! classified by its HTTP status.
//!
//! Owns no retry policy: it says what an error means, and the dispatcher decides when to send
//! again. Pure.
//!
//! Whatever comes from an answer is cleaned before it can reach a log line, the ledger or a
//! terminal: `error_body::clean`.

use std::fmt;

use http::HeaderMap;

use super::cbor;
use super::error_body::{clean, code_and_message};
use super::place::{Called, Place};

/// What an error means for those who wait to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A permission, the stream, a setting or a certificate is wrong: a person has to fix it.
    Configuration,
    /// These credentials are refused; renewed ones may be accepted.
    Credentials,
    /// Kinesis refuses the request as it is. Inside a 200, of one record: a bounded number of
    /// retries makes sense.
    InvalidRequest,
    /// The signature's time is too far from AWS's clock.
    ClockSkew,
    /// Too much for the stream or the account: sent again after a throttling pause.
    Throttled,
    /// It may pass by itself: sent again after a short pause.
    Transient,
    /// Another thread has ended the call.
    Interrupted,
}

/// A request that failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What it means.
    pub kind: ErrorKind,
    /// AWS's error code, or a short name for what happened before an answer came. Letters, digits
    /// and `._-`.
    pub code: String,
    /// One clause, for a person. Never quotes an answer's body.
    pub message: String,
    /// Whether Kinesis may have stored the records all the same.
    pub ambiguous: bool,
    /// Whether it can be a pooled connection that had died: a fresh one is worth a try at once, and
    /// it is no failure of Kinesis.
    pub stale: bool,
    /// Whether the cause is removed (the clock is corrected, credentials are fetched anew, the
    /// signature was old): worth a try at once.
    pub retry_now: bool,
    /// AWS's own words, for the person who runs `--check`. In no log line.
    pub detail: Option<String>,
}

impl Error {
    /// An error of that code, classified by the tables; one that is in none is `Configuration`.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Error {
        let kind = find(code).map_or(ErrorKind::Configuration, |row| row.kind);
        Error {
            kind,
            code: code.to_owned(),
            message: message.into(),
            ambiguous: false,
            stale: false,
            retry_now: false,
            detail: None,
        }
    }

    /// The same error, met while credentials were fetched: it is about no record, and none can have
    /// been stored.
    pub(super) fn while_fetching(self, step: &str) -> Error {
        let kind = match self.kind {
            ErrorKind::InvalidRequest => ErrorKind::Configuration,
            other => other,
        };
        Error {
            kind,
            code: format!("{step}.{}", self.code),
            ambiguous: false,
            stale: false,
            ..self
        }
    }

    /// In which step of fetching credentials it was met, if in any.
    #[must_use]
    pub fn step(&self) -> Option<&'static str> {
        [ASSUME_ROLE, CONTAINER_CREDENTIALS]
            .into_iter()
            .find(|step| self.code.strip_prefix(step).is_some_and(|rest| rest.starts_with('.')))
    }

    /// What a person can do about it: which IAM action, variable or route. A clause that begins
    /// with a verb.
    #[must_use]
    pub fn advice(&self, place: &Place<'_>) -> String {
        let row = match self.step() {
            Some(step) => {
                find_in_step(step, &self.code, self.code.get(step.len() + 1..).unwrap_or_default())
            }
            None => find(&self.code),
        };
        let advice = match row {
            Some(row) if self.kind == ErrorKind::ClockSkew && row.kind != self.kind => SET_CLOCK,
            Some(row) => row.advice,
            None => UNKNOWN,
        };
        let called = match self.step() {
            Some(ASSUME_ROLE) => Called::Sts,
            Some(_) => Called::Container,
            None => Called::Kinesis,
        };
        place.fill(advice, called)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

/// Codes of errors that are met while a role is assumed begin with this and a point.
pub const ASSUME_ROLE: &str = "AssumeRole";
/// Codes of errors that are met while the container endpoint is asked for credentials begin with
/// this and a point.
pub const CONTAINER_CREDENTIALS: &str = "ContainerCredentials";

/// Codes with one meaning.
struct Row {
    /// As AWS writes them, or as this program names them. Each stands in one row of both tables.
    codes: &'static [&'static str],
    /// What the extension does about it.
    kind: ErrorKind,
    /// What a person can do about it: a clause that begins with a verb. [`Place::fill`] has a value
    /// for each word in braces.
    advice: &'static str,
}

const fn row(codes: &'static [&'static str], kind: ErrorKind, advice: &'static str) -> Row {
    Row { codes, kind, advice }
}

const UNKNOWN: &str = "look the code up in the documentation of the Kinesis and STS APIs";
const SET_CLOCK: &str = "set this machine's clock";
const THROTTLED: &str = "give the stream more shards or on-demand capacity{spread}; it is retried";
const REACH: &str = "see that {endpoint} can be reached from here: {route}";
const RESOLVE: &str =
    "see that {endpoint} can be resolved from here: DNS, AWS_REGION, or a VPC endpoint";
const AWS_FAULT: &str =
    "wait, it is retried: AWS has a fault; or see that {endpoint} can be reached from here";
const ACCESS_KEYS: &str = "replace AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and \
    AWS_SESSION_TOKEN, all of them: AWS does not know these credentials (temporary ones need the \
    token that came with them)";
const STREAM_KEY: &str =
    "allow {role} kms:GenerateDataKey on the stream's key, and see that the key is enabled";

/// Codes of Kinesis whose advice is about a stream. What STS or the container endpoint says has
/// other advice, also where the code is the same.
const KINESIS: &[Row] = {
    use ErrorKind::{Configuration, InvalidRequest, Throttled};
    &[
        row(
            &[
                "ProvisionedThroughputExceededException",
                "LimitExceededException",
                "RequestLimitExceeded",
                "BandwidthLimitExceeded",
            ],
            Throttled,
            THROTTLED,
        ),
        row(
            &[
                "ThrottlingException",
                "Throttling",
                "ThrottledException",
                "RequestThrottledException",
                "RequestThrottled",
                "TooManyRequestsException",
                "SlowDown",
                "PriorRequestNotComplete",
                "TransactionInProgressException",
                "Http429",
            ],
            Throttled,
            THROTTLED,
        ),
        // Not in the SDKs' lists of throttling errors, so they give up; but it passes.
        row(
            &["KMSThrottlingException"],
            Throttled,
            "raise the request quota of KMS in the stream's account; it is retried",
        ),
        row(
            &[
                "InvalidArgumentException",
                "ValidationException",
                "SerializationException",
                "Http413",
            ],
            InvalidRequest,
            "see that KINESIS_TELEMETRY_RECORD_BYTES is not above the stream's own limit, and that \
             {endpoint} is a Kinesis of this stream",
        ),
        row(
            &["AccessDeniedException", "AccessDenied"],
            Configuration,
            "allow {role} the action kinesis:PutRecords on {arn} (and kms:GenerateDataKey on its \
             key, if the stream is encrypted with one of your own)",
        ),
        row(
            &[
                "KMSAccessDeniedException",
                "KMSDisabledException",
                "KMSInvalidStateException",
                "KMSNotFoundException",
                "KMSOptInRequired",
            ],
            Configuration,
            STREAM_KEY,
        ),
        row(
            &["ResourceNotFoundException"],
            Configuration,
            "correct KINESIS_TELEMETRY_STREAM: there is no {elsewhere}",
        ),
        row(
            &["UnknownOperationException", "Http404"],
            Configuration,
            "correct or unset AWS_ENDPOINT_URL_KINESIS or AWS_ENDPOINT_URL: {endpoint} is no \
             Kinesis",
        ),
    ]
};

/// Codes that mean the same wherever they are met: other codes of AWS first, then those of this
/// program.
const COMMON: &[Row] = {
    use ErrorKind::{
        ClockSkew, Configuration, Credentials, Interrupted, InvalidRequest, Transient,
    };
    &[
        row(
            &[
                "InternalFailure",
                "InternalFailureException",
                "InternalServerError",
                "ServiceUnavailable",
                "ServiceUnavailableException",
            ],
            Transient,
            AWS_FAULT,
        ),
        row(&["RequestTimeout", "RequestTimeoutException", "Http408"], Transient, REACH),
        row(
            &["ExpiredTokenException", "ExpiredToken"],
            Credentials,
            "get fresh credentials: these have expired (those that came in the environment cannot \
             be renewed while this sandbox lives; events wait in memory and under /tmp until \
             Kinesis accepts them again, or the sandbox ends)",
        ),
        row(&["UnrecognizedClientException", "InvalidClientTokenId"], Credentials, ACCESS_KEYS),
        row(
            &[
                "MissingAuthenticationToken",
                "MissingAuthenticationTokenException",
                "IncompleteSignature",
            ],
            Configuration,
            ACCESS_KEYS,
        ),
        row(
            &["InvalidSignatureException", "SignatureDoesNotMatch"],
            Configuration,
            "correct AWS_SECRET_ACCESS_KEY: it does not belong to AWS_ACCESS_KEY_ID; or something \
             between here and AWS changes requests",
        ),
        row(&["RequestTimeTooSkewed", "RequestExpired"], ClockSkew, SET_CLOCK),
        row(
            &["AssumeRole.AccessDenied", "AssumeRole.AccessDeniedException"],
            Configuration,
            "allow the function's role sts:AssumeRole on {role}, and name it in that role's trust \
             policy, with the same KINESIS_TELEMETRY_EXTERNAL_ID, if any",
        ),
        row(
            &["AssumeRole.RegionDisabledException"],
            Configuration,
            "activate STS for region {region} in the account's settings",
        ),
        row(
            &[ASSUME_ROLE],
            Configuration,
            "see KINESIS_TELEMETRY_ROLE_ARN, the credentials, and that {endpoint} can be reached \
             from here",
        ),
        row(
            &[CONTAINER_CREDENTIALS],
            Configuration,
            "see AWS_CONTAINER_CREDENTIALS_FULL_URI and AWS_CONTAINER_AUTHORIZATION_TOKEN: that \
             endpoint gives no credentials",
        ),
        // From here on what this program itself reports.
        row(
            &["NoCredentials"],
            Configuration,
            "give the function a role; elsewhere set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, \
             for temporary ones, AWS_SESSION_TOKEN (`aws configure export-credentials --format \
             env` prints them)",
        ),
        row(
            &["HalfCredentials"],
            Configuration,
            "set the other half too, or unset both: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
             are a pair",
        ),
        row(
            &["BadCredentials"],
            Configuration,
            "correct AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN: one of them \
             has a character that no header can hold",
        ),
        row(
            &["BadToken"],
            Configuration,
            "see AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE and AWS_CONTAINER_AUTHORIZATION_TOKEN: a \
             line of text that a header can hold is expected",
        ),
        row(&["BadClock"], Configuration, SET_CLOCK),
        row(&["BadRequest"], Configuration, "report a bug: the request cannot be built"),
        row(
            &["CaBundle"],
            Configuration,
            "set AWS_CA_BUNDLE to a readable PEM file of certificates, or unset it",
        ),
        row(&["Tls"], Configuration, "{bundle} of {endpoint}, or of what intercepts TLS before it"),
        row(
            &["Proxy", "ProxyRefused"],
            Configuration,
            "correct {proxy}, or except the host in NO_PROXY",
        ),
        row(&["ProxyFailed"], Transient, "see that the proxy in {proxy} works; it is retried"),
        row(&["HostNotFound", "DnsTimeout"], Transient, RESOLVE),
        row(
            &["ConnectionFailed", "ConnectTimeout", "ConnectionReset", "Timeout", "Io"],
            Transient,
            REACH,
        ),
        row(
            &["Http", "UnreadableResponse"],
            Transient,
            "see that {endpoint} is a Kinesis, and that nothing before it changes answers",
        ),
        row(
            &["NoSequenceNumber"],
            InvalidRequest,
            "see that {endpoint} is a Kinesis: a record has neither a sequence number nor an error \
             code",
        ),
        row(
            &["Interrupted"],
            Interrupted,
            "do nothing: the extension had something more urgent to do; it is retried",
        ),
    ]
};

fn find(code: &str) -> Option<&'static Row> {
    KINESIS.iter().chain(COMMON).find(|row| row.codes.contains(&code))
}

/// The row that has advice about an error met in `step`: that of the code with the step, else that
/// of the `bare` code, else that of the step.
fn find_in_step(step: &str, code: &str, bare: &str) -> Option<&'static Row> {
    let common = |code: &str| COMMON.iter().find(|row| row.codes.contains(&code));
    common(code).or_else(|| common(bare)).or_else(|| common(step))
}

/// What the error code of one record means: throttled, transient, or anything else, which is worth
/// a bounded number of retries.
#[must_use]
pub fn classify_record(code: &str) -> ErrorKind {
    match find(code).map(|row| row.kind) {
        Some(kind @ (ErrorKind::Throttled | ErrorKind::Transient)) => kind,
        _ => ErrorKind::InvalidRequest,
    }
}

/// By the code first, then by the status: Kinesis answers most errors with 400, so the status alone
/// says little.
fn classify(code: &str, status: u16) -> ErrorKind {
    let row = find(code).or_else(|| find(&format!("Http{status}")));
    row.map_or(if status >= 500 { ErrorKind::Transient } else { ErrorKind::Configuration }, |row| {
        row.kind
    })
}

/// The error in an answer whose status is not 200. The body may be JSON of any kind, CBOR, XML,
/// HTML, or empty.
#[must_use]
pub fn read_error(status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (code, message) = code_and_message(body);
    // `com.amazon.coral.service#ExpiredTokenException`, `ExpiredTokenException:http://…`
    let code = code.as_deref().or(text(ERROR_TYPE)).map(|code| {
        let code = code.rsplit('#').next().unwrap_or_default();
        clean(code.split(':').next().unwrap_or_default())
    });
    let named = code.filter(|code| !code.is_empty());
    let is_named = named.is_some();
    let code = named.unwrap_or_else(|| format!("Http{status}"));
    let mut kind = classify(&code, status);
    let about_time = message.as_deref().is_some_and(|text| {
        text.contains("Signature expired") || text.contains("Signature not yet current")
    });
    if about_time && matches!(code.as_str(), "InvalidSignatureException" | "SignatureDoesNotMatch")
    {
        kind = ErrorKind::ClockSkew;
    }
    let shown = describe_answer(status, headers);
    // A gateway's answer may hide a request that was stored; Kinesis's own 500 says that it was
    // not, and a 503 that nobody has taken it.
    let passed_on = matches!(status, 200..=299 | 500..) && status != 503;
    let ambiguous = (passed_on && !is_named)
        || matches!(status, 408 | 502 | 504)
        || matches!(code.as_str(), "RequestTimeout" | "RequestTimeoutException");
    Error { kind, ambiguous, detail: message, ..Error::new(&code, shown) }
}

/// What of an answer is shown: no body, neither AWS's nor a proxy's. The request id is what AWS's
/// support asks for.
#[must_use]
pub fn describe_answer(status: u16, headers: &HeaderMap) -> String {
    let id = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).map(clean);
    match id.filter(|id| !id.is_empty()) {
        Some(id) => format!("HTTP {status}, request id {id}"),
        None => format!("HTTP {status}"),
    }
}

/// Headers of answers of which something is shown.
pub(super) const SHOWN_HEADERS: [&str; 2] = [ERROR_TYPE, REQUEST_ID];
const ERROR_TYPE: &str = "x-amzn-errortype";
const REQUEST_ID: &str = "x-amzn-requestid";

/// Whether the answer to a request in CBOR says that the endpoint takes none. `error` is what was
/// read of it, if it is one.
///
/// Some endpoints say so, some answer in another form, as if JSON had been sent, and some fail over
/// it. What gateways and load balancers say of themselves, and what is known to be about something
/// else, such as credentials, is no such answer, in whatever form it comes.
#[must_use]
pub fn refuses_cbor(status: u16, body: &[u8], error: Option<&Error>) -> bool {
    const REFUSALS: &[&str] =
        &["UnknownOperationException", "SerializationException", "Http404", "Http415"];
    let Some(error) = error else { return !cbor::is_map(body) };
    let is_other = !cbor::is_map(body)
        && match status {
            200 | 500 => true,
            413 => false,
            400..=499 => error.kind == ErrorKind::InvalidRequest || find(&error.code).is_none(),
            _ => false,
        };
    is_other || REFUSALS.contains(&error.code.as_str()) || error.code == "UnreadableResponse"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Error {
        read_error(status, &HeaderMap::new(), body.as_bytes())
    }

    const PLACE: Place<'_> = Place {
        stream: "telemetry",
        region: "eu-west-1",
        endpoint: "https://kinesis.eu-west-1.amazonaws.com",
        role: None,
        sts: "https://sts.eu-west-1.amazonaws.com",
        proxies: [None, None],
        ca_bundle: false,
        spreads: false,
    };

    #[test]
    fn an_answer_is_described_by_its_status_and_request_id_alone() {
        let described = |id: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(id) = id {
                headers.insert(REQUEST_ID, id.parse().unwrap());
            }
            describe_answer(403, &headers)
        };
        assert_eq!(described(None), "HTTP 403");
        assert_eq!(described(Some("")), "HTTP 403");
        assert_eq!(described(Some("e1-2f")), "HTTP 403, request id e1-2f");
        assert_eq!(Error::new("Code", described(None)).to_string(), "Code: HTTP 403");
    }

    #[test]
    fn errors_are_classified_by_code_and_then_by_status() {
        use ErrorKind::{
            ClockSkew, Configuration, Credentials, InvalidRequest, Throttled, Transient,
        };
        for (status, body, code, kind) in [
            (
                400,
                r#"{"__type":"ProvisionedThroughputExceededException"}"#,
                "ProvisionedThroughputExceededException",
                Throttled,
            ),
            (
                400,
                r#"{"__type":"com.amazon.coral.service#ExpiredTokenException","Message":"m"}"#,
                "ExpiredTokenException",
                Credentials,
            ),
            (400, r#"{"__type":"KMSThrottlingException"}"#, "KMSThrottlingException", Throttled),
            (400, r#"{"__type":"KMSDisabledException"}"#, "KMSDisabledException", Configuration),
            (
                400,
                r#"{"__type":"InvalidArgumentException"}"#,
                "InvalidArgumentException",
                InvalidRequest,
            ),
            (400, r#"{"__type":"NeverSeenException"}"#, "NeverSeenException", Configuration),
            (500, r#"{"__type":"NeverSeenException"}"#, "NeverSeenException", Transient),
            (500, r#"{"__type":"InternalFailure"}"#, "InternalFailure", Transient),
            (
                400,
                r#"{"__type":"AccessDeniedException","Message":"m"}"#,
                "AccessDeniedException",
                Configuration,
            ),
            (403, r#"{"__type":"RequestExpired"}"#, "RequestExpired", ClockSkew),
            (
                400,
                r#"{"__type":"InvalidSignatureException","message":"Signature expired: x"}"#,
                "InvalidSignatureException",
                ClockSkew,
            ),
            (
                400,
                r#"{"__type":"InvalidSignatureException","message":"does not match"}"#,
                "InvalidSignatureException",
                Configuration,
            ),
            (
                403,
                "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>",
                "SignatureDoesNotMatch",
                Configuration,
            ),
            (503, "<html>", "Http503", Transient),
            (403, "", "Http403", Configuration),
            (413, "", "Http413", InvalidRequest),
            (429, "", "Http429", Throttled),
            (429, r#"{"__type":"NeverSeenException"}"#, "NeverSeenException", Throttled),
            (408, "", "Http408", Transient),
            (
                400,
                r#"{"__type":7,"code":"","Code":"ExpiredTokenException","extra":{"a":[1]}}"#,
                "ExpiredTokenException",
                Credentials,
            ),
            (
                400,
                r#"{"__type":"x","__type":"KMSDisabledException"}"#,
                "KMSDisabledException",
                Configuration,
            ),
            (
                400,
                r#"{"__t\u0079pe":"KMSDisabledException"}"#,
                "KMSDisabledException",
                Configuration,
            ),
            (400, r#"["__type"]"#, "Http400", Configuration),
        ] {
            let error = read(status, body);
            assert_eq!((error.code.as_str(), error.kind), (code, kind), "{body}");
            assert!(!error.message.contains("html"));
            assert!(!error.retry_now && !error.stale);
        }
    }

    /// Kinesis's own answer says what became of the records; a gateway's, or one about time, does
    /// not.
    #[test]
    fn only_a_gateway_and_a_time_out_leave_it_open_whether_records_were_stored() {
        for (status, body, ambiguous) in [
            (500, r#"{"__type":"InternalFailure"}"#, false),
            (503, "", false),
            (502, "", true),
            (504, "<html>", true),
            (408, "", true),
            (400, r#"{"__type":"RequestTimeout"}"#, true),
            (400, r#"{"__type":"AccessDeniedException"}"#, false),
        ] {
            assert_eq!(read(status, body).ambiguous, ambiguous, "{status} {body}");
        }
    }

    /// A throttling answer with both spellings of `message` was taken for something that only a
    /// person can fix.
    #[test]
    fn an_odd_error_body_never_loses_its_code() {
        for (body, detail) in [
            (r#"{"__type":"ThrottlingException","message":"a","Message":"b"}"#, Some("a")),
            (r#"{"__type":"ThrottlingException","message":{"a":1}}"#, None),
            (r#"{"__type":"ThrottlingException","message":null,"Message":"b"}"#, Some("b")),
            (r#"{"__type":"ThrottlingException","message":"a","message":"b"}"#, Some("b")),
            (r#"{"__type":"ThrottlingException","extra":[1,{"x":2}]}"#, None),
            (r#"{"code":"ThrottlingException","message":"a"}"#, Some("a")),
            (r#"{"__type":7,"code":"ThrottlingException"}"#, None),
            (r#"{"__type":"","Code":"aws#ThrottlingException:http://x"}"#, None),
        ] {
            let error = read(400, body);
            assert_eq!(
                (error.code.as_str(), error.kind),
                ("ThrottlingException", ErrorKind::Throttled),
                "{body}"
            );
            assert_eq!(error.detail.as_deref(), detail, "{body}");
        }
    }

    #[test]
    fn the_code_may_stand_in_a_header() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-amzn-errortype",
            "AccessDeniedException:http://internal.amazon.com/".parse().unwrap(),
        );
        assert_eq!(read_error(400, &headers, b"").code, "AccessDeniedException");
        assert_eq!(read_error(400, &headers, br#"{"message":{}}"#).code, "AccessDeniedException");
    }

    #[test]
    fn what_comes_from_an_answer_is_cleaned() {
        let huge = "x".repeat(60_000);
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-requestid", format!("id \"{huge}\"").parse().unwrap());
        let error =
            read_error(400, &headers, format!(r#"{{"__type":"\u001b[31m{huge}"}}"#).as_bytes());
        assert!(error.code.len() == 64 && error.code.starts_with("31mxxx"), "{}", error.code);
        assert!(error.message.len() < 100 && !error.message.contains('"'), "{}", error.message);
        assert_eq!(clean("\u{1b}]0;a\u{7}b\nWARN c é.-_"), "0abWARNc.-_");
        assert_eq!(read(400, r##"{"__type":"#\u0007é"}"##).code, "Http400");
        let sized = |bytes: usize| {
            let body = r#"{"__type":"ThrottlingException"}"#;
            read(400, &(body.to_owned() + &" ".repeat(bytes - body.len()))).code
        };
        assert_eq!(sized(65_536), "ThrottlingException");
        assert_eq!(sized(65_537), "Http400", "too large");
    }

    #[test]
    fn records_are_throttled_or_transient_or_retried_a_bounded_number_of_times() {
        for (code, kind) in [
            ("ProvisionedThroughputExceededException", ErrorKind::Throttled),
            ("KMSThrottlingException", ErrorKind::Throttled),
            ("InternalFailure", ErrorKind::Transient),
            ("NoSequenceNumber", ErrorKind::InvalidRequest),
            ("AccessDeniedException", ErrorKind::InvalidRequest),
            ("NeverSeen", ErrorKind::InvalidRequest),
        ] {
            assert_eq!(classify_record(code), kind, "{code}");
        }
    }

    #[test]
    fn fetching_credentials_stores_no_record_and_refuses_none() {
        let error =
            Error { ambiguous: true, stale: true, ..Error::new("ValidationException", "x") }
                .while_fetching(ASSUME_ROLE);
        assert_eq!(
            (error.code.as_str(), error.kind),
            ("AssumeRole.ValidationException", ErrorKind::Configuration)
        );
        assert!(!error.ambiguous && !error.stale);
        assert_eq!(error.step(), Some(ASSUME_ROLE));
        assert_eq!(Error::new("AccessDeniedException", "x").step(), None);
    }

    #[test]
    fn an_error_in_cbor_is_read_like_one_in_json() {
        let body =
            b"\xbf\x66__type\x78\x26com.amazon.coral#ExpiredTokenException\x67message\x61m\xff";
        let error = read_error(400, &HeaderMap::new(), body);
        assert_eq!(
            (error.code.as_str(), error.detail.as_deref()),
            ("ExpiredTokenException", Some("m"))
        );
        for broken in [&body[..body.len() - 1], b"\xa1", b"\xbf\x01\x02\xff"] {
            assert_eq!(read_error(400, &HeaderMap::new(), broken).code, "Http400");
        }
    }

    #[test]
    fn who_takes_no_cbor_is_told_from_who_has_another_trouble() {
        let typed = |code: &str| format!(r#"{{"__type":"{code}"}}"#).into_bytes();
        let as_cbor = |code: &str| {
            let mut body = b"\xa1\x66__type".to_vec();
            cbor::text(code, &mut body);
            body
        };
        for (status, body, refused) in [
            (415, Vec::new(), true),
            (404, b"<UnknownOperationException/>".to_vec(), true),
            (400, typed("UnknownOperationException"), true),
            (400, as_cbor("UnknownOperationException"), true),
            (400, as_cbor("SerializationException"), true),
            (400, typed("SerializationException"), true),
            (400, typed("ValidationException"), true),
            (400, as_cbor("ValidationException"), false),
            (400, b"<html>".to_vec(), true),
            (500, typed("InternalFailure"), true),
            (500, as_cbor("InternalFailure"), false),
            (400, typed("ExpiredTokenException"), false),
            (400, as_cbor("NeverSeen"), false),
            (400, typed("ProvisionedThroughputExceededException"), false),
            (429, Vec::new(), false),
            (413, Vec::new(), false),
            (502, b"<html>".to_vec(), false),
            (503, Vec::new(), false),
            (504, Vec::new(), false),
        ] {
            let error = read_error(status, &HeaderMap::new(), &body);
            assert_eq!(refuses_cbor(status, &body, Some(&error)), refused, "{status} {body:x?}");
        }
        let unreadable = Error::new("UnreadableResponse", "");
        assert!(
            refuses_cbor(200, b"", Some(&unreadable))
                && refuses_cbor(200, b"\xa1", Some(&unreadable))
        );
        assert!(refuses_cbor(200, b"{}", None) && !refuses_cbor(200, b"\xa0", None));
    }

    /// Each code stands in one row: the first one would hide a second.
    #[test]
    fn each_code_stands_in_the_table_once_and_is_one_that_the_sanitizer_keeps() {
        let mut codes: Vec<&str> =
            KINESIS.iter().chain(COMMON).flat_map(|row| row.codes).copied().collect();
        assert!(codes.iter().all(|code| clean(code) == *code));
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all);
    }

    /// Whoever has done it already looks for another cause.
    #[test]
    fn advice_never_tells_to_do_what_was_done() {
        let done = Place {
            stream: "arn:aws:kinesis:eu-west-1:123456789012:stream/x",
            proxies: [Some("https_proxy"), Some("ALL_PROXY")],
            ca_bundle: true,
            spreads: true,
            ..PLACE
        };
        for (code, before, now) in [
            ("Throttling", "PARTITION_KEY=random", "it is retried"),
            ("ResourceNotFoundException", "whole ARN", "there is no arn:aws:kinesis:eu-west-1"),
            ("ResourceNotFoundException", "AWS_REGION", "correct KINESIS_TELEMETRY_STREAM"),
            ("Tls", "set AWS_CA_BUNDLE to the certificate", "the one that is set lacks"),
            ("ConnectionFailed", "or HTTPS_PROXY", "the proxy in https_proxy, what it lets"),
            ("AssumeRole.ConnectionFailed", "or HTTPS_PROXY", "the proxy in ALL_PROXY"),
            ("ProxyRefused", "HTTPS_PROXY", "correct https_proxy"),
        ] {
            let advice = |place: &Place<'_>| Error::new(code, "").advice(place);
            assert!(advice(&PLACE).contains(before), "{code}: {}", advice(&PLACE));
            assert!(!advice(&done).contains(before), "{code}: {}", advice(&done));
            assert!(advice(&done).contains(now), "{code}: {}", advice(&done));
        }
    }

    #[test]
    fn advice_is_about_the_place_where_it_happened() {
        let advice = |code: &str, place: &Place<'_>| Error::new(code, "").advice(place);
        assert!(
            advice("AccessDeniedException", &PLACE)
                .contains("allow the function's role the action kinesis:PutRecords on arn:aws:kinesis:eu-west-1:<account>:stream/telemetry")
        );
        let role = Place {
            role: Some("arn:aws:iam::1:role/w"),
            stream: "arn:aws:kinesis:eu-west-1:123456789012:stream/x",
            ..PLACE
        };
        assert!(
            advice("AccessDeniedException", &role)
                .contains("allow arn:aws:iam::1:role/w the action kinesis:PutRecords on arn:aws:kinesis:eu-west-1:123456789012:stream/x")
        );
        assert!(
            advice("AssumeRole.AccessDenied", &role)
                .contains("sts:AssumeRole on arn:aws:iam::1:role/w")
        );
        assert!(
            advice("AssumeRole.ConnectionFailed", &role)
                .contains("https://sts.eu-west-1.amazonaws.com can be reached")
        );
        assert!(advice("AssumeRole.NeverSeen", &role).contains("KINESIS_TELEMETRY_ROLE_ARN"));
        assert!(
            advice("AssumeRole.Throttling", &role).contains("KINESIS_TELEMETRY_ROLE_ARN"),
            "no shards help there"
        );
        assert!(
            advice("ContainerCredentials.Http404", &role)
                .contains("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        );
        assert!(
            advice("ContainerCredentials.NeverSeen", &role)
                .contains("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        );
        assert!(
            advice("ConnectionFailed", &PLACE)
                .contains("https://kinesis.eu-west-1.amazonaws.com can be reached")
        );
        assert!(advice("InvalidSignatureException", &PLACE).contains("AWS_SECRET_ACCESS_KEY"));
        let skewed =
            read(400, r#"{"__type":"InvalidSignatureException","message":"Signature expired: x"}"#);
        assert_eq!(skewed.advice(&PLACE), SET_CLOCK);
        assert_eq!(advice("NeverSeen", &PLACE), UNKNOWN);
        for row in KINESIS.iter().chain(COMMON) {
            for code in row.codes {
                assert!(!advice(code, &PLACE).contains(['{', '}']), "{code}");
            }
        }
    }
}
