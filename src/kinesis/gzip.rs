//! `COMPRESSION=gzip`: one gzip member of what a record or an event holds. Pure.
//!
//! `miniz_oxide` deflates and `crc32fast` checks; the ten bytes before and the eight behind are
//! made here.

use std::fmt;

use crc32fast::Hasher;
use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, compress_to_output, create_comp_flags_from_zip_params,
};

/// What a member begins with: deflate, no name, no time, unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
const TAIL: usize = 8;
/// About what a compressor holds.
pub const STATE_BYTES: usize = 320 * 1024;
/// Higher levels gain less than they cost. Level 1 takes half the time, and 19 % more bytes for an
/// invocation of ten lines; level 2 as much time, and 6 % more bytes (`scripts/cost`).
const LEVEL: i32 = 3;
/// Raw deflate: no wrapper of miniz's own.
const RAW: i32 = -15;

/// A member being written. Kept from one to the next for its tables, some 300 KiB.
pub struct Gzip {
    deflate: Box<CompressorOxide>,
    crc: Hasher,
    length: u32,
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Default for Gzip {
    fn default() -> Gzip {
        Gzip {
            deflate: Box::new(CompressorOxide::new(create_comp_flags_from_zip_params(
                LEVEL, RAW, 0,
            ))),
            crc: Hasher::new(),
            length: 0,
        }
    }
}

impl Gzip {
    /// Begins a member.
    pub fn open(&mut self, out: &mut Vec<u8>) {
        self.deflate.reset();
        (self.crc, self.length) = (Hasher::new(), 0);
        out.extend_from_slice(&HEAD);
    }

    /// Adds to it. What comes out of it may come later.
    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.crc.update(bytes);
        #[expect(clippy::cast_possible_truncation, reason = "the format counts modulo 2^32")]
        let length = bytes.len() as u32;
        self.length = self.length.wrapping_add(length);
        self.deflate(bytes, TDEFLFlush::None, out);
    }

    /// Ends it.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.deflate(&[], TDEFLFlush::Finish, out);
        out.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
    }

    fn deflate(&mut self, bytes: &[u8], flush: TDEFLFlush, out: &mut Vec<u8>) {
        compress_to_output(&mut self.deflate, bytes, flush, |bytes| {
            out.extend_from_slice(bytes);
            true
        });
    }
}

/// The most bytes by which a member is longer than what it holds: its ends, and the head of each
/// block that is stored as it is (a block has at least 31 KiB).
#[must_use]
pub fn overhead(length: usize) -> usize {
    HEAD.len() + TAIL + 16 + (length / (31 * 1024) + 1) * 6
}

/// What a member of ours holds, if that is no more than `most` bytes; `None` for anything else.
#[must_use]
pub fn undo(data: &[u8], most: usize) -> Option<Vec<u8>> {
    let rest = data.strip_prefix(&HEAD)?;
    let rest = rest.get(..rest.len().checked_sub(TAIL)?)?;
    miniz_oxide::inflate::decompress_to_vec_with_limit(rest, most).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zip(gzip: &mut Gzip, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        gzip.open(&mut out);
        parts.iter().for_each(|part| gzip.write(part, &mut out));
        gzip.close(&mut out);
        out
    }

    #[test]
    fn a_member_ends_with_the_check_value_of_crc_32_and_the_length() {
        let zipped = zip(&mut Gzip::default(), &[b"1234", b"56789"]);
        let tail = [0xcbf4_3926_u32.to_le_bytes(), 9_u32.to_le_bytes()].concat();
        assert!(zipped.ends_with(&tail), "{zipped:x?}");
    }

    #[test]
    fn members_one_after_the_other_come_back_and_are_never_much_longer() {
        let mut gzip = Gzip::default();
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[5]
        })
        .take(3_000_000)
        .collect();
        let text =
            b"{\"time\":\"2026-11-23T09:15:45.012Z\",\"type\":\"function\"}\n".repeat(20_000);
        for bytes in [
            &b""[..],
            b"x",
            &noise,
            &noise[..1000],
            &noise[..31 * 1024],
            &noise[..65_535],
            &text,
            &noise[..31 * 1024 + 1],
        ] {
            let zipped = zip(&mut gzip, &bytes.chunks(7001).collect::<Vec<_>>());
            assert!(
                zipped.len() <= bytes.len() + overhead(bytes.len()),
                "{} of {}",
                zipped.len(),
                bytes.len()
            );
            assert!(undo(&zipped, bytes.len()).unwrap() == bytes, "{}", bytes.len());
        }
        assert!(zip(&mut gzip, &[&text]).len() < text.len() / 50);
    }
}
