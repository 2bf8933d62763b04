//! AWS credentials: where they come from, how long they are good for, and that they never show.
//!
//! The environment's keys win; without them (SnapStart) the container endpoint is asked; with `ROLE_ARN` either is exchanged for a role's keys.
//! Nothing is fetched before the first send, so that nothing of it can be part of a snapshot. Runs on the dispatcher's thread.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::Request;
use serde::Deserialize;

use super::proxy::Proxies;
use super::put_records::{Failure, Remedy, person};
use super::skew::Skew;
use super::sts::{self, Role};
use super::way::{Way, exchange};
use crate::clock::parse_iso8601;
use crate::deadline::{Deadline, Limit};
use crate::log;

/// New keys are asked for from this long before the old ones expire. As botocore does.
const EARLY: Duration = Duration::from_secs(15 * 60);
/// From here on it gets urgent. The old keys are used as long as they are good all the same: nothing is won by not sending.
const URGENT: Duration = Duration::from_secs(10 * 60);
/// After a failed try to renew keys that are still good.
const PAUSE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));
/// Where an answer does not say when its keys expire.
const USUAL: Duration = Duration::from_secs(3600);
/// What one call for keys may take. As AWS's SDKs have it.
pub(super) const CALL: Duration = Duration::from_secs(2);

/// An access key, its secret, and the session token that Lambda's roles have. Its `Debug` shows nothing secret.
#[derive(Clone)]
pub struct Keys {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

impl Keys {
    /// As the three environment variables give them.
    #[must_use]
    pub fn new(access_key_id: String, secret_access_key: String, session_token: Option<String>) -> Keys {
        Keys { access_key_id, secret_access_key, session_token }
    }

    /// The access key's id: not a secret, but not logged either.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    pub(super) fn secret_access_key(&self) -> &str {
        &self.secret_access_key
    }

    pub(super) fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(not shown)")
    }
}

/// Where keys come from; settled when the environment is read.
#[derive(Clone, Debug)]
pub enum Source {
    /// `AWS_ACCESS_KEY_ID` and its like. They cannot be renewed.
    Environment(Keys),
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI` and its like.
    Container(Container),
    /// Neither.
    Nowhere,
}

/// The endpoint that has keys under SnapStart.
#[derive(Clone)]
pub struct Container {
    uri: String,
    token: Token,
}

/// The token is a secret.
impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Container(not shown)")
    }
}

#[derive(Clone)]
enum Token {
    None,
    Text(String),
    File(PathBuf),
}

impl Source {
    /// Reads the standard variables through `variable`. `lambda_host` is Lambda's own API, which may be trusted as loopback is.
    ///
    /// # Errors
    /// The variable whose value cannot be used, and what is allowed.
    pub fn read(variable: impl Fn(&str) -> Option<String>, lambda_host: &str) -> Result<Source, (&'static str, &'static str)> {
        if let (Some(id), Some(secret)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            return Ok(Source::Environment(Keys::new(id, secret, variable("AWS_SESSION_TOKEN"))));
        }
        let token = match (variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"), variable("AWS_CONTAINER_AUTHORIZATION_TOKEN")) {
            (Some(file), _) => Token::File(PathBuf::from(file)),
            (None, Some(text)) => Token::Text(text),
            (None, None) => Token::None,
        };
        if let Some(path) = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            let uri = format!("http://169.254.170.2{path}");
            let good = path.starts_with('/') && uri.parse::<http::Uri>().is_ok();
            let allowed = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "a path that begins with /");
            return if good { Ok(Source::Container(Container { uri, token })) } else { Err(allowed) };
        }
        let Some(uri) = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") else { return Ok(Source::Nowhere) };
        let allowed = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "an https URL, or http to loopback, 169.254.170.2, 169.254.170.23 or fd00:ec2::23");
        if is_trusted(&uri, lambda_host) { Ok(Source::Container(Container { uri, token })) } else { Err(allowed) }
    }
}

/// The token goes with the request, so plain http only goes where nobody else listens.
fn is_trusted(uri: &str, lambda_host: &str) -> bool {
    let Ok(uri) = uri.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => {
            let known = ["localhost", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
            known.contains(&host) || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) || (!host.is_empty() && host == lambda_host)
        }
        _ => false,
    }
}

/// Keys with an end.
#[derive(Debug)]
pub(super) struct Lease {
    keys: Keys,
    expires: SystemTime,
    /// No sooner than this are new ones asked for, while these are good.
    ask_at: SystemTime,
}

impl Lease {
    /// `expiration` as AWS writes it.
    pub(super) fn new(keys: Keys, expiration: Option<&str>, now: SystemTime) -> Lease {
        let expires = expiration.and_then(parse_iso8601).map_or(now + USUAL, |ms| UNIX_EPOCH + Duration::from_millis(ms));
        // Keys that come with little time left are what there is: not to be asked for again with every send.
        let early = expires.checked_sub(EARLY).unwrap_or(now);
        Lease { keys, expires, ask_at: early.max(now + PAUSE.0) }
    }

    fn is_good(&self, now: SystemTime) -> bool {
        now < self.expires
    }

    fn is_urgent(&self, now: SystemTime) -> bool {
        now + URGENT >= self.expires
    }
}

/// The keys that `lease` holds, renewed when it is time.
fn current(lease: &mut Option<Lease>, now: SystemTime, fetch: impl FnOnce() -> Result<Lease, Failure>) -> Result<Keys, Failure> {
    if let Some(held) = lease.as_ref().filter(|held| held.is_good(now) && now < held.ask_at) {
        return Ok(held.keys.clone());
    }
    match (fetch(), lease.as_mut().filter(|held| held.is_good(now))) {
        (Ok(fresh), _) => Ok(lease.insert(fresh).keys.clone()),
        (Err(failure), Some(held)) => {
            let urgent = held.is_urgent(now);
            held.ask_at = now + if urgent { PAUSE.1 } else { PAUSE.0 };
            if urgent {
                log::warn!("renewal", "the credentials expire soon and cannot be renewed: {failure}; tried again");
            }
            Ok(held.keys.clone())
        }
        (Err(failure), None) => Err(failure),
    }
}

/// The way from what the environment says to keys that are good now.
#[derive(Debug)]
pub(super) struct Chain {
    source: Source,
    role: Option<Role>,
    way: Way,
    own: Option<Lease>,
    assumed: Option<Lease>,
}

impl Chain {
    /// Fetches nothing yet.
    pub(super) fn new(source: Source, role: Option<Role>, way: Way) -> Chain {
        Chain { source, role, way, own: None, assumed: None }
    }

    /// Keys to sign with.
    ///
    /// # Errors
    /// If there are none, or the endpoint that has them does not give them.
    pub(super) fn keys(&mut self, skew: &mut Skew, deadline: &Deadline) -> Result<Keys, Failure> {
        let Chain { source, role, way, own, assumed } = self;
        let now = skew.now();
        let mut own_keys = || match source {
            Source::Environment(keys) => Ok(keys.clone()),
            Source::Container(container) => current(own, now, || container.fetch(way, now, deadline)),
            Source::Nowhere => Err(no_keys()),
        };
        match role {
            None => own_keys(),
            Some(role) => current(assumed, now, || sts::assume(role, &own_keys()?, way, skew, deadline)),
        }
    }

    /// Lets go of all keys that can be had anew. Says whether there were any.
    pub(super) fn forget(&mut self) -> bool {
        let (own, assumed) = (self.own.take(), self.assumed.take());
        own.is_some() || assumed.is_some()
    }
}

fn no_keys() -> Failure {
    person("NoCredentials", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, nor is AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned())
}

impl Container {
    fn fetch(&self, way: &Way, now: SystemTime, deadline: &Deadline) -> Result<Lease, Failure> {
        // Never through a proxy: the endpoint is inside the sandbox.
        let agent = Way { ca_bundle: way.ca_bundle.clone(), proxies: Proxies::default() }.agent(&self.uri)?;
        let mut request = Request::get(&self.uri).header("accept", "application/json");
        if let Some(token) = self.token()? {
            let mut value = http::HeaderValue::from_str(&token).map_err(|_| failed("the authorization token cannot stand in a header".to_owned()))?;
            value.set_sensitive(true);
            request = request.header("authorization", value);
        }
        let request = request.body(()).map_err(|error| failed(error.to_string()))?;
        let deadline = Deadline::after(Instant::now(), CALL, Limit::Credentials).earlier(*deadline);
        let answer = exchange(&agent, request, &deadline, false);
        let (status, _, body) = answer.map_err(|failure| Failure { remedy: Remedy::Transient, ..failed(failure.message) })?;
        if status != 200 {
            let remedy = if status >= 500 || status == 429 { Remedy::Transient } else { Remedy::Person };
            return Err(Failure { remedy, ..failed(format!("HTTP {status}")) });
        }
        read_keys(&body, now).ok_or_else(|| failed("an answer without keys".to_owned()))
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let token = match &self.token {
            Token::None => return Ok(None),
            Token::Text(text) => text.clone(),
            Token::File(path) => std::fs::read_to_string(path).map_err(|error| failed(format!("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {error}")))?,
        };
        if token.contains(['\r', '\n']) {
            return Err(failed("the authorization token holds a line end".to_owned()));
        }
        Ok(Some(token))
    }
}

/// The answer of a container endpoint. Quoted nowhere.
fn read_keys(body: &[u8], now: SystemTime) -> Option<Lease> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        access_key_id: String,
        secret_access_key: String,
        token: Option<String>,
        expiration: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let keys = Keys::new(answer.access_key_id, answer.secret_access_key, answer.token);
    (!keys.access_key_id.is_empty() && !keys.secret_access_key.is_empty()).then(|| Lease::new(keys, answer.expiration.as_deref(), now))
}

fn failed(message: String) -> Failure {
    person("ContainerCredentials", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(id: &str) -> Keys {
        Keys::new(id.to_owned(), "wJalrXUtnFEMI".to_owned(), Some("token".to_owned()))
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Source, (&'static str, &'static str)> {
        Source::read(|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()), "169.254.100.1")
    }

    #[test]
    fn debug_shows_nothing_secret() {
        let container = Source::Container(Container { uri: "http://secret-host/".to_owned(), token: Token::Text("token".to_owned()) });
        let shown = format!("{:?} {container:?}", keys("AKIDEXAMPLE"));
        for secret in ["AKIDEXAMPLE", "wJalrXUtnFEMI", "token", "secret"] {
            assert!(!shown.contains(secret));
        }
    }

    #[test]
    fn the_environment_comes_first_and_both_keys_are_needed() {
        let (id, secret) = (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s"));
        let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9001/2021-04-23/credentials");
        let relative = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x");
        assert!(matches!(read(&[id, secret, full]), Ok(Source::Environment(_))));
        assert!(matches!(read(&[id, full]), Ok(Source::Container(_))));
        assert!(matches!(read(&[id]), Ok(Source::Nowhere)));
        let Ok(Source::Container(both)) = read(&[full, relative]) else { panic!("no container") };
        assert_eq!(both.uri, "http://169.254.170.2/v2/credentials/x");
        let (text, file) = (("AWS_CONTAINER_AUTHORIZATION_TOKEN", "t"), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/f"));
        assert!(matches!(read(&[full, text, file]), Ok(Source::Container(Container { token: Token::File(_), .. }))));
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
        let container = Container { uri: String::new(), token: Token::File(file.path().to_owned()) };
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
        let lease = |id: &str, at: SystemTime, minutes: u64| Lease {
            keys: keys(id),
            expires: at + Duration::from_secs(minutes * 60),
            ask_at: at + Duration::from_secs(minutes.saturating_sub(15) * 60),
        };
        let failure = || Err(failed("down".to_owned()));
        let after = |minutes: u64| start + Duration::from_secs(minutes * 60);
        let mut held = None;
        assert_eq!(current(&mut held, start, || Ok(lease("first", start, 60))).unwrap().access_key_id, "first");
        // Not asked before it is time; then asked, kept on a failure, and not asked with every send.
        assert_eq!(current(&mut held, after(44), || panic!("too early")).unwrap().access_key_id, "first");
        assert_eq!(current(&mut held, after(46), failure).unwrap().access_key_id, "first");
        assert_eq!(current(&mut held, after(46), || panic!("too often")).unwrap().access_key_id, "first");
        assert_eq!(current(&mut held, after(59), failure).unwrap().access_key_id, "first");
        // Over is over.
        assert!(current(&mut held, after(60), failure).is_err());
        assert_eq!(current(&mut held, after(60), || Ok(lease("second", after(60), 60))).unwrap().access_key_id, "second");
        assert_eq!(current(&mut held, after(106), || Ok(lease("third", after(106), 60))).unwrap().access_key_id, "third");
    }

    #[test]
    fn an_answer_needs_both_keys() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_425_345);
        let whole = br#"{"AccessKeyId":"a","SecretAccessKey":"s","Token":"t","Expiration":"2026-11-23T18:00:00Z"}"#;
        let lease = read_keys(whole, now).unwrap();
        assert!(lease.is_good(now) && !lease.is_urgent(now) && !lease.is_good(now + Duration::from_secs(86_400)));
        assert_eq!(lease.keys.session_token(), Some("t"));
        for bad in [&b"{}"[..], b"", b"<html>", br#"{"AccessKeyId":"","SecretAccessKey":"s"}"#, br#"{"AccessKeyId":"a"}"#] {
            assert!(read_keys(bad, now).is_none());
        }
        assert!(read_keys(br#"{"AccessKeyId":"a","SecretAccessKey":"s"}"#, now).unwrap().is_good(now + Duration::from_secs(3500)));
    }
}
