//! Writes the run as one HTML page that needs nothing else: no script, no font, no picture from outside.
//!
//! Two charts carry it: the life of the sandbox with one row for each step on one scale, and above the events of each
//! step its own stretch of time, so that a retry within milliseconds can be seen.

use std::fmt::Write as _;

use sandbox::Comparison;

use super::life::{Bill, Block, EventRow, Origin, RequestRow, Row, counted, gist, is_failure};
use super::verdict::{Numbers, Verdict};

const STYLE: &str = include_str!("page.css");
/// Labels of a lane that are nearer to each other than this share of its width would run into each other.
const LABEL_ROOM: f64 = 0.1;

pub(crate) struct Page<'a> {
    pub(crate) origin: Origin,
    pub(crate) blocks: &'a [Block<'a>],
    pub(crate) verdict: &'a Verdict,
    pub(crate) numbers: &'a Numbers,
    pub(crate) comparison: &'a Comparison,
}

impl Page<'_> {
    pub(crate) fn html(
        &self,
        remarks: &[String],
        next: &[(String, &str)],
        settings: &[(String, String)],
    ) -> String {
        let mut page = String::with_capacity(128 * 1024);
        // The policy is for whoever opens the page: it loads nothing and runs nothing.
        page += "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
            <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
            <meta name=\"color-scheme\" content=\"light dark\">\n\
            <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
            <title>kinesis-telemetry-extension: the life of one sandbox</title>\n<style>\n";
        page += STYLE;
        page += "</style>\n</head>\n<body>\n<main>\n";
        self.head(&mut page, remarks, settings);
        self.life(&mut page);
        page += "<section>\n<h2>What arrived on the stream</h2>\n<p class=\"lead\">Each event is under its own invocation, beside \
            the requests that were made meanwhile. Dots above a bar are requests, marks below it are events. The number after # \
            is the request that brought an event, and the time beside it how long that took. Open an event to see its line as it \
            is stored.</p>\n";
        self.blocks
            .iter()
            .enumerate()
            .for_each(|(index, block)| self.block(&mut page, index, block));
        page += "</section>\n<section>\n<h2>Next</h2>\n<dl class=\"next\">\n";
        for (command, why) in next {
            let _ = writeln!(
                page,
                "<dt><code>{}</code></dt><dd>{}</dd>",
                escaped(command),
                escaped(why)
            );
        }
        page += "</dl>\n</section>\n</main>\n</body>\n</html>\n";
        page
    }

    fn head(&self, page: &mut String, remarks: &[String], settings: &[(String, String)]) {
        let shown = settings.iter().filter(|(name, _)| !name.ends_with("EXTERNAL_ID"));
        let mut shown: Vec<String> = shown
            .map(|(name, value)| format!("<code>{}={}</code>", escaped(name), escaped(value)))
            .collect();
        if shown.is_empty() {
            shown.push("default settings".to_owned());
        }
        let state = if self.verdict.is_good() { "good" } else { "bad" };
        let _ = write!(
            page,
            "<header>\n<p class=\"where\">kinesis-telemetry-extension, simulated Lambda and Kinesis, {} UTC, {}</p>\n\
             <h1>The life of one sandbox</h1>\n<div class=\"verdict {state}\">\n<p class=\"sentence\">{}</p>\n",
            self.origin.date(),
            shown.join(" "),
            escaped(&self.verdict.sentence())
        );
        for remark in remarks {
            let _ = writeln!(page, "<p>{}</p>", escaped(remark));
        }
        if !self.verdict.is_good() {
            let _ = writeln!(page, "<pre>{}</pre>", escaped(&self.comparison.to_string()));
        }
        *page += "</div>\n<dl class=\"tiles\">\n";
        let (verdict, numbers) = (self.verdict, self.numbers);
        let failed = self.blocks.iter().flat_map(Block::requests);
        let failed = failed.filter(|request| request.failure.is_some()).count();
        let median = numbers.added.map_or(0.0, |(_, median, _)| median);
        let tiles = [
            ("delivered", format!("{} of {}", verdict.delivered, verdict.handed)),
            ("lost or twice", (verdict.lost + verdict.repeated).to_string()),
            ("requests failed", format!("{failed} of {}", numbers.requests)),
            (
                "first /next",
                numbers.ready.first().map_or("-".to_owned(), |(_, ready)| format!("{ready:.1} ms")),
            ),
            ("added, median", format!("{median:.1} ms")),
            ("memory at most", format!("{:.1} MiB", numbers.peak_mib())),
        ];
        for (name, value) in tiles {
            let _ = writeln!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        }
        *page += "</dl>\n</header>\n";
    }

    /// All steps on one scale, from the start of the first process to the end of the last.
    fn life(&self, page: &mut String) {
        let ends = self.blocks.iter().map(|block| self.origin.since(block.step.ended));
        let scale = Scale { from: 0.0, to: ends.fold(1.0, f64::max) };
        *page += "<section>\n<h2>The timeline</h2>\n<ul class=\"legend\">\n\
            <li><i class=\"bar init\"></i>init</li><li><i class=\"bar function\"></i>function</li>\
            <li><i class=\"bar added\"></i>held by the extension</li><li><i class=\"bar end\"></i>reset, shutdown</li>\
            <li><i class=\"dot\"></i>request, stored</li><li><i class=\"dot failed\"></i>request, failed</li>\
            <li><i class=\"retry\"></i>sent again</li>\n</ul>\n<div class=\"life\">\n";
        let mut axis = String::new();
        // At least every half second; the last label needs room to its right.
        let unit = (scale.to / 5000.0).ceil().max(1.0) * 500.0;
        let mut at = 0.0;
        while scale.share(at) < 0.93 {
            let _ = write!(
                axis,
                "<span style=\"left:{}\">{:.1} s</span>",
                scale.percent(at),
                at / 1000.0
            );
            at += unit;
        }
        let _ = writeln!(page, "<div class=\"axis\" aria-hidden=\"true\">{axis}</div>");
        for (index, block) in self.blocks.iter().enumerate() {
            let cost = match &block.bill {
                Some(Bill { billed: Some(billed), added, .. }) => {
                    format!("<b>{billed:.0} ms</b> billed, <b>{added:.1}</b> added")
                }
                Some(bill) => format!("<b>{:.1} ms</b> added", bill.added),
                None => format!("ended in <b>{:.1} ms</b>", self.numbers.shutdown),
            };
            let id = block.request_id().and_then(|id| id.get(..8));
            let id = id.map_or(String::new(), |id| format!(" <code>{}</code>", escaped(id)));
            let _ = writeln!(
                page,
                "<a class=\"step\" href=\"#step-{index}\" style=\"--unit:{}\"><span class=\"name\">{}{id}</span>\
                 <span class=\"track\">{}</span><span class=\"cost\">{cost}</span></a>",
                scale.percent(unit),
                escaped(block.step.name),
                self.track(block, scale)
            );
        }
        *page += "</div>\n</section>\n";
    }

    /// Bars and dots of a step.
    fn track(&self, block: &Block<'_>, scale: Scale) -> String {
        let mut track = String::new();
        let step = block.step;
        let mut bar = |class: &str, from: f64, to: f64, what: &str| {
            let _ = write!(
                track,
                "<i class=\"bar {class}\" style=\"left:{};width:{}\" title=\"{what}, {:.1} ms\"></i>",
                scale.percent(from),
                scale.percent(scale.from + to - from),
                to - from
            );
        };
        let since = |at| self.origin.since(at);
        if let Some(init) = &step.init {
            bar("init", since(step.began), since(init.ended), "init");
        }
        let mut end_from = since(step.began);
        if let Some(report) = &step.invocation {
            bar("function", since(report.started), since(report.done), "function");
            end_from = since(report.done);
            if let Some(next) = report.next.filter(|next| *next > report.done) {
                bar("added", since(report.done), since(next), "held by the extension");
            }
        }
        if step.end.is_some() {
            bar("end", end_from, since(step.ended), "reset or shutdown");
        }
        for request in block.requests() {
            if let Some(again) = &request.again {
                let (from, to) = (request.at - again.after, request.at);
                let from = from.max(scale.from);
                let (left, width) = (scale.percent(from), scale.percent(scale.from + to - from));
                let _ =
                    write!(track, "<i class=\"retry\" style=\"left:{left};width:{width}\"></i>");
            }
        }
        for request in block.requests() {
            let class = if request.failure.is_some() { "dot failed" } else { "dot" };
            let _ = write!(
                track,
                "<i class=\"{class}\" data-request=\"{}\" style=\"left:{}\" title=\"#{}: {}\"></i>",
                request.number,
                scale.percent(request.at),
                request.number,
                escaped(&request.gist())
            );
        }
        track
    }

    fn block(&self, page: &mut String, index: usize, block: &Block<'_>) {
        if let Some(chapter) = block.step.chapter {
            let _ = writeln!(page, "<h3>{}</h3>", escaped(&capitalised(chapter)));
        }
        let id = block.request_id().unwrap_or_default();
        let _ = writeln!(page, "<article id=\"step-{index}\" data-invocation=\"{}\">", escaped(id));
        if let Some(bill) = &block.bill {
            let _ = writeln!(page, "<div class=\"bill\">{}</div>", in_words(bill, id));
        }
        *page += &self.lane(block);
        *page += "<div class=\"rows\">\n";
        for row in &block.rows {
            match row {
                Row::Event(row) => event(page, row),
                Row::Request(row) => request(page, row),
            }
        }
        *page += "</div>\n</article>\n";
    }

    /// The step's own stretch of time, with the numbers of its requests.
    fn lane(&self, block: &Block<'_>) -> String {
        let (from, ended) =
            (self.origin.since(block.step.began), self.origin.since(block.step.ended));
        let scale = Scale { from, to: ended.max(from + 1.0) };
        let mut labels = String::new();
        let mut free = -1.0;
        for request in block.requests() {
            let share = scale.share(request.at);
            if share >= free {
                let _ = write!(
                    labels,
                    "<span style=\"left:{}\">#{}</span>",
                    scale.percent(request.at),
                    request.number
                );
                free = share + LABEL_ROOM;
            }
        }
        let ticks: String = block
            .events()
            // Times of events have no fraction of a millisecond.
            .filter(|row| row.at >= from - 1.0 && row.at <= scale.to)
            .map(|row| {
                format!(
                    "<i class=\"tick {}\" style=\"left:{}\"></i>",
                    class(row),
                    scale.percent(row.at)
                )
            })
            .collect();
        format!(
            "<div class=\"lane\" aria-hidden=\"true\"><div class=\"labels\">{labels}</div><div class=\"track\">{}</div>\
             <div class=\"ticks\">{ticks}</div><div class=\"ends\"><span>0</span><span>{:.0} ms</span></div></div>\n",
            self.track(block, scale),
            scale.to - scale.from
        )
    }
}

/// A stretch of time that is drawn over the whole width.
#[derive(Clone, Copy)]
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn share(self, at: f64) -> f64 {
        ((at - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    fn percent(self, at: f64) -> String {
        format!("{:.3}%", self.share(at) * 100.0)
    }
}

fn in_words(bill: &Bill, id: &str) -> String {
    let billed = match bill.billed {
        Some(billed) => format!("<b>billed {billed:.0} ms</b>"),
        None => "<b>no platform.report on the stream</b>".to_owned(),
    };
    let part = |class: &str, name: &str, value: f64| {
        format!("<span><i class=\"bar {class}\"></i>{name} {value:.1} ms</span>")
    };
    let init = bill.init.map_or(String::new(), |init| part("init", "init", init));
    let function = part("function", "function", bill.function);
    let added = part("added", "added by the extension", bill.added);
    format!("{billed}{init}{function}{added}<code>{}</code>", escaped(id))
}

fn event(page: &mut String, row: &EventRow) {
    let event = &row.event;
    let failed = if is_failure(event) { " failed" } else { "" };
    let line = String::from_utf8_lossy(&event.line);
    let _ = writeln!(
        page,
        "<details data-event=\"{}\"><summary class=\"row{failed}\"><span class=\"clock\">{}</span>\
         <span class=\"kind {}\">{}</span><span class=\"number\">#{}</span><span class=\"after\">+{:.0} ms</span>\
         <span class=\"text\">{}</span></summary><pre>{}</pre></details>",
        escaped(event.event_id.as_deref().unwrap_or_default()),
        escaped(&row.clock),
        class(row),
        escaped(&event.kind),
        event.put,
        row.arrived_after,
        escaped(&gist(event)),
        escaped(&line)
    );
}

fn request(page: &mut String, row: &RequestRow) {
    let state = match (&row.failure, &row.again) {
        (Some(_), _) => "failed",
        (None, Some(_)) => "again",
        (None, None) => "",
    };
    let records =
        if row.records == 0 { String::new() } else { counted(row.records, "record") + ", " };
    let _ = writeln!(
        page,
        "<div class=\"row request {state}\" data-put=\"{}\"><span class=\"clock\">{}</span><span class=\"kind\">PutRecords</span>\
         <span class=\"number\">#{}</span><span class=\"after\"></span><span class=\"text\">{records}{}</span></div>",
        row.number,
        escaped(&row.clock),
        row.number,
        escaped(&row.gist())
    );
}

/// The colour of an event.
fn class(row: &EventRow) -> &'static str {
    match row.event.kind.as_str() {
        "function" => "log",
        kind if kind.starts_with("kinesis-telemetry.") => "own",
        _ => "platform",
    }
}

fn capitalised(text: &str) -> String {
    let mut signs = text.chars();
    signs.next().map_or(String::new(), |first| first.to_uppercase().chain(signs).collect())
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // What a log line may hold and a page should not.
            sign if sign.is_control() && sign != '\n' => escaped.push('\u{fffd}'),
            sign => escaped.push(sign),
        }
    }
    escaped
}
