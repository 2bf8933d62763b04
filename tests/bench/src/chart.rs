//! The chart that the README and the manual show: one panel for each measure with a scale of its own, logarithmic, for a Node.js process is a hundred floors.

use std::fmt::Write as _;

use crate::contestant::{Contestant, Kind};
use crate::measure::{ALL, Measure, Unit};
use crate::report::{Report, short};

const PANELS: [&str; 4] = ["start", "idle", "flood-cpu", "flood-rate"];

const WIDTH: f64 = 900.0;
/// Of a panel: a title, rows, and air.
const ROW: f64 = 22.0;
const HEAD: f64 = 34.0;
const AIR: f64 = 22.0;
/// Where the names end, the dots begin, and the dots end.
const NAMES: f64 = 140.0;
const DOTS: (f64, f64) = (154.0, 310.0);

pub(crate) fn draw(report: &Report<'_>) -> String {
    let rows = report.compared().count() as f64;
    let height = HEAD + rows * ROW + AIR;
    let footer = footer(report);
    let total = 2.0 * height + 12.0 + 16.0 * footer.len() as f64;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}" role="img" aria-label="The extension beside the floor and its peers">
<style>
  text {{ font: 12px -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }}
  .title {{ font-weight: 600 }} .small {{ font-size: 11px; fill: #59636e }}
  .line {{ stroke: #d1d9e0 }} .bound {{ stroke: #d1242f; stroke-width: 2 }}
  .floor {{ fill: #8c959f }} .extension {{ fill: #0969da }} .peer {{ fill: #bc4c00 }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #f0f6fc }} .small {{ fill: #9198a1 }} .line {{ stroke: #3d444d }} .bound {{ stroke: #f85149 }}
    .floor {{ fill: #9198a1 }} .extension {{ fill: #4493f8 }} .peer {{ fill: #db6d28 }}
  }}
</style>
"#
    );
    for (index, id) in PANELS.iter().enumerate() {
        let Some(measure) = ALL.iter().find(|measure| measure.id == *id) else { continue };
        let (x, y) = ((index % 2) as f64 * WIDTH / 2.0, (index / 2) as f64 * height);
        panel(&mut svg, report, measure, x, y);
    }
    for (index, line) in footer.iter().enumerate() {
        let _ = writeln!(
            svg,
            r#"<text class="small" x="12" y="{:.0}">{}</text>"#,
            2.0 * height + 16.0 + 16.0 * index as f64,
            escape(line)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// What the marks mean, where and with what it was measured, in lines that fit.
fn footer(report: &Report<'_>) -> Vec<String> {
    let mut lines = vec!["Medians, on logarithmic scales; in brackets times the floor. Red: the bound that is kept for the static build.".to_owned()];
    for fact in report.where_and_what().iter().filter(|line| !line.starts_with("load")) {
        let mut line = String::new();
        for part in fact.split(", ") {
            if line.len() + part.len() > 120 {
                lines.push(std::mem::take(&mut line) + ",");
            }
            line += if line.is_empty() { "" } else { ", " };
            line += part;
        }
        lines.push(line);
    }
    lines
}

fn panel(svg: &mut String, report: &Report<'_>, measure: &Measure, x: f64, y: f64) {
    let better = if measure.unit == Unit::PerSecond { "more is better" } else { "less is better" };
    let _ = writeln!(svg, r#"<g transform="translate({x} {y})">"#);
    let _ = writeln!(
        svg,
        r#"<text class="title" x="12" y="20">{}</text><text class="small" x="438" y="20" text-anchor="end">{better}</text>"#,
        escape(&measure.whole_title())
    );
    let values: Vec<(&Contestant, f64)> = report
        .compared()
        .filter_map(|contestant| {
            Some((contestant, report.results.of(measure.id, contestant.id)?.median()))
        })
        .collect();
    let least = values.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let span = (most / least).ln().max(0.7);
    let place =
        |value: f64| DOTS.0 + (DOTS.1 - DOTS.0) * ((value / least).ln() / span).clamp(0.0, 1.0);
    for (row, contestant) in report.compared().enumerate() {
        let middle = HEAD + ROW * row as f64 + ROW / 2.0;
        let _ = writeln!(
            svg,
            r#"<text x="{NAMES}" y="{:.0}" text-anchor="end">{}</text>"#,
            middle + 4.0,
            escape(contestant.title)
        );
        let _ = writeln!(
            svg,
            r#"<line class="line" x1="{}" x2="{}" y1="{middle:.0}" y2="{middle:.0}"/>"#,
            DOTS.0, DOTS.1
        );
        let Some((_, value)) = values.iter().find(|(other, _)| other.id == contestant.id) else {
            continue;
        };
        if let Some(limit) = bound(report, measure, contestant) {
            let at = place(limit);
            let _ = writeln!(
                svg,
                r#"<line class="bound" x1="{at:.1}" x2="{at:.1}" y1="{:.0}" y2="{:.0}"/>"#,
                middle - 7.0,
                middle + 7.0
            );
        }
        let class = match contestant.kind {
            Kind::Floor => "floor",
            Kind::Extension => "extension",
            Kind::Peer | Kind::Producer | Kind::Product => "peer",
        };
        let _ = writeln!(
            svg,
            r#"<circle class="{class}" cx="{:.1}" cy="{middle:.0}" r="5"/>"#,
            place(*value)
        );
        let ratio =
            report.results.ratio(measure, contestant).filter(|_| contestant.kind != Kind::Floor);
        let ratio = ratio.map_or(String::new(), |ratio| format!(" ({}×)", short(ratio)));
        let _ = writeln!(
            svg,
            r#"<text x="{}" y="{:.0}">{}{ratio}</text>"#,
            DOTS.1 + 12.0,
            middle + 4.0,
            measure.unit.show(*value)
        );
    }
    svg.push_str("</g>\n");
}

/// Where the contestant's bound lies, in the measure's unit.
fn bound(report: &Report<'_>, measure: &Measure, contestant: &Contestant) -> Option<f64> {
    if !contestant.is_shipped() {
        return None;
    }
    let limit = measure.bound?;
    let ratio = report.results.ratio(measure, contestant)?;
    Some(report.results.of(measure.id, contestant.id)?.median() / ratio * limit)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
