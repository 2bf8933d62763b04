//! AWS credentials, and that they never show. Where they come from is `provider.rs`'s business.

use std::fmt;

/// An access key, its secret, and the session token that Lambda's roles have. Its `Debug` shows nothing.
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
