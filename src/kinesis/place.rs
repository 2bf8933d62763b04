//! Where a call went, by the settings in use: what the advice about an error names. Pure.

use super::endpoint;

/// The names that advice mentions: of the settings in use.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The stream's name or ARN, as it was set.
    pub stream: &'a str,
    /// The region of stream and signature.
    pub region: &'a str,
    /// Scheme, host and port of the Kinesis endpoint.
    pub endpoint: &'a str,
    /// The ARN of the role to assume, if any.
    pub role: Option<&'a str>,
    /// Scheme, host and port of the STS endpoint.
    pub sts: &'a str,
    /// The variable of the proxy that Kinesis is called through, and of that to STS, if any.
    pub proxies: [Option<&'a str>; 2],
    /// Whether `AWS_CA_BUNDLE` is set.
    pub ca_bundle: bool,
    /// Whether each record has a partition key of its own already.
    pub spreads: bool,
}

/// Who was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    Kinesis,
    Sts,
    Container,
}

impl Place<'_> {
    /// Puts the names into an advice, in place of its words in braces. `{route}`, `{elsewhere}`,
    /// `{bundle}` and `{spread}` are clauses, which leave out what was done already.
    pub(super) fn fill(&self, advice: &str, called: Called) -> String {
        let arn = if self.stream.starts_with("arn:") {
            self.stream.to_owned()
        } else {
            format!(
                "arn:{}:kinesis:{}:<account>:stream/{}",
                endpoint::partition(self.region),
                self.region,
                self.stream
            )
        };
        // Nobody is to be advised to do what is done.
        let (endpoint, proxy) = match called {
            Called::Kinesis => (self.endpoint, self.proxies[0]),
            Called::Sts => (self.sts, self.proxies[1]),
            Called::Container => ("the container credentials endpoint", None),
        };
        let route = proxy.map_or_else(
            || "a NAT or a VPC endpoint, its security group, or HTTPS_PROXY".to_owned(),
            |name| format!("the proxy in {name}, what it lets through, and NO_PROXY"),
        );
        let elsewhere = if self.stream.starts_with("arn:") {
            self.stream.to_owned()
        } else {
            format!(
                "stream {} in region {} of this account; or set AWS_REGION, \
                 or give the stream's whole ARN",
                self.stream, self.region
            )
        };
        let bundle = if self.ca_bundle {
            "set AWS_CA_BUNDLE to another file: the one that is set lacks the certificate authority"
        } else {
            "set AWS_CA_BUNDLE to the certificate authority"
        };
        let spread = if self.spreads {
            ""
        } else {
            ", or spread records with KINESIS_TELEMETRY_PARTITION_KEY=random"
        };
        let names = [
            ("{arn}", arn.as_str()),
            ("{proxy}", proxy.unwrap_or("HTTPS_PROXY")),
            ("{route}", &route),
            ("{elsewhere}", &elsewhere),
            ("{bundle}", bundle),
            ("{spread}", spread),
            ("{region}", self.region),
            ("{endpoint}", endpoint),
            ("{role}", self.role.unwrap_or("the function's role")),
        ];
        names.iter().fold(advice.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}
