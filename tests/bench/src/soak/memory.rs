//! What the kernel knows of the memory and the time of a process, and the curve of it.

use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::Result;

/// Points of a curve.
const POINTS: f64 = 400.0;

/// Resident memory over a life.
pub(crate) struct Curve {
    /// Before the first invocation.
    pub(crate) idle_kib: u64,
    /// Invocations so far, and KiB.
    pub(crate) points: Vec<(u64, u64)>,
    /// The most so far, at half of the way.
    pub(crate) half_kib: u64,
    /// The most in all, as the kernel has it.
    pub(crate) peak_kib: u64,
}

impl Curve {
    pub(crate) fn new(idle_kib: u64) -> Curve {
        Curve { idle_kib, points: Vec::new(), half_kib: 0, peak_kib: 0 }
    }

    /// Takes a point when one is due. `progress` is 1 at the end.
    pub(crate) fn sample(&mut self, pid: u32, progress: f64, invocations: u64) -> Result<()> {
        if self.half_kib == 0 && progress >= 0.5 {
            self.half_kib = peak_kib(pid)?;
        }
        if progress * POINTS >= self.points.len() as f64 {
            self.points.push((invocations, resident_kib(pid)?));
        }
        if progress >= 1.0 {
            self.peak_kib = peak_kib(pid)?;
        }
        Ok(())
    }

    /// By which part the peak grew in the second half.
    pub(crate) fn growth(&self) -> f64 {
        self.peak_kib as f64 / self.half_kib.max(1) as f64 - 1.0
    }
}

pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

fn peak_kib(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).ok_or("the process has ended")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// User and system time of all its threads so far, those that have ended included.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    Ok(Duration::from(clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?.now()?))
}
