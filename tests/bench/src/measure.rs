//! What is measured, in which unit, against which bound; and the samples.

use std::collections::BTreeMap;

use crate::Result;
use crate::contestant::Contestant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Milliseconds,
    Microseconds,
    Kib,
    PerSecond,
    Count,
    /// Few, on average.
    Each,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Kib => "KiB",
            Self::PerSecond => "1/s",
            Self::Count | Self::Each => "",
        }
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Kib if value >= 10_240.0 => format!("{:.0} MiB", value / 1024.0),
            Self::Kib => format!("{value:.0} KiB"),
            Self::PerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
            Self::PerSecond => format!("{:.0} k/s", value / 1e3),
            Self::Count if value >= 1e6 => format!("{:.2} M", value / 1e6),
            Self::Count if value >= 1e4 => format!("{:.0} k", value / 1e3),
            Self::Count => format!("{value:.0}"),
            Self::Each => format!("{value:.1}"),
            unit if value >= 99.5 => format!("{value:.0} {}", unit.name()),
            unit if value >= 9.95 => format!("{value:.1} {}", unit.name()),
            unit => format!("{value:.2} {}", unit.name()),
        }
    }
}

/// What a ratio is taken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yardstick {
    /// The same measure of the floor that was built the same way.
    OwnFloor,
    /// Another measure of that floor, which does not know the difference.
    OwnFloors(&'static str),
    /// The same measure of the glibc floor: what resides is a matter of the C library first (0.4 MiB and 2 MiB).
    GlibcFloor,
    /// Another measure of that floor.
    GlibcFloors(&'static str),
    /// Another measure of the same contestant.
    Self_(&'static str),
    /// The same, but what is compared is the difference.
    More(&'static str),
    /// The value itself.
    None,
}

pub(crate) struct Measure {
    pub(crate) id: &'static str,
    pub(crate) scenario: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) yardstick: Yardstick,
    /// What the static build is held to: at most so much of the ratio to the yardstick, where there is one; else of the value.
    pub(crate) bound: Option<f64>,
}

impl Measure {
    /// By itself; in the table a row says only in what it differs from those above it.
    pub(crate) fn whole_title(&self) -> String {
        let title = self.title.trim();
        match self.id {
            "growth-peak" => "10 times the flood: peak memory (slim)".to_owned(),
            "start-cpu" => "CPU of the start".to_owned(),
            "start-cold" => "process start to first /next, cold page cache".to_owned(),
            "form-lines-gzip" => "flood with gzip: CPU per event (full)".to_owned(),
            "ready-dead" => {
                "`end`, TLS, 2 ms away: held after the connection died, less held with a live one"
                    .to_owned()
            }
            "ready-first" => {
                "`end`, TLS, 2 ms away: held in the first invocation, less a later one".to_owned()
            }
            "futex" => "futex calls for each small invocation, `adaptive`".to_owned(),
            "futex-end" | "futex-next" => format!("the same with `FLUSH={}`", &id_of(self.id)),
            "slow-dead" => {
                "128 MB: a CPU-bound function while a connection is made, less with a live one"
                    .to_owned()
            }
            "slow-live-cpu" => "128 MB: CPU of the extension beside that function".to_owned(),
            "slow-dead-cpu" => {
                "the same while a connection is made, less with a live one".to_owned()
            }
            id if id.starts_with("invocations-2") => {
                format!("CPU of each of {} small invocations", thousands(id))
            }
            id if id.ends_with("-glibc") => format!("{title}, to the glibc floor"),
            id if id.starts_with("cbor-") => format!("flood with `WIRE=cbor`: {title}"),
            id if id.starts_with("flood-") && !title.starts_with("flood") => {
                format!("flood: {title}")
            }
            id if id.starts_with("invocations-added") => {
                format!("time added to a small invocation (`adaptive`), Kinesis {}", latency(id))
            }
            id if id.starts_with("end-added") => {
                format!("the same with `FLUSH=end`, Kinesis {}", latency(id))
            }
            "tls-first" => "CPU of the first flush, with TLS".to_owned(),
            "tls-each" => "CPU of each later flush, with TLS".to_owned(),
            "tls-connections" => "connections for 80 flushes with TLS".to_owned(),
            _ => title.to_owned(),
        }
    }
}

fn id_of(id: &'static str) -> &'static str {
    id.rsplit('-').next().unwrap_or(id)
}

fn thousands(id: &'static str) -> &'static str {
    match id_of(id) {
        "2000" => "2,000",
        "20000" => "20,000",
        few => few,
    }
}

fn latency(id: &str) -> &'static str {
    match id.rsplit('-').next() {
        Some("0") => "at once",
        Some("5") => "in 5 ms",
        _ => "in 20 ms",
    }
}

const fn row(
    id: &'static str,
    scenario: &'static str,
    title: &'static str,
    unit: Unit,
    yardstick: Yardstick,
) -> Measure {
    Measure { id, scenario, title, unit, yardstick, bound: None }
}

const fn held(measure: Measure, limit: f64) -> Measure {
    Measure { bound: Some(limit), ..measure }
}

use Unit::{Count, Each, Kib, Microseconds as Us, Milliseconds as Ms, PerSecond};
use Yardstick::{GlibcFloor, GlibcFloors, More, OwnFloor, OwnFloors, Self_};

/// In the order of the table.
pub(crate) const ALL: &[Measure] = &[
    held(row("start", "start", "process start to first /next", Ms, OwnFloor), 1.25),
    row("start-cpu", "start", "  CPU until then", Ms, OwnFloor),
    row("start-faults", "start", "  page faults until then", Count, OwnFloor),
    held(
        row(
            "start-instructions",
            "start",
            "  instructions, once all threads rest",
            Count,
            OwnFloor,
        ),
        2.0,
    ),
    row("start-cold", "cold", "  cold page cache", Ms, OwnFloor),
    held(row("idle", "start", "resident memory, idle", Kib, GlibcFloor), 0.75),
    row("idle-anonymous", "start", "  of that, no page of a file", Kib, Yardstick::None),
    row("threads", "start", "  threads", Count, Yardstick::None),
    held(row("size", "start", "binary", Kib, Yardstick::None), 1_800_000.0 / 1024.0),
    row("flood-cpu", "flood", "flood: CPU per event (slim)", Us, OwnFloor),
    held(
        row("flood-cpu-glibc", "flood", "  CPU per event (slim)", Us, GlibcFloors("flood-cpu")),
        1.3,
    ),
    row("flood-cpu-full", "flood", "  CPU per event (full)", Us, OwnFloors("flood-cpu")),
    held(
        row(
            "flood-cpu-full-glibc",
            "flood",
            "  CPU per event (full)",
            Us,
            GlibcFloors("flood-cpu"),
        ),
        1.7,
    ),
    row(
        "flood-cpu-as-slim",
        "flood",
        "  CPU per event (slim); the floors send as many bytes",
        Us,
        GlibcFloor,
    ),
    row(
        "flood-cpu-as-full",
        "flood",
        "  CPU per event (full); the floors send as many bytes",
        Us,
        GlibcFloor,
    ),
    held(
        row("cbor-cpu", "flood", "  CPU per event (slim, cbor)", Us, GlibcFloors("flood-cpu")),
        1.0,
    ),
    held(
        row("cbor-cpu-full", "flood", "  CPU per event (full, cbor)", Us, GlibcFloors("flood-cpu")),
        1.3,
    ),
    row("flood-order", "flood", "  keys in another order (slim)", Us, Self_("flood-cpu")),
    row("flood-escapes", "flood", "  escapes in each line (slim)", Us, Self_("flood-cpu")),
    row(
        "flood-instructions",
        "flood",
        "  instructions per event, hash left out (slim)",
        Count,
        OwnFloor,
    ),
    row(
        "flood-instructions-full",
        "flood",
        "  the same (full)",
        Count,
        OwnFloors("flood-instructions"),
    ),
    row("flood-rate", "flood", "  events delivered (slim)", PerSecond, OwnFloor),
    row(
        "flood-rate-full",
        "flood",
        "  events delivered (full)",
        PerSecond,
        OwnFloors("flood-rate"),
    ),
    row("flood-taken", "flood", "  events taken (slim)", PerSecond, OwnFloor),
    row("flood-peak", "flood", "  peak memory (slim)", Kib, OwnFloor),
    row("flood-requests", "flood", "  requests (slim)", Count, Yardstick::None),
    held(
        row(
            "growth-cpu",
            "growth",
            "10 times the flood: CPU per event (slim)",
            Us,
            Self_("flood-cpu"),
        ),
        1.1,
    ),
    held(row("growth-peak", "growth", "  peak memory (slim)", Kib, Self_("flood-peak")), 1.2),
    held(
        row(
            "invocations-cpu-0",
            "invocations",
            "small invocations: CPU each, Kinesis at once",
            Us,
            OwnFloor,
        ),
        1.3,
    ),
    row("invocations-cpu-5", "invocations", "  Kinesis in 5 ms", Us, OwnFloor),
    row("invocations-cpu-20", "invocations", "  Kinesis in 20 ms", Us, OwnFloor),
    row(
        "invocations-added-0",
        "invocations",
        "  time added to each, Kinesis at once",
        Ms,
        Yardstick::None,
    ),
    row("invocations-added-5", "invocations", "  Kinesis in 5 ms", Ms, Yardstick::None),
    row("invocations-added-20", "invocations", "  Kinesis in 20 ms", Ms, Yardstick::None),
    row("end-added-0", "invocations", "  with FLUSH=end, Kinesis at once", Ms, Yardstick::None),
    row("end-added-5", "invocations", "  Kinesis in 5 ms", Ms, Yardstick::None),
    row("end-added-20", "invocations", "  Kinesis in 20 ms", Ms, Yardstick::None),
    held(
        row("invocations-200", "busy", "CPU of each of 200", Us, GlibcFloors("invocations-200")),
        2.0,
    ),
    held(row("invocations-2000", "busy", "  of 2,000", Us, GlibcFloors("invocations-2000")), 1.5),
    held(
        row("invocations-20000", "busy", "  of 20,000", Us, GlibcFloors("invocations-20000")),
        1.3,
    ),
    held(
        row("busy", "busy", "resident memory after 20,000 small invocations", Kib, Yardstick::None),
        6_000_000.0 / 1024.0,
    ),
    held(row("futex", "futex", "futex calls an invocation", Each, Yardstick::None), 4.0),
    row("futex-end", "futex", "  with FLUSH=end", Each, Yardstick::None),
    row("futex-next", "futex", "  with FLUSH=next", Each, Yardstick::None),
    row(
        "form-lines",
        "forms",
        "a quarter of the flood: CPU per event, lines (full)",
        Us,
        Yardstick::None,
    ),
    held(row("form-lines-gzip", "forms", "  with gzip", Us, Self_("form-lines")), 2.0),
    row("form-kpl", "forms", "  kpl", Us, Self_("form-lines")),
    row("form-kpl-gzip", "forms", "  kpl with gzip", Us, Self_("form-lines")),
    row("plain-first", "tls", "a flush each, no TLS: CPU of the first", Us, Yardstick::None),
    row("tls-first", "tls", "  with TLS (handshake)", Us, Self_("plain-first")),
    row("plain-each", "tls", "  CPU of each later one, no TLS", Us, Yardstick::None),
    row("tls-each", "tls", "  with TLS", Us, Self_("plain-each")),
    row("tls-connections", "tls", "  connections for all of them", Count, Yardstick::None),
    row("tls-requests", "tls", "  requests in all of them", Count, Yardstick::None),
    row("tls-peak", "tls", "  peak memory with TLS", Kib, Yardstick::None),
    row("ready-live", "ready", "end, TLS, 2 ms away: held", Ms, Yardstick::None),
    held(row("ready-dead", "ready", "  after the connection died", Ms, More("ready-live")), 1.5),
    held(row("ready-first", "ready", "  in the first invocation", Ms, More("ready-live")), 3.0),
    row("slow-live", "slow", "128 MB, end, TLS: a CPU-bound function runs", Ms, Yardstick::None),
    held(row("slow-dead", "slow", "  while a connection is made", Ms, More("slow-live")), 1.0),
    row("slow-live-cpu", "slow", "  CPU of the extension meanwhile", Us, Yardstick::None),
    row("slow-dead-cpu", "slow", "  while a connection is made", Us, More("slow-live-cpu")),
    row("timeline-register", "timeline", "process start to register", Ms, Yardstick::None),
    row("timeline-subscribe", "timeline", "  to the subscription", Ms, Yardstick::None),
    row("timeline-next", "timeline", "  to the first /next", Ms, Yardstick::None),
    row("timeline-done", "timeline", "INVOKE to the function's end", Ms, Yardstick::None),
    row("timeline-post", "timeline", "  to Lambda's last POST", Ms, Yardstick::None),
    row("timeline-put", "timeline", "  to PutRecords", Ms, Yardstick::None),
    row("timeline-over", "timeline", "  to /next", Ms, Yardstick::None),
];

/// Samples of one measure and one contestant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        (low + high) / 2.0
    }

    pub(crate) fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<(&'static str, &'static str), Samples>,
    /// What did not go as it should.
    pub(crate) remarks: Vec<String>,
}

impl Results {
    pub(crate) fn add(&mut self, measure: &'static str, contestant: &Contestant, value: f64) {
        debug_assert!(ALL.iter().any(|known| known.id == measure), "{measure}");
        self.samples.entry((measure, contestant.id)).or_default().0.push(value);
    }

    /// Once, however often it is said.
    pub(crate) fn remark(&mut self, remark: &str) {
        if !self.remarks.iter().any(|known| known == remark) {
            self.remarks.push(remark.to_owned());
        }
    }

    /// Of machine code; a script's own size says nothing.
    pub(crate) fn note_size(&mut self, contestant: &Contestant) -> Result<()> {
        if !contestant.is_script() {
            self.add(
                "size",
                contestant,
                std::fs::metadata(&contestant.file)?.len() as f64 / 1024.0,
            );
        }
        Ok(())
    }

    pub(crate) fn of(&self, measure: &str, contestant: &str) -> Option<&Samples> {
        self.samples
            .iter()
            .find(|((m, c), _)| *m == measure && *c == contestant)
            .map(|(_, samples)| samples)
    }

    /// The ratio of the medians to the yardstick.
    pub(crate) fn ratio(&self, measure: &Measure, contestant: &Contestant) -> Option<f64> {
        let to = match measure.yardstick {
            OwnFloor => self.of(measure.id, contestant.floor),
            OwnFloors(other) => self.of(other, contestant.floor),
            GlibcFloor => self.of(measure.id, "floor-glibc"),
            GlibcFloors(other) => self.of(other, "floor-glibc"),
            Self_(other) => self.of(other, contestant.id),
            More(_) | Yardstick::None => None,
        };
        Some(self.of(measure.id, contestant.id)?.median() / to?.median())
    }

    /// What the bound is about: the ratio, the difference or the value.
    pub(crate) fn compared(&self, measure: &Measure, contestant: &Contestant) -> Option<f64> {
        let median = self.of(measure.id, contestant.id)?.median();
        match measure.yardstick {
            More(other) => Some(median - self.of(other, contestant.id)?.median()),
            Yardstick::None => Some(median),
            _ => self.ratio(measure, contestant),
        }
    }
}
