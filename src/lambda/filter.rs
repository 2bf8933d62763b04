//! Which events are shipped: `TYPES`, `EXCLUDE`, `MIN_LEVEL`. Pure.

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

/// How severe a log line is. The order is the severity's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `TRACE`
    Trace,
    /// `DEBUG`
    Debug,
    /// `INFO`
    Info,
    /// `WARN`, and Python's `WARNING`
    Warn,
    /// `ERROR`
    Error,
    /// `FATAL`, and Python's `CRITICAL`
    Fatal,
}

/// What is wrong with settings of which [`Filter::ships_any`] says no.
pub const NOTHING_TO_SHIP: &str =
    "KINESIS_TELEMETRY_EXCLUDE leaves out everything that KINESIS_TELEMETRY_TYPES asks for";

/// Serilog's and syslog's abbreviations, which are no words of a sentence.
const ABBREVIATIONS: [(&str, Level); 8] = [
    ("VRB", Level::Trace),
    ("DBG", Level::Debug),
    ("INF", Level::Info),
    ("WRN", Level::Warn),
    ("ERR", Level::Error),
    ("FTL", Level::Fatal),
    ("CRIT", Level::Fatal),
    ("EMERG", Level::Fatal),
];

/// The names that loggers give their levels, beside the six.
const LOGGERS_NAMES: [(&str, Level); 15] = [
    // Serilog's and .NET's
    ("VERBOSE", Level::Trace),
    ("INFORMATION", Level::Info),
    // Java's java.util.logging
    ("FINEST", Level::Trace),
    ("FINER", Level::Trace),
    ("FINE", Level::Debug),
    ("CONFIG", Level::Debug),
    ("SEVERE", Level::Error),
    // syslog's, and what is derived from it
    ("NOTICE", Level::Info),
    ("ALERT", Level::Fatal),
    ("EMERGENCY", Level::Fatal),
    // winston's, zap's, loguru's
    ("SILLY", Level::Trace),
    ("HTTP", Level::Debug),
    ("SUCCESS", Level::Info),
    ("DPANIC", Level::Fatal),
    ("PANIC", Level::Fatal),
];

/// The keys beside `level` in which loggers write theirs: Google's, Python's, Elastic's, Serilog's
/// and other ones of .NET.
const LEVEL_KEYS: [&[u8]; 7] =
    [b"severity", b"levelname", b"log.level", b"log_level", b"@l", b"Level", b"LogLevel"];

/// pino's and bunyan's.
const NUMBERS: [(&str, Level); 6] = [
    ("10", Level::Trace),
    ("20", Level::Debug),
    ("30", Level::Info),
    ("40", Level::Warn),
    ("50", Level::Error),
    ("60", Level::Fatal),
];

/// Whether a logger writes its level in that key, beside `level`.
#[must_use]
pub fn is_level_key(key: &[u8]) -> bool {
    // Most keys are told apart by their first byte.
    matches!(key, [b's' | b'l' | b'@' | b'L', ..]) && LEVEL_KEYS.contains(&key)
}

impl Level {
    /// The level of that name in any case: one of the six, Python's `WARNING` or its `CRITICAL`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Level> {
        let names = [
            ("TRACE", Level::Trace),
            ("DEBUG", Level::Debug),
            ("INFO", Level::Info),
            ("WARN", Level::Warn),
            ("WARNING", Level::Warn),
            ("ERROR", Level::Error),
            ("FATAL", Level::Fatal),
            ("CRITICAL", Level::Fatal),
        ];
        named(&names, name)
    }

    /// The level that a value in JSON says: a name in quotes, or a number.
    #[must_use]
    pub fn of_value(json: &str) -> Option<Level> {
        match json.strip_prefix('"') {
            Some(name) => Level::of_line(name.strip_suffix('"')?),
            None => named(&NUMBERS, json),
        }
    }

    /// The level that a log line says of itself, by the name that any of the known loggers gives
    /// it.
    #[must_use]
    pub fn of_line(name: &str) -> Option<Level> {
        let loggers = || named(&LOGGERS_NAMES, name).or_else(|| Level::of_slog(name));
        Level::of_word(name).or_else(loggers)
    }

    /// The same of a name that tells more than a word of a sentence, such as `alert`, would: one of
    /// [`Level::parse`], or an abbreviation.
    #[must_use]
    pub fn of_word(name: &str) -> Option<Level> {
        Level::parse(name).or_else(|| named(&ABBREVIATIONS, name))
    }

    /// `INFO+2`, `WARN-1`: Go's `log/slog` counts from the next lower name. Four lie between two
    /// names, so that `ERROR+4` is as good as fatal.
    fn of_slog(name: &str) -> Option<Level> {
        let (base, offset) = name.split_at_checked(name.find(['+', '-'])?)?;
        let offset: i64 = offset.parse().ok()?;
        let base = named(&[("DEBUG", -4), ("INFO", 0), ("WARN", 4), ("ERROR", 8)], base)?;
        Some(match offset.saturating_add(base) {
            12.. => Level::Fatal,
            8.. => Level::Error,
            4.. => Level::Warn,
            0.. => Level::Info,
            -4.. => Level::Debug,
            _ => Level::Trace,
        })
    }
}

fn named<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, level)| *level)
}

/// Event types that are not shipped: one by name, or all that begin with what stands before the
/// `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    is_prefix: bool,
}

/// See the module's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    types: Types,
    exclude: Vec<Pattern>,
    min_level: Option<Level>,
}

impl From<Types> for Filter {
    fn from(types: Types) -> Filter {
        Filter { types, exclude: Vec::new(), min_level: None }
    }
}

impl Filter {
    /// Leaves out the event types in `list`, separated by commas. `None` where one of them cannot
    /// be a type.
    #[must_use]
    pub fn excluding(self, list: &str) -> Option<Filter> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let exclude = names.map(|name| {
            let text = name.strip_suffix('*').unwrap_or(name);
            let plain =
                text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
            plain.then(|| Pattern { text: text.to_owned(), is_prefix: text.len() < name.len() })
        });
        Some(Filter { exclude: exclude.collect::<Option<_>>()?, ..self })
    }

    /// Leaves out log lines that say a lower level.
    #[must_use]
    pub fn from_level(self, min_level: Option<Level>) -> Filter {
        Filter { min_level, ..self }
    }

    /// Whether events of this type are to be shipped at all, by `TYPES`.
    #[must_use]
    pub fn ships(&self, kind: &str) -> bool {
        match kind {
            "function" => self.types.function,
            "extension" => self.types.extension,
            _ if kind.starts_with("platform.") => self.types.platform,
            // A type that is not known yet came because it was asked for.
            _ => true,
        }
    }

    /// The same of a log of the function or, if it is none, of an extension.
    #[must_use]
    pub fn ships_log(&self, is_functions: bool) -> bool {
        if is_functions { self.types.function } else { self.types.extension }
    }

    /// Whether there is any type of event that is asked for and not left out.
    #[must_use]
    pub fn ships_any(&self) -> bool {
        let left_out = |kind: &str| {
            // Of the platform's events there are many types: all of them are left out only by what
            // they begin with.
            let one = !kind.ends_with('.');
            let covers = |pattern: &Pattern| match pattern.is_prefix {
                true => kind.starts_with(&pattern.text),
                false => one && kind == pattern.text,
            };
            self.exclude.iter().any(covers)
        };
        let Types { platform, function, extension } = self.types;
        [(platform, "platform."), (function, "function"), (extension, "extension")]
            .into_iter()
            .any(|(asked, kind)| asked && !left_out(kind))
    }

    /// Whether an event of that type is left out. `level`: what a JSON log line says of itself.
    #[must_use]
    pub fn excludes(&self, kind: &str, level: impl FnOnce() -> Option<Level>) -> bool {
        let low = || self.min_level.is_some_and(|least| level().is_some_and(|level| level < least));
        self.exclude.iter().any(|pattern| {
            if pattern.is_prefix { kind.starts_with(&pattern.text) } else { kind == pattern.text }
        }) || low()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter {
        Filter::from(Types { platform: true, function: true, extension: false })
    }

    #[test]
    fn the_table_of_patterns() {
        for (list, kind, left_out) in [
            ("", "platform.start", false),
            ("platform.start", "platform.start", true),
            ("platform.start", "platform.startle", false),
            ("platform.start", "Platform.Start", false),
            ("platform.*", "platform.start", true),
            ("platform.*", "platform", false),
            ("platform.*", "function", false),
            ("platform.init*", "platform.initReport", true),
            ("platform.init*", "platform.report", false),
            ("platform.start, platform.extension ,", "platform.extension", true),
            ("function", "function", true),
            ("unparsed", "unparsed", true),
            ("*", "anything", true),
        ] {
            assert_eq!(
                filter().excluding(list).unwrap().excludes(kind, || None),
                left_out,
                "{list} {kind}"
            );
        }
        for bad in ["plat*form", "**", "*.start", "platform.start;function", "a b", "\"function\""]
        {
            assert_eq!(filter().excluding(bad), None, "{bad}");
        }
    }

    #[test]
    fn whether_anything_is_left_to_ship() {
        for (list, any) in [
            ("", true),
            ("*", false),
            ("p*", true),
            ("p*,f*", false),
            ("platform.*,function", false),
            ("platform.start*,function", true),
            ("platform.,function", true),
            ("platform.*,extension", true),
        ] {
            assert_eq!(filter().excluding(list).unwrap().ships_any(), any, "{list}");
        }
    }

    #[test]
    fn the_table_of_levels() {
        for (least, line, left_out) in [
            (None, Some("TRACE"), false),
            (Some("INFO"), None, false),
            (Some("INFO"), Some("DEBUG"), true),
            (Some("INFO"), Some("info"), false),
            (Some("INFO"), Some("Warning"), false),
            (Some("FATAL"), Some("CRITICAL"), false),
            (Some("FATAL"), Some("ERROR"), true),
            (Some("FATAL"), Some("chatty"), false),
            (Some("DEBUG"), Some("Verbose"), true),
            (Some("INFO"), Some("Information"), false),
            (Some("WARN"), Some("Information"), true),
            (Some("WARN"), Some("NOTICE"), true),
            (Some("ERROR"), Some("SEVERE"), false),
            (Some("FATAL"), Some("SEVERE"), true),
            (Some("DEBUG"), Some("FINE"), false),
            (Some("INFO"), Some("FINE"), true),
            (Some("INFO"), Some("INFO+2"), false),
            (Some("WARN"), Some("INFO+2"), true),
            (Some("WARN"), Some("WARN-1"), true),
            (Some("INFO"), Some("warn-1"), false),
            (Some("FATAL"), Some("ERROR+4"), false),
            (Some("DEBUG"), Some("DEBUG-4"), true),
            (Some("FATAL"), Some("INFO+x"), false),
            (Some("FATAL"), Some("INFO+99999999999999999999"), false),
            (Some("FATAL"), Some("+4"), false),
            (Some("FATAL"), Some("30"), false),
            (Some("TRACE"), Some("TRACE"), false),
            (Some("DEBUG"), Some("trace"), true),
        ] {
            let filter = filter().from_level(least.and_then(Level::parse));
            assert_eq!(
                filter.excludes("function", || line.and_then(Level::of_line)),
                left_out,
                "{least:?} {line:?}"
            );
        }
    }

    #[test]
    fn types_that_were_not_asked_for() {
        assert!(
            filter().ships("platform.report")
                && filter().ships("function")
                && filter().ships("novel")
        );
        assert!(!filter().ships("extension"));
    }
}
