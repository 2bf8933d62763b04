//! The settings: one table of names, defaults, ranges and meanings, and the typed [`Config`] that comes out of it.
//!
//! The environment comes in as a function and is read nowhere else. All problems are found in one pass, so that a person mends them once.

mod table;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::kinesis;
use crate::kinesis::endpoint::{self, Endpoint, Stream};
use crate::kinesis::http::HttpSettings;
use crate::kinesis::provider::CredentialsSource;
use crate::kinesis::proxy::{self, Proxies};
use crate::kinesis::sts::{self, Role};
use crate::lambda::filter::{Filter, Level};
use crate::log;

pub use self::table::{Allowed, PREFIX, SETTINGS, Setting, help, markdown, unknown};

/// When telemetry leaves the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    /// `End` while invocations are rare, else `Next` when something is due.
    Adaptive,
    /// At the end of each invocation, before the sandbox can freeze.
    End,
    /// At the start of the next invocation.
    Next,
}

/// How events are packed into Kinesis records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// Many events a record, one a line.
    Lines,
    /// One event a record.
    Event,
    /// Many events a record, in the KPL aggregated format.
    Kpl,
}

/// What is done to a record's data; in an aggregate, to each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// One gzip member.
    Gzip,
}

/// What spreads records over shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionKey {
    /// One key a process: order is kept within a sandbox.
    Sandbox,
    /// A fresh key each record.
    Random,
    /// The function's name.
    Function,
    /// The request id; events without one go by the sandbox.
    Request,
}

/// What each event carries beside Lambda's three keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// Everything that is known.
    Full,
    /// `requestId`, `eventId` and `traceId`; the rest stands once in a sandbox event.
    Slim,
}

/// What becomes of events that are lost for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// They are counted.
    None,
    /// They are counted, and printed to stdout.
    Log,
}

/// The telemetry types that are shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types {
    /// `platform.*` events.
    pub platform: bool,
    /// The function's log lines.
    pub function: bool,
    /// Log lines of extensions, this one among them.
    pub extension: bool,
}

/// What is asked of the Telemetry API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffering {
    /// How long a batch may wait, in milliseconds.
    pub timeout_ms: u64,
    /// Bytes in a batch.
    pub max_bytes: u64,
    /// Events in a batch.
    pub max_items: u64,
}

/// What a bad setting or a failed start does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// One line, then idle: the function is not touched.
    Continue,
    /// `init/error` and exit: the function's init fails.
    Fail,
}

/// What is needed even when the settings are bad: how to speak, and what to do about it.
#[derive(Clone, Debug)]
pub struct Basics {
    /// `AWS_LAMBDA_RUNTIME_API`: `host:port`, or a URL as some emulators have it.
    pub runtime_api: String,
    /// Whether `AWS_LAMBDA_INITIALIZATION_TYPE` says Managed Instances.
    pub managed_instances: bool,
    /// Of the extension's own lines.
    pub log_level: log::Level,
    /// Of the extension's own lines; follows `AWS_LAMBDA_LOG_FORMAT`.
    pub log_format: log::Format,
    /// What a bad setting does.
    pub on_error: OnError,
}

/// Every setting, checked. Made by [`read`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Stream, endpoint, credentials.
    pub kinesis: kinesis::Settings,
    /// What is shipped.
    pub types: Types,
    /// What of that is left out.
    pub filter: Filter,
    /// When it leaves.
    pub flush: FlushMode,
    /// How old an event may get while invocations keep coming.
    pub max_age: Duration,
    /// The most that one flush may hold an invocation.
    pub flush_timeout: Duration,
    /// Memory for events waiting to be sent.
    pub queue_bytes: usize,
    /// Room under [`Config::spool_folder`]; 0 for no spool.
    pub spool_bytes: u64,
    /// Under `/tmp`, or `TMPDIR` where that is set.
    pub spool_folder: PathBuf,
    /// What becomes of events that are lost for good.
    pub fallback: Fallback,
    /// `METRICS=emf`: whether the ledger's counts are printed for CloudWatch.
    pub emf: bool,
    /// How events are packed.
    pub record: RecordFormat,
    /// What is done to their data.
    pub compression: Compression,
    /// The largest Kinesis record: data and key, in bytes.
    pub record_bytes: usize,
    /// What spreads records over shards.
    pub partition_key: PartitionKey,
    /// What each event carries.
    pub envelope: Envelope,
    /// Copied into every event, in the order given.
    pub tags: Vec<(String, String)>,
    /// Of the telemetry listener.
    pub port: u16,
    /// Asked of the Telemetry API.
    pub buffering: Buffering,
}

/// One thing wrong with one variable: its name, its value, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

/// Reads the environment through `variable`. The basics always come back; the rest only if nothing is wrong with it.
///
/// # Errors
/// Every problem found, in the order of the table.
pub fn read(variable: impl Fn(&str) -> Option<String>) -> (Basics, Result<Config, Vec<Problem>>) {
    let mut reader = Reader { variable: &variable, problems: Vec::new() };
    let basics = reader.basics();
    let config = reader.config(&basics);
    let result = match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => Err(reader.problems),
    };
    (basics, result)
}

struct Reader<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// A variable's value; one that is empty is as good as unset (AWS's emulator sets missing credentials to "").
    fn text(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// A setting's value, or its default. `name` is one of the table's.
    fn value(&self, name: &str) -> (String, Allowed) {
        let row = SETTINGS.iter().find(|s| s.name == name);
        let (default, allowed) = row.map_or(("", Allowed::Text("")), |s| (s.default, s.allowed));
        (self.text(&format!("{PREFIX}{name}")).unwrap_or_else(|| default.to_owned()), allowed)
    }

    fn problem(&mut self, name: &str, value: &str, allowed: impl fmt::Display) {
        self.note(format!("{name}={value:?}: allowed is {allowed}"));
    }

    /// A problem with a variable whose value may hold a secret.
    fn secret_problem(&mut self, name: &str, allowed: impl fmt::Display) {
        self.note(format!("{name}: allowed is {allowed}"));
    }

    /// Kinesis and STS may share a variable, and its fault.
    fn note(&mut self, text: String) {
        let problem = Problem(text);
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn setting_problem(&mut self, name: &str, value: &str, allowed: impl fmt::Display) {
        self.problem(&format!("{PREFIX}{name}"), value, allowed);
    }

    fn number<N: TryFrom<u64> + Default>(&mut self, name: &str) -> N {
        let (value, allowed) = self.value(name);
        let fits = |n: &u64| match allowed {
            Allowed::Number(min, max) => (min..=max).contains(n),
            Allowed::Port => (1..=65_535).contains(n) && *n != 9001,
            _ => false,
        };
        let parsed =
            u64::from_str(value.trim()).ok().filter(fits).and_then(|n| N::try_from(n).ok());
        parsed.unwrap_or_else(|| {
            self.setting_problem(name, &value, allowed);
            N::default()
        })
    }

    fn one_of<T: Copy>(&mut self, name: &str, meanings: &[(&str, T)], fallback: T) -> T {
        let (value, allowed) = self.value(name);
        let found = meanings.iter().find(|(word, _)| value.trim().eq_ignore_ascii_case(word));
        found.map_or_else(
            || {
                self.setting_problem(name, &value, allowed);
                fallback
            },
            |(_, meaning)| *meaning,
        )
    }

    fn basics(&mut self) -> Basics {
        let levels = [
            ("error", log::Level::Error),
            ("warn", log::Level::Warn),
            ("info", log::Level::Info),
            ("debug", log::Level::Debug),
        ];
        let json =
            self.text("AWS_LAMBDA_LOG_FORMAT").is_some_and(|f| f.eq_ignore_ascii_case("json"));
        Basics {
            runtime_api: self.text("AWS_LAMBDA_RUNTIME_API").unwrap_or_default(),
            managed_instances: self.text("AWS_LAMBDA_INITIALIZATION_TYPE").as_deref()
                == Some("lambda-managed-instances"),
            log_level: self.one_of("LOG_LEVEL", &levels, log::Level::Warn),
            log_format: if json { log::Format::Json } else { log::Format::Text },
            on_error: self.one_of(
                "ON_ERROR",
                &[("continue", OnError::Continue), ("fail", OnError::Fail)],
                OnError::Continue,
            ),
        }
    }

    fn config(&mut self, basics: &Basics) -> Option<Config> {
        let stream = self.stream();
        let endpoint = self
            .region(stream.as_ref())
            .and_then(|region| self.endpoint("kinesis", "AWS_ENDPOINT_URL_KINESIS", &region));
        let max_age_ms: u64 = self.number("MAX_AGE_MS");
        let max_age_unset = self.text(&format!("{PREFIX}MAX_AGE_MS")).is_none();
        let types = self.types();
        let config = Config {
            kinesis: kinesis::Settings {
                credentials: self.credentials(basics),
                role: self.role(endpoint.as_ref()),
                http: self.http(),
                snap_start: self.text("AWS_LAMBDA_INITIALIZATION_TYPE").as_deref()
                    == Some("snap-start"),
                stream: stream.unwrap_or_else(|| Stream::Name(String::new())),
                endpoint: endpoint.unwrap_or_default(),
            },
            types,
            filter: self.filter(types),
            flush: self.one_of(
                "FLUSH",
                &[
                    ("adaptive", FlushMode::Adaptive),
                    ("end", FlushMode::End),
                    ("next", FlushMode::Next),
                ],
                FlushMode::Adaptive,
            ),
            max_age: Duration::from_millis(if max_age_unset && basics.managed_instances {
                1000
            } else {
                max_age_ms
            }),
            flush_timeout: Duration::from_millis(self.number("FLUSH_TIMEOUT_MS")),
            queue_bytes: self.number("QUEUE_BYTES"),
            spool_bytes: self.number("SPOOL_BYTES"),
            spool_folder: PathBuf::from(self.text("TMPDIR").unwrap_or_else(|| "/tmp".to_owned()))
                .join(env!("CARGO_PKG_NAME")),
            fallback: self.one_of(
                "FALLBACK",
                &[("none", Fallback::None), ("log", Fallback::Log)],
                Fallback::None,
            ),
            emf: self.one_of("METRICS", &[("none", false), ("emf", true)], false),
            record: self.one_of(
                "RECORD",
                &[
                    ("lines", RecordFormat::Lines),
                    ("event", RecordFormat::Event),
                    ("kpl", RecordFormat::Kpl),
                ],
                RecordFormat::Lines,
            ),
            compression: self.one_of(
                "COMPRESSION",
                &[("none", Compression::None), ("gzip", Compression::Gzip)],
                Compression::None,
            ),
            record_bytes: self.number("RECORD_BYTES"),
            partition_key: self.one_of(
                "PARTITION_KEY",
                &[
                    ("sandbox", PartitionKey::Sandbox),
                    ("random", PartitionKey::Random),
                    ("function", PartitionKey::Function),
                    ("request", PartitionKey::Request),
                ],
                PartitionKey::Sandbox,
            ),
            envelope: self.one_of(
                "ENVELOPE",
                &[("full", Envelope::Full), ("slim", Envelope::Slim)],
                Envelope::Full,
            ),
            tags: self.tags(),
            port: self.number("PORT"),
            buffering: Buffering {
                timeout_ms: self.number("BUFFER_TIMEOUT_MS"),
                max_bytes: self.number("BUFFER_MAX_BYTES"),
                max_items: self.number("BUFFER_MAX_ITEMS"),
            },
        };
        if config.fallback == Fallback::Log && config.types.extension {
            // The printed lines would come back as `extension` telemetry, and be lost, and be printed.
            self.setting_problem(
                "FALLBACK",
                "log",
                "log only without `extension` in KINESIS_TELEMETRY_TYPES",
            );
        }
        self.problems.is_empty().then_some(config)
    }

    fn stream(&mut self) -> Option<Stream> {
        let (value, allowed) = self.value("STREAM");
        let stream = Stream::parse(value.trim());
        if stream.is_none() {
            self.setting_problem("STREAM", &value, allowed);
        }
        stream
    }

    fn region(&mut self, stream: Option<&Stream>) -> Option<String> {
        let region = stream.and_then(Stream::region).map(str::to_owned);
        let region =
            region.or_else(|| self.text("AWS_REGION")).or_else(|| self.text("AWS_DEFAULT_REGION"));
        let good = region.filter(|r| endpoint::is_region(r));
        if good.is_none() {
            let value = self.text("AWS_REGION").unwrap_or_default();
            self.problem("AWS_REGION", &value, "a region such as eu-west-1");
        }
        good
    }

    /// The order is that of AWS's SDKs: the service's own variable, the general one, then the region's rules.
    fn endpoint(&mut self, service: &str, variable: &str, region: &str) -> Option<Endpoint> {
        let flag = |name: &str| self.text(name).is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let ignore = flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
        let variants = endpoint::Variants {
            fips: flag("AWS_USE_FIPS_ENDPOINT"),
            dual_stack: flag("AWS_USE_DUALSTACK_ENDPOINT"),
        };
        let custom = [variable, "AWS_ENDPOINT_URL"]
            .into_iter()
            .find_map(|name| Some((name, self.text(name).filter(|_| !ignore)?)));
        let endpoint = match custom {
            None => Endpoint::regional(service, region, variants),
            Some((name, url)) => {
                let found = Endpoint::custom(&url, region);
                if found.is_none() {
                    // The value may hold a password, and is not shown.
                    self.secret_problem(name, "a URL such as https://kinesis.eu-west-1.amazonaws.com, without user and password");
                }
                found?
            }
        };
        // Only a proxy that would be used can be wrong. The value may hold a password, and is not shown.
        if let Some((name, _)) =
            self.proxies().of(endpoint.url()).filter(|(_, proxy)| !proxy::is_proxy(proxy))
        {
            self.secret_problem(name, "a URL such as http://proxy:3128");
        }
        Some(endpoint)
    }

    fn proxies(&self) -> Proxies {
        Proxies::read(|name| self.text(name))
    }

    fn http(&self) -> HttpSettings {
        HttpSettings {
            ca_bundle: self.text("AWS_CA_BUNDLE").map(PathBuf::from),
            proxies: self.proxies(),
        }
    }

    fn credentials(&mut self, basics: &Basics) -> CredentialsSource {
        let host = basics
            .runtime_api
            .rsplit("//")
            .next()
            .unwrap_or_default()
            .split([':', '/'])
            .next()
            .unwrap_or_default();
        CredentialsSource::read(|name| self.text(name), host).unwrap_or_else(|(name, allowed)| {
            // The value may hold a token, and is not shown.
            self.secret_problem(name, allowed);
            CredentialsSource::Missing
        })
    }

    /// The role is asked for in the stream's region: that is the one that must be reached anyway.
    fn role(&mut self, kinesis: Option<&Endpoint>) -> Option<Role> {
        let (arn, external_id) =
            (self.text(&format!("{PREFIX}ROLE_ARN")), self.text(&format!("{PREFIX}EXTERNAL_ID")));
        if external_id.as_ref().is_some_and(|id| arn.is_none() || !sts::is_external_id(id)) {
            // What another account asks for is nobody else's business, and is not shown.
            let allowed = SETTINGS
                .iter()
                .find(|s| s.name == "EXTERNAL_ID")
                .map_or(Allowed::Text(""), |s| s.allowed);
            self.secret_problem(
                &format!("{PREFIX}EXTERNAL_ID"),
                format_args!("{allowed}, with {PREFIX}ROLE_ARN"),
            );
        }
        let arn = arn?.trim().to_owned();
        let region = kinesis?.region();
        if !sts::is_role(&arn, region) {
            self.setting_problem(
                "ROLE_ARN",
                &arn,
                format_args!("the ARN of an IAM role in the partition of {region}"),
            );
        }
        let endpoint = self.endpoint("sts", "AWS_ENDPOINT_URL_STS", region)?;
        if endpoint.is_readable_by_others() {
            // The answer holds credentials.
            let name = if self.text("AWS_ENDPOINT_URL_STS").is_some() {
                "AWS_ENDPOINT_URL_STS"
            } else {
                "AWS_ENDPOINT_URL"
            };
            self.secret_problem(
                name,
                format_args!("an https URL, or http to loopback, with {PREFIX}ROLE_ARN"),
            );
        }
        let session = sts::session_name(&self.text("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default());
        Some(Role { arn, external_id, session, endpoint })
    }

    fn types(&mut self) -> Types {
        let (value, allowed) = self.value("TYPES");
        let mut types = Types { platform: false, function: false, extension: false };
        for word in value.split(',').map(str::trim) {
            match word.to_ascii_lowercase().as_str() {
                "platform" => types.platform = true,
                "function" => types.function = true,
                "extension" => types.extension = true,
                _ => {
                    self.setting_problem("TYPES", &value, allowed);
                    break;
                }
            }
        }
        types
    }

    fn filter(&mut self, types: Types) -> Filter {
        let (value, allowed) = self.value("EXCLUDE");
        let filter = Filter::from(types).excluding(&value).unwrap_or_else(|| {
            self.setting_problem("EXCLUDE", &value, allowed);
            types.into()
        });
        let (value, allowed) = self.value("MIN_LEVEL");
        let level = Level::parse(value.trim());
        if level.is_none() && !value.is_empty() {
            self.setting_problem("MIN_LEVEL", &value, allowed);
        }
        filter.from_level(level)
    }

    fn tags(&mut self) -> Vec<(String, String)> {
        let (value, allowed) = self.value("TAGS");
        let mut tags: Vec<(String, String)> = Vec::new();
        for pair in value.split(',').filter(|pair| !pair.trim().is_empty()) {
            match pair.split_once('=').map(|(key, tag)| (key.trim(), tag.trim())) {
                Some((key, tag))
                    if !key.is_empty() && tags.iter().all(|(known, _)| known != key) =>
                {
                    tags.push((key.to_owned(), tag.to_owned()));
                }
                _ => {
                    self.setting_problem("TAGS", &value, format_args!("{allowed}, each key once"));
                    break;
                }
            }
        }
        tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> (Basics, Result<Config, Vec<Problem>>) {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        read(move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    const LEAST: [(&str, &str); 2] =
        [("KINESIS_TELEMETRY_STREAM", "telemetry"), ("AWS_REGION", "eu-west-1")];

    #[test]
    fn names_are_unique_and_defaults_are_allowed() {
        let mut names: Vec<_> = SETTINGS.iter().map(|s| s.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        for s in SETTINGS {
            match s.allowed {
                Allowed::Number(min, max) => {
                    assert!((min..=max).contains(&s.default.parse().unwrap()), "{}", s.name)
                }
                Allowed::OneOf(words) => {
                    assert!(s.default.is_empty() || words.contains(&s.default), "{}", s.name)
                }
                Allowed::AnyOf(words) => {
                    assert!(s.default.split(',').all(|w| words.contains(&w)), "{}", s.name)
                }
                Allowed::Port | Allowed::Text(_) => {}
            }
        }
        assert!(with(&LEAST).1.is_ok());
    }

    #[test]
    fn every_number_takes_its_bounds_and_nothing_beyond() {
        for s in SETTINGS {
            let Allowed::Number(min, max) = s.allowed else { continue };
            let values = [
                (Some(min), true),
                (Some(max), true),
                (min.checked_sub(1), false),
                (max.checked_add(1), false),
            ];
            for (value, good) in values.into_iter().filter_map(|(value, good)| Some((value?, good)))
            {
                let (name, value) = (format!("{PREFIX}{}", s.name), value.to_string());
                let result = with(&[LEAST[0], LEAST[1], (&name, &value)]).1;
                assert_eq!(result.is_ok(), good, "{name}={value}");
            }
        }
    }

    #[test]
    fn every_word_is_taken_and_no_other() {
        for s in SETTINGS {
            let Allowed::OneOf(words) = s.allowed else { continue };
            let name = format!("{PREFIX}{}", s.name);
            for word in words {
                assert!(with(&[LEAST[0], LEAST[1], (&name, word)]).1.is_ok(), "{name}={word}");
            }
            let problems = with(&[LEAST[0], LEAST[1], (&name, "banana")]).1.unwrap_err();
            assert_eq!(problems.len(), 1);
            assert!(
                problems[0].to_string().contains(&name)
                    && problems[0].to_string().contains("banana"),
                "{}",
                problems[0]
            );
            assert!(problems[0].to_string().contains(words[0]), "{}", problems[0]);
        }
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = with(&[
            ("KINESIS_TELEMETRY_FLUSH", "banana"),
            ("KINESIS_TELEMETRY_PORT", "9001"),
            ("KINESIS_TELEMETRY_TAGS", "novalue"),
            ("KINESIS_TELEMETRY_TYPES", "platform,logs"),
            ("KINESIS_TELEMETRY_COMPRESSION", "zip"),
        ])
        .1
        .unwrap_err();
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for name in ["STREAM", "AWS_REGION", "FLUSH", "PORT", "TAGS", "TYPES", "COMPRESSION"] {
            assert!(text.contains(name), "{name} missing in:\n{text}");
        }
        assert_eq!(problems.len(), 7, "{text}");
    }

    #[test]
    fn empty_is_unset() {
        let (_, result) = with(&[
            LEAST[0],
            LEAST[1],
            ("KINESIS_TELEMETRY_FLUSH", ""),
            ("AWS_ACCESS_KEY_ID", ""),
            ("AWS_SECRET_ACCESS_KEY", "x"),
        ]);
        let config = result.unwrap();
        assert_eq!(config.flush, FlushMode::Adaptive);
        assert!(matches!(config.kinesis.credentials, CredentialsSource::Missing));
    }

    #[test]
    fn managed_instances_send_sooner_unless_told_otherwise() {
        let managed = ("AWS_LAMBDA_INITIALIZATION_TYPE", "lambda-managed-instances");
        assert_eq!(with(&[LEAST[0], LEAST[1], managed]).1.unwrap().max_age, Duration::from_secs(1));
        let told = ("KINESIS_TELEMETRY_MAX_AGE_MS", "10000");
        assert_eq!(
            with(&[LEAST[0], LEAST[1], managed, told]).1.unwrap().max_age,
            Duration::from_secs(10)
        );
    }

    #[test]
    fn tags_keep_their_order_and_may_hold_an_equals_sign() {
        let config =
            with(&[LEAST[0], LEAST[1], ("KINESIS_TELEMETRY_TAGS", "team=payments, q=a=b ,")])
                .1
                .unwrap();
        assert_eq!(
            config.tags,
            [("team".to_owned(), "payments".to_owned()), ("q".to_owned(), "a=b".to_owned())]
        );
    }

    #[test]
    fn endpoint_variables_in_the_sdks_order() {
        let both = [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:2"),
        ];
        let config = with(&[LEAST[0], LEAST[1], both[0], both[1]]).1.unwrap();
        assert_eq!(config.kinesis.endpoint.url(), "http://127.0.0.1:2/");
        let config = with(&[LEAST[0], LEAST[1], both[0]]).1.unwrap();
        assert_eq!(config.kinesis.endpoint.url(), "http://127.0.0.1:1/");
        let config =
            with(&[LEAST[0], LEAST[1], both[0], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")])
                .1
                .unwrap();
        assert_eq!(config.kinesis.endpoint.url(), "https://kinesis.eu-west-1.amazonaws.com/");
    }

    #[test]
    fn sts_has_an_endpoint_of_its_own() {
        let role = ("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws:iam::123456789012:role/writer");
        let arn =
            ("KINESIS_TELEMETRY_STREAM", "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/x");
        let url = |pairs: &[(&str, &str)]| {
            with(pairs).1.unwrap().kinesis.role.unwrap().endpoint.url().to_owned()
        };
        assert_eq!(url(&[LEAST[0], LEAST[1], role]), "https://sts.eu-west-1.amazonaws.com/");
        let chinese = ("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws-cn:iam::123456789012:role/writer");
        assert_eq!(url(&[arn, LEAST[1], chinese]), "https://sts.cn-north-1.amazonaws.com.cn/");
        assert!(
            with(&[arn, LEAST[1], role]).1.unwrap_err()[0]
                .to_string()
                .contains("in the partition of cn-north-1")
        );
        let (own, general) = (
            ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:2"),
        );
        assert_eq!(url(&[LEAST[0], LEAST[1], role, own, general]), "http://127.0.0.1:1/");
        assert_eq!(
            url(&[
                LEAST[0],
                LEAST[1],
                role,
                general,
                ("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:3")
            ]),
            "http://127.0.0.1:2/"
        );
        for bad in [
            ("KINESIS_TELEMETRY_ROLE_ARN", "writer"),
            ("KINESIS_TELEMETRY_EXTERNAL_ID", "without-a-role"),
        ] {
            assert!(with(&[LEAST[0], LEAST[1], bad]).1.unwrap_err()[0].to_string().contains(bad.0));
        }
    }

    #[test]
    fn a_proxy_is_only_wrong_where_it_is_used_and_its_value_is_not_shown() {
        let proxy = ("HTTPS_PROXY", "socks5://user:secret@proxy:1080");
        let problems = with(&[LEAST[0], LEAST[1], proxy]).1.unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].to_string().contains("HTTPS_PROXY")
                && !problems[0].to_string().contains("secret")
        );
        let role = ("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws:iam::123456789012:role/writer");
        assert_eq!(with(&[LEAST[0], LEAST[1], proxy, role]).1.unwrap_err().len(), 1, "told once");
        assert!(with(&[LEAST[0], LEAST[1], proxy, ("NO_PROXY", "amazonaws.com")]).1.is_ok());
        assert!(
            with(&[LEAST[0], LEAST[1], proxy, ("AWS_ENDPOINT_URL", "http://127.0.0.1:1")])
                .1
                .is_ok()
        );
    }

    /// What STS answers is a secret: never over a network where others can read it.
    #[test]
    fn sts_is_not_called_over_plain_http_off_this_machine() {
        let role = ("KINESIS_TELEMETRY_ROLE_ARN", "arn:aws:iam::123456789012:role/writer");
        for (name, url, good) in [
            ("AWS_ENDPOINT_URL_STS", "http://emulator:4566", false),
            ("AWS_ENDPOINT_URL", "http://emulator:4566", false),
            ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:4566", true),
            ("AWS_ENDPOINT_URL_STS", "https://emulator:4566", true),
            ("AWS_ENDPOINT_URL_KINESIS", "http://emulator:4566", true),
        ] {
            let result = with(&[LEAST[0], LEAST[1], (name, url), role]).1;
            assert_eq!(result.is_ok(), good, "{name}={url}");
            let warned = result.map(|config| {
                config.kinesis.readable_by_others().map(str::to_owned).collect::<Vec<_>>()
            });
            assert!(
                warned.is_err()
                    || warned
                        == Ok(if name.ends_with("KINESIS") {
                            vec![url.to_owned()]
                        } else {
                            Vec::new()
                        }),
                "{name}={url}"
            );
        }
        assert!(
            with(&[LEAST[0], LEAST[1], ("AWS_ENDPOINT_URL", "http://emulator:4566")]).1.is_ok(),
            "without a role there is a warning"
        );
    }

    #[test]
    fn a_misspelt_setting_is_found() {
        let names = [
            "KINESIS_TELEMETRY_STREM",
            "KINESIS_TELEMETRY_STREAM",
            "KINESIS_TELEMETRY_METRICS",
            "PATH",
        ];
        assert_eq!(unknown(names.iter().map(|n| (*n).to_owned())), ["KINESIS_TELEMETRY_STREM"]);
    }
}
