//! How often a program asks the kernel to put a thread to sleep or to wake one, as strace counts it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox::{Invocation, Kinesis, ms};

use crate::Result;
use crate::contestant::Contestant;

/// Few and many invocations: the difference is free of start and end.
const INVOCATIONS: (usize, usize) = (50, 450);

/// Where it is.
pub(crate) fn strace() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("strace"))
        .find(|file| file.is_file())
}

/// Calls for each small invocation of a busy sandbox.
pub(crate) fn calls(contestant: &Contestant, strace: &Path, flush: &str) -> Result<f64> {
    let few = counted(contestant, strace, flush, INVOCATIONS.0)?;
    let many = counted(contestant, strace, flush, INVOCATIONS.1)?;
    Ok((many - few) / (INVOCATIONS.1 - INVOCATIONS.0) as f64)
}

fn counted(contestant: &Contestant, strace: &Path, flush: &str, invocations: usize) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("calls");
    let (strace, file) = (strace.to_string_lossy(), output.to_string_lossy());
    // `-DD`: the program itself is the child, and strace watches from a process group of its own,
    // which is not ended with the program's.
    let runner = [&strace, "-DD", "-f", "-c", "-qq", "-e", "trace=futex", "-o", &file];
    let kinesis = Kinesis::builder().count_only().start();
    let sandbox = contestant.sandbox(&kinesis).setting("FLUSH", flush);
    let lambda = sandbox.runner(&runner).without_freeze().start();
    lambda.init()?;
    for number in 0..invocations {
        lambda.invoke(Invocation::new().text(&format!("order {number} taken")))?;
    }
    lambda.shutdown("spindown");
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let text = std::fs::read_to_string(&output).unwrap_or_default();
        if let Some(calls) = read(&text) {
            return Ok(calls);
        }
        if Instant::now() > until {
            return Err("strace wrote nothing".into());
        }
        std::thread::sleep(ms(10));
    }
}

/// The fourth column of the line that ends in the call's name.
fn read(table: &str) -> Option<f64> {
    let line = table.lines().find(|line| line.ends_with("futex"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn straces_table_is_read() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
100.00    0.001234           4       321        12 futex
------ ----------- ----------- --------- --------- ----------------
100.00    0.001234           4       321        12 total
";
        assert_eq!(read(table), Some(321.0));
        assert_eq!(read("% time"), None);
    }
}
