//! What the extension prints: read line by line on a thread per pipe, kept, and fed back as telemetry.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::setup::Setup;
use super::world::{Shared, World};
use super::{Expected, OutputLine, events};
use crate::clock::iso_millis;
use crate::wait::lock;

/// Lines that are kept, of all processes together.
const LINE_LIMIT: usize = 100_000;

/// One pipe of the process.
#[derive(Clone)]
pub(crate) struct Pipe {
    file: Arc<File>,
    /// Held while bytes are between the pipe and the list of lines.
    moving: Arc<Mutex<()>>,
}

impl Pipe {
    pub(crate) fn new(end: OwnedFd) -> Self {
        Self { file: Arc::new(File::from(end)), moving: Arc::default() }
    }

    /// Reads to the end, on a thread of its own.
    pub(crate) fn read(&self, shared: &Shared, stderr: bool, generation: u32) {
        let mut begun = Vec::new();
        let mut chunk = [0; 8192];
        loop {
            let _ = self.readable(PollTimeout::NONE);
            let _moving = lock(&self.moving);
            match (&*self.file).read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(count) => begun.extend_from_slice(&chunk[..count]),
            }
            while let Some(end) = memchr::memchr(b'\n', &begun) {
                let line: Vec<u8> = begun.drain(..=end).collect();
                keep(shared, &line, stderr, generation);
            }
        }
        if !begun.is_empty() {
            keep(shared, &begun, stderr, generation);
        }
    }

    /// Returns when all that has been printed so far has been read.
    pub(crate) fn settle(&self) {
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            let moving = lock(&self.moving);
            if !self.readable(PollTimeout::ZERO) {
                return;
            }
            drop(moving);
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn readable(&self, limit: PollTimeout) -> bool {
        let mut pipes = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        let found = poll(&mut pipes, limit);
        found.is_ok() && pipes[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
    }
}

fn keep(shared: &Shared, line: &[u8], stderr: bool, generation: u32) {
    let text = String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned();
    let line = OutputLine { at: Instant::now(), generation, stderr, text };
    shared.change(|world| printed(world, &shared.setup, line));
}

fn printed(world: &mut World, setup: &Setup, line: OutputLine) {
    let wanted = world.telemetry.subscription.as_ref();
    if setup.feed_back
        && wanted.is_some_and(|wanted| wanted.types.iter().any(|name| name == "extension"))
    {
        let time = iso_millis(SystemTime::now());
        world.emit("extension", events::quoted(&line.text).into_bytes(), Expected::Any, time);
    }
    if world.output.len() < LINE_LIMIT {
        world.output.push(line);
    }
}
