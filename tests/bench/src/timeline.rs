//! A cold start and a warm invocation as a picture: who does what, when, and what is billed. Drawn from the medians of the
//! scenario `timeline`, of the shipped program.

use std::fmt::Write as _;

use crate::Result;
use crate::contestant::Contestant;
use crate::report::Report;

const WIDTH: f64 = 900.0;
/// Where names end, and where bars begin and end.
const NAMES: f64 = 132.0;
const BARS: (f64, f64) = (144.0, 880.0);
const HEAD: f64 = 40.0;
const ROW: f64 = 30.0;
/// Below a panel: ticks and air.
const TICKS: f64 = 44.0;
/// What is shorter would not be seen.
const LEAST: f64 = 2.0;

/// What somebody does, from when to when, in milliseconds.
struct Bar {
    lane: usize,
    class: &'static str,
    from: f64,
    to: f64,
    what: &'static str,
}

struct Panel {
    title: String,
    lanes: &'static [&'static str],
    bars: Vec<Bar>,
    /// Milliseconds between two ticks.
    tick: f64,
}

impl Panel {
    fn end(&self) -> f64 {
        self.bars.iter().map(|bar| bar.to).fold(0.0, f64::max)
    }

    fn height(&self) -> f64 {
        HEAD + ROW * self.lanes.len() as f64 + TICKS
    }
}

/// # Errors
/// If the shipped program was not measured.
pub(crate) fn draw(report: &Report<'_>) -> Result<String> {
    let shipped = report.plan.contestants.iter().find(|contestant| contestant.is_shipped());
    let shipped = shipped.ok_or("the timeline needs the static build")?;
    let panels = [cold_start(report, shipped)?, warm_invocation(report, shipped)?];
    let total = panels.iter().map(Panel::height).sum::<f64>() + 20.0;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}" role="img" aria-label="A cold start and a warm invocation, with what is billed">
<style>
  text {{ font: 12px -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }}
  .title {{ font-weight: 600 }} .small {{ font-size: 11px; fill: #59636e }} .grid {{ stroke: #d1d9e0 }}
  .function {{ fill: #8c959f }} .lambda {{ fill: #bc4c00 }} .extension {{ fill: #0969da }} .kinesis {{ fill: #1a7f37 }}
  .billed {{ fill: #d1242f; fill-opacity: .25 }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #f0f6fc }} .small {{ fill: #9198a1 }} .grid {{ stroke: #3d444d }}
    .function {{ fill: #9198a1 }} .lambda {{ fill: #db6d28 }} .extension {{ fill: #4493f8 }} .kinesis {{ fill: #3fb950 }}
    .billed {{ fill: #f85149; fill-opacity: .35 }}
  }}
</style>
"#
    );
    let mut y = 0.0;
    for panel in &panels {
        draw_panel(&mut svg, panel, y);
        y += panel.height();
    }
    let about = report.plan.versions.iter().map(|(name, version)| format!("{name} {version}"));
    let about = about.take(2).collect::<Vec<_>>().join(", ");
    let _ = writeln!(
        svg,
        r#"<text class="small" x="12" y="{:.0}">Medians, on loopback; Kinesis with TLS, answering in 5 ms; {about}.</text>"#,
        total - 8.0
    );
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn at(report: &Report<'_>, contestant: &Contestant, row: &str) -> Result<f64> {
    let samples = report.results.of(row, contestant.id);
    Ok(samples.ok_or_else(|| format!("{row} was not measured"))?.median())
}

fn cold_start(report: &Report<'_>, shipped: &Contestant) -> Result<Panel> {
    let [register, subscribe, next] = ["timeline-register", "timeline-subscribe", "timeline-next"]
        .map(|row| at(report, shipped, row));
    let (register, subscribe, next) = (register?, subscribe?, next?);
    let bar = |lane, class, from, to, what| Bar { lane, class, from, to, what };
    Ok(Panel {
        title: format!(
            "A cold start: what the extension adds to the init is {next:.2} ms, beside the runtime's own"
        ),
        lanes: &["extension", "billed"],
        bars: vec![
            bar(0, "extension", 0.0, register, "process start, settings"),
            bar(0, "lambda", register, subscribe, "register; listener"),
            bar(0, "extension", subscribe, next, "subscribe; /next"),
            bar(1, "billed", 0.0, next, "the init, until extensions and runtime are ready"),
        ],
        tick: 0.2,
    })
}

fn warm_invocation(report: &Report<'_>, shipped: &Contestant) -> Result<Panel> {
    let [done, post, put, over] =
        ["timeline-done", "timeline-post", "timeline-put", "timeline-over"]
            .map(|row| at(report, shipped, row));
    let (done, post, put, over) = (done?, post?, put?, over?);
    let bar = |lane, class, from, to, what| Bar { lane, class, from, to, what };
    Ok(Panel {
        title: format!(
            "A warm invocation that is held to its end: {:.1} ms after the function's end, of which {:.2} ms are the extension's own",
            over - done,
            put - post
        ),
        lanes: &["function", "Telemetry API", "extension", "Kinesis", "billed"],
        bars: vec![
            bar(0, "function", 0.0, done, "runs; the extension waits"),
            bar(1, "lambda", done, post, "holds the last events"),
            bar(2, "extension", post, put, "POST: parse, pack, sign"),
            bar(3, "kinesis", put, over, "PutRecords"),
            bar(4, "billed", 0.0, over, "until the extension calls /next"),
        ],
        tick: 10.0,
    })
}

fn draw_panel(svg: &mut String, panel: &Panel, top: f64) {
    let end = panel.end();
    let x = |ms: f64| BARS.0 + (BARS.1 - BARS.0) * ms / end;
    let bottom = top + HEAD + ROW * panel.lanes.len() as f64;
    let _ =
        writeln!(svg, r#"<text class="title" x="12" y="{:.0}">{}</text>"#, top + 24.0, panel.title);
    for number in 0..=(end / panel.tick) as u32 {
        let (ms, place) = (f64::from(number) * panel.tick, x(f64::from(number) * panel.tick));
        let _ = writeln!(
            svg,
            r#"<line class="grid" x1="{place:.1}" x2="{place:.1}" y1="{:.0}" y2="{bottom:.0}"/><text class="small" x="{place:.1}" y="{:.0}" text-anchor="middle">{}</text>"#,
            top + HEAD,
            bottom + 16.0,
            if panel.tick < 1.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
        );
    }
    for (lane, name) in panel.lanes.iter().enumerate() {
        let middle = top + HEAD + ROW * (lane as f64 + 0.5) + 4.0;
        let _ =
            writeln!(svg, r#"<text x="{NAMES}" y="{middle:.0}" text-anchor="end">{name}</text>"#);
    }
    for bar in &panel.bars {
        let (y, from) = (top + HEAD + ROW * bar.lane as f64, x(bar.from));
        let width = (x(bar.to) - from).max(LEAST);
        let _ = writeln!(
            svg,
            r#"<rect class="{}" x="{from:.1}" y="{:.0}" width="{width:.1}" height="14" rx="2"/>"#,
            bar.class,
            y + 14.0
        );
        // At the side of a bar that has no room for it, where there is some.
        let (place, anchor) =
            if from > WIDTH * 0.7 { (from + width, "end") } else { (from, "start") };
        let _ = writeln!(
            svg,
            r#"<text class="small" x="{place:.1}" y="{:.0}" text-anchor="{anchor}">{}, {:.2} ms</text>"#,
            y + 11.0,
            bar.what,
            bar.to - bar.from
        );
    }
}
