//! The way to an AWS endpoint: TLS roots, proxy, one HTTP exchange, and what its errors mean.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request};
use ureq::tls::{PemItem, RootCerts, TlsConfig};

use super::proxy::Proxies;
use super::put_records::{Failure, Remedy, person};
use crate::deadline::Deadline;

/// An answer for 500 records has about 100 KB; more than this is nobody's answer.
const MAX_ANSWER: u64 = 1024 * 1024;

/// A time-out of zero means a whole second to ureq, so none is ever given.
const LEAST: Duration = Duration::from_millis(5);

/// What the environment says of the way out.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// `AWS_CA_BUNDLE`: a PEM file of roots to trust instead of the built-in ones.
    pub ca_bundle: Option<PathBuf>,
    /// `HTTPS_PROXY` and its like.
    pub proxies: Proxies,
}

impl Way {
    /// An HTTP client for `url`. With it comes TLS, so none is made before the first send.
    pub(super) fn agent(&self, url: &str) -> Result<ureq::Agent, Failure> {
        let proxy = match self.proxies.of(url) {
            None => None,
            // The value may hold a password, and is not quoted.
            Some((name, proxy)) => Some(ureq::Proxy::new(proxy).map_err(|_| person("Proxy", format!("{name} is no proxy's URL")))?),
        };
        Ok(ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .accept("")
            // One connection is all that a single dispatcher uses. A dead one is never tried twice, as it leaves the pool when used.
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            // Filled with zeros for each connection, and resident from then on. Answers are short. The other one stays at ureq's 128 KiB:
            // the large requests of a flood are written in pieces of it, and smaller pieces cost more CPU.
            .input_buffer_size(16 * 1024)
            // Freezes are longer than any age that could be set here; a dead connection costs one retry.
            .max_idle_age(Duration::from_secs(3600))
            .proxy(proxy)
            .tls_config(TlsConfig::builder().root_certs(self.roots()?).build())
            .build()
            .into())
    }

    fn roots(&self) -> Result<RootCerts, Failure> {
        let Some(path) = &self.ca_bundle else { return Ok(RootCerts::WebPki) };
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
        Ok(RootCerts::Specific(Arc::new(certificates)))
    }
}

/// Status, headers and body of an answer, of any status.
pub(super) type Answer = (u16, HeaderMap, Vec<u8>);

/// Sends `request` and reads the whole answer. `reused`: the connection may be one that has died in the pool.
pub(super) fn exchange<B: ureq::AsSendBody>(agent: &ureq::Agent, request: Request<B>, deadline: &Deadline, reused: bool) -> Result<Answer, Failure> {
    let left = deadline.left(Instant::now());
    if left < LEAST {
        // What came before, such as a call for keys, has used up the time.
        return Err(Failure { remedy: Remedy::Transient, ..person("Timeout", format!("no time left within {}", deadline.limit())) });
    }
    let failed = |error: &ureq::Error| on_the_way(error, deadline, reused);
    let request = agent
        .configure_request(request)
        .timeout_global(Some(left))
        // A little earlier, so that the error tells a connection that never was from an answer that never came.
        .timeout_resolve(Some(left.saturating_sub(Duration::from_millis(2))))
        .timeout_connect(Some(left.saturating_sub(Duration::from_millis(1))))
        .build();
    let mut answer = agent.run(request).map_err(|error| failed(&error))?;
    let bytes = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(|error| failed(&error))?;
    let (parts, _) = answer.into_parts();
    Ok((parts.status.as_u16(), parts.headers, bytes))
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
        // A proxy's 5xx may pass; its 403 and 407 do not.
        Error::ConnectProxyFailed(why) if why.contains("responded 5") => ("ProxyRefused", false, Remedy::Transient, false),
        Error::ConnectProxyFailed(_) => ("ProxyRefused", false, Remedy::Person, false),
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
    Failure { remedy, ambiguous, stale, ..person(code, message) }
}

/// `getaddrinfo` failing has no kind of its own in std.
fn is_lookup_failure(error: &std::io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address")
}
