//! Compares two deflaters in pure Rust, level by level: `miniz_oxide`, which the extension uses for `COMPRESSION=gzip`, and
//! `zlib-rs`. Prints a table: CPU for each byte that goes in, and the share of the bytes that comes out.
//!
//! `cargo run --release --manifest-path tests/bench/Cargo.toml --target-dir target --bin deflaters`
//!
//! Both are built for speed; in the layer, `miniz_oxide` is as fast built for size. Both get a record line by line and are reset between
//! records, as the extension does it.

use std::fmt::Write;

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, compress_to_output, create_comp_flags_from_zip_params,
};
use nix::time::{ClockId, clock_gettime};
use zlib_rs::{Deflate, DeflateFlush};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Bytes for each measurement; the least of [`ROUNDS`] counts.
const BYTES: usize = 20_000_000;
const ROUNDS: usize = 5;
const LEVELS: [i32; 6] = [1, 2, 3, 4, 5, 6];

fn main() -> Result<()> {
    let samples = [("ten lines", lines(10)), ("1 MB of lines", lines(2100))];
    println!(
        "| sample | level | `miniz_oxide`: ns a byte | comes out | `zlib-rs`: ns a byte | comes out |\n|---|---|---|---|---|---|"
    );
    for (name, lines) in &samples {
        for level in LEVELS {
            let mut cells = String::new();
            for cost in [
                least(lines, |lines, times| miniz(level, lines, times))?,
                least(lines, |lines, times| zlib(level, lines, times))?,
            ] {
                write!(cells, " {:.2} | {:.1} % |", cost.0, cost.1)?;
            }
            println!("| {name} | {level} |{cells}");
        }
    }
    Ok(())
}

/// Lines as the extension sends them, no two alike: invocations with twelve of them each.
fn lines(count: u64) -> Vec<String> {
    const WORDS: [&str; 16] = [
        "order",
        "payment",
        "customer",
        "retry",
        "connected",
        "fetched",
        "item",
        "total",
        "cart",
        "user",
        "request",
        "response",
        "cache",
        "miss",
        "invoice",
        "latency",
    ];
    let mut state = 1_u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 24
    };
    let mut request = String::new();
    (0..count)
        .map(|n| {
            if n % 12 == 0 {
                request = format!("{:08x}-{:04x}-4000-8000-{:012x}", random() & 0xffff_ffff, random() & 0xffff, random());
            }
            let words: Vec<&str> = (0..18).map(|_| WORDS[(random() % 16) as usize]).collect();
            let time = format!("2026-11-29T10:15:{:02}.{:03}Z", n * 7 / 1000 % 60, n * 7 % 1000);
            format!(
                r#"{{"time":"{time}","type":"function","record":"{time}\t{request}\tINFO\t{} {:016x} took {} ms","id":"{n:010}","requestId":"{request}"}}"#,
                words.join(" "),
                random(),
                random() % 900,
            ) + "\n"
        })
        .collect()
}

/// CPU time in nanoseconds for each byte, and the percentage that comes out.
fn least(lines: &[String], run: impl Fn(&[String], usize) -> Result<usize>) -> Result<(f64, f64)> {
    let bytes: usize = lines.iter().map(String::len).sum();
    let times = BYTES / bytes;
    let (mut least, mut out) = (f64::MAX, 0);
    for _ in 0..ROUNDS {
        let before = cpu()?;
        out = run(lines, times)?;
        least = least.min(cpu()? - before);
    }
    Ok((least / (times * bytes) as f64, 100.0 * out as f64 / bytes as f64))
}

fn cpu() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}

fn miniz(level: i32, lines: &[String], times: usize) -> Result<usize> {
    let mut deflate =
        Box::new(CompressorOxide::new(create_comp_flags_from_zip_params(level, -15, 0)));
    let mut out = Vec::new();
    for _ in 0..times {
        out.clear();
        deflate.reset();
        let mut take = |bytes: &[u8], flush| {
            compress_to_output(&mut deflate, bytes, flush, |bytes| {
                out.extend_from_slice(bytes);
                true
            });
        };
        lines.iter().for_each(|line| take(line.as_bytes(), TDEFLFlush::None));
        take(&[], TDEFLFlush::Finish);
    }
    Ok(out.len())
}

fn zlib(level: i32, lines: &[String], times: usize) -> Result<usize> {
    let mut deflate = Deflate::new(level, false, 15);
    let mut piece = [0; 4096];
    let mut out = Vec::new();
    for _ in 0..times {
        out.clear();
        deflate.reset();
        let mut take = |bytes: &[u8], flush| -> Result<()> {
            let mut rest = bytes;
            loop {
                let (taken, given) = (deflate.total_in(), deflate.total_out());
                deflate.compress(rest, &mut piece, flush).map_err(|error| error.as_str())?;
                let given = usize::try_from(deflate.total_out() - given)?;
                out.extend_from_slice(&piece[..given]);
                rest = &rest[usize::try_from(deflate.total_in() - taken)?..];
                if given < piece.len() && rest.is_empty() {
                    return Ok(());
                }
            }
        };
        for line in lines {
            take(line.as_bytes(), DeflateFlush::NoFlush)?;
        }
        take(&[], DeflateFlush::Finish)?;
    }
    Ok(out.len())
}
