//! The settings table: every name, default, range and meaning once. `--help` prints it, and a test
//! holds the README's table to it.
//!
//! A new setting is a row here, and a field in the `Settings` of the room that uses it: `reader`
//! fills it by the name in this table.

use std::fmt;

/// What every setting's name begins with.
pub const PREFIX: &str = "KINESIS_TELEMETRY_";

/// What a setting's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// A whole number from 1 to 65535, but not 9001, which is Lambda's own.
    Port,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words, separated by commas.
    AnyOf(&'static [&'static str]),
    /// Free text; the string says what it must look like, and the reader checks that it does.
    Text(&'static str),
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::Number(min, max) => write!(f, "{min} to {max}"),
            Allowed::Port => f.write_str("1 to 65535, not 9001"),
            Allowed::OneOf(words) => f.write_str(&words.join(", ")),
            Allowed::AnyOf(words) => write!(f, "any of {}", words.join(", ")),
            Allowed::Text(shape) => f.write_str(shape),
        }
    }
}

/// One row of the settings table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The name without [`PREFIX`].
    pub name: &'static str,
    /// The value that counts where the variable is unset or empty; empty for none.
    pub default: &'static str,
    /// The values it may have.
    pub allowed: Allowed,
    /// What it is for, in one clause.
    pub meaning: &'static str,
}

const fn setting(
    name: &'static str,
    default: &'static str,
    allowed: Allowed,
    meaning: &'static str,
) -> Setting {
    Setting { name, default, allowed, meaning }
}

/// Every setting, in the order in which `--help` and the README show them.
pub const SETTINGS: &[Setting] = &[
    setting(
        "STREAM",
        "",
        Allowed::Text("stream name or stream ARN; required"),
        "the stream to write to; an ARN may be in another account, and its region wins \
         over AWS_REGION",
    ),
    setting(
        "TYPES",
        "platform,function",
        Allowed::AnyOf(&["platform", "function", "extension"]),
        "types of telemetry to send",
    ),
    setting(
        "FLUSH",
        "adaptive",
        Allowed::OneOf(&["adaptive", "end", "next"]),
        "when to send: at an invocation's end, during the next one, or adaptive: end while \
         invocations are rare",
    ),
    setting(
        "MAX_AGE_MS",
        "10000",
        Allowed::Number(100, 900_000),
        "how old an event may get before it is sent, while invocations keep coming \
         (Managed Instances: 1000)",
    ),
    setting(
        "FLUSH_TIMEOUT_MS",
        "3000",
        Allowed::Number(50, 60_000),
        "longest time that a flush may hold an invocation",
    ),
    setting(
        "QUEUE_BYTES",
        "8388608",
        Allowed::Number(1_048_576, 1_073_741_824),
        "memory for events that wait to be sent",
    ),
    setting(
        "RECORD",
        "lines",
        Allowed::OneOf(&["lines", "event", "kpl"]),
        "how events are packed into Kinesis records",
    ),
    setting(
        "RECORD_BYTES",
        "1048576",
        Allowed::Number(1024, 10_485_760),
        "largest Kinesis record, data and key; not above the stream's own limit",
    ),
    setting(
        "PARTITION_KEY",
        "sandbox",
        Allowed::OneOf(&["sandbox", "random", "function", "request"]),
        "how records are spread over shards",
    ),
    setting(
        "COMPRESSION",
        "none",
        Allowed::OneOf(&["none", "gzip"]),
        "how each Kinesis record's data is compressed; with kpl, each event in it",
    ),
    setting(
        "WIRE",
        "json",
        Allowed::OneOf(&["json", "cbor"]),
        "form of requests to Kinesis; cbor: a quarter fewer bytes to hash and send, and JSON \
         where the endpoint refuses it",
    ),
    setting(
        "ENVELOPE",
        "full",
        Allowed::OneOf(&["full", "slim"]),
        "keys that each event gets beside Lambda's three; slim: only ids",
    ),
    setting(
        "TAGS",
        "",
        Allowed::Text("key=value,key=value"),
        "keys and values to copy into every event (slim: into the sandbox event)",
    ),
    setting(
        "ROLE_ARN",
        "",
        Allowed::Text("the ARN of an IAM role"),
        "role to assume through STS before writing",
    ),
    setting(
        "EXTERNAL_ID",
        "",
        Allowed::Text("2 to 1224 letters, digits and _+=,.@:/-"),
        "sent to STS with ROLE_ARN, if that role's trust policy asks for it",
    ),
    setting(
        "EXCLUDE",
        "",
        Allowed::Text("event types, comma-separated, `*` at the end of one"),
        "event types not to send, such as platform.start,platform.init*",
    ),
    setting(
        "MIN_LEVEL",
        "",
        Allowed::OneOf(&["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]),
        "lowest level of JSON log lines to send; lines without a level are always sent",
    ),
    setting(
        "PORT",
        "4243",
        Allowed::Port,
        "port of the telemetry listener; fixed, so that Lambda finds it again after a reset",
    ),
    setting(
        "BUFFER_TIMEOUT_MS",
        "25",
        Allowed::Number(25, 30_000),
        "how long the Telemetry API may hold a batch back",
    ),
    setting(
        "BUFFER_MAX_BYTES",
        "1048576",
        Allowed::Number(262_144, 1_048_576),
        "how many bytes the Telemetry API may put into a batch",
    ),
    setting(
        "BUFFER_MAX_ITEMS",
        "10000",
        Allowed::Number(1000, 10_000),
        "how many events the Telemetry API may put into a batch",
    ),
    setting(
        "SPOOL_BYTES",
        "67108864",
        Allowed::Number(0, 10_737_418_240),
        "space under /tmp for events that memory cannot hold, or that a reset would lose; 0: none",
    ),
    setting(
        "FALLBACK",
        "none",
        Allowed::OneOf(&["none", "log"]),
        "log prints events that are lost for good to stdout, one JSON line each",
    ),
    setting(
        "ON_ERROR",
        "continue",
        Allowed::OneOf(&["continue", "fail"]),
        "after a bad setting or a failed start: run without telemetry, or fail the function's init",
    ),
    setting(
        "METRICS",
        "none",
        Allowed::OneOf(&["none", "emf"]),
        "emf prints one CloudWatch embedded-metric line at shutdown and every 5 minutes",
    ),
    setting(
        "KEEP",
        "100%",
        Allowed::Text("0% to 100%"),
        "share of ordinary invocations to send; the others are thinned out",
    ),
    setting(
        "KEEP_SLOW_MS",
        "",
        Allowed::Number(1, 900_000),
        "an invocation that ran longer is always sent",
    ),
    setting(
        "KEEP_LEVEL",
        "ERROR",
        Allowed::OneOf(&["WARN", "ERROR", "FATAL", "none"]),
        "an invocation with a log line from this level up is always sent",
    ),
    setting(
        "SUMMARY",
        "none",
        Allowed::OneOf(&["none", "invocation"]),
        "sends one summary event for each invocation, thinned out or not",
    ),
    setting(
        "LOG_LEVEL",
        "warn",
        Allowed::OneOf(&["error", "warn", "info", "debug"]),
        "lowest level of the extension's own lines on stderr; info adds its start and its end, \
         debug each request",
    ),
];

/// What `--help` prints.
#[must_use]
pub fn help() -> String {
    let head = concat!(
        env!("CARGO_PKG_NAME"),
        " ",
        env!("CARGO_PKG_VERSION"),
        "\n",
        env!("CARGO_PKG_DESCRIPTION"),
        "\n\nLambda starts it from a layer, with no argument. For people: --help, --version, and\n",
        "--check, which tries the settings below with one record and says what is wrong.\n\n",
        "The manual: README.md and .github/docs in the repository.\n\n",
        "Settings, as environment variables:\n"
    );
    SETTINGS.iter().fold(head.to_owned(), |text, s| {
        let default = if s.default.is_empty() { "none" } else { s.default };
        format!(
            "{text}  {PREFIX}{}\n      {}\n      default: {default}; allowed: {}\n",
            s.name, s.meaning, s.allowed
        )
    })
}

/// The settings as the README's table shows them.
#[must_use]
pub fn markdown() -> String {
    let head = "| name | default | allowed | meaning |\n|---|---|---|---|\n".to_owned();
    SETTINGS.iter().fold(head, |text, s| {
        let default =
            if s.default.is_empty() { "none".to_owned() } else { format!("`{}`", s.default) };
        format!("{text}| `{}` | {default} | {} | {} |\n", s.name, s.allowed, s.meaning)
    })
}
