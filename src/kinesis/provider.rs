//! Where credentials come from, and how long they are good.
//!
//! The environment's win; without them (SnapStart) the container endpoint is asked; with `ROLE_ARN`
//! either are exchanged for a role's. Nothing is fetched before the first invocation, so that
//! nothing of it can be part of a snapshot. Runs on the dispatcher's thread.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use http::Request;
use serde::Deserialize;

use super::clock_skew::ClockSkew;
use super::credentials::{
    CALL_TIMEOUT, Credentials, ExpiringCredentials, MAX_ANSWER, MAX_HEADER, REFRESH_RETRY,
};
use super::error::{CONTAINER_CREDENTIALS, Error, ErrorKind, read_error};
use super::http::HttpSettings;
use super::interrupt::InterruptHandle;
use super::proxy::Proxies;
use super::small_file;
use super::sts::{self, Role};
use crate::deadline::{Deadline, Limit};
use crate::log;

/// Where credentials come from; decided when the environment is read.
#[derive(Clone, Debug)]
pub enum CredentialsSource {
    /// `AWS_ACCESS_KEY_ID` and its like. They cannot be renewed.
    Environment(Credentials),
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI` and its like.
    Container(ContainerEndpoint),
    /// Neither. Of a key pair of which only one half is set, the variable of the other half.
    Missing(Option<&'static str>),
}

/// The endpoint that has credentials under SnapStart.
#[derive(Clone)]
pub struct ContainerEndpoint {
    uri: String,
    token: Token,
}

/// The token is a secret, and the URI may hold one.
impl fmt::Debug for ContainerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContainerEndpoint(not shown)")
    }
}

#[derive(Clone)]
enum Token {
    None,
    Text(String),
    File(PathBuf),
}

impl CredentialsSource {
    /// Reads the standard variables through `variable`. `lambda_host` is Lambda's own API, which
    /// may be trusted as loopback is.
    ///
    /// # Errors
    /// The variable whose value cannot be used, and what is allowed.
    pub fn read(
        variable: impl Fn(&str) -> Option<String>,
        lambda_host: &str,
    ) -> Result<CredentialsSource, (&'static str, &'static str)> {
        let unset = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            (Some(id), Some(secret)) => {
                let credentials = Credentials::new(id, secret, variable("AWS_SESSION_TOKEN"));
                return Ok(CredentialsSource::Environment(credentials));
            }
            (Some(_), None) => Some("AWS_SECRET_ACCESS_KEY"),
            (None, Some(_)) => Some("AWS_ACCESS_KEY_ID"),
            (None, None) => None,
        };
        let token = match (
            variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        ) {
            (Some(file), _) => Token::File(PathBuf::from(file)),
            (None, Some(text)) => Token::Text(text),
            (None, None) => Token::None,
        };
        if let Some(path) = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            let uri = format!("http://169.254.170.2{path}");
            let good = path.starts_with('/') && uri.parse::<http::Uri>().is_ok();
            let allowed = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "a path that begins with /");
            return if good {
                Ok(CredentialsSource::Container(ContainerEndpoint { uri, token }))
            } else {
                Err(allowed)
            };
        }
        let Some(uri) = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") else {
            return Ok(CredentialsSource::Missing(unset));
        };
        let allowed = (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "an https URL, or http to loopback, 169.254.170.2, 169.254.170.23 or fd00:ec2::23",
        );
        if is_trusted(&uri, lambda_host) {
            Ok(CredentialsSource::Container(ContainerEndpoint { uri, token }))
        } else {
            Err(allowed)
        }
    }
}

/// The error of a sandbox that has no credentials. `unset`: the half of a key pair that is not set,
/// where the other one is.
#[must_use]
pub fn missing(unset: Option<&str>) -> Error {
    match unset {
        Some(half) => Error::new(
            "HalfCredentials",
            format!("{half} is not set, the other half of the key pair is"),
        ),
        None => Error::new(
            "NoCredentials",
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, nor is \
             AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ),
    }
}

/// The token is sent with the request, so plain http is used only where nobody else listens.
fn is_trusted(uri: &str, lambda_host: &str) -> bool {
    let Ok(uri) = uri.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => {
            let known = ["localhost", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
            known.contains(&host)
                || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
                || (!host.is_empty() && host == lambda_host)
        }
        _ => false,
    }
}

/// The credentials that `cache` holds, unless it is time to renew them.
fn not_due(cache: Option<&ExpiringCredentials>, now: SystemTime) -> Option<&ExpiringCredentials> {
    cache.filter(|held| held.is_good(now) && now < held.refresh_at)
}

/// The credentials that `cache` holds, renewed when it is time.
fn current(
    cache: &mut Option<ExpiringCredentials>,
    now: SystemTime,
    deadline: &Deadline,
    fetch: impl FnOnce(&Deadline) -> Result<ExpiringCredentials, Error>,
) -> Result<Credentials, Error> {
    if let Some(held) = not_due(cache.as_ref(), now) {
        return Ok(held.credentials.clone());
    }
    let mut held = cache.as_mut().filter(|held| held.is_good(now));
    // Those that are good are not given up for new ones: most of the time is for sending with them.
    let fetched = match held {
        Some(_) => fetch(&deadline.sooner(deadline.left(Instant::now()) / 3 * 2)),
        None => fetch(deadline),
    };
    match (fetched, held.take()) {
        (Ok(fresh), _) => Ok(cache.insert(fresh).credentials.clone()),
        (Err(error), Some(held)) => {
            let soon = held.expires_soon(now);
            held.refresh_at = now + if soon { REFRESH_RETRY.1 } else { REFRESH_RETRY.0 };
            if soon {
                log::warn!(
                    "renewal",
                    "the credentials expire soon and cannot be renewed: {error}; it is retried"
                );
            }
            Ok(held.credentials.clone())
        }
        (Err(error), None) => Err(error),
    }
}

/// Gives credentials that are good now; fetches and keeps them.
#[derive(Debug)]
pub(super) struct CredentialsProvider {
    source: CredentialsSource,
    role: Option<Role>,
    http: HttpSettings,
    interrupts: InterruptHandle,
    own: Option<ExpiringCredentials>,
    assumed: Option<ExpiringCredentials>,
    attempts: Attempts,
}

/// Fetches for want of good credentials. Each of them can be three requests, and a peer that keeps
/// refusing must not get one with every try to send. Nor are they given up: the first one may fail
/// over a connection that had died.
#[derive(Debug, Default)]
struct Attempts {
    /// When the last ones began, by both clocks: after a freeze one of them may have stood still.
    begun: [Option<(Instant, SystemTime)>; 2],
    /// Why the last one, or what it fetched, was of no use.
    failed: Option<Error>,
}

impl Attempts {
    /// No third one begins within so long.
    const WINDOW: Duration = Duration::from_secs(1);

    /// The error of the last one, while there is to be no other.
    fn refused(&self, now: (Instant, SystemTime)) -> Option<&Error> {
        let [oldest, _] = self.begun;
        let (mono, wall) = oldest?;
        let by_the_wall =
            now.1.duration_since(wall).unwrap_or_else(|backwards| backwards.duration());
        let since = now.0.saturating_duration_since(mono).max(by_the_wall);
        self.failed.as_ref().filter(|_| since < Self::WINDOW)
    }

    fn begin(&mut self, now: (Instant, SystemTime)) {
        let [_, last] = self.begun;
        self.begun = [last, Some(now)];
    }
}

impl CredentialsProvider {
    /// Fetches nothing yet.
    pub(super) fn new(
        source: CredentialsSource,
        role: Option<Role>,
        http: HttpSettings,
        interrupts: InterruptHandle,
    ) -> CredentialsProvider {
        let attempts = Attempts::default();
        CredentialsProvider { source, role, http, interrupts, own: None, assumed: None, attempts }
    }

    /// Credentials to sign with.
    ///
    /// # Errors
    /// If there are none, or the endpoint that has them does not give them.
    pub(super) fn credentials(
        &mut self,
        skew: &mut ClockSkew,
        deadline: &Deadline,
    ) -> Result<Credentials, Error> {
        if self.has_good(skew.now()) {
            return self.fetch_due(skew, deadline);
        }
        let now = (Instant::now(), SystemTime::now());
        if let Some(error) = self.attempts.refused(now) {
            return Err(Error { retry_now: false, ..error.clone() });
        }
        self.attempts.begin(now);
        let fetched = self.fetch_due(skew, deadline);
        self.attempts.failed =
            fetched.as_ref().err().filter(|e| e.kind != ErrorKind::Interrupted).cloned();
        fetched
    }

    /// Lets the next try fetch at once, whatever failed before: there may be no time for a later
    /// one.
    pub(super) fn try_anew(&mut self) {
        self.attempts = Attempts::default();
    }

    /// Whether there is something to sign with, without a request.
    fn has_good(&self, now: SystemTime) -> bool {
        match (&self.role, &self.source) {
            (Some(_), _) => self.assumed.as_ref().is_some_and(|held| held.is_good(now)),
            (None, CredentialsSource::Container(_)) => {
                self.own.as_ref().is_some_and(|held| held.is_good(now))
            }
            (None, CredentialsSource::Environment(_) | CredentialsSource::Missing(_)) => true,
        }
    }

    fn fetch_due(
        &mut self,
        skew: &mut ClockSkew,
        deadline: &Deadline,
    ) -> Result<Credentials, Error> {
        let CredentialsProvider { source, role, http, interrupts, own, assumed, .. } = self;
        let now = skew.now();
        let mut own = |deadline: &Deadline| match source {
            CredentialsSource::Environment(credentials) => Ok(credentials.clone()),
            CredentialsSource::Container(endpoint) => current(own, now, deadline, |deadline| {
                endpoint
                    .fetch(http, interrupts, now, deadline)
                    .map_err(|error| error.while_fetching(CONTAINER_CREDENTIALS))
            }),
            CredentialsSource::Missing(unset) => Err(missing(*unset)),
        };
        match role {
            None => own(deadline),
            Some(role) => current(assumed, now, deadline, |deadline| {
                sts::assume(role, &own(deadline)?, http, interrupts, skew, deadline)
            }),
        }
    }

    /// Whether nothing is due to be fetched.
    pub(super) fn is_current(&self, now: SystemTime) -> bool {
        match (&self.role, &self.source) {
            (Some(_), _) => not_due(self.assumed.as_ref(), now).is_some(),
            (None, CredentialsSource::Container(_)) => not_due(self.own.as_ref(), now).is_some(),
            (None, CredentialsSource::Environment(_) | CredentialsSource::Missing(_)) => true,
        }
    }

    /// Whether a role's credentials are held.
    pub(super) fn has_assumed(&self) -> bool {
        self.assumed.is_some()
    }

    /// Lets go of all credentials that can be fetched anew. Says whether there were any.
    pub(super) fn invalidate(&mut self) -> bool {
        let (own, assumed) = (self.own.take(), self.assumed.take());
        own.is_some() || assumed.is_some()
    }

    /// The same, for those that were refused with this error.
    pub(super) fn refused(&mut self, error: &Error) -> bool {
        let any = self.invalidate();
        if any {
            self.attempts.failed = Some(error.clone());
        }
        any
    }
}

impl ContainerEndpoint {
    fn fetch(
        &self,
        http: &HttpSettings,
        interrupts: &InterruptHandle,
        now: SystemTime,
        deadline: &Deadline,
    ) -> Result<ExpiringCredentials, Error> {
        // Never through a proxy: the endpoint is inside the sandbox.
        let http = HttpSettings { ca_bundle: http.ca_bundle.clone(), proxies: Proxies::default() };
        let mut request = Request::get(&self.uri).header("accept", "application/json");
        if let Some(token) = self.token()? {
            let mut value = http::HeaderValue::from_str(&token).map_err(|_| {
                Error::new("BadToken", "the authorization token is not legal in a header")
            })?;
            value.set_sensitive(true);
            request = request.header("authorization", value);
        }
        let request = request
            .body(())
            .map_err(|_| Error::new("BadRequest", "the endpoint's URI is not legal"))?;
        let deadline =
            Deadline::after(Instant::now(), CALL_TIMEOUT, Limit::Credentials).earlier(*deadline);
        let response = http.client(&self.uri, interrupts)?.send(request, b"", &deadline)?;
        if response.status != 200 {
            return Err(Error {
                detail: None,
                ..read_error(response.status, &response.headers, b"")
            });
        }
        read_credentials(&response.body, now)
            .ok_or_else(|| Error::new("UnreadableResponse", "an answer without credentials"))
    }

    fn token(&self) -> Result<Option<String>, Error> {
        let token = match &self.token {
            Token::None => return Ok(None),
            Token::Text(text) => text.clone(),
            Token::File(path) => read_token(path).map_err(|error| {
                Error::new(
                    "BadToken",
                    format!("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE cannot be read: {error}"),
                )
            })?,
        };
        if token.contains(['\r', '\n']) {
            return Err(Error::new("BadToken", "the authorization token holds a line end"));
        }
        Ok(Some(token))
    }
}

fn read_token(path: &Path) -> io::Result<String> {
    String::from_utf8(small_file::read(path, MAX_HEADER)?)
        .map_err(|_| io::Error::other("not a text"))
}

/// The answer of a container endpoint. Quoted nowhere.
fn read_credentials(body: &[u8], now: SystemTime) -> Option<ExpiringCredentials> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Response {
        access_key_id: String,
        secret_access_key: String,
        token: Option<String>,
        expiration: Option<String>,
    }
    if body.len() > MAX_ANSWER {
        return None;
    }
    let answer: Response = crate::json::read(body).ok()?;
    let credentials =
        Credentials::answered(answer.access_key_id, answer.secret_access_key, answer.token)?;
    Some(ExpiringCredentials::new(credentials, answer.expiration.as_deref(), now))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn keys(id: &str) -> Credentials {
        Credentials::new(id.to_owned(), "wJalrXUtnFEMI".to_owned(), Some("token".to_owned()))
    }

    fn read(pairs: &[(&str, &str)]) -> Result<CredentialsSource, (&'static str, &'static str)> {
        CredentialsSource::read(
            |name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()),
            "169.254.100.1",
        )
    }

    #[test]
    fn two_fetches_a_second_fail_and_at_the_end_two_more() {
        let error = Error::new("HTTP500", "no");
        let now = (Instant::now(), UNIX_EPOCH);
        let mut attempts = Attempts { failed: Some(error), ..Attempts::default() };
        assert!(attempts.refused(now).is_none());
        attempts.begin(now);
        assert!(attempts.refused(now).is_none());
        attempts.begin(now);
        assert!(attempts.refused(now).is_some());
        let (source, http) = (CredentialsSource::Missing(None), HttpSettings::default());
        let mut provider = CredentialsProvider::new(source, None, http, InterruptHandle::default());
        provider.attempts = attempts;
        provider.try_anew();
        assert!(provider.attempts.refused(now).is_none());
    }

    #[test]
    fn debug_shows_nothing_secret() {
        let container = CredentialsSource::Container(ContainerEndpoint {
            uri: "http://secret-host/".to_owned(),
            token: Token::Text("token".to_owned()),
        });
        let shown = format!("{:?} {container:?}", keys("AKIDEXAMPLE"));
        for secret in ["AKIDEXAMPLE", "wJalrXUtnFEMI", "token", "secret"] {
            assert!(!shown.contains(secret));
        }
    }

    #[test]
    fn the_environment_comes_first_and_both_keys_are_needed() {
        let (id, secret) = (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s"));
        let full =
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9001/2021-04-23/credentials");
        let relative = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x");
        assert!(matches!(read(&[id, secret, full]), Ok(CredentialsSource::Environment(_))));
        assert!(matches!(read(&[id, full]), Ok(CredentialsSource::Container(_))));
        assert!(matches!(
            read(&[id]),
            Ok(CredentialsSource::Missing(Some("AWS_SECRET_ACCESS_KEY")))
        ));
        let Ok(CredentialsSource::Container(both)) = read(&[full, relative]) else {
            panic!("no container")
        };
        assert_eq!(both.uri, "http://169.254.170.2/v2/credentials/x");
        let (text, file) = (
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "t"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/f"),
        );
        assert!(matches!(
            read(&[full, text, file]),
            Ok(CredentialsSource::Container(ContainerEndpoint { token: Token::File(_), .. }))
        ));
    }

    #[test]
    fn the_token_goes_only_where_nobody_else_listens() {
        for (uri, good) in [
            ("http://127.0.0.1:9001/2021-04-23/credentials", true),
            ("http://localhost:9001/", true),
            ("http://[::1]:9001/", true),
            ("http://[fd00:ec2::23]/", true),
            ("http://169.254.170.2/", true),
            ("http://169.254.170.23/v1/credentials", true),
            ("http://169.254.100.1:9001/2021-04-23/credentials", true),
            ("https://credentials.example.com/", true),
            ("http://credentials.example.com/", false),
            ("http://169.254.169.254/", false),
            ("http://127.0.0.1.example.com/", false),
            ("http://10.0.0.1/", false),
            ("ftp://127.0.0.1/", false),
            ("/relative", false),
        ] {
            assert_eq!(read(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)]).is_ok(), good, "{uri}");
        }
        assert!(read(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@evil.example.com/")]).is_err());
    }

    #[test]
    fn a_token_with_a_line_end_is_refused_and_a_file_is_read_each_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let container =
            ContainerEndpoint { uri: String::new(), token: Token::File(file.path().to_owned()) };
        std::fs::write(file.path(), "first").unwrap();
        assert_eq!(container.token().unwrap().as_deref(), Some("first"));
        std::fs::write(file.path(), "second").unwrap();
        assert_eq!(container.token().unwrap().as_deref(), Some("second"));
        std::fs::write(file.path(), "split\r\nX-Evil: 1").unwrap();
        assert!(!container.token().unwrap_err().to_string().contains("Evil"));
    }

    #[test]
    fn keys_are_renewed_ahead_of_their_end_and_kept_when_that_fails() {
        let start = UNIX_EPOCH + Duration::from_secs(1_795_425_345);
        let made = |id: &str, at: SystemTime, minutes: u64| ExpiringCredentials {
            credentials: keys(id),
            expires: at + Duration::from_secs(minutes * 60),
            refresh_at: at + Duration::from_secs(minutes.saturating_sub(15) * 60),
        };
        let failure = |_: &Deadline| Err(Error::new("Timeout", "down"));
        let after = |minutes: u64| start + Duration::from_secs(minutes * 60);
        let within = Deadline::after(Instant::now(), Duration::from_secs(900), Limit::Credentials);
        let mut held = None;
        assert_eq!(
            current(&mut held, start, &within, |_| Ok(made("first", start, 60)))
                .unwrap()
                .access_key_id(),
            "first"
        );
        // Not asked before it is time; then asked, kept on a failure, and not asked with every
        // send.
        assert_eq!(
            current(&mut held, after(44), &within, |_| panic!("too early"))
                .unwrap()
                .access_key_id(),
            "first"
        );
        assert_eq!(
            current(&mut held, after(46), &within, failure).unwrap().access_key_id(),
            "first"
        );
        assert_eq!(
            current(&mut held, after(46), &within, |_| panic!("too often"))
                .unwrap()
                .access_key_id(),
            "first"
        );
        assert_eq!(
            current(&mut held, after(59), &within, failure).unwrap().access_key_id(),
            "first"
        );
        // While they are good, most of the time is left for sending with them.
        let third = |deadline: &Deadline| {
            assert!(deadline.left(Instant::now()) <= Duration::from_secs(300));
            Err(Error::new("Timeout", "down"))
        };
        assert!(current(&mut held, after(59) + REFRESH_RETRY.1, &within, third).is_ok());
        // Over is over.
        assert!(current(&mut held, after(60), &within, failure).is_err());
        assert_eq!(
            current(&mut held, after(60), &within, |_| Ok(made("second", after(60), 60)))
                .unwrap()
                .access_key_id(),
            "second"
        );
        assert_eq!(
            current(&mut held, after(106), &within, |_| Ok(made("third", after(106), 60)))
                .unwrap()
                .access_key_id(),
            "third"
        );
    }

    #[test]
    fn an_answer_needs_both_keys() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_425_345);
        let whole = br#"{"AccessKeyId":"a","SecretAccessKey":"s","Token":"t","Expiration":"2026-11-23T18:00:00Z"}"#;
        let made = read_credentials(whole, now).unwrap();
        assert!(
            made.is_good(now)
                && !made.expires_soon(now)
                && !made.is_good(now + Duration::from_secs(86_400))
        );
        assert_eq!(made.credentials.session_token(), Some("t"));
        for bad in [
            &b"{}"[..],
            b"",
            b"<html>",
            br#"{"AccessKeyId":"","SecretAccessKey":"s"}"#,
            br#"{"AccessKeyId":"a"}"#,
        ] {
            assert!(read_credentials(bad, now).is_none());
        }
        assert!(
            read_credentials(br#"{"AccessKeyId":"a","SecretAccessKey":"s"}"#, now)
                .unwrap()
                .is_good(now + Duration::from_secs(3500))
        );
    }
}
