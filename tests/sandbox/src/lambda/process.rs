//! The extension's process: started as Lambda starts it, frozen, thawed, killed, watched and measured.
//!
//! Three threads a process: one waits for its end, two read its output. It leads a process group of its own, is
//! signalled by that id only, and is reaped only by this value, so that the id stays its own until then.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::Exit;
use super::output::Pipe;
use super::setup::Setup;
use super::world::Shared;

/// What /proc says of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Resident now, in KiB (VmRSS).
    pub resident_kib: u64,
    /// Of that, what is no page of a file (RssAnon).
    pub anonymous_kib: u64,
    /// Resident at most so far, in KiB (VmHWM).
    pub peak_kib: u64,
    /// Threads now.
    pub threads: u64,
    /// User and system time so far, in steps of 10 ms.
    pub cpu: Duration,
}

impl Stats {
    pub(crate) fn read(pid: i32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok())
                .unwrap_or(0)
        };
        let cpu = cpu(pid).unwrap_or_default();
        Self {
            resident_kib: number("VmRSS"),
            anonymous_kib: number("RssAnon"),
            peak_kib: number("VmHWM"),
            threads: number("Threads"),
            cpu,
        }
    }

    /// This, with what only an earlier look could see: a process that has ended has no memory any more.
    pub(crate) fn or_earlier(self, earlier: Self) -> Self {
        if self.peak_kib > 0 { self } else { Self { cpu: self.cpu.max(earlier.cpu), ..earlier } }
    }
}

/// Clock ticks are 10 ms on every Linux that Rust builds for.
fn cpu(pid: i32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

pub(crate) struct Process {
    child: Child,
    pid: Pid,
    pipes: Vec<Pipe>,
    threads: Vec<JoinHandle<()>>,
    reaped: bool,
}

impl Process {
    /// Starts the extension of this generation; `directory` holds `extensions/`.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        directory: &Path,
        extra: &[(String, String)],
    ) -> io::Result<Self> {
        let setup = &shared.setup;
        let file = install(setup, directory)?;
        let (generation, mut child) = {
            let mut command = command(setup, &file, directory, extra);
            let generation = shared.change(|world| {
                world.started = Instant::now();
                world.generation
            });
            (generation, spawn(&mut command)?)
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let mut threads = Vec::new();
        let ends = [
            (false, child.stdout.take().map(OwnedFd::from)),
            (true, child.stderr.take().map(OwnedFd::from)),
        ];
        let mut pipes = Vec::new();
        for (stderr, end) in ends {
            let Some(pipe) = end.map(Pipe::new) else { continue };
            pipes.push(pipe.clone());
            let shared = Arc::clone(shared);
            threads.push(std::thread::spawn(move || pipe.read(&shared, stderr, generation)));
        }
        let watched = Arc::clone(shared);
        threads.push(std::thread::spawn(move || watch(&watched, pid, generation)));
        Ok(Self { child, pid, pipes, threads, reaped: false })
    }

    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Returns when all that it has printed so far is in the list of lines.
    pub(crate) fn settle_output(&self) {
        self.pipes.iter().for_each(Pipe::settle);
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats::read(self.id())
    }

    /// Returns when every thread of it has stopped.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end && !stopped(self.id()) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        if !self.reaped {
            let _ = killpg(self.pid, signal);
        }
    }

    /// Kills what is left of it and waits for its end.
    pub(crate) fn reap(&mut self) {
        self.kill();
        // The thread that waits for the end must see it before it is reaped.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let _ = self.child.wait();
        self.reaped = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.reap();
        }
    }
}

/// Whether every thread is stopped, or ended.
fn stopped(pid: i32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().chars().next());
        !matches!(state, Some(Some('R' | 'S' | 'D')))
    })
}

/// Puts the binary under its name into `extensions/`.
fn install(setup: &Setup, directory: &Path) -> io::Result<PathBuf> {
    let folder = directory.join("extensions");
    let file = folder.join(&setup.name);
    if file.exists() {
        return Ok(file);
    }
    std::fs::create_dir_all(&folder)?;
    let binary = setup.binary.canonicalize()?;
    if std::fs::hard_link(&binary, &file).is_ok() {
        return Ok(file);
    }
    // On another file system: a link when both ends have the same name, for the name may be taken from either.
    if binary.file_name().is_some_and(|name| name == setup.name.as_str()) {
        std::os::unix::fs::symlink(&binary, &file)?;
    } else {
        std::fs::copy(&binary, &file)?;
    }
    Ok(file)
}

fn command(setup: &Setup, file: &Path, directory: &Path, extra: &[(String, String)]) -> Command {
    let mut command = match setup.runner.split_first() {
        None => Command::new(file),
        Some((runner, arguments)) => {
            let mut command = Command::new(runner);
            command.args(arguments).arg(file);
            command
        }
    };
    command
        .env_clear()
        .envs(setup.environment.iter().map(|(key, value)| (key, value)))
        .envs(extra.iter().map(|(key, value)| (key, value)))
        .current_dir(directory)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A copy may still be held open by a child that another thread is just forking: that is over in a moment.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..100 {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
    command.spawn()
}

/// Notes the end of the process, and leaves it to be reaped.
fn watch(shared: &Shared, pid: Pid, generation: u32) {
    let exit = loop {
        let (code, signal) = match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        {
            Ok(WaitStatus::Exited(_, code)) => (Some(code), None),
            Ok(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
            Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => (None, None),
        };
        break Exit { at: Instant::now(), code, signal };
    };
    shared.change(|world| {
        if world.generation == generation {
            world.exit = Some(exit);
        }
    });
}
