//! JSON that comes as bytes. All of it goes through one of `serde_json`'s two readers, the one for
//! text: the other one would be in the program a second time, with all that is read with it.

use serde::Deserialize;

/// Reads a value. Bytes that are no UTF-8 are read as nothing at all.
///
/// # Errors
/// If the bytes are not JSON, or not such a value.
pub fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    serde_json::from_str(std::str::from_utf8(bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_no_json_is_an_error() {
        assert_eq!(super::read::<u64>(b" 7 ").unwrap(), 7);
        assert!(super::read::<u64>(b"x").is_err());
        assert!(super::read::<String>(b"\"\xff\"").is_err());
    }
}
