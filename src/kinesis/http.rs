//! One HTTP request to an AWS endpoint and its response: TLS roots, proxy, and what an error before
//! the response means.
//!
//! Runs on the dispatcher's thread. The client, and with it TLS, is made with the first call:
//! nothing of it is needed before `/next`.

use std::fmt;
use std::io::{self, ErrorKind as Io, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, Uri};
use memchr::memmem;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::SendBody;

use super::error::{Error, ErrorKind, SHOWN_HEADERS};
use super::error_body::MAX_ERROR_BODY;
use super::interrupt::InterruptHandle;
use super::proxy::{self, Proxies};
use super::reflection;
use super::small_file;
use super::tls::Tls;
use super::transport::{Connections, Cut, NoLookup};
use crate::deadline::Deadline;

/// An answer for 500 records has about 100 KB; more than this is nobody's answer.
const MAX_RESPONSE: u64 = 1024 * 1024;
/// All of the web's roots have 250 KB.
const MAX_BUNDLE: usize = 2 * 1024 * 1024;
/// With less time left nothing is begun.
const MIN_TIMEOUT: Duration = Duration::from_millis(5);

/// What the environment says about HTTP.
#[derive(Clone, Debug, Default)]
pub struct HttpSettings {
    /// `AWS_CA_BUNDLE`: a PEM file of roots to trust instead of the built-in ones.
    pub ca_bundle: Option<PathBuf>,
    /// `HTTPS_PROXY` and its like.
    pub proxies: Proxies,
}

/// Status, headers and body of an answer, of any status.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Response {
    /// Hides what it repeats of the request's secrets, wherever it can be shown: in an error, or in
    /// the name of one.
    fn mask(&mut self, secrets: &[Vec<u8>]) {
        if self.status != 200 || memmem::find(&self.body, b"ErrorCode").is_some() {
            reflection::mask(&mut self.body, secrets);
        }
        for name in SHOWN_HEADERS {
            let Some(value) = self.headers.get_mut(name) else { continue };
            let mut text = value.as_bytes().to_vec();
            reflection::mask(&mut text, secrets);
            if let Ok(masked) = HeaderValue::from_bytes(&text) {
                *value = masked;
            }
        }
    }
}

/// The values of a request's headers that nobody is to see.
fn secrets_of(request: &Request<()>) -> Vec<Vec<u8>> {
    let values = request.headers().values().filter(|value| value.is_sensitive());
    values.map(|value| value.as_bytes().to_vec()).collect()
}

/// A client for one URL, with one connection.
pub(super) struct HttpClient {
    agent: ureq::Agent,
    connections: Connections,
    interrupts: InterruptHandle,
    /// How long the last exchange took.
    took: Duration,
}

/// The proxy's URL may hold a password.
impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient(not shown)")
    }
}

impl HttpSettings {
    /// Opens nothing yet.
    pub(super) fn client(
        &self,
        url: &str,
        interrupts: &InterruptHandle,
    ) -> Result<HttpClient, Error> {
        let proxy = match self.proxies.of(url) {
            None => None,
            // The value may hold a password, and is not quoted.
            Some((name, proxy)) => Some(
                ureq::Proxy::new(&proxy::with_scheme(proxy))
                    .map_err(|_| Error::new("Proxy", format!("{name} is no proxy's URL")))?,
            ),
        };
        let connections =
            Connections::new(proxy.is_some(), Tls::new(self.bundle()?), interrupts.clone());
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .accept("")
            // One connection is all that a single dispatcher uses. A dead one is never tried twice,
            // as it leaves the pool when used.
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            // The connection itself knows when it is too old, by both clocks.
            .max_idle_age(Duration::from_secs(3600))
            .proxy(proxy)
            .build();
        let agent = ureq::Agent::with_parts(config, connections.clone(), NoLookup);
        Ok(HttpClient { agent, connections, interrupts: interrupts.clone(), took: Duration::ZERO })
    }

    fn bundle(&self) -> Result<Option<Vec<CertificateDer<'static>>>, Error> {
        let Some(path) = &self.ca_bundle else { return Ok(None) };
        let problem = |what: String| {
            Error::new("CaBundle", format!("AWS_CA_BUNDLE: {}: {what}", path.display()))
        };
        let pem = small_file::read(path, MAX_BUNDLE).map_err(|error| problem(error.to_string()))?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).flatten().collect();
        if certificates.is_empty() {
            return Err(problem("holds no PEM certificate".to_owned()));
        }
        Ok(Some(certificates))
    }
}

impl HttpClient {
    /// Sends `request` with `body`, or without one if it is a GET, and reads the whole answer.
    ///
    /// A connection that was there before gets a third of the time to answer, or twice what the
    /// last answer took, so that there is time for a new one if it has died unnoticed. Where an
    /// answer takes more than a third, a new one would not have it in time either.
    pub(super) fn send(
        &mut self,
        request: Request<()>,
        body: &[u8],
        deadline: &Deadline,
    ) -> Result<Response, Error> {
        let begun = Instant::now();
        self.check_time(deadline, begun)?;
        let left = deadline.left(begun);
        let patience = if self.took > left / 3 { left } else { (left / 3).max(self.took * 2) };
        self.connections.begin(deadline.at(), patience);
        let secrets = secrets_of(&request);
        let mut upload = Upload { left: body };
        let result = self.send_once(request, &mut upload);
        let result = result.map_err(|error| classify_transport_error(&error, deadline));
        let cut_short = self.connections.is_cut_short();
        match result {
            // Nobody can have done what was not asked to the end.
            Ok(response) if cut_short && response.status == 200 => {
                self.connections.close();
                Err(Error::new("ConnectionReset", "an answer to a part of the request"))
            }
            Ok(mut response) => {
                self.connections.end();
                self.took = begun.elapsed();
                response.mask(&secrets);
                Ok(response)
            }
            Err(error) => {
                // Kinesis stores nothing of a request whose last byte it has not seen.
                let ambiguous = upload.left.is_empty() && !body.is_empty() && !cut_short;
                let stale = self.connections.reused_in_vain() && error.kind == ErrorKind::Transient;
                self.connections.close();
                Err(Error { ambiguous, stale, ..error })
            }
        }
    }

    fn send_once(
        &self,
        request: Request<()>,
        upload: &mut Upload<'_>,
    ) -> Result<Response, ureq::Error> {
        let (mut parts, ()) = request.into_parts();
        let mut response = if parts.method == http::Method::GET {
            self.agent.run(Request::from_parts(parts, ()))?
        } else {
            // Without it ureq would send chunks, which Kinesis does not take.
            parts.headers.insert(http::header::CONTENT_LENGTH, upload.left.len().into());
            self.agent.run(Request::from_parts(parts, SendBody::from_reader(upload)))?
        };
        let body = match response.status().as_u16() {
            200 => response.body_mut().with_config().limit(MAX_RESPONSE).read_to_vec()?,
            // The status says enough, however long the page that comes with it.
            _ => {
                let mut page = Vec::new();
                response
                    .body_mut()
                    .as_reader()
                    .take(MAX_ERROR_BODY as u64 + 1)
                    .read_to_end(&mut page)?;
                page
            }
        };
        let (parts, _) = response.into_parts();
        Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// Whether there is a connection that is alive.
    pub(super) fn is_ready(&self) -> bool {
        self.connections.is_ready()
    }

    /// Opens a connection ahead of its use, unless there is one that is alive. Requests nothing.
    pub(super) fn prepare(&mut self, url: &str, deadline: &Deadline) -> Result<(), Error> {
        self.check_time(deadline, Instant::now())?;
        let url: Uri =
            url.parse().map_err(|_| Error::new("BadRequest", "the endpoint's URL is not legal"))?;
        self.connections
            .prepare(&self.agent, &url, deadline.at())
            .map_err(|error| classify_transport_error(&error, deadline))
    }

    /// Lets go of the connection if it was idle for longer than that: the next exchange opens one.
    /// What TLS needs for a short handshake is kept.
    pub(super) fn disconnect(&self, idle: Duration) {
        self.connections.close_idle(idle);
    }

    fn check_time(&self, deadline: &Deadline, now: Instant) -> Result<(), Error> {
        if self.interrupts.is_interrupted() {
            return Err(Error::new("Interrupted", "interrupted before it began"));
        }
        if deadline.left(now) < MIN_TIMEOUT {
            // What came before, such as a call for credentials, has used up the time.
            return Err(Error::new("Timeout", format!("no time left within {}", deadline.limit())));
        }
        Ok(())
    }
}

/// A request's body while it is sent; afterwards it says how much of it was not.
struct Upload<'a> {
    left: &'a [u8],
}

impl Read for Upload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.left.read(buffer)
    }
}

/// The code of an error before an answer was complete; the table says what it means. The words are
/// ours or the system's: a certificate's names or a proxy's text are not quoted.
fn classify_transport_error(error: &ureq::Error, deadline: &Deadline) -> Error {
    use ureq::Error as Ureq;
    let in_time = |what: &str| format!("{what} within {}", deadline.limit());
    let io_message = |error: &io::Error| {
        if error.raw_os_error().is_some() { error.to_string() } else { error.kind().to_string() }
    };
    match error {
        Ureq::Other(other) => match other.downcast_ref::<Cut>() {
            Some(Cut::Resolving) => {
                Error::new("DnsTimeout", in_time("the host's name was not resolved"))
            }
            Some(Cut::Connecting) => Error::new("ConnectTimeout", in_time("no connection")),
            Some(Cut::Deadline) => Error::new("Timeout", in_time("no answer")),
            Some(Cut::Interrupted) => {
                Error::new("Interrupted", "interrupted for something more urgent")
            }
            None => Error::new("Io", "the exchange failed"),
        },
        Ureq::HostNotFound => Error::new("HostNotFound", "the host's name cannot be resolved"),
        Ureq::ConnectionFailed => Error::new("ConnectionFailed", "no connection"),
        Ureq::ConnectProxyFailed(why) => proxy_error(why),
        Ureq::Tls(_) | Ureq::TlsRequired => {
            Error::new("Tls", without_foreign_words(&error.to_string()))
        }
        Ureq::Io(io) => match io.kind() {
            Io::ConnectionRefused
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::AddrNotAvailable => Error::new("ConnectionFailed", io_message(io)),
            Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::BrokenPipe
            | Io::UnexpectedEof
            | Io::NotConnected => Error::new("ConnectionReset", io_message(io)),
            // TLS errors of rustls come wrapped in this kind.
            Io::InvalidData if io.get_ref().is_some() => {
                Error::new("Tls", without_foreign_words(&io.to_string()))
            }
            _ => Error::new("Io", io_message(io)),
        },
        _ => Error::new("Http", "an answer that is not HTTP/1.1 as it should be, or too large"),
    }
}

/// A proxy that did not open the tunnel. Its 408, 429 and 5xx may pass, and so may a connection
/// that it closed; its 403 and 407 do not.
fn proxy_error(why: &str) -> Error {
    let status =
        why.split_once("responded ").and_then(|(_, rest)| rest.get(..3)?.parse::<u16>().ok());
    match status {
        Some(status @ (408 | 429 | 500..)) => {
            Error::new("ProxyFailed", format!("the proxy answered HTTP {status}"))
        }
        Some(status) => Error::new("ProxyRefused", format!("the proxy answered HTTP {status}")),
        None => Error::new("ProxyFailed", "the proxy closed the connection without an answer"),
    }
}

/// What a TLS error says before it quotes from a certificate.
fn without_foreign_words(text: &str) -> String {
    let text = text.split(['"', ';', '{', '\n']).next().unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(100).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(error: &ureq::Error) -> Error {
        classify_transport_error(
            error,
            &Deadline::after(Instant::now(), Duration::ZERO, crate::deadline::Limit::Shutdown),
        )
    }

    #[test]
    fn a_proxy_that_may_recover_is_transient() {
        for (why, code) in [
            ("proxy server responded 403/403", "ProxyRefused"),
            ("proxy server responded 407/407", "ProxyRefused"),
            ("proxy server responded 408/408", "ProxyFailed"),
            ("proxy server responded 429/429", "ProxyFailed"),
            ("proxy server responded 499/499", "ProxyRefused"),
            ("proxy server responded 500/500", "ProxyFailed"),
            ("proxy server responded 503/503", "ProxyFailed"),
            ("proxy server did not respond", "ProxyFailed"),
            ("proxy server responded é", "ProxyFailed"),
        ] {
            let error = classified(&ureq::Error::ConnectProxyFailed(why.to_owned()));
            let kind =
                if code == "ProxyFailed" { ErrorKind::Transient } else { ErrorKind::Configuration };
            assert_eq!((error.code.as_str(), error.kind), (code, kind), "{why}");
        }
    }

    #[test]
    fn transport_errors_have_codes_of_the_table_and_name_the_limit_that_passed() {
        let io = |kind: Io| ureq::Error::Io(kind.into());
        for (error, code, kind) in [
            (io(Io::ConnectionRefused), "ConnectionFailed", ErrorKind::Transient),
            (io(Io::NetworkUnreachable), "ConnectionFailed", ErrorKind::Transient),
            (io(Io::ConnectionReset), "ConnectionReset", ErrorKind::Transient),
            (io(Io::UnexpectedEof), "ConnectionReset", ErrorKind::Transient),
            (io(Io::PermissionDenied), "Io", ErrorKind::Transient),
            (io(Io::InvalidData), "Io", ErrorKind::Transient),
            (
                ureq::Error::Io(io::Error::new(Io::InvalidData, "invalid peer certificate")),
                "Tls",
                ErrorKind::Configuration,
            ),
            (ureq::Error::Tls("x"), "Tls", ErrorKind::Configuration),
            (ureq::Error::HostNotFound, "HostNotFound", ErrorKind::Transient),
            (ureq::Error::ConnectionFailed, "ConnectionFailed", ErrorKind::Transient),
            (ureq::Error::BodyExceedsLimit(1), "Http", ErrorKind::Transient),
            (Cut::Interrupted.into(), "Interrupted", ErrorKind::Interrupted),
        ] {
            let classified = classified(&error);
            assert_eq!((classified.code.as_str(), classified.kind), (code, kind), "{error}");
        }
        for (cut, code) in [
            (Cut::Resolving, "DnsTimeout"),
            (Cut::Connecting, "ConnectTimeout"),
            (Cut::Deadline, "Timeout"),
        ] {
            let error = classified(&cut.into());
            assert_eq!((error.code.as_str(), error.kind), (code, ErrorKind::Transient));
            assert!(error.message.ends_with("within the shutdown deadline"), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_proxys_password() {
        let proxies = Proxies::read(|name| {
            (name == "HTTPS_PROXY").then(|| "http://user:secret@proxy:3128".to_owned())
        });
        let client = HttpSettings { ca_bundle: None, proxies }
            .client("https://example.com/", &InterruptHandle::default())
            .unwrap();
        assert!(!format!("{client:?}").contains("secret"));
    }

    /// `host:port/` was good when the settings were read, and no proxy's URL when it was used.
    #[test]
    fn a_proxy_that_the_settings_allow_can_be_used() {
        for text in [
            "proxy:3128",
            "proxy:3128/",
            "user:p%40ss@proxy:3128",
            "https://proxy/",
            "HTTP://proxy",
        ] {
            assert!(proxy::is_proxy(text), "{text}");
            let proxies = Proxies::read(|name| (name == "HTTPS_PROXY").then(|| text.to_owned()));
            let settings = HttpSettings { ca_bundle: None, proxies };
            let client = settings.client("https://example.com/", &InterruptHandle::default());
            assert!(client.is_ok(), "{text}");
        }
    }

    /// The certificates behind the limit were left out without a word.
    #[test]
    fn a_bundle_is_read_whole_or_not_at_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![b'\n'; MAX_BUNDLE + 1]).unwrap();
        let ca_bundle = Some(file.path().to_owned());
        let settings = HttpSettings { ca_bundle, proxies: Proxies::default() };
        let error = settings.client("https://example.com/", &InterruptHandle::default());
        let error = error.unwrap_err();
        assert_eq!((error.code.as_str(), error.kind), ("CaBundle", ErrorKind::Configuration));
        assert!(error.message.ends_with("larger than 2097152 bytes"), "{error}");
    }

    #[test]
    fn what_a_certificate_says_is_not_quoted() {
        let quoted = "invalid peer certificate: certificate not valid for name \"localhost\"; certificate is only valid for DnsName(\"forged\")";
        assert_eq!(
            without_foreign_words(quoted),
            "invalid peer certificate: certificate not valid for name"
        );
        assert_eq!(
            without_foreign_words("invalid peer certificate: UnknownIssuer"),
            "invalid peer certificate: UnknownIssuer"
        );
        assert!(without_foreign_words(&"x".repeat(1000)).len() == 100);
    }
}
