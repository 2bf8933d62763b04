//! Secrets that a request carries and that its answer repeats. Something on the way that shows
//! requests to people, or that means harm, must not bring them into a log line, the ledger or
//! `--check`. Pure.

use memchr::memmem;

/// A secret is looked for in pieces of so many bytes: an answer may repeat a part of it.
const PIECE: usize = 16;
/// A shorter secret is none, and would hide words that mean something else.
const MIN_SECRET: usize = 8;

/// Writes over each part of `secrets` in `text`, whose length stays as it is.
pub(super) fn mask(text: &mut [u8], secrets: &[Vec<u8>]) {
    for secret in secrets.iter().filter(|secret| secret.len() >= MIN_SECRET) {
        let size = PIECE.min(secret.len());
        for (number, piece) in secret.chunks_exact(size).enumerate() {
            let (before, rest) = secret.split_at(number * size);
            mask_piece(text, before, piece, rest.get(size..).unwrap_or_default());
        }
    }
}

/// Each place where `piece` stands, and as much around it as is part of the secret too.
fn mask_piece(text: &mut [u8], before: &[u8], piece: &[u8], after: &[u8]) {
    let mut from = 0;
    while let Some(found) = memmem::find(text.get(from..).unwrap_or_default(), piece) {
        let (left, right) = text.split_at(from + found);
        let right = right.get(piece.len()..).unwrap_or_default();
        let pairs_left = left.iter().rev().zip(before.iter().rev());
        let start = left.len() - pairs_left.take_while(|(a, b)| a == b).count();
        let pairs_right = right.iter().zip(after);
        let end = left.len() + piece.len() + pairs_right.take_while(|(a, b)| a == b).count();
        text.get_mut(start..end).unwrap_or_default().fill(b'x');
        from = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_long_part_of_a_secret_is_hidden_and_nothing_else() {
        let secret = b"IQoJb3JpZ2luX2VjEXAMPLE/token+of//some+length==".to_vec();
        let hidden = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            mask(&mut bytes, &[b"short".to_vec(), secret.clone()]);
            String::from_utf8(bytes).unwrap()
        };
        let whole = String::from_utf8(secret.clone()).unwrap();
        assert_eq!(hidden("short words stay"), "short words stay");
        for length in 2 * PIECE - 1..=whole.len() {
            for start in 0..=whole.len() - length {
                let part = &whole[start..start + length];
                let expected = format!("a {} b", "x".repeat(length));
                assert_eq!(hidden(&format!("a {part} b")), expected);
            }
        }
        assert_eq!(hidden(&whole.repeat(3)), "x".repeat(3 * whole.len()));
    }

    #[test]
    fn a_secret_shorter_than_a_piece_is_looked_for_as_a_whole() {
        let mut text = b"id is tenant-42, not tenant-4".to_vec();
        mask(&mut text, &[b"tenant-42".to_vec()]);
        assert_eq!(text, b"id is xxxxxxxxx, not tenant-4");
        let mut own = b"xxxxxxxxxxxxxxxxxxxxxxxx".to_vec();
        mask(&mut own, &[b"xxxxxxxx".to_vec()]);
        assert_eq!(own, [b'x'; 24]);
    }
}
