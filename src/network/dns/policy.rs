//! Names that may be asked for: `example.org`, `*.example.org` for what is below it, `*` for all. Looks none up.

use std::collections::HashSet;

use super::name::Name;
use crate::error::{Error, Result};

/// A set of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    exact: HashSet<Name>,
    /// What is below these, and not they themselves.
    below: HashSet<Name>,
}

impl Names {
    /// Parses the names that are allowed.
    ///
    /// # Errors
    ///
    /// [`Kind::Invalid`](crate::error::Kind::Invalid): there can be no such name.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut names = Self::default();
        for text in texts {
            let (set, name) = match text.strip_prefix("*.") {
                Some(name) => (&mut names.below, name),
                None if text == "*" => (&mut names.below, "."),
                None => (&mut names.exact, text),
            };
            let name = Name::parse(name).filter(|name| text == "*" || name.is_host() && !name.is_root());
            let name = name.ok_or_else(|| {
                Error::invalid(format!("{text:?} is not a name, such as example.org or *.example.org"))
            })?;
            set.insert(name.folded());
        }
        Ok(names)
    }

    /// Whether a name is among them; as [`Egress`](super::Egress) gives it.
    pub fn contain(&self, name: &str) -> bool {
        let Some(name) = Name::parse(name).map(|name| name.folded()) else { return false };
        self.exact.contains(&name) || name.parents().any(|parent| self.below.contains(&parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_labels() {
        let names = Names::parse(["Example.org", "*.example.net", "*.a.b.c."]).unwrap();
        for (name, is_in) in [
            ("example.org", true),
            ("EXAMPLE.ORG", true),
            ("www.example.org", false),
            ("www.example.net", true),
            ("a.b.Example.Net", true),
            ("example.net", false),
            ("badexample.net", false),
            ("example.net.evil", false),
            ("x.a.b.c", true),
            ("a.b.c", false),
            (".", false),
            // As a label with a dot in it is written.
            ("www\\.example.org", false),
        ] {
            assert_eq!(names.contain(name), is_in, "{name}");
        }
        let all = Names::parse(["*"]).unwrap();
        assert!(all.contain("example.org") && !all.contain("."));
        assert!(!Names::default().contain("example.org"));
        for text in ["", ".", "*.", "**.x", "a.*.b", "*x.example.org", "a..b", "a b", &"x".repeat(64)] {
            assert!(Names::parse([text]).is_err(), "{text}");
        }
    }
}
