//! Text that is not to be seen: passwords and tokens.
//!
//! It has no `Display`, and its `Debug` shows none of it, so that it cannot come into a message, a log or a panic by
//! accident. Whoever needs the text says so by [`Secret::expose`], which can be searched for. It is not wiped from memory.

use std::fmt;

/// A text that prints as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Gives the text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Tells whether there is any text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not even its length.
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn it_does_not_print() {
        let text = format!("{:?} {:#?}", Secret::new("hunter2"), Some(Secret::new("hunter2")));
        assert!(!text.contains("hunter"), "{text}");
    }
}
