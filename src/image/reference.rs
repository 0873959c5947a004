//! Names of images: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
//!
//! Parsed once, by the grammar of the distribution specification, and normalised as docker does it: `alpine` is
//! `docker.io/library/alpine:latest`. What a [`Reference`] holds is safe in URLs and as a part of a file name: no byte of
//! it is a space, a control character, `%`, `?` or `#`, and no part of it begins with a dot. Nothing is looked up here.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

use super::digest::Digest;

/// The registry that names without one mean.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The tag that names without one mean.
pub const DEFAULT_TAG: &str = "latest";

/// Bytes of registry and repository together, as the specification recommends them.
const NAME_BYTES: usize = 255;
const TAG_BYTES: usize = 128;

/// A registry and a repository in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    registry: String,
    path: String,
}

impl Repository {
    /// Gives the registry: `HOST[:PORT]`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Gives the repository's path in its registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Gives the name as people write it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.to_string();
        }
        self.path.strip_prefix("library/").filter(|name| !name.contains('/')).unwrap_or(&self.path).to_owned()
    }

    /// Puts a repository together from parts that were checked or are checked now.
    pub fn new(registry: &str, path: &str) -> Result<Self> {
        check_registry(registry)?;
        if !path.split('/').all(is_component) {
            return Err(Error::invalid(format!("repository {path:?}: not a repository's name")));
        }
        if registry.len() + 1 + path.len() > NAME_BYTES {
            return Err(Error::invalid(format!("the name is longer than {NAME_BYTES} bytes")));
        }
        Ok(Self { registry: registry.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

/// The name of an image, complete.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a name as docker does; what has neither tag nor digest gets the tag `latest`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut reference = Self::parse_exact(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some(DEFAULT_TAG.to_owned());
        }
        Ok(reference)
    }

    /// Parses a name, and adds no tag.
    pub fn parse_exact(text: &str) -> Result<Self> {
        let wrong = |why: String| {
            Error::invalid(format!("image name {text:?}: {why}"))
                .with_hint("names look like [REGISTRY/]NAME[:TAG][@DIGEST]")
        };
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|error| wrong(error.report()))?)),
        };
        // A colon behind the last slash begins a tag; one before it, a port.
        let name_end = rest.rfind(':').filter(|colon| !rest[*colon..].contains('/'));
        let (name, tag) = match name_end {
            None => (rest, None),
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong(format!("{tag:?} is not a tag")));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path.to_owned()),
            Some(_) | None => (DEFAULT_REGISTRY, name.to_owned()),
        };
        let (registry, path) = match registry {
            "index.docker.io" | "registry-1.docker.io" | DEFAULT_REGISTRY if path.contains('/') => {
                (DEFAULT_REGISTRY, path)
            }
            "index.docker.io" | "registry-1.docker.io" | DEFAULT_REGISTRY => {
                (DEFAULT_REGISTRY, format!("library/{path}"))
            }
            other => (other, path),
        };
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) && path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong("a repository's name is lower case".to_owned()));
        }
        // It would be taken for an image's id.
        if !name.contains('/') && name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong("64 hexadecimal digits are an id, not a name".to_owned()));
        }
        let repository = Repository::new(registry, &path).map_err(|error| wrong(error.report()))?;
        Ok(Self { repository, tag: tag.map(ToOwned::to_owned), digest })
    }

    /// Names a tag of a repository.
    pub fn tagged(repository: Repository, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::invalid(format!("{tag:?} is not a tag")));
        }
        Ok(Self { repository, tag: Some(tag.to_owned()), digest: None })
    }

    /// Names a repository as such, for questions about its registry.
    pub fn by_registry(repository: Repository) -> Self {
        Self { repository, tag: None, digest: None }
    }

    /// Names content of a repository.
    pub fn by_digest(repository: Repository, digest: Digest) -> Self {
        Self { repository, tag: None, digest: Some(digest) }
    }

    /// Gives the registry and the repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Gives the tag, if there is one. Beside a digest it says nothing: the digest decides.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Gives the digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Gives what a registry is asked for: the digest, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// Gives the name as people write it.
    pub fn familiar(&self) -> String {
        self.written(&self.repository.familiar())
    }

    fn written(&self, name: &str) -> String {
        let mut text = name.to_owned();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written(&self.repository.to_string()))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// Tells whether the first component of a name is a registry, as docker tells it.
pub(crate) fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Checks a tag: a letter, digit or underscore, then those, dots and dashes; 128 bytes at most.
pub fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_BYTES
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

/// Checks one component of a repository: words of lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !bytes.first().is_some_and(is_word) || !bytes.last().is_some_and(is_word) {
        return false;
    }
    let mut separators = bytes.split(is_word).filter(|separator| !separator.is_empty());
    separators.all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

/// Checks `HOST[:PORT]`: a name, an IPv4 address, or an IPv6 address in brackets.
fn check_registry(text: &str) -> Result<()> {
    let wrong = |why: &str| Err(Error::invalid(format!("registry {text:?}: {why}")));
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return wrong("not an IPv6 address in its brackets");
            }
            (None, rest)
        }
        None => match text.split_once(':') {
            Some((host, _)) => (Some(host), &text[host.len()..]),
            None => (Some(text), ""),
        },
    };
    if !port.is_empty()
        && port.strip_prefix(':').and_then(|digits| digits.parse::<u16>().ok()).is_none_or(|port| port == 0)
    {
        return wrong("not a port behind the colon");
    }
    let is_label = |label: &str| {
        let (first, last) = (label.bytes().next(), label.bytes().last());
        first.is_some_and(|byte| byte.is_ascii_alphanumeric())
            && last.is_some_and(|byte| byte.is_ascii_alphanumeric())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    match host {
        Some(host) if !host.split('.').all(is_label) => wrong("not the name of a host"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("bitnami/redis:7", "docker.io/bitnami/redis:7", "bitnami/redis:7"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
            (
                "127.0.0.1:5000/a/b__c.d-e--f",
                "127.0.0.1:5000/a/b__c.d-e--f:latest",
                "127.0.0.1:5000/a/b__c.d-e--f:latest",
            ),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("Quay/x", "Quay/x:latest", "Quay/x:latest"),
            ("quay.io/a:_x.-Y", "quay.io/a:_x.-Y", "quay.io/a:_x.-Y"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.to_string(), reference.familiar()), (full.to_owned(), familiar.to_owned()), "{text}");
            assert_eq!(Reference::parse(full).unwrap(), reference, "{full} is not itself");
            assert_eq!(Reference::parse(familiar).unwrap(), reference, "{familiar} means something else");
        }
        let both = Reference::parse(&format!("alpine:3@{SHA}")).unwrap();
        assert_eq!((both.tag(), both.selector()), (Some("3"), SHA.to_owned()));
        assert_eq!(both.to_string(), format!("docker.io/library/alpine:3@{SHA}"));
        let digest = Reference::parse(&format!("alpine@{SHA}")).unwrap();
        assert_eq!((digest.tag(), digest.familiar()), (None, format!("alpine@{SHA}")));
    }

    #[test]
    fn what_is_no_name() {
        let long = format!("quay.io/{}", "a".repeat(248));
        let hex = "a".repeat(64);
        let tag = format!("a:{}", "t".repeat(129));
        for text in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "Alpine",
            "quay.io/Alpine",
            "a b",
            "a:",
            "a:.x",
            "a:x y",
            "a@",
            "a@sha256:00",
            "a@md5:00",
            "../x",
            "quay.io/../x",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "quay.io:/x",
            "quay.io:0/x",
            "quay.io:99999/x",
            "quay.io:5000x/x",
            "[::1/x",
            "[zz]/x",
            "user@quay.io/x",
            "https://quay.io/x",
            "a?b",
            "a#b",
            "a%2fb",
            "a\0",
            "ä",
            "-.io/x",
            "a:b:c",
            &long,
            &hex,
            &tag,
        ] {
            let error = Reference::parse(text).expect_err(text);
            assert_eq!(error.kind(), crate::error::Kind::Invalid, "{text}");
        }
        assert!(Reference::parse(&format!("localhost/{hex}")).is_ok(), "behind a registry it is a name");
    }

    proptest::proptest! {
        #[test]
        fn a_name_reads_back_as_itself(text in "[a-zA-Z0-9.:/_@\\[\\]-]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
                assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
            }
        }
    }
}
