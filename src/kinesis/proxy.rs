//! Which way out: straight, or through a proxy. Pure; the environment comes in as a function.
//!
//! The rules are those of AWS's SDKs. The HTTP client's own reading of the environment is not used:
//! it takes `HTTP_PROXY` for https targets too, and sends even loopback calls through a proxy.

use core::net::IpAddr;
use std::borrow::Cow;
use std::fmt;

use http::Uri;

/// The proxy variables as they were found.
#[derive(Clone, Default)]
pub struct Proxies {
    https: Option<(&'static str, String)>,
    http: Option<(&'static str, String)>,
    exceptions: String,
}

/// A proxy's URL may hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies(not shown)")
    }
}

impl Proxies {
    /// Capitals win over lower case, the scheme's own variable over `ALL_PROXY`.
    #[must_use]
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let first = |names: [&'static str; 4]| {
            names.into_iter().find_map(|name| Some((name, variable(name)?)))
        };
        Proxies {
            https: first(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            http: first(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
            exceptions: variable("NO_PROXY").or_else(|| variable("no_proxy")).unwrap_or_default(),
        }
    }

    /// The proxy that a call to `url` goes through: the name of the variable and its value. `None`:
    /// straight.
    #[must_use]
    pub fn of(&self, url: &str) -> Option<(&'static str, &str)> {
        let uri: Uri = url.parse().ok()?;
        let https = uri.scheme_str() == Some("https");
        let (name, proxy) = if https { self.https.as_ref()? } else { self.http.as_ref()? };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let straight = is_local(&host)
            || self.exceptions.split([',', ' ']).any(|exception| covers(exception, &host, port));
        (!straight).then_some((*name, proxy))
    }
}

/// Loopback, and the link-local addresses under which AWS serves metadata and credentials: no proxy
/// can reach those.
pub(super) fn is_local(host: &str) -> bool {
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// One entry of `NO_PROXY`: `*`, an address, or a domain with all below it; each with a port or
/// without.
fn covers(exception: &str, host: &str, port: u16) -> bool {
    let exception = exception.trim().to_ascii_lowercase();
    if exception == "*" {
        return true;
    }
    // An IPv6 address has colons of its own, and a port only behind brackets.
    let (name, wanted) = match exception.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            (name, digits.parse::<u16>().ok())
        }
        _ => (exception.as_str(), None),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let name = name.strip_prefix('*').unwrap_or(name).trim_start_matches('.');
    let below = || host.strip_suffix(name).is_some_and(|front| front.ends_with('.'));
    !name.is_empty() && wanted.is_none_or(|wanted| wanted == port) && (host == name || below())
}

/// A proxy's URL: http is what is meant where it says nothing.
pub(super) fn with_scheme(text: &str) -> Cow<'_, str> {
    if text.contains("://") { text.into() } else { format!("http://{text}").into() }
}

/// Whether `text` is a proxy that can be used: `http://host:port`, `https://host:port`, or
/// `host:port`, each with `user:password@` or without.
#[must_use]
pub fn is_proxy(text: &str) -> bool {
    with_scheme(text).parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINESIS: &str = "https://kinesis.eu-west-1.amazonaws.com/";

    fn proxy_for(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let variable =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Proxies::read(variable).of(url).map(|(_, proxy)| proxy.to_owned())
    }

    #[test]
    fn the_variable_of_the_scheme_counts() {
        for (variables, url, expected) in [
            (&[][..], KINESIS, None),
            (&[("HTTPS_PROXY", "a")], KINESIS, Some("a")),
            (&[("https_proxy", "b")], KINESIS, Some("b")),
            (&[("HTTPS_PROXY", "a"), ("https_proxy", "b"), ("ALL_PROXY", "c")], KINESIS, Some("a")),
            (&[("ALL_PROXY", "c"), ("HTTP_PROXY", "d")], KINESIS, Some("c")),
            (&[("HTTP_PROXY", "d")], KINESIS, None),
            (
                &[("HTTP_PROXY", "d"), ("HTTPS_PROXY", "a")],
                "http://emulator.internal:4566/",
                Some("d"),
            ),
            (&[("HTTPS_PROXY", "a")], "http://emulator.internal:4566/", None),
        ] {
            assert_eq!(proxy_for(variables, url).as_deref(), expected, "{variables:?} {url}");
        }
    }

    #[test]
    fn what_is_inside_the_sandbox_never_goes_through_a_proxy() {
        for host in [
            "localhost",
            "localhost:4566",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:1",
            "169.254.170.2",
            "169.254.100.1:9001",
            "kinesis.localhost",
        ] {
            let both = [("HTTPS_PROXY", "a"), ("HTTP_PROXY", "b"), ("NO_PROXY", "")];
            assert_eq!(proxy_for(&both, &format!("http://{host}/")), None, "{host}");
            assert_eq!(proxy_for(&both, &format!("https://{host}/")), None, "{host}");
        }
    }

    #[test]
    fn exceptions_are_names_suffixes_ports_or_all() {
        for (exceptions, straight) in [
            ("", false),
            ("*", true),
            ("amazonaws.com", true),
            (".amazonaws.com", true),
            ("*.amazonaws.com", true),
            ("localhost, 10.0.0.1,.amazonaws.com", true),
            ("kinesis.eu-west-1.amazonaws.com", true),
            ("KINESIS.eu-west-1.amazonaws.COM", true),
            ("kinesis.eu-west-1.amazonaws.com:443", true),
            ("kinesis.eu-west-1.amazonaws.com:8443", false),
            ("aws.com", false),
            ("eu-west-1", false),
            ("kinesis.us-east-1.amazonaws.com", false),
            ("example.com", false),
            (",,", false),
        ] {
            let through = proxy_for(&[("HTTPS_PROXY", "a"), ("no_proxy", exceptions)], KINESIS);
            assert_eq!(through.is_none(), straight, "{exceptions}");
        }
        assert_eq!(
            proxy_for(
                &[("HTTPS_PROXY", "a"), ("NO_PROXY", "2001:db8::1")],
                "https://[2001:db8::1]/"
            ),
            None
        );
        assert_eq!(
            proxy_for(&[("HTTPS_PROXY", "a"), ("NO_PROXY", "10.1.2.3")], "https://10.1.2.3:8443/"),
            None
        );
    }

    #[test]
    fn a_proxy_is_a_host_and_its_password_does_not_show() {
        for (text, good) in [
            ("http://proxy:3128", true),
            ("proxy:3128", true),
            ("https://user:secret@proxy.internal/", true),
            ("socks5://proxy:1080", false),
            ("http://", false),
            ("has space", false),
        ] {
            assert_eq!(is_proxy(text), good, "{text}");
        }
        let shown = format!("{:?}", Proxies::read(|_| Some("http://user:secret@proxy".to_owned())));
        assert!(!shown.contains("secret"));
    }
}
