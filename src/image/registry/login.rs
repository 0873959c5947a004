//! What proves to a registry who asks.
//!
//! Secrets are told by no `Debug` and no `Display`: they leave through [`Secret::expose`], which is easy to find.

use std::fmt;

/// A password or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Gives it, to be sent or stored and not to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The credentials for one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A user's name and password (RFC 7617).
    Basic { user: String, password: Secret },
    /// A refresh token of a token server: docker's `identitytoken`.
    IdentityToken(Secret),
}
