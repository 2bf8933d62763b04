//! Randomness from the operating system, for ids and jitter, and for the listener's secret path
//! where there is no boot id.

/// 64 random bits. Each call asks the kernel, so two sandboxes restored from one snapshot differ.
/// Without the kernel's randomness (never seen on Linux) the clock and the process id stand in: ids
/// stay apart, nothing secret hangs on it.
#[must_use]
pub fn bits() -> u64 {
    let mut bytes = [0u8; 8];
    match getrandom::getrandom(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => {
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            (u64::from(now.subsec_nanos()) << 32)
                ^ now.as_secs()
                ^ (u64::from(std::process::id()) << 16)
        }
    }
}

/// A number in `0..=max`.
#[must_use]
pub fn up_to(max: u64) -> u64 {
    max.checked_add(1).map_or_else(bits, |bound| bits() % bound)
}

/// 16 hex digits.
#[must_use]
pub fn hex16() -> String {
    format!("{:016x}", bits())
}
