//! A share of a CPU as a sandbox of 128 MB has it, and a function that needs all of it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use sandbox::{Invocation, Lambda};

use crate::{Result, process};

/// A full CPU comes with 1,769 MB.
const SHARE: f64 = 128.0 / 1769.0;
/// The period over which Lambda counts, in microseconds.
const PERIOD: u64 = 20_000;
/// CPU time that the function needs at least.
const WORK: Duration = Duration::from_millis(10);

/// A control group; removed with the value, when nothing is left in it.
pub(crate) struct Share {
    folder: PathBuf,
}

impl Share {
    /// `None` where none can be made: that needs root, and a `cpu` controller of either version.
    pub(crate) fn of_128_mb() -> Option<Share> {
        let name = format!("telemetry-bench-{}", std::process::id());
        let quota = (PERIOD as f64 * SHARE) as u64;
        let versions: [(&str, &[(&str, String)]); 2] = [
            (
                "/sys/fs/cgroup/cpu",
                &[
                    ("cpu.cfs_period_us", PERIOD.to_string()),
                    ("cpu.cfs_quota_us", quota.to_string()),
                ],
            ),
            ("/sys/fs/cgroup", &[("cpu.max", format!("{quota} {PERIOD}"))]),
        ];
        versions.into_iter().find_map(|(root, files)| {
            let folder = PathBuf::from(root).join(&name);
            fs::create_dir(&folder).ok()?;
            let share = Share { folder };
            files
                .iter()
                .all(|(file, value)| fs::write(share.folder.join(file), value).is_ok())
                .then_some(share)
        })
    }

    /// CPU time in each of `count` rounds. The group's time comes once a period, so a function that ends just before its time is used up
    /// waits for a whole period more if anything else needs some: the rounds end at all moments of one.
    pub(crate) fn work(round: u32, count: u32) -> Duration {
        WORK + Duration::from_micros(PERIOD).mul_f64(SHARE) * round / count
    }

    /// The process gets no more than that from now on, on one CPU. A group hands its time to one CPU
    /// after the other: on another one than the extension's, a function would not count as running
    /// whenever the extension runs. In a virtual machine that gets less time as a whole it does.
    pub(crate) fn add(&self, pid: i32) -> Result<()> {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string())?;
        let mut one = CpuSet::new();
        one.set(0)?;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?.file_name().to_string_lossy().parse()?;
            sched_setaffinity(Pid::from_raw(thread), &one)?;
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What one invocation of it came to.
pub(crate) struct Ran {
    /// How long the function ran, in ms.
    pub(crate) ms: f64,
    /// CPU time of the extension meanwhile, in us.
    pub(crate) beside_us: f64,
}

/// One invocation of it, in which the function needs so much CPU time.
pub(crate) fn function(lambda: &Lambda, share: &Share, work: Duration) -> Result<Ran> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["burn", &work.as_micros().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    share.add(i32::try_from(child.id())?)?;
    let (mut input, output) = (child.stdin.take(), child.stdout.take());
    let (tell, told) = mpsc::channel();
    let clock = process::clock(lambda)?;
    let before = Duration::from(clock.now()?);
    lambda.invoke(Invocation::new().text("order taken").run(move |_| {
        let mut line = String::new();
        let _ = input.as_mut().map(|input| input.write_all(b"\n"));
        let _ = output.map(|output| BufReader::new(output).read_line(&mut line));
        let _ = tell.send((line, clock.now()));
    }))?;
    child.wait()?;
    let (line, after) = told.recv()?;
    let beside = Duration::from(after?).saturating_sub(before);
    Ok(Ran { ms: line.trim().parse()?, beside_us: beside.as_secs_f64() * 1e6 })
}

/// The function's process: waits for a line, burns so much CPU, and says how long that took in ms.
pub(crate) fn burn(work: Duration) -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let begun = Instant::now();
    let cpu = || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from);
    let end = cpu()? + work;
    while cpu()? < end {
        std::hint::black_box((0..1000u64).fold(1, |sum: u64, number| sum.wrapping_mul(number | 1)));
    }
    println!("{:.3}", begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
