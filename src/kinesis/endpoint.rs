//! Where Kinesis is: a stream's name or ARN, a region's partition, FIPS and dual-stack. Pure.
//!
//! The regional host is used for ARNs too. SDKs go to `ACCOUNT.data-kinesis.REGION` there;
//! home-made DNS zones for VPC endpoints and egress allow-lists often lack that name, and the
//! regional host serves the same calls.

use super::proxy;

/// The stream that records go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stream {
    /// In the caller's own account and region.
    Name(String),
    /// In any account; carries its region.
    Arn(String),
}

impl Stream {
    /// A stream name (1 to 128 of `[a-zA-Z0-9_.-]`) or ARN
    /// (`arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`).
    ///
    /// # Errors
    /// Which part of anything else is wrong, as a clause.
    pub fn parse(text: &str) -> Result<Stream, &'static str> {
        if !text.starts_with("arn:") {
            let named = is_stream_name(text).then(|| Stream::Name(text.to_owned()));
            return named.ok_or("a stream's name has 1 to 128 letters, digits and _.-");
        }
        let [partition, region, account, resource] = arn_parts(text, "kinesis")?;
        if !is_region(region) {
            return Err("the ARN's fourth part is no region");
        }
        if partition != self::partition(region) {
            return Err("the ARN's second part is not the partition of its region");
        }
        check_account(account)?;
        match resource.strip_prefix("stream/") {
            Some(name) if is_stream_name(name) => Ok(Stream::Arn(text.to_owned())),
            _ => Err("the ARN's last part is not stream/ and a stream's name"),
        }
    }

    /// The region an ARN names.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        match self {
            Stream::Name(_) => None,
            Stream::Arn(arn) => arn.split(':').nth(3),
        }
    }

    /// The PutRecords member that names the stream: its key and its value.
    #[must_use]
    pub fn member(&self) -> (&'static str, &str) {
        match self {
            Stream::Name(name) => ("StreamName", name),
            Stream::Arn(arn) => ("StreamARN", arn),
        }
    }
}

/// Partition, region, account and resource of an ARN of that service.
pub(super) fn arn_parts<'a>(text: &'a str, service: &str) -> Result<[&'a str; 4], &'static str> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, name, region, account, resource] = parts.as_slice() else {
        return Err("an ARN has six parts with colons between them");
    };
    if *name != service {
        return Err("the ARN's third part is another service");
    }
    Ok([partition, region, account, resource])
}

/// The account in an ARN.
pub(super) fn check_account(account: &str) -> Result<(), &'static str> {
    let good = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    good.then_some(()).ok_or("the ARN's fifth part is no account id of 12 digits")
}

fn is_stream_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Whether `text` can be a region: it becomes part of a host name and of signatures.
#[must_use]
pub fn is_region(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 40
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The two switches of the regional host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variants {
    /// `AWS_USE_FIPS_ENDPOINT`
    pub fips: bool,
    /// `AWS_USE_DUALSTACK_ENDPOINT`
    pub dual_stack: bool,
}

/// A URL to post to, and the region that the signature is scoped to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    region: String,
}

struct Partition {
    /// What the names of its regions begin with.
    regions: &'static str,
    /// As in ARNs.
    name: &'static str,
    suffix: &'static str,
    dual_stack_suffix: &'static str,
}

const fn partition_row(
    regions: &'static str,
    name: &'static str,
    suffix: &'static str,
    dual_stack_suffix: &'static str,
) -> Partition {
    Partition { regions, name, suffix, dual_stack_suffix }
}

/// As in botocore 1.44 `partitions.json`.
const PARTITIONS: &[Partition] = &[
    partition_row("cn-", "aws-cn", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    partition_row("us-gov-", "aws-us-gov", "amazonaws.com", "api.aws"),
    partition_row("us-isob-", "aws-iso-b", "sc2s.sgov.gov", "api.aws.scloud"),
    partition_row("us-isof-", "aws-iso-f", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    partition_row("us-iso-", "aws-iso", "c2s.ic.gov", "api.aws.ic.gov"),
    partition_row("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    partition_row("eusc-", "aws-eusc", "amazonaws.eu", "api.amazonwebservices.eu"),
];
/// That of all other regions.
const COMMERCIAL: Partition = partition_row("", "aws", "amazonaws.com", "api.aws");

fn partition_of(region: &str) -> &'static Partition {
    PARTITIONS.iter().find(|partition| region.starts_with(partition.regions)).unwrap_or(&COMMERCIAL)
}

/// The name that the partition of `region` has in ARNs.
#[must_use]
pub fn partition(region: &str) -> &'static str {
    partition_of(region).name
}

impl Endpoint {
    /// The regional host of `service` (`kinesis`, `sts`) by AWS's rules.
    #[must_use]
    pub fn regional(service: &str, region: &str, variants: Variants) -> Endpoint {
        let partition = partition_of(region);
        // GovCloud's ordinary host is its FIPS host.
        let has_own_fips_host = variants.dual_stack || !region.starts_with("us-gov-");
        let fips = variants.fips && has_own_fips_host;
        let fips = if fips { "-fips" } else { "" };
        let suffix =
            if variants.dual_stack { partition.dual_stack_suffix } else { partition.suffix };
        Endpoint {
            url: format!("https://{service}{fips}.{region}.{suffix}/"),
            region: region.to_owned(),
        }
    }

    /// A configured endpoint URL (VPC endpoint, emulator), used as it is: FIPS and dual-stack are
    /// its owner's business, and no region is guessed from it (`vpce` stands where one is
    /// expected). `None` if it is no http(s) URL with a host.
    #[must_use]
    pub fn custom(url: &str, region: &str) -> Option<Endpoint> {
        let uri: http::Uri = url.trim().parse().ok()?;
        let scheme_ok = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri
            .authority()
            .filter(|a| scheme_ok && !a.host().is_empty() && !a.as_str().contains('@'))?;
        let path = uri.path().trim_end_matches('/');
        let url = format!("{}://{authority}{path}/", uri.scheme_str()?);
        Some(Endpoint { url, region: region.to_owned() })
    }

    /// Ends in `/`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Scheme, host and port, for a person: a path may hold what is nobody's business.
    #[must_use]
    pub fn origin(&self) -> &str {
        let host = self.url.find("://").map_or(0, |at| at + 3);
        let length = self.url.get(host..).and_then(|rest| rest.find('/')).unwrap_or_default();
        self.url.get(..host + length).unwrap_or_default()
    }

    /// Whether what is sent there can be read on the network: http to another machine.
    #[must_use]
    pub fn is_readable_by_others(&self) -> bool {
        let uri = self.url.parse::<http::Uri>().ok();
        uri.is_some_and(|uri| {
            uri.scheme_str() == Some("http")
                && !uri.host().is_some_and(|host| proxy::is_local(&host.to_ascii_lowercase()))
        })
    }

    /// The region that signatures name.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_botocore_resolves_them() {
        let plain = Variants::default();
        let fips = Variants { fips: true, ..plain };
        let dual = Variants { dual_stack: true, ..plain };
        let both = Variants { fips: true, dual_stack: true };
        for (region, variants, host) in [
            ("us-east-1", plain, "kinesis.us-east-1.amazonaws.com"),
            ("us-east-1", fips, "kinesis-fips.us-east-1.amazonaws.com"),
            ("us-east-1", dual, "kinesis.us-east-1.api.aws"),
            ("us-east-1", both, "kinesis-fips.us-east-1.api.aws"),
            ("us-gov-west-1", dual, "kinesis.us-gov-west-1.api.aws"),
            ("us-gov-west-1", both, "kinesis-fips.us-gov-west-1.api.aws"),
            ("cn-north-1", fips, "kinesis-fips.cn-north-1.amazonaws.com.cn"),
            ("cn-north-1", plain, "kinesis.cn-north-1.amazonaws.com.cn"),
            ("cn-north-1", dual, "kinesis.cn-north-1.api.amazonwebservices.com.cn"),
            ("us-gov-west-1", plain, "kinesis.us-gov-west-1.amazonaws.com"),
            ("us-gov-west-1", fips, "kinesis.us-gov-west-1.amazonaws.com"),
            ("us-iso-east-1", plain, "kinesis.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", plain, "kinesis.us-isob-east-1.sc2s.sgov.gov"),
            ("eu-isoe-west-1", plain, "kinesis.eu-isoe-west-1.cloud.adc-e.uk"),
            ("us-isof-south-1", plain, "kinesis.us-isof-south-1.csp.hci.ic.gov"),
            ("eusc-de-east-1", plain, "kinesis.eusc-de-east-1.amazonaws.eu"),
            ("eusc-de-east-1", dual, "kinesis.eusc-de-east-1.api.amazonwebservices.eu"),
            ("mars-north-1", plain, "kinesis.mars-north-1.amazonaws.com"),
        ] {
            let endpoint = Endpoint::regional("kinesis", region, variants);
            assert_eq!(endpoint.url(), format!("https://{host}/"));
            assert_eq!(endpoint.region(), region);
            assert_eq!(
                Endpoint::regional("sts", region, variants).url(),
                format!("https://{}/", host.replacen("kinesis", "sts", 1))
            );
        }
    }

    #[test]
    fn streams_by_name_and_arn() {
        let arn = "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/my.stream-1";
        let stream = Stream::parse(arn).unwrap();
        assert_eq!(stream.region(), Some("cn-north-1"));
        assert_eq!(stream.member(), ("StreamARN", arn));
        assert_eq!(Stream::parse("my.stream-1").unwrap().member(), ("StreamName", "my.stream-1"));
        for bad in [
            "",
            "has space",
            "arn:aws:kinesis:eu-west-1:123:stream/x",
            "arn:aws:kinesis:eu-west-1:1234567890123:stream/x",
            "arn:aws:kinesis:eu-west-1:12345678901x:stream/x",
            "arn:awsbogus:kinesis:eu-west-1:123456789012:stream/x",
            "arn:aws:kinesis:cn-north-1:123456789012:stream/x",
            "arn:aws-cn:kinesis:eu-west-1:123456789012:stream/x",
            "arn:aws:kinesis:us-gov-west-1:123456789012:stream/x",
            "arn:aws:sqs:eu-west-1:123456789012:stream/x",
            "arn:aws:kinesis:eu-west-1:123456789012:x",
            "a/b",
        ] {
            assert!(Stream::parse(bad).is_err(), "{bad}");
        }
        assert!(Stream::parse(&"x".repeat(129)).is_err());
        for (arn, part) in [
            ("arn:aws:kinesis", "six parts"),
            ("arn:aws:sqs:eu-west-1:123456789012:stream/x", "third part"),
            ("arn:aws:kinesis:EU:123456789012:stream/x", "fourth part"),
            ("arn:aws-cn:kinesis:eu-west-1:123456789012:stream/x", "second part"),
            ("arn:aws:kinesis:eu-west-1:123:stream/x", "fifth part"),
            ("arn:aws:kinesis:eu-west-1:123456789012:x", "last part"),
        ] {
            assert!(Stream::parse(arn).is_err_and(|fault| fault.contains(part)), "{arn}");
        }
    }

    #[test]
    fn an_arn_names_the_partition_of_its_region() {
        for (partition, region) in [
            ("aws", "eu-west-1"),
            ("aws", "mars-north-1"),
            ("aws-cn", "cn-north-1"),
            ("aws-us-gov", "us-gov-west-1"),
            ("aws-iso", "us-iso-east-1"),
            ("aws-iso-b", "us-isob-east-1"),
            ("aws-iso-e", "eu-isoe-west-1"),
            ("aws-iso-f", "us-isof-south-1"),
            ("aws-eusc", "eusc-de-east-1"),
        ] {
            let arn =
                |partition: &str| format!("arn:{partition}:kinesis:{region}:123456789012:stream/x");
            assert!(Stream::parse(&arn(partition)).is_ok(), "{region}");
            assert!(Stream::parse(&arn("aws-other")).is_err(), "{region}");
        }
    }

    #[test]
    fn an_endpoint_is_shown_without_its_path_and_known_to_be_readable_by_others() {
        for (url, origin, readable) in [
            ("http://127.0.0.1:4566/path", "http://127.0.0.1:4566", false),
            ("http://localhost:4566", "http://localhost:4566", false),
            ("http://[::1]:4566", "http://[::1]:4566", false),
            ("http://emulator:4566/secret", "http://emulator:4566", true),
            ("http://10.0.0.1", "http://10.0.0.1", true),
            ("http://127.0.0.1.example.com", "http://127.0.0.1.example.com", true),
            (
                "https://vpce-1.kinesis.eu-west-1.vpce.amazonaws.com/",
                "https://vpce-1.kinesis.eu-west-1.vpce.amazonaws.com",
                false,
            ),
        ] {
            let endpoint = Endpoint::custom(url, "eu-west-1").unwrap();
            assert_eq!(
                (endpoint.origin(), endpoint.is_readable_by_others()),
                (origin, readable),
                "{url}"
            );
        }
        assert_eq!(Endpoint::default().origin(), "");
    }

    #[test]
    fn custom_urls_keep_their_path_and_refuse_what_is_no_url() {
        for (url, expected) in [
            ("http://127.0.0.1:4566", Some("http://127.0.0.1:4566/")),
            (
                "https://vpce-1.kinesis.eu-west-1.vpce.amazonaws.com/",
                Some("https://vpce-1.kinesis.eu-west-1.vpce.amazonaws.com/"),
            ),
            ("http://localhost:1/base", Some("http://localhost:1/base/")),
            ("localhost:1", None),
            ("ftp://x", None),
            ("https://user:secret@host/", None),
            ("", None),
        ] {
            let endpoint = Endpoint::custom(url, "eu-west-1");
            assert_eq!(endpoint.as_ref().map(Endpoint::url), expected, "{url}");
            assert!(endpoint.is_none_or(|endpoint| endpoint.region() == "eu-west-1"), "{url}");
        }
    }
}
