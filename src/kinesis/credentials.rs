//! AWS credentials: where they come from, and that they never show.

use std::fmt;

/// An access key, its secret, and the session token that Lambda's roles have. Its `Debug` shows nothing secret.
#[derive(Clone)]
pub struct Keys {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

impl Keys {
    /// As the three environment variables give them.
    #[must_use]
    pub fn new(access_key_id: String, secret_access_key: String, session_token: Option<String>) -> Keys {
        Keys { access_key_id, secret_access_key, session_token }
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

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_secret() {
        let keys = Keys::new("AKIDEXAMPLE".to_owned(), "wJalrXUtnFEMI".to_owned(), Some("token".to_owned()));
        let shown = format!("{keys:?}");
        for secret in ["AKIDEXAMPLE", "wJalrXUtnFEMI", "token"] {
            assert!(!shown.contains(secret));
        }
    }
}
