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
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Kib => "KiB",
            Self::PerSecond => "1/s",
            Self::Count => "",
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
            unit if value >= 99.5 => format!("{value:.0} {}", unit.name()),
            unit if value >= 9.95 => format!("{value:.1} {}", unit.name()),
            unit => format!("{value:.2} {}", unit.name()),
        }
    }
}

/// A bound on the ratio to a floor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
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
    /// Another measure of the same contestant.
    Self_(&'static str),
    /// A ratio says nothing.
    None,
}

pub(crate) struct Measure {
    pub(crate) id: &'static str,
    pub(crate) scenario: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) yardstick: Yardstick,
    pub(crate) bound: Option<Bound>,
}

impl Measure {
    /// By itself; in the table a row says only in what it differs from those above it.
    pub(crate) fn whole_title(&self) -> String {
        let title = self.title.trim();
        match self.id {
            "growth-peak" => "10 times the flood: peak memory (slim)".to_owned(),
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

const fn held(measure: Measure, bound: Bound) -> Measure {
    Measure { bound: Some(bound), ..measure }
}

use Unit::{Count, Kib, Microseconds as Us, Milliseconds as Ms, PerSecond};
use Yardstick::{GlibcFloor, OwnFloor, OwnFloors, Self_};

/// In the order of the table.
pub(crate) const ALL: [Measure; 41] = [
    held(row("start", "start", "process start to first /next", Ms, OwnFloor), Bound::AtMost(1.5)),
    row("start-cpu", "start", "  CPU until then", Ms, OwnFloor),
    row("start-faults", "start", "  page faults until then", Count, OwnFloor),
    row("start-instructions", "start", "  instructions, once all threads rest", Count, OwnFloor),
    held(row("idle", "start", "resident memory, idle", Kib, GlibcFloor), Bound::AtMost(2.0)),
    row("threads", "start", "  threads", Count, Yardstick::None),
    row("size", "start", "binary", Kib, Yardstick::None),
    held(
        row("flood-cpu", "flood", "flood: CPU per event (slim)", Us, OwnFloor),
        Bound::AtMost(1.5),
    ),
    held(
        row("flood-cpu-full", "flood", "  CPU per event (full)", Us, OwnFloors("flood-cpu")),
        Bound::AtMost(2.0),
    ),
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
    held(
        row("flood-rate", "flood", "  events delivered (slim)", PerSecond, OwnFloor),
        Bound::AtLeast(0.6),
    ),
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
    row("growth-cpu", "growth", "10 times the flood: CPU per event (slim)", Us, Self_("flood-cpu")),
    row("growth-peak", "growth", "  peak memory (slim)", Kib, Self_("flood-peak")),
    row(
        "invocations-cpu-0",
        "invocations",
        "small invocations: CPU each, Kinesis at once",
        Us,
        OwnFloor,
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
    row(
        "form-lines",
        "forms",
        "a quarter of the flood: CPU per event, lines (full)",
        Us,
        Yardstick::None,
    ),
    row("form-lines-gzip", "forms", "  with gzip", Us, Self_("form-lines")),
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
    row("ready-dead", "ready", "  after the connection died", Ms, Self_("ready-live")),
    row("ready-first", "ready", "  in the first invocation", Ms, Self_("ready-live")),
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

    /// Of machine code; a script's own size says nothing.
    pub(crate) fn note_size(&mut self, contestant: &Contestant) -> Result<()> {
        if contestant.id != "peer-node" {
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
            Self_(other) => self.of(other, contestant.id),
            Yardstick::None => None,
        };
        Some(self.of(measure.id, contestant.id)?.median() / to?.median())
    }
}
