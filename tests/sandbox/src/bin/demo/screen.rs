//! Writes the run to stdout: for people, step by step; or for machines, one JSON object a line.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use sandbox::{Lambda, StoredRecord};
use serde_json::{Value, json};

use super::life::{Bill, Block, EventRow, Origin, RequestRow, Row, gist, is_failure, millis};
use super::verdict::{Numbers, Verdict};

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";
const GREY: &str = "90";
const BOLD: &str = "1";

/// From here on there is room for a column with the request's id; else it is in the line with what the invocation cost.
const WIDE: usize = 100;

pub(crate) struct Screen {
    colour: bool,
    width: usize,
    /// How many blocks are out.
    shown: usize,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colour = terminal
            && !set("NO_COLOR")
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let width =
            std::env::var("COLUMNS").ok().and_then(|width| width.parse().ok()).unwrap_or(160);
        Self { colour, width, shown: 0 }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn columns(&self) {
        let request = if self.width < WIDE { "" } else { "request   " };
        let head = format!(
            "{:12}  {request}{:30}  {:>3}  {}",
            "time", "type", "put", "what arrived on the stream"
        );
        println!("{}", self.paint(BOLD, &head));
    }

    /// Shows blocks from the first that is not out to the first that is not complete, or all of them.
    pub(crate) fn blocks(&mut self, blocks: &[Block<'_>], all: bool) {
        let next = blocks.iter().skip(self.shown);
        let ready: Vec<_> = next.take_while(|block| all || block.is_complete()).collect();
        self.shown += ready.len();
        for block in ready {
            self.block(block);
        }
    }

    fn block(&self, block: &Block<'_>) {
        match block.step.chapter {
            Some(title) => println!("\n{}", self.paint(BOLD, &format!("-- {title}"))),
            None => println!(),
        }
        for row in &block.rows {
            match row {
                Row::Event(row) => self.event(row),
                Row::Request(row) => self.request(row),
            }
        }
        if let Some(bill) = &block.bill {
            let id = block.request_id().and_then(|id| id.get(..8)).unwrap_or_default();
            let start = if self.width < WIDE { format!("  {id} ") } else { " ".repeat(14) };
            println!("{start}{}", self.paint(BOLD, &in_words(bill)));
        }
    }

    fn event(&self, row: &EventRow) {
        let event = &row.event;
        let colour = match event.kind.as_str() {
            "function" => GREEN,
            kind if kind.starts_with("kinesis-telemetry.") => YELLOW,
            _ => CYAN,
        };
        let id = event.request_id.as_deref().and_then(|id| id.get(..8)).unwrap_or("-");
        let text = if is_failure(event) { RED } else { "" };
        let kind = (colour, event.kind.as_str());
        self.row(&row.clock, id, kind, event.put, (text, &gist(event)));
    }

    fn request(&self, row: &RequestRow) {
        let colour = match (&row.failure, &row.again) {
            (Some(_), _) => RED,
            (None, Some(_)) => YELLOW,
            (None, None) => GREY,
        };
        self.row(&row.clock, "", (colour, "PutRecords"), row.number, (colour, &row.gist()));
    }

    fn row(&self, clock: &str, id: &str, kind: (&str, &str), number: u64, text: (&str, &str)) {
        let wide = self.width >= WIDE;
        let id = if wide { self.paint(BOLD, &format!("{id:8}")) + "  " } else { String::new() };
        let taken = 12 + 2 + if wide { 10 } else { 0 } + 30 + 2 + 3 + 2;
        let clipped = clip(text.1, self.width.saturating_sub(taken).max(20));
        let clipped = if text.0.is_empty() { clipped } else { self.paint(text.0, &clipped) };
        println!(
            "{}  {id}{}  {}  {clipped}",
            self.paint(GREY, &format!("{clock:12}")),
            self.paint(kind.0, &format!("{:30}", kind.1)),
            self.paint(GREY, &format!("{:>3}", format!("#{number}")))
        );
    }

    /// The end: verdict and remarks, and what the extension printed.
    pub(crate) fn verdict(&self, verdict: &Verdict, remarks: &[String], printed: &[String]) {
        println!("\n{}", self.paint(BOLD, "-- verdict"));
        let colour = if verdict.is_good() { GREEN } else { RED };
        for line in wrapped(&verdict.sentence(), self.width) {
            println!("{}", self.paint(colour, &line));
        }
        remarks
            .iter()
            .flat_map(|remark| wrapped(remark, self.width))
            .for_each(|line| println!("{line}"));
        if !printed.is_empty() {
            println!("\nthe extension said:");
            printed.iter().take(20).for_each(|text| println!("  | {text}"));
        }
    }

    pub(crate) fn next(&self, steps: &[(String, &str)]) {
        println!("\n{}", self.paint(BOLD, "-- next"));
        let column = steps.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
        for (command, why) in steps {
            let fits = column + 2 + why.chars().count() <= self.width;
            let between = if fits { "  " } else { "\n  " };
            println!("{}{between}{why}", self.paint(CYAN, &format!("{command:column$}")));
        }
    }
}

/// What an invocation cost, in one line.
pub(crate) fn in_words(bill: &Bill) -> String {
    let init = bill.init.map_or(String::new(), |init| format!("init {init:.1}, "));
    let parts =
        format!("{init}function {:.1}, added by the extension {:.1}", bill.function, bill.added);
    match bill.billed {
        Some(billed) => format!("billed {billed:.0} ms: {parts}"),
        None => format!("in ms: {parts}; its platform.report is not on the stream"),
    }
}

/// The line as it is on the stream, with its keys in their order.
pub(crate) fn json_lines(origin: Origin, record: &StoredRecord) {
    for event in record.events() {
        println!(
            r#"{{"shard":{},"request":{},"arrivedMs":{},"event":{}}}"#,
            record.shard,
            record.put,
            origin.unix_millis(record.at),
            event.text()
        );
    }
}

pub(crate) fn json_summary(
    verdict: &Verdict,
    numbers: &Numbers,
    blocks: &[Block<'_>],
    lambda: &Lambda,
) -> Value {
    let invocation = |block: &Block<'_>| {
        let bill = block.bill.as_ref()?;
        let report = block.step.invocation.as_ref()?;
        Some(json!({
            "name": block.step.name,
            "requestId": report.request_id,
            "billedMs": bill.billed,
            "initMs": bill.init,
            "functionMs": bill.function,
            "heldMs": millis(report.held),
        }))
    };
    let put = |row: &RequestRow| {
        json!({
            "number": row.number,
            "atMs": row.at,
            "events": row.events,
            "records": row.records,
            "stored": row.stored,
            "failure": row.failure,
            "eventsAgain": row.again.as_ref().map_or(0, |again| again.events),
        })
    };
    let ready: BTreeMap<_, _> = numbers.ready.iter().copied().collect();
    json!({
        "good": verdict.is_good(),
        "verdict": verdict.sentence(),
        "sent": verdict.handed,
        "delivered": verdict.delivered,
        "leftOut": verdict.left_out,
        "lost": verdict.lost,
        "repeated": verdict.repeated,
        "changed": verdict.changed,
        "wrongRequestId": verdict.wrong_request_id,
        "firstNextMs": ready,
        "invocations": blocks.iter().filter_map(invocation).collect::<Vec<_>>(),
        "puts": blocks.iter().flat_map(Block::requests).map(put).collect::<Vec<_>>(),
        "peakKiB": numbers.peak_kib,
        "requests": numbers.requests,
        "records": numbers.records,
        "recordsThrottled": numbers.records_failed,
        "shutdownMs": numbers.shutdown,
        "exit": numbers.exit,
        "stderr": lambda.stderr(),
    })
}

fn clip(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// A sentence in lines of that width.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() > width {
            lines.push(format!("  {word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines
}
