//! The README and the manual say what is there: links, paths, tests and settings that they name exist, and generated tables are up to date.
//!
//! With `UPDATE_DOCS=1` the tests that own a table write it instead of comparing it.

use std::path::{Path, PathBuf};

use kinesis_telemetry_extension::config;
use kinesis_telemetry_extension::dispatch::metrics::Metrics;
use kinesis_telemetry_extension::ledger::Ledger;

/// The manual's folder.
const MANUAL: &str = ".github/docs";
/// The README shows at most so much: the manual has the rest.
const README_LINES: usize = 200;
/// What a path in the repository begins with, where a page shows one.
const ROOMS: [&str; 4] = ["src/", "tests/", "scripts/", ".github/"];
/// The rows of the benchmark that the README shows, and the columns.
const OVERHEAD_ROWS: [&str; 5] = [
    "process start to first /next",
    "resident memory, idle",
    "flood: CPU per event (slim)",
    "small invocations: CPU each, Kinesis at once",
    "time added to a small invocation (`adaptive`), Kinesis in 20 ms",
];
const OVERHEAD_COLUMNS: [&str; 4] =
    ["extension, static", "floor, static", "Rust, AWS SDK", "Node.js, AWS SDK"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the repository.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between `<!-- name -->` and `<!-- /name -->` on a page.
pub(crate) fn table(page: &str, name: &str) -> String {
    let text = read(page);
    let [_, table, _] = split(&text, page, name);
    table.to_owned()
}

fn split<'a>(text: &'a str, page: &str, name: &str) -> [&'a str; 3] {
    let parts = text.split_once(&format!("<!-- {name} -->\n")).and_then(|(before, rest)| {
        Some((before, rest.split_once(&format!("<!-- /{name} -->\n"))?))
    });
    let (before, (table, after)) =
        parts.unwrap_or_else(|| panic!("{page} lacks <!-- {name} --> or <!-- /{name} -->"));
    [before, table, after]
}

/// Whether tables are to be written.
pub(crate) fn updates() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

/// Writes a table with [`updates`].
pub(crate) fn write_table(page: &str, name: &str, table: &str) {
    let text = read(page);
    let [before, _, after] = split(&text, page, name);
    let text = format!("{before}<!-- {name} -->\n{table}<!-- /{name} -->\n{after}");
    std::fs::write(root().join(page), text).unwrap();
}

/// A table that is always the same is on its page as it is made here. `test` is how to write it.
#[track_caller]
pub(crate) fn assert_table(page: &str, name: &str, made: &str, test: &str) {
    if updates() {
        write_table(page, name, made);
    }
    assert!(
        table(page, name) == made,
        "{page}: UPDATE_DOCS=1 cargo test --test it {test} writes the table"
    );
}

/// Every page of the repository, by its path there.
fn pages() -> Vec<String> {
    // What tools install and build has pages of its own.
    const FOREIGN: [&str; 4] = [".git", "target", "node_modules", "cdk.out"];
    let (mut pages, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let name = entry.unwrap().file_name();
            let path = folder.join(&name);
            if root().join(&path).is_dir() {
                if !FOREIGN.iter().any(|foreign| name == *foreign) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    pages
}

/// A page's lines, each with whether it is in a block of code.
fn lines(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut code = false;
    text.lines().map(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        (code || fence, line)
    })
}

/// The texts in backticks, and what is left of the prose without them.
fn spans(text: &str) -> (Vec<&str>, String) {
    let (mut spans, mut prose) = (Vec::new(), String::new());
    for (_, line) in lines(text).filter(|(code, _)| !code) {
        for (number, part) in line.split('`').enumerate() {
            if number % 2 == 1 {
                spans.push(part);
            } else {
                prose += part;
            }
        }
        prose.push('\n');
    }
    (spans, prose)
}

/// The names by which GitHub links to a page's headings.
fn anchors(text: &str) -> Vec<String> {
    let headings = lines(text).filter(|(code, line)| !code && line.starts_with('#'));
    let mut anchors: Vec<String> = Vec::new();
    for (_, line) in headings {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let same = anchors.iter().filter(|known| **known == anchor).count();
        anchors.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
    }
    anchors
}

/// Where a page's links lead.
fn links(prose: &str) -> Vec<&str> {
    prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

#[test]
fn no_link_is_dead() {
    let mut dead = Vec::new();
    for page in pages() {
        let text = read(&page);
        let folder = Path::new(&page).parent().unwrap();
        for link in links(&spans(&text).1).into_iter().filter(|link| !link.starts_with("https://"))
        {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { root().join(&page) } else { root().join(folder).join(path) };
            let found = target.exists()
                && (anchor.is_empty()
                    || anchors(&std::fs::read_to_string(&target).unwrap_or_default())
                        .iter()
                        .any(|known| known == anchor));
            if !found {
                dead.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// `file::name` names a test of that file, in Rust or in Python.
fn is_test(file: &str, name: &str) -> bool {
    let Ok(source) = std::fs::read_to_string(root().join(file)) else { return false };
    if file.ends_with(".py") {
        return source.contains(&format!("def {name}("));
    }
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let start = format!("fn {name}(");
    lines.iter().position(|line| line.starts_with(&start)).is_some_and(|at| {
        // Attributes stand between `#[test]` and the function.
        lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).any(|l| *l == "#[test]")
    })
}

#[test]
fn tests_and_files_that_the_docs_name_exist() {
    let mut missing = Vec::new();
    for page in pages() {
        let text = read(&page);
        let blocks = lines(&text).filter(|(code, _)| *code).map(|(_, line)| line);
        let words = spans(&text).0.into_iter().chain(blocks).flat_map(str::split_whitespace);
        let paths = words.filter(|word| ROOMS.iter().any(|room| word.starts_with(room)));
        for word in paths.filter(|word| !word.contains(['*', '<', '…'])) {
            let word = word.trim_end_matches([',', '.', ':', ';', ')']);
            let good = match word.split_once("::") {
                Some((file, name)) => is_test(file, name),
                None => root().join(word).exists(),
            };
            if !good {
                missing.push(format!("{page}: {word}"));
            }
        }
    }
    assert!(missing.is_empty(), "no such test or file:\n{}", missing.join("\n"));
}

#[test]
fn settings_and_switches_that_the_docs_name_exist() {
    let mut unknown = Vec::new();
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let switches = [read("tests/it/docs.rs"), read("tests/deploy/run")].concat();
    for page in pages() {
        let text = read(&page);
        for word in text.split(|c| !is_name(c)) {
            let setting = word.strip_prefix(config::PREFIX).filter(|name| !name.is_empty());
            let bad_setting = setting
                .is_some_and(|name| !config::SETTINGS.iter().any(|known| known.name == name));
            let bad_switch =
                word.starts_with("UPDATE_") && !switches.contains(&format!("\"{word}\""));
            if bad_setting || bad_switch {
                unknown.push(format!("{page}: {word}"));
            }
        }
    }
    assert!(unknown.is_empty(), "no such variable:\n{}", unknown.join("\n"));
}

#[test]
fn error_codes_that_the_docs_name_are_in_the_table() {
    const ENDS: [&str; 6] = ["Exception", "Failure", "Unavailable", "NotFound", "Timeout", "Tls"];
    let codes = read("src/kinesis/error.rs");
    let mut seen = 0;
    for page in ["README.md".to_owned(), format!("{MANUAL}/faults.md")] {
        let text = read(&page);
        let spans = spans(&text).0.into_iter();
        for code in spans.filter(|span| {
            ENDS.iter().any(|end| span.ends_with(end)) && span.chars().all(char::is_alphanumeric)
        }) {
            assert!(codes.contains(&format!("\"{code}\"")), "{page}: {code}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} codes");
}

#[test]
fn the_manual_explains_every_key_of_the_ledger() {
    let page = read(".github/docs/records.md");
    let record: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&Ledger::default().json(Some("spindown"))).unwrap();
    for key in record.keys() {
        let explained = [format!("`{key}`"), format!("`{key}.")];
        assert!(explained.iter().any(|text| page.contains(text)), "records.md lacks {key}");
    }
}

/// One was missing, so that nobody knew of it who makes alarms by the manual.
#[test]
fn the_manual_names_every_metric() {
    let page = read(".github/docs/records.md");
    let (_, section) = page.split_once("\n## Metrics\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let line = Metrics::default().line(&Ledger::default(), "orders", 0);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let directive = &line["_aws"]["CloudWatchMetrics"][0];
    let names = directive["Metrics"].as_array().unwrap().iter().map(|metric| &metric["Name"]);
    let dimension = &directive["Dimensions"][0][0];
    for name in names.chain([&directive["Namespace"], dimension]) {
        let name = name.as_str().unwrap();
        assert!(section.contains(&format!("`{name}`")), "records.md lacks {name}");
    }
}

#[test]
fn the_readme_is_short_and_leads_to_every_page_of_the_manual() {
    let readme = read("README.md");
    let lines = readme.lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines, and may have {README_LINES}");
    let prose = spans(&readme).1;
    let links = links(&prose);
    for page in pages().iter().filter(|page| page.starts_with(MANUAL)) {
        assert!(links.contains(&page.as_str()), "README.md does not link to {page}");
    }
}

#[test]
fn the_readme_shows_five_rows_of_the_benchmark() {
    let bench = table(".github/docs/benchmarks.md", "bench");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let rows: Vec<Vec<String>> =
        bench.lines().filter(|line| line.starts_with('|')).map(cells).collect();
    let columns = OVERHEAD_COLUMNS.map(|name| {
        let at = rows[0].iter().position(|title| title == name);
        at.unwrap_or_else(|| panic!("the benchmark has no column {name}"))
    });
    let mut made =
        format!("| median | {} |\n|---|---|---|---|---|\n", OVERHEAD_COLUMNS.join(" | "));
    for name in OVERHEAD_ROWS {
        let row = rows.iter().find(|row| row[0] == name);
        let row = row.unwrap_or_else(|| panic!("the benchmark has no row {name}"));
        // Without the ratios: they are to floors that are not shown here.
        let values =
            columns.map(|at| row[at].split_once(" (").map_or(&*row[at], |(value, _)| value));
        made += &format!("| {name} | {} |\n", values.join(" | "));
    }
    assert_table("README.md", "overhead", &made, "five_rows");
}

/// The picture of the demo is drawn from its real output; when the demo changes, `scripts/picture` draws it anew.
#[test]
fn the_picture_of_the_demo_shows_its_chapters() {
    let picture = read(".github/docs/demo.svg");
    let demo =
        ["story", "screen"].map(|part| read(&format!("tests/sandbox/src/bin/demo/{part}.rs")));
    let demo = demo.concat();
    let titles: Vec<&str> = picture
        .split("class=\"chapter\">-- ")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('<')?.0))
        .collect();
    assert!(titles.len() > 3, "the picture has {} chapters", titles.len());
    for title in titles {
        assert!(
            demo.contains(&format!("\"{title}\"")) || demo.contains(&format!("\"-- {title}\"")),
            "the demo has no chapter {title:?}: run scripts/picture"
        );
    }
}
