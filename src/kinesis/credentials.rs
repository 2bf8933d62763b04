//! AWS credentials: how long they are good, and that they never show. Where they come from is
//! `provider.rs`'s business.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::parse_iso8601;

/// New credentials are asked for from this long before the old ones expire. As botocore does.
pub(super) const REFRESH_BEFORE: Duration = Duration::from_secs(15 * 60);
/// After a failed try to renew credentials that are still good: while there is time, and when they
/// expire soon.
pub(super) const REFRESH_RETRY: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(10));
/// Where an answer does not say when its credentials expire.
pub(super) const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// What one call for credentials may take. As AWS's SDKs have it.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer with credentials, in bytes: a longer one is nobody's answer.
pub(super) const MAX_ANSWER: usize = 64 * 1024;
/// As much as a header may have.
pub(super) const MAX_HEADER: usize = 16 * 1024;
/// From here on a failure to renew them is reported. The old ones are used as long as they are good
/// all the same: nothing is won by not sending.
const WARN_BEFORE: Duration = Duration::from_secs(10 * 60);

/// An access key, its secret, and the session token that Lambda's roles have. Its `Debug` shows
/// nothing.
#[derive(Clone)]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

impl Credentials {
    /// As the three environment variables give them.
    #[must_use]
    pub fn new(
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
    ) -> Credentials {
        Credentials { access_key_id, secret_access_key, session_token }
    }

    /// Out of an answer: `None` if one is missing, or is what no header can hold.
    pub(super) fn answered(
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
    ) -> Option<Credentials> {
        let session_token = session_token.filter(|token| !token.is_empty());
        let parts = [Some(&access_key_id), Some(&secret_access_key), session_token.as_ref()];
        let is_legal = |text: &String| {
            (1..=MAX_HEADER).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        };
        let legal = parts.into_iter().flatten().all(is_legal);
        legal.then(|| Credentials::new(access_key_id, secret_access_key, session_token))
    }

    /// The access key's id: not a secret, but not logged either.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    pub(super) fn secret_access_key(&self) -> &str {
        &self.secret_access_key
    }

    pub(super) fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(not shown)")
    }
}

/// Credentials with an end.
#[derive(Debug)]
pub(super) struct ExpiringCredentials {
    pub(super) credentials: Credentials,
    pub(super) expires: SystemTime,
    /// No sooner than this are new ones asked for, while these are good.
    pub(super) refresh_at: SystemTime,
}

impl ExpiringCredentials {
    /// `expiration` as AWS writes it. Credentials that are given out although they have expired:
    /// either their end or a clock is wrong, and Kinesis will say. They are not to be asked for
    /// again with every send.
    pub(super) fn new(
        credentials: Credentials,
        expiration: Option<&str>,
        now: SystemTime,
    ) -> ExpiringCredentials {
        let expires = expiration
            .and_then(parse_iso8601)
            .map(|ms| UNIX_EPOCH + Duration::from_millis(ms))
            .filter(|expires| *expires > now)
            .unwrap_or(now + DEFAULT_LIFETIME);
        // Credentials that come with little time left are what there is: not to be asked for again
        // with every send.
        let early = expires.checked_sub(REFRESH_BEFORE).unwrap_or(now);
        ExpiringCredentials { credentials, expires, refresh_at: early.max(now + REFRESH_RETRY.0) }
    }

    pub(super) fn is_good(&self, now: SystemTime) -> bool {
        now < self.expires
    }

    pub(super) fn expires_soon(&self, now: SystemTime) -> bool {
        now + WARN_BEFORE >= self.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let shown = format!(
            "{:?}",
            Credentials::new(
                "AKIDEXAMPLE".to_owned(),
                "wJalrXUtnFEMI".to_owned(),
                Some("the-token".to_owned())
            )
        );
        assert!(
            !["AKIDEXAMPLE", "wJalrXUtnFEMI", "token"].iter().any(|secret| shown.contains(secret)),
            "{shown}"
        );
    }
}
