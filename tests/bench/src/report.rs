//! The results as a table for people and as JSON for machines.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::arguments::Plan;
use crate::contestant::{Contestant, Kind};
use crate::machine;
use crate::measure::{ALL, Measure, Results, Yardstick};

pub(crate) struct Report<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) results: &'a Results,
    /// Before and after.
    pub(crate) load: (f64, f64),
}

impl Report<'_> {
    /// Measures that any contestant has a value of.
    fn rows(&self) -> impl Iterator<Item = &'static Measure> {
        ALL.iter().filter(|measure| {
            self.plan
                .contestants
                .iter()
                .any(|contestant| self.results.of(measure.id, contestant.id).is_some())
        })
    }

    /// Those that do the same task, all of it.
    pub(crate) fn compared(&self) -> impl Iterator<Item = &Contestant> {
        let is_compared =
            |contestant: &&Contestant| !matches!(contestant.kind, Kind::Producer | Kind::Product);
        self.plan.contestants.iter().filter(is_compared)
    }

    pub(crate) fn where_and_what(&self) -> Vec<String> {
        let mut lines = vec![
            machine::describe(),
            format!("load {:.1} before, {:.1} after", self.load.0, self.load.1),
        ];
        lines.push(
            self.plan
                .versions
                .iter()
                .map(|(name, version)| format!("{name} {version}"))
                .collect::<Vec<_>>()
                .join(", "),
        );
        lines
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let first = self.rows().map(|measure| measure.title.len()).max().unwrap_or(0).max(20);
        let _ = write!(text, "{:first$}", "median, x floor");
        for contestant in &self.plan.contestants {
            let _ = write!(text, " {:>19}", contestant.title);
        }
        text.push('\n');
        let mut scenario = "";
        for measure in self.rows() {
            if measure.scenario != scenario {
                scenario = measure.scenario;
                let _ = writeln!(text, "{}", "-".repeat(first + 20 * self.plan.contestants.len()));
            }
            let _ = write!(text, "{:first$}", measure.title);
            for contestant in &self.plan.contestants {
                let _ = write!(text, " {:>19}", self.cell(measure, contestant));
            }
            text.push('\n');
        }
        self.bounds(&mut text);
        for remark in &self.results.remarks {
            let _ = writeln!(text, "note: {remark}");
        }
        text.push('\n');
        self.where_and_what().iter().for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
        text.push_str(
            "x: times the floor that was built the same way, or what the row says; idle memory and the rows for 200 to 20,000 invocations: times the glibc floor; other orders, escapes and growth: times the flood; TLS: times without it",
        );
        text
    }

    fn cell(&self, measure: &Measure, contestant: &Contestant) -> String {
        let Some(samples) = self.results.of(measure.id, contestant.id) else {
            return "-".to_owned();
        };
        let value = measure.unit.show(samples.median());
        match self.results.ratio(measure, contestant) {
            Some(ratio) => format!("{value} {:>6}", format!("{}x", short(ratio))),
            None => format!("{value} {:>6}", ""),
        }
    }

    /// One line for each contestant of a kind, with the measures that are asked for.
    fn by_contestant(
        &self,
        first: &str,
        ids: &[&str],
        chosen: impl Fn(&Contestant) -> bool,
    ) -> String {
        let measures: Vec<&Measure> =
            self.rows().filter(|measure| ids.contains(&measure.id)).collect();
        let titles: String =
            measures.iter().map(|measure| format!(" {} |", measure.whole_title())).collect();
        let mut text = format!("| {first} |{titles}\n|{}\n", "---|".repeat(measures.len() + 1));
        for contestant in self.plan.contestants.iter().filter(|contestant| chosen(contestant)) {
            let _ = write!(text, "| {} |", contestant.title);
            for measure in &measures {
                let value = self
                    .results
                    .of(measure.id, contestant.id)
                    .map(|samples| measure.unit.show(samples.median()))
                    .unwrap_or_default();
                let _ = write!(text, " {value} |");
            }
            text.push('\n');
        }
        text
    }

    /// The rows that the manual shows, one for each measure that a user or a bound asks for.
    pub(crate) fn markdown(&self) -> String {
        if self.plan.contestants.iter().any(Contestant::is_another_build) {
            // What became of the static build from step to step.
            return self.by_contestant("build", &STEPS, |_| true);
        }
        let contestants: Vec<&Contestant> = self.compared().collect();
        let titles: String =
            contestants.iter().map(|contestant| format!(" {} |", contestant.title)).collect();
        let mut text =
            format!("| median |{titles} bound |\n|{}\n", "---|".repeat(contestants.len() + 2));
        for measure in self.rows().filter(|measure| MANUAL.contains(&measure.id)) {
            let _ = write!(text, "| {} |", measure.whole_title());
            for &contestant in &contestants {
                let value = self
                    .results
                    .of(measure.id, contestant.id)
                    .map(|samples| measure.unit.show(samples.median()))
                    .unwrap_or_default();
                let floor = contestant.kind == Kind::Floor;
                let compared = match measure.yardstick {
                    Yardstick::None => None,
                    _ => self.results.compared(measure, contestant),
                };
                let compared = compared.filter(|_| !value.is_empty() && !floor);
                let _ = write!(
                    text,
                    " {value}{} |",
                    compared
                        .map_or(String::new(), |value| format!(" ({})", relation(measure, value)))
                );
            }
            let bound = measure.bound.map_or(String::new(), |bound| limit(measure, bound));
            let _ = writeln!(text, " {bound} |");
        }
        text.push('\n');
        let lines = self.where_and_what().into_iter().filter(|line| !line.starts_with("load"));
        let _ = writeln!(text, "{}.", lines.collect::<Vec<_>>().join("; "));
        for (kind, rows, title) in [
            (Kind::Producer, &PRODUCERS[..], "Beside a producer in Python, in the flood:"),
            (
                Kind::Product,
                &PRODUCTS[..],
                "Beside extensions in production use, for other destinations, as they start:",
            ),
        ] {
            if self.plan.contestants.iter().any(|contestant| contestant.kind == kind) {
                let _ = write!(text, "\n{title}\n\n");
                let chosen = |contestant: &Contestant| {
                    contestant.kind == Kind::Extension || contestant.kind == kind
                };
                text.push_str(&self.by_contestant("extension", rows, chosen));
            }
        }
        text
    }

    fn bounds(&self, text: &mut String) {
        text.push('\n');
        let shipped: Vec<&Contestant> =
            self.plan.contestants.iter().filter(|contestant| contestant.is_shipped()).collect();
        for (measure, bound) in self.rows().filter_map(|measure| Some((measure, measure.bound?))) {
            for contestant in &shipped {
                let Some(value) = self.results.compared(measure, contestant) else { continue };
                let verdict = if value <= bound { "met   " } else { "MISSED" };
                let _ = writeln!(
                    text,
                    "{verdict} {}, {}: {}, bound {}",
                    measure.whole_title(),
                    contestant.title,
                    relation(measure, value),
                    limit(measure, bound)
                );
            }
        }
    }

    pub(crate) fn json(&self) -> Value {
        let measures: Map<String, Value> =
            self.rows().map(|measure| (measure.id.to_owned(), self.measure(measure))).collect();
        let versions: Map<String, Value> = self
            .plan
            .versions
            .iter()
            .map(|(name, version)| (name.clone(), json!(version)))
            .collect();
        json!({
            "machine": machine::describe(),
            "load": [self.load.0, self.load.1],
            "versions": versions,
            "quick": self.plan.quick,
            "measures": measures,
            "remarks": self.results.remarks,
        })
    }

    fn measure(&self, measure: &Measure) -> Value {
        let mut contestants = Map::new();
        for contestant in &self.plan.contestants {
            let Some(samples) = self.results.of(measure.id, contestant.id) else { continue };
            let mut value = json!({ "median": samples.median(), "min": samples.least(), "max": samples.most(), "runs": samples.0.len() });
            if measure.yardstick != Yardstick::None
                && let Some(compared) = self.results.compared(measure, contestant)
            {
                value["compared"] = json!(compared);
            }
            contestants.insert(contestant.id.to_owned(), value);
        }
        let mut value = json!({ "title": measure.title.trim(), "scenario": measure.scenario, "unit": measure.unit.name() });
        if let Some(limit) = measure.bound {
            value["atMost"] = json!(limit);
        }
        value["comparedWith"] = match measure.yardstick {
            Yardstick::OwnFloor => json!("the floor built the same way"),
            Yardstick::OwnFloors(other) => {
                json!(format!("{other} of the floor built the same way"))
            }
            Yardstick::GlibcFloor => json!("floor-glibc"),
            Yardstick::GlibcFloors(other) => json!(format!("{other} of floor-glibc")),
            Yardstick::Self_(other) => json!(other),
            Yardstick::More(other) => json!(format!("the difference to {other}")),
            Yardstick::None => Value::Null,
        };
        value["contestants"] = Value::Object(contestants);
        value
    }
}

const MANUAL: &[&str] = &[
    "start",
    "start-cpu",
    "start-instructions",
    "start-cold",
    "idle",
    "idle-anonymous",
    "size",
    "flood-cpu",
    "flood-cpu-glibc",
    "flood-cpu-full",
    "flood-cpu-full-glibc",
    "cbor-cpu",
    "cbor-cpu-full",
    "flood-order",
    "flood-escapes",
    "flood-instructions",
    "flood-rate",
    "flood-rate-full",
    "flood-peak",
    "growth-cpu",
    "growth-peak",
    "invocations-cpu-0",
    "invocations-200",
    "invocations-2000",
    "invocations-20000",
    "busy",
    "futex",
    "futex-end",
    "futex-next",
    "invocations-added-0",
    "invocations-added-20",
    "end-added-0",
    "end-added-20",
    "form-lines-gzip",
    "tls-first",
    "tls-each",
    "tls-connections",
    "ready-live",
    "ready-dead",
    "ready-first",
    "slow-live",
    "slow-dead",
    "slow-live-cpu",
    "slow-dead-cpu",
];

const PRODUCERS: [&str; 3] = ["flood-cpu", "flood-rate", "flood-peak"];

const PRODUCTS: [&str; 5] = ["start", "start-cpu", "start-cold", "idle", "size"];

const STEPS: [&str; 6] =
    ["start", "size", "flood-cpu", "flood-cpu-full", "flood-rate", "flood-peak"];

/// What a bound is about, as a person reads it.
fn relation(measure: &Measure, value: f64) -> String {
    match measure.yardstick {
        Yardstick::None => measure.unit.show(value),
        Yardstick::More(_) => format!("{value:+.2} {}", measure.unit.name()),
        _ => format!("{}x", short(value)),
    }
}

fn limit(measure: &Measure, bound: f64) -> String {
    match measure.yardstick {
        Yardstick::None => format!("at most {}", measure.unit.show(bound)),
        Yardstick::More(_) => format!("at most +{bound} {}", measure.unit.name()),
        _ => format!("at most {bound}x"),
    }
}

/// A ratio with as many digits as mean something.
pub(crate) fn short(ratio: f64) -> String {
    if ratio >= 9.95 { format!("{ratio:.0}") } else { format!("{ratio:.2}") }
}
