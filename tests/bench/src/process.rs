//! What the kernel knows of a process that is being measured.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use sandbox::Lambda;

use crate::Result;

/// User and system time of all its threads so far, those that have ended included.
pub(crate) fn cpu(lambda: &Lambda) -> Result<Duration> {
    Ok(Duration::from(clock(lambda)?.now()?))
}

/// The clock that says so.
pub(crate) fn clock(lambda: &Lambda) -> Result<ClockId> {
    Ok(clock_getcpuclockid(pid(lambda)?)?)
}

/// Pages that it has touched for the first time so far, and found without the disk.
pub(crate) fn page_faults(lambda: &Lambda) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid(lambda)?))?;
    // The name in parentheses may hold spaces.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    Ok(fields.split_ascii_whitespace().nth(7).unwrap_or_default().parse()?)
}

/// Ends it at once, with the time to write down what was counted.
pub(crate) fn terminate(lambda: &Lambda) -> Result<()> {
    Ok(kill(pid(lambda)?, Signal::SIGTERM)?)
}

fn pid(lambda: &Lambda) -> Result<Pid> {
    Ok(Pid::from_raw(lambda.pid().ok_or("the process has ended")?))
}
