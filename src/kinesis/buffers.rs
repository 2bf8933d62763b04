//! What a connection reads into and writes from. Pure.
//!
//! ureq's own buffers have 144 KiB and are filled with zeros for each connection, and with TLS there
//! are two connections, one in the other: all of that was resident from the first request on, and
//! took longer to fill than a small request takes otherwise. These are small until something large
//! is sent.

use ureq::unversioned::transport::Buffers;

/// The heads of answers, and what comes with them.
const INPUT: usize = 16 * 1024;
/// The longest header, its name, and what stands around it; and what TLS sends at once.
const SMALL_OUTPUT: usize = 20 * 1024;
/// The large requests of a flood are written in pieces of this; smaller pieces cost more CPU.
const LARGE_OUTPUT: usize = 128 * 1024;

/// See the module's page.
#[derive(Debug)]
pub(super) struct SmallBuffers {
    input: Vec<u8>,
    /// The bytes of the input that have come and are not used yet.
    used: usize,
    filled: usize,
    /// Something was used when that was last said: the rest may be enough for more.
    has_progress: bool,
    output: Vec<u8>,
}

impl SmallBuffers {
    /// Empty ones.
    pub(super) fn new() -> SmallBuffers {
        let (input, output) = (vec![0; INPUT], vec![0; SMALL_OUTPUT]);
        SmallBuffers { input, used: 0, filled: 0, has_progress: false, output }
    }

    /// So many bytes of the output were written. If that was all it has room for, there is more.
    pub(super) fn written(&mut self, amount: usize) {
        if amount == self.output.len() && amount < LARGE_OUTPUT {
            self.output = vec![0; LARGE_OUTPUT];
        }
    }

    /// The free part of the input, which is what is behind the unused bytes.
    fn free(&mut self) -> &mut [u8] {
        self.input.copy_within(self.used..self.filled, 0);
        (self.used, self.filled) = (0, self.filled - self.used);
        self.input.get_mut(self.filled..).unwrap_or_default()
    }
}

impl Buffers for SmallBuffers {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        self.input.get(self.used..self.filled).unwrap_or_default()
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.free()
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled = self.input.len().min(self.filled + amount);
    }

    fn input_consume(&mut self, amount: usize) {
        self.has_progress = amount > 0;
        self.used = self.filled.min(self.used + amount);
    }

    /// The first is for bodies in chunks, of which there are none here.
    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut [], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.has_progress && !self.input().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::credentials::MAX_HEADER;
    use super::*;

    #[test]
    fn what_has_come_is_there_until_it_is_used() {
        let mut buffers = SmallBuffers::new();
        for round in 0..3 * INPUT / 100 {
            let come = vec![u8::try_from(round % 251).unwrap(); 100];
            buffers.input_append_buf()[..100].copy_from_slice(&come);
            buffers.input_appended(100);
            assert!(!buffers.can_use_input() || round > 0);
            let [before, after] = [60, 40].map(|count| {
                let all = buffers.input().to_vec();
                buffers.input_consume(count);
                all
            });
            assert_eq!(before, come);
            assert_eq!(after, come[60..]);
            assert!(buffers.input().is_empty() && !buffers.can_use_input());
        }
        buffers.input_append_buf().fill(b'x');
        buffers.input_appended(INPUT);
        assert_eq!(buffers.input(), [b'x'; INPUT]);
        assert!(buffers.input_append_buf().is_empty());
        buffers.input_consume(0);
        assert!(!buffers.can_use_input(), "more has to come first");
    }

    #[test]
    fn the_output_grows_once_something_large_is_sent() {
        let mut buffers = SmallBuffers::new();
        buffers.written(SMALL_OUTPUT - 1);
        assert_eq!(buffers.output().len(), SMALL_OUTPUT);
        buffers.written(SMALL_OUTPUT);
        assert_eq!(buffers.output().len(), LARGE_OUTPUT);
        buffers.written(LARGE_OUTPUT);
        buffers.written(10);
        assert_eq!(buffers.output().len(), LARGE_OUTPUT);
    }

    /// ureq has no other place for a header than the output.
    #[test]
    fn the_longest_header_fits() {
        let mut buffers = SmallBuffers::new();
        assert!(buffers.output().len() > MAX_HEADER + 1024);
    }
}
