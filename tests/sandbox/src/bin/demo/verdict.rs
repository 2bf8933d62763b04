//! What the run proved, in plain sentences.

use sandbox::{Account, Comparison, Kinesis, Lambda, SentEvent};

use super::life::{Block, RequestRow, counted, millis};
use super::story::Step;

/// What became of the events that Lambda handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) handed: usize,
    pub(crate) delivered: usize,
    /// Missing because the settings ask for it: of a type that is not sent, or what the extension's own ledgers count as
    /// excluded or thinned out.
    pub(crate) left_out: usize,
    pub(crate) lost: usize,
    pub(crate) repeated: usize,
    pub(crate) changed: usize,
    pub(crate) wrong_request_id: usize,
    /// Lines that are no event, or one without Lambda's three keys in front.
    pub(crate) misshapen: usize,
}

impl Verdict {
    /// `types` is the setting, where it is given.
    pub(crate) fn of(comparison: &Comparison, account: &Account, types: Option<&str>) -> Self {
        let meant = |ledger: &serde_json::Value| {
            ["excluded", "thinned"].map(|name| ledger[name].as_u64().unwrap_or(0)).iter().sum()
        };
        let meant: u64 = account.ledgers().iter().map::<u64, _>(meant).sum();
        let is_unwanted = |event: &&SentEvent| {
            let group = event.kind.split('.').next().unwrap_or_default();
            types.is_some_and(|types| !types.split(',').any(|wanted| wanted.trim() == group))
        };
        let missing = comparison.lost.len();
        let unwanted = comparison.lost.iter().filter(is_unwanted).count();
        let meant = unwanted.saturating_add(usize::try_from(meant).unwrap_or(usize::MAX));
        let left_out = missing.min(meant);
        Self {
            handed: comparison.handed,
            delivered: comparison.delivered,
            left_out,
            lost: missing - left_out,
            repeated: comparison.repeated.len(),
            changed: comparison.changed.len(),
            wrong_request_id: comparison.wrong_request_id.len(),
            misshapen: comparison.misshapen.len() + comparison.broken.len(),
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.handed > 0 && self.faults().next().is_none()
    }

    fn faults(&self) -> impl Iterator<Item = String> {
        let all = [
            (self.lost, "lost"),
            (self.repeated, "twice"),
            (self.changed, "changed"),
            (self.wrong_request_id, "with a wrong request id"),
            (self.misshapen, "misshapen"),
        ];
        all.into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
    }

    /// Whether every event arrived once, as it was.
    pub(crate) fn sentence(&self) -> String {
        if self.handed == 0 {
            return "The extension took no telemetry.".to_owned();
        }
        let mut sentence = format!("{} of {} events delivered", self.delivered, self.handed);
        if self.left_out > 0 {
            sentence += &format!(", {} left out as the settings ask", self.left_out);
        }
        let faults: Vec<String> = self.faults().collect();
        if faults.is_empty() {
            sentence + ": nothing lost, nothing twice, nothing changed."
        } else {
            format!("{sentence}: {}.", faults.join(", "))
        }
    }
}

/// The run in numbers.
pub(crate) struct Numbers {
    pub(crate) requests: usize,
    pub(crate) records: usize,
    /// Records that failed in a request.
    pub(crate) records_failed: usize,
    /// What the extension added to each invocation, in milliseconds: least, median, most.
    pub(crate) added: Option<(f64, f64, f64)>,
    pub(crate) peak_kib: u64,
    /// From the start of each process to its first `/next`, in milliseconds.
    pub(crate) ready: Vec<(&'static str, f64)>,
    /// From SHUTDOWN to the end of the process, in milliseconds.
    pub(crate) shutdown: f64,
    pub(crate) exit: String,
}

impl Numbers {
    pub(crate) fn of(steps: &[Step], kinesis: &Kinesis) -> Self {
        let invocations = || steps.iter().filter_map(|step| step.invocation.as_ref());
        let mut added: Vec<f64> = invocations().map(|report| millis(report.held)).collect();
        added.sort_by(f64::total_cmp);
        let median = added.get(added.len() / 2);
        let ends = || steps.iter().filter_map(|step| step.end.as_ref());
        let stats = invocations().map(|report| report.stats).chain(ends().map(|end| end.stats));
        let ready = |step: &Step| Some((step.name, millis(step.init.as_ref()?.ready)));
        let puts = kinesis.puts();
        Self {
            requests: puts.len(),
            records: kinesis.records().len(),
            records_failed: puts.iter().map(sandbox::Put::failed).sum(),
            added: added.first().zip(median).zip(added.last()).map(|((a, b), c)| (*a, *b, *c)),
            peak_kib: stats.map(|stats| stats.peak_kib).max().unwrap_or(0),
            ready: steps.iter().filter_map(ready).collect(),
            shutdown: ends().next_back().map_or(0.0, |end| millis(end.took)),
            exit: ends().next_back().map(|end| end.exit.to_string()).unwrap_or_default(),
        }
    }

    pub(crate) fn peak_mib(&self) -> f64 {
        f64::from(u32::try_from(self.peak_kib).unwrap_or(u32::MAX)) / 1024.0
    }
}

/// What else is worth knowing: about failed requests, time and memory, and the end.
pub(crate) fn remarks(blocks: &[Block<'_>], numbers: &Numbers, lambda: &Lambda) -> Vec<String> {
    let mut remarks: Vec<String> = failed_requests(blocks, numbers).into_iter().collect();
    if let Some((least, median, most)) = numbers.added {
        let buffer = lambda.subscription().map_or(0.0, |taken| millis(taken.timeout));
        let of_which = if most < buffer {
            String::new()
        } else {
            format!(", of which up to {buffer:.0} ms are the Telemetry API's buffer")
        };
        remarks.push(format!(
            "The extension added {median:.1} ms to an invocation (median; {least:.1} to {most:.1}){of_which}."
        ));
    }
    if let Some((_, ready)) = numbers.ready.first() {
        remarks.push(format!(
            "It was ready {ready:.1} ms after its start, took {:.1} MiB at most, and ended {:.1} ms after SHUTDOWN ({}).",
            numbers.peak_mib(),
            numbers.shutdown,
            numbers.exit
        ));
    }
    remarks
}

fn failed_requests(blocks: &[Block<'_>], numbers: &Numbers) -> Option<String> {
    let requests = || blocks.iter().flat_map(Block::requests);
    let failed: Vec<_> = requests().filter(|row| row.failure.is_some()).collect();
    let first = failed.first()?;
    // Its row has the code.
    let why = first.failure.as_deref().unwrap_or_default();
    let why = why.split_once(" (").map_or(why, |(why, _)| why);
    let again =
        |row: &RequestRow| row.again.as_ref().is_some_and(|again| again.number == first.number);
    let retry = requests().find(|row| again(row));
    let after = retry.and_then(|row| Some((row, row.again.as_ref()?))).map(|(row, again)| {
        let events = counted(again.events, "event");
        let verb = if row.failure.is_some() { "were sent again" } else { "arrived" };
        format!("; its {events} {verb} {:.0} ms later, in #{}", again.after, row.number)
    });
    let all = counted(numbers.requests, "request");
    let which = if failed.len() == 1 { "" } else { "the first is " };
    Some(format!(
        "{} of {all} to Kinesis failed: {which}#{}, {why}{}.",
        failed.len(),
        first.number,
        after.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Verdict = Verdict {
        handed: 53,
        delivered: 53,
        left_out: 0,
        lost: 0,
        repeated: 0,
        changed: 0,
        wrong_request_id: 0,
        misshapen: 0,
    };

    #[test]
    fn good_is_only_what_came_once_and_unchanged() {
        assert!(GOOD.is_good());
        assert!(Verdict { delivered: 45, left_out: 8, ..GOOD.clone() }.is_good());
        let bad = [
            Verdict { handed: 0, delivered: 0, ..GOOD },
            Verdict { delivered: 52, lost: 1, ..GOOD },
            Verdict { repeated: 1, ..GOOD },
            Verdict { changed: 1, ..GOOD },
            Verdict { wrong_request_id: 1, ..GOOD },
            Verdict { misshapen: 1, ..GOOD },
        ];
        for verdict in bad {
            assert!(!verdict.is_good() && !verdict.sentence().contains("nothing"), "{verdict:?}");
        }
    }

    #[test]
    fn the_sentence_names_what_went_wrong_and_nothing_else() {
        assert_eq!(
            GOOD.sentence(),
            "53 of 53 events delivered: nothing lost, nothing twice, nothing changed."
        );
        let bad = Verdict { delivered: 50, lost: 3, repeated: 1, ..GOOD };
        assert_eq!(bad.sentence(), "50 of 53 events delivered: 3 lost, 1 twice.");
    }

    #[test]
    fn what_the_settings_leave_out_is_not_lost() {
        let mut comparison = Comparison { handed: 10, delivered: 8, ..Comparison::default() };
        let sent = SentEvent {
            number: 0,
            time: String::new(),
            kind: "platform.start".to_owned(),
            record: Vec::new(),
            request_id: sandbox::Expected::Any,
            offered: 1,
            handed: 1,
            handed_at: None,
        };
        comparison.lost = vec![sent.clone(), SentEvent { kind: "function".to_owned(), ..sent }];
        for (types, left_out) in [
            (None, 0),
            (Some("platform,function"), 0),
            (Some("function"), 1),
            (Some("extension"), 2),
        ] {
            let verdict = Verdict::of(&comparison, &Account::default(), types);
            assert_eq!((verdict.left_out, verdict.lost), (left_out, 2 - left_out), "{types:?}");
        }
    }
}
