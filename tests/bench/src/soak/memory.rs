//! What the kernel knows of the memory and the time of a process, and the curve of it.

use std::ops::Range;
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
    pub(crate) fn sample(
        &mut self,
        process: &Process,
        progress: f64,
        invocations: u64,
    ) -> Result<()> {
        let due = progress * POINTS >= self.points.len() as f64;
        let half = self.half_kib == 0 && progress >= 0.5;
        if due || half || progress >= 1.0 {
            let (now, peak) = process.resident_kib()?;
            if due {
                self.points.push((invocations, now));
            }
            self.peak_kib = self.peak_kib.max(peak);
            if half {
                self.half_kib = self.peak_kib;
            }
        }
        Ok(())
    }

    /// By which part the peak grew in the second half.
    pub(crate) fn growth(&self) -> f64 {
        self.peak_kib as f64 / self.half_kib.max(1) as f64 - 1.0
    }
}

/// A process to look at, and where in its memory.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Only these addresses: those of the program that an emulator runs.
    pub(crate) within: Option<Range<u64>>,
}

impl Process {
    /// What is resident now, and what was at the most, if the kernel knows more of that.
    pub(crate) fn resident_kib(&self) -> Result<(u64, u64)> {
        if let Some(within) = &self.within {
            let kib = resident_within(&self.read("smaps")?, within);
            return Ok((kib, kib));
        }
        let status = self.read("status")?;
        let kib = |key: &str| kib(&status, key).ok_or("the process has ended");
        Ok((kib("VmRSS:")?, kib("VmHWM:")?))
    }

    fn read(&self, file: &str) -> Result<String> {
        Ok(std::fs::read_to_string(format!("/proc/{}/{file}", self.pid))?)
    }

    /// User and system time of all its threads so far, those that have ended included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(Duration::from(clock_getcpuclockid(Pid::from_raw(i32::try_from(self.pid)?))?.now()?))
    }
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The sum over the mappings that begin within the range.
fn resident_within(smaps: &str, within: &Range<u64>) -> u64 {
    let mut inside = false;
    let mut sum = 0;
    for line in smaps.lines() {
        let start = line.split_once('-').and_then(|(start, _)| u64::from_str_radix(start, 16).ok());
        match start {
            Some(start) => inside = within.contains(&start),
            None if inside => sum += kib(line, "Rss:").unwrap_or(0),
            None => {}
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_emulator_runs_is_counted() {
        let smaps = "00400000-00500000 r-xp 00000000 00:00 0 /qemu\nSize: 1024 kB\nRss:  900 kB\n100000000000-100000010000 rw-p 0 0\nRss:  64 kB\n\
                     100000010000-100000020000 rw-p 0 0\nRss:  8 kB\n7f0000000000-7f0000010000 rw-p 0 0\nRss:  32 kB\n";
        assert_eq!(resident_within(smaps, &(0x1000_0000_0000..0x1000_4000_0000)), 72);
        assert_eq!(resident_within(smaps, &(0..0x1000_0000)), 900);
    }
}
