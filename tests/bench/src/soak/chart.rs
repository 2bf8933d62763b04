//! The picture of the curves.

use std::fmt::Write as _;

use crate::Soaked;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 420.0;
/// Where the curves are: left, top, right, bottom.
const FIELD: (f64, f64, f64, f64) = (56.0, 40.0, 700.0, 376.0);
const COLOURS: [&str; 8] =
    ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#57606a", "#cf222e"];

/// All curves in one field; `bound_kib` is a red line.
pub(crate) fn draw(soaked: &[Soaked], bound_kib: u64) -> String {
    let most = soaked
        .iter()
        .map(|life| life.life.curve.peak_kib)
        .chain([bound_kib])
        .max()
        .unwrap_or(bound_kib) as f64
        * 1.1;
    let last = soaked.iter().map(|life| life.life.invocations).max().unwrap_or(1).max(1) as f64;
    let (left, top, right, bottom) = FIELD;
    let x = |invocations: f64| left + (right - left) * invocations / last;
    let y = |kib: f64| bottom - (bottom - top) * kib / most;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="Resident memory over invocations">
<style>
  text {{ font: 12px -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }}
  .title {{ font-weight: 600 }} .grid {{ stroke: #d1d9e0 }} .bound {{ stroke: #d1242f; stroke-dasharray: 4 3 }}
  .curve {{ fill: none; stroke-width: 1.5 }}
</style>
<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>
<text class="title" x="{left}" y="22">Resident memory, MiB, over invocations; in brackets the most; dashed: the bound</text>
"#
    );
    for step in 0..=4 {
        let part = f64::from(step) / 4.0;
        let (down, right_of) = (y(most * part), x(last * part));
        let _ = writeln!(
            svg,
            r#"<line class="grid" x1="{left}" x2="{right}" y1="{down:.1}" y2="{down:.1}"/>"#
        );
        let _ = writeln!(
            svg,
            r#"<text x="{}" y="{:.1}" text-anchor="end">{:.1}</text>"#,
            left - 6.0,
            down + 4.0,
            most * part / 1024.0
        );
        let _ = writeln!(
            svg,
            r#"<text x="{right_of:.1}" y="{}" text-anchor="middle">{:.0}</text>"#,
            bottom + 18.0,
            last * part
        );
    }
    let limit = y(bound_kib as f64);
    let _ = writeln!(
        svg,
        r#"<line class="bound" x1="{left}" x2="{right}" y1="{limit:.1}" y2="{limit:.1}"/>"#
    );
    for (index, each) in soaked.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> = each
            .life
            .curve
            .points
            .iter()
            .map(|(invocations, kib)| {
                format!("{:.1},{:.1}", x(*invocations as f64), y(*kib as f64))
            })
            .collect();
        let _ = writeln!(
            svg,
            r#"<polyline class="curve" stroke="{colour}" points="{}"/>"#,
            points.join(" ")
        );
        let row = top + 8.0 + 18.0 * index as f64;
        let _ = writeln!(
            svg,
            r#"<rect x="{}" y="{}" width="10" height="10" fill="{colour}"/>"#,
            right + 14.0,
            row - 9.0
        );
        let peak = each.life.curve.peak_kib as f64 / 1024.0;
        let _ = writeln!(
            svg,
            r#"<text x="{}" y="{row}">{} {} ({peak:.1})</text>"#,
            right + 30.0,
            each.program.replace('&', "&amp;").replace('<', "&lt;"),
            each.mode
        );
    }
    svg.push_str("</svg>\n");
    svg
}
