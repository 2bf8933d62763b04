//! Variables -> values: one function for each room, which fills all of that room's `Settings`.
//!
//! Settings are named as in the table, without the prefix; the table also has their defaults and
//! what is allowed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::environment::Environment;
use super::table::{Allowed, PREFIX, SETTINGS};
use crate::dispatch::policy::FlushMode;
use crate::kinesis::RecordSettings;
use crate::kinesis::endpoint::{self, Endpoint, Stream};
use crate::kinesis::http::HttpSettings;
use crate::kinesis::line::{Envelope, PartitionKey};
use crate::kinesis::provider::CredentialsSource;
use crate::kinesis::proxy::{self, Proxies};
use crate::kinesis::record::{Compression, RecordFormat};
use crate::kinesis::sts::{self, Role};
use crate::kinesis::wire::Wire;
use crate::lambda::api::Buffering;
use crate::lambda::filter::{Filter, Level, Types};
use crate::lambda::keep;
use crate::{dispatch, kinesis, lambda, log};

/// What a bad setting or a failed start does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// One line, then idle: the function is not touched.
    Continue,
    /// `init/error` and exit: the function's init fails.
    Fail,
}

/// What is needed even when the settings are bad: where Lambda is, how to log, and what a bad
/// setting does.
#[derive(Clone, Debug)]
pub struct Basics {
    /// `AWS_LAMBDA_RUNTIME_API`: `host:port`, or a URL as some emulators have it.
    pub runtime_api: String,
    /// Whether `AWS_LAMBDA_INITIALIZATION_TYPE` says Managed Instances.
    pub managed_instances: bool,
    /// The lowest level of the extension's own lines.
    pub log_level: log::Level,
    /// The form of the extension's own lines; follows `AWS_LAMBDA_LOG_FORMAT`.
    pub log_format: log::Format,
    /// What a bad setting does.
    pub on_error: OnError,
}

/// One thing wrong with one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    what: String,
    fix: Option<String>,
}

impl Problem {
    /// The variable, its value unless that may hold a secret, and what is wrong with it.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What a person can do about it.
    #[must_use]
    pub fn fix(&self) -> &str {
        self.fix.as_deref().unwrap_or("set it to an allowed value, or unset it")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.fix.as_ref().map_or(Ok(()), |fix| write!(f, "; {fix}"))
    }
}

impl std::error::Error for Problem {}

/// `MAX_AGE_MS` on Managed Instances, where nobody sets it.
const MANAGED_MAX_AGE: Duration = Duration::from_secs(1);

/// The variable of a setting.
fn setting(name: &str) -> String {
    [PREFIX, name].concat()
}

/// Reads variables, and gathers what is wrong with them. A bad one also gets a value, which is used
/// only if there are no problems: so all of them are found in one pass.
pub(super) struct Reader<'a> {
    environment: &'a Environment,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a Environment) -> Reader<'a> {
        Reader { environment, problems: Vec::new() }
    }

    /// Everything wrong that was found.
    pub(super) fn problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The value of a variable that is no setting of ours, by its whole name.
    fn text(&self, name: &str) -> Option<&'a str> {
        self.environment.get(name)
    }

    /// The same, to be kept.
    fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// A setting's value or default, and what the table allows. A name that is not in the table has
    /// no value.
    fn value(&self, name: &str) -> (&'a str, Allowed) {
        let row = SETTINGS.iter().find(|s| s.name == name);
        let (default, allowed) = row.map_or(("", Allowed::Text("")), |s| (s.default, s.allowed));
        (self.environment.setting(name).unwrap_or(default), allowed)
    }

    /// A variable, by its whole name, has a value that is not allowed.
    fn problem(&mut self, name: &str, value: &str, allowed: impl fmt::Display) {
        self.note(format!("{name}={value:?}: allowed is {allowed}"));
    }

    /// The same of a variable whose value may hold a secret, and is not shown.
    fn secret_problem(&mut self, name: &str, allowed: impl fmt::Display) {
        self.note(format!("{name}: allowed is {allowed}"));
    }

    fn note(&mut self, what: String) {
        self.add(Problem { what, fix: None });
    }

    /// A problem with more to say than what is allowed: `fix` is a clause that begins with a verb.
    fn problem_to_fix(&mut self, what: String, fix: &str) {
        self.add(Problem { what, fix: Some(fix.to_owned()) });
    }

    /// Each problem once: Kinesis and STS may share a variable, and so what is wrong with it.
    fn add(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// A setting has a value that is not allowed.
    fn setting_problem(&mut self, name: &str, value: &str, allowed: impl fmt::Display) {
        self.problem(&setting(name), value, allowed);
    }

    /// The value of a setting that the table allows numbers or a port.
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
            self.setting_problem(name, value, allowed);
            N::default()
        })
    }

    /// What the word means that a setting has: `meanings` has all that the table allows. `fallback`
    /// is for a bad one.
    fn one_of<T: Copy>(&mut self, name: &str, meanings: &[(&str, T)], fallback: T) -> T {
        let (value, allowed) = self.value(name);
        let found = meanings.iter().find(|(word, _)| value.trim().eq_ignore_ascii_case(word));
        found.map_or_else(
            || {
                self.setting_problem(name, value, allowed);
                fallback
            },
            |(_, meaning)| *meaning,
        )
    }

    pub(super) fn basics(&mut self) -> Basics {
        let levels = [
            ("error", log::Level::Error),
            ("warn", log::Level::Warn),
            ("info", log::Level::Info),
            ("debug", log::Level::Debug),
        ];
        let json =
            self.text("AWS_LAMBDA_LOG_FORMAT").is_some_and(|f| f.eq_ignore_ascii_case("json"));
        Basics {
            runtime_api: self.owned("AWS_LAMBDA_RUNTIME_API").unwrap_or_default(),
            managed_instances: self.text("AWS_LAMBDA_INITIALIZATION_TYPE")
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

    /// What `lambda` gets. With `KEEP`, events wait there for `max_age` and take a quarter of
    /// `queue_bytes`, both at most.
    pub(super) fn lambda(&mut self, max_age: Duration, queue_bytes: usize) -> lambda::Settings {
        let types = self.types();
        lambda::Settings {
            types,
            filter: self.filter(types),
            keep: self.keep(max_age, queue_bytes),
            port: self.number("PORT"),
            buffering: Buffering {
                timeout_ms: self.number("BUFFER_TIMEOUT_MS"),
                max_bytes: self.number("BUFFER_MAX_BYTES"),
                max_items: self.number("BUFFER_MAX_ITEMS"),
            },
        }
    }

    fn keep(&mut self, max_age: Duration, queue_bytes: usize) -> keep::Settings {
        const LEVELS: &[(&str, Option<Level>)] = &[
            ("WARN", Some(Level::Warn)),
            ("ERROR", Some(Level::Error)),
            ("FATAL", Some(Level::Fatal)),
            ("none", None),
        ];
        let (share, allowed) = self.value("KEEP");
        let threshold = keep::Settings::threshold_of(share).unwrap_or_else(|| {
            self.setting_problem("KEEP", share, allowed);
            0
        });
        // It has no default, and then none is slow.
        let has_slow = !self.value("KEEP_SLOW_MS").0.is_empty();
        keep::Settings {
            threshold,
            slow: has_slow.then(|| Duration::from_millis(self.number("KEEP_SLOW_MS"))),
            level: self.one_of("KEEP_LEVEL", LEVELS, None),
            summary: self.one_of("SUMMARY", &[("none", false), ("invocation", true)], false),
            max_age,
            max_bytes: queue_bytes / 4,
        }
    }

    /// What `dispatch` gets.
    pub(super) fn dispatch(&mut self, basics: &Basics) -> dispatch::Settings {
        const MODES: &[(&str, FlushMode)] = &[
            ("adaptive", FlushMode::Adaptive),
            ("end", FlushMode::End),
            ("next", FlushMode::Next),
        ];
        let max_age = Duration::from_millis(self.number("MAX_AGE_MS"));
        let is_managed_default =
            basics.managed_instances && self.environment.setting("MAX_AGE_MS").is_none();
        let folder = self.text("TMPDIR").unwrap_or("/tmp");
        dispatch::Settings {
            flush: self.one_of("FLUSH", MODES, FlushMode::Adaptive),
            max_age: if is_managed_default { MANAGED_MAX_AGE } else { max_age },
            flush_timeout: Duration::from_millis(self.number("FLUSH_TIMEOUT_MS")),
            queue_bytes: self.number("QUEUE_BYTES"),
            spool_bytes: self.number("SPOOL_BYTES"),
            spool_folder: PathBuf::from(folder).join(env!("CARGO_PKG_NAME")),
            print_lost: self.print_lost(),
            emf: self.one_of("METRICS", &[("none", false), ("emf", true)], false),
        }
    }

    /// What `kinesis` gets.
    pub(super) fn kinesis(&mut self, basics: &Basics) -> kinesis::Settings {
        let stream = self.stream();
        let endpoint = self
            .region(stream.as_ref())
            .and_then(|region| self.endpoint("kinesis", "AWS_ENDPOINT_URL_KINESIS", &region));
        kinesis::Settings {
            credentials: self.credentials(basics),
            role: self.role(endpoint.as_ref()),
            http: self.http(),
            snap_start: self.text("AWS_LAMBDA_INITIALIZATION_TYPE") == Some("snap-start"),
            stream: stream.unwrap_or_else(|| Stream::Name(String::new())),
            endpoint: endpoint.unwrap_or_default(),
            records: self.records(),
        }
    }

    fn records(&mut self) -> RecordSettings {
        const FORMATS: &[(&str, RecordFormat)] = &[
            ("lines", RecordFormat::Lines),
            ("event", RecordFormat::Event),
            ("kpl", RecordFormat::Kpl),
        ];
        const COMPRESSIONS: &[(&str, Compression)] =
            &[("none", Compression::None), ("gzip", Compression::Gzip)];
        const KEYS: &[(&str, PartitionKey)] = &[
            ("sandbox", PartitionKey::Sandbox),
            ("random", PartitionKey::Random),
            ("function", PartitionKey::Function),
            ("request", PartitionKey::Request),
        ];
        const ENVELOPES: &[(&str, Envelope)] =
            &[("full", Envelope::Full), ("slim", Envelope::Slim)];
        const WIRES: &[(&str, Wire)] = &[("json", Wire::Json), ("cbor", Wire::Cbor)];
        RecordSettings {
            format: self.one_of("RECORD", FORMATS, RecordFormat::Lines),
            compression: self.one_of("COMPRESSION", COMPRESSIONS, Compression::None),
            max_bytes: self.number("RECORD_BYTES"),
            partition_key: self.one_of("PARTITION_KEY", KEYS, PartitionKey::Sandbox),
            envelope: self.one_of("ENVELOPE", ENVELOPES, Envelope::Full),
            wire: self.one_of("WIRE", WIRES, Wire::Json),
        }
    }

    /// `FALLBACK`. Not beside `extension` telemetry: the printed lines would come back as such, be
    /// lost, and be printed again.
    fn print_lost(&mut self) -> bool {
        let print = self.one_of("FALLBACK", &[("none", false), ("log", true)], false);
        let types = self.value("TYPES").0;
        if print && types.split(',').any(|word| word.trim().eq_ignore_ascii_case("extension")) {
            let allowed = format_args!("log only without `extension` in {PREFIX}TYPES");
            self.setting_problem("FALLBACK", "log", allowed);
        }
        print
    }

    fn stream(&mut self) -> Option<Stream> {
        const FORM: &str =
            "set it to a stream name or ARN (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME)";
        let (name, value) = (setting("STREAM"), self.value("STREAM").0);
        if value.trim().is_empty() {
            self.problem_to_fix(format!("{name} is not set"), "set it to a stream name or ARN");
            return None;
        }
        let stream = Stream::parse(value.trim());
        stream.map_err(|fault| self.problem_to_fix(format!("{name}={value:?}: {fault}"), FORM)).ok()
    }

    /// That of the stream's ARN, else that of the function.
    fn region(&mut self, stream: Option<&Stream>) -> Option<String> {
        let of_function = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .into_iter()
            .find_map(|name| Some((name, self.text(name)?)));
        let (name, region) = match (stream.and_then(Stream::region), of_function) {
            (Some(region), _) => return Some(region.to_owned()),
            (None, Some(found)) => found,
            // A good ARN would have one.
            (None, None) if self.value("STREAM").0.trim().starts_with("arn:") => return None,
            (None, None) => {
                let fix = "set it to the stream's region, such as eu-west-1";
                self.problem_to_fix("AWS_REGION is not set".to_owned(), fix);
                return None;
            }
        };
        if endpoint::is_region(region) {
            return Some(region.to_owned());
        }
        self.problem(name, region, "a region such as eu-west-1");
        None
    }

    /// The order is that of AWS's SDKs: the service's own variable, the general one, then the
    /// region's rules.
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
                let found = Endpoint::custom(url, region);
                if found.is_none() {
                    // The value may hold a password, and is not shown.
                    let allowed = "a URL such as https://kinesis.eu-west-1.amazonaws.com, \
                                   without user and password";
                    self.secret_problem(name, allowed);
                }
                found?
            }
        };
        // Only a proxy that would be used can be wrong. The value may hold a password, and is not
        // shown.
        if let Some((name, _)) =
            self.proxies().of(endpoint.url()).filter(|(_, proxy)| !proxy::is_proxy(proxy))
        {
            self.secret_problem(name, "a URL such as http://proxy:3128");
        }
        Some(endpoint)
    }

    fn proxies(&self) -> Proxies {
        Proxies::read(|name| self.owned(name))
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
        CredentialsSource::read(|name| self.owned(name), host).unwrap_or_else(|(name, allowed)| {
            // The value may hold a token, and is not shown.
            self.secret_problem(name, allowed);
            CredentialsSource::Missing(None)
        })
    }

    /// The role is assumed in the stream's region, which must be reached anyway.
    fn role(&mut self, kinesis: Option<&Endpoint>) -> Option<Role> {
        let (arn, external_id) =
            (self.environment.setting("ROLE_ARN"), self.environment.setting("EXTERNAL_ID"));
        if external_id.is_some_and(|id| arn.is_none() || !sts::is_external_id(id)) {
            // What another account asks for is nobody else's business, and is not shown.
            let allowed = SETTINGS
                .iter()
                .find(|s| s.name == "EXTERNAL_ID")
                .map_or(Allowed::Text(""), |s| s.allowed);
            self.secret_problem(
                &setting("EXTERNAL_ID"),
                format_args!("{allowed}, with {PREFIX}ROLE_ARN"),
            );
        }
        let arn = arn?.trim().to_owned();
        let region = kinesis?.region();
        if let Err(fault) = sts::check_role(&arn, region) {
            let what = format!("{}={arn:?}: {fault}", setting("ROLE_ARN"));
            let partition = endpoint::partition(region);
            self.problem_to_fix(what, &format!("set it to arn:{partition}:iam::ACCOUNT:role/NAME"));
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
        let session = sts::session_name(self.text("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default());
        Some(Role { arn, external_id: external_id.map(str::to_owned), session, endpoint })
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
                    self.setting_problem("TYPES", value, allowed);
                    break;
                }
            }
        }
        types
    }

    fn filter(&mut self, types: Types) -> Filter {
        let (value, allowed) = self.value("EXCLUDE");
        let filter = Filter::from(types).excluding(value).unwrap_or_else(|| {
            self.setting_problem("EXCLUDE", value, allowed);
            types.into()
        });
        let (value, allowed) = self.value("MIN_LEVEL");
        let level = Level::parse(value.trim());
        if level.is_none() && !value.is_empty() {
            self.setting_problem("MIN_LEVEL", value, allowed);
        }
        filter.from_level(level)
    }

    /// `TAGS`, in the order given.
    pub(super) fn tags(&mut self) -> Vec<(String, String)> {
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
                    self.setting_problem("TAGS", value, format_args!("{allowed}, each key once"));
                    break;
                }
            }
        }
        tags
    }
}
