//! Where an image comes from, as typed on the command line.
//!
//! Only reads words: nothing is opened here. The grammar is that of skopeo and podman, so that one word works in all of
//! them: the path ends at the first colon, and what follows names one image of several.

use std::path::PathBuf;

use crate::error::{Error, Result};

use super::digest::Digest;
use super::reference::Reference;

/// What IMAGE means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image by its name, or its id: in the store, or else in a registry.
    Named(String),
    /// `docker://NAME`: an image in a registry.
    Registry(Reference),
    /// An image in files on this machine.
    Local(Local),
    /// `dir:ROOTFS`: a root file system as it is.
    Directory(PathBuf),
    /// `host:`: this machine's own root file system, below a throwaway layer.
    Host,
}

/// An image in files on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub format: Format,
    pub path: PathBuf,
    pub selector: Selector,
}

/// How the files are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `oci:DIR`
    OciLayout,
    /// `oci-archive:FILE`
    OciArchive,
    /// `docker-archive:FILE`
    DockerArchive,
}

impl Format {
    /// Gives the word before the path.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::OciLayout => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
        }
    }
}

/// Which of the images is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The only one, or the one for this platform.
    Only,
    /// The one with this name.
    Name(String),
    /// The one at this place, counted from zero (`:@2`).
    Place(usize),
}

impl Source {
    /// Reads what was typed as IMAGE.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(Reference::parse(name)?));
        }
        let Some((scheme, rest)) = text.split_once(':') else { return named(text) };
        let format = match scheme {
            "oci" => Format::OciLayout,
            "oci-archive" => Format::OciArchive,
            "docker-archive" => Format::DockerArchive,
            "dir" => return Ok(Self::Directory(path(text, rest)?)),
            "host" if rest.is_empty() => return Ok(Self::Host),
            "host" => return Err(Error::invalid(format!("image {text:?}: nothing follows host:"))),
            _ => return named(text),
        };
        let (path_text, selector) = match rest.split_once(':') {
            None => (rest, Selector::Only),
            Some((path, name)) => (path, selector(text, name)?),
        };
        Ok(Self::Local(Local { format, path: path(text, path_text)?, selector }))
    }
}

fn path(text: &str, path: &str) -> Result<PathBuf> {
    match path {
        "" => Err(Error::invalid(format!("image {text:?}: the path is missing"))),
        path if path.contains('\0') => Err(Error::invalid(format!("image {text:?}: the path holds a NUL"))),
        path => Ok(path.into()),
    }
}

fn selector(text: &str, name: &str) -> Result<Selector> {
    match name.strip_prefix('@') {
        _ if name.is_empty() => Err(Error::invalid(format!("image {text:?}: nothing follows the last colon"))),
        None => Ok(Selector::Name(name.to_owned())),
        Some(place) if place.bytes().all(|letter| letter.is_ascii_digit()) => place
            .parse()
            .map(Selector::Place)
            .map_err(|_| Error::invalid(format!("image {text:?}: {place:?} is not the place of an image"))),
        Some(place) => Err(Error::invalid(format!("image {text:?}: {place:?} is not the place of an image"))),
    }
}

/// Reads a name, or the beginning of an id, which looks like one.
fn named(text: &str) -> Result<Source> {
    let is_id = text.parse::<Digest>().is_ok() || text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        Reference::parse(text)?;
    }
    Ok(Source::Named(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn local(format: Format, path: &str, selector: Selector) -> Source {
        Source::Local(Local { format, path: path.into(), selector })
    }

    #[test]
    fn words_are_read() {
        use Format::{DockerArchive, OciArchive, OciLayout};
        for (text, expected) in [
            ("oci:/tmp/x", local(OciLayout, "/tmp/x", Selector::Only)),
            ("oci:x:latest", local(OciLayout, "x", Selector::Name("latest".into()))),
            ("oci:x:docker.io/a:b", local(OciLayout, "x", Selector::Name("docker.io/a:b".into()))),
            ("oci:x:@1", local(OciLayout, "x", Selector::Place(1))),
            ("oci-archive:x.tar:t", local(OciArchive, "x.tar", Selector::Name("t".into()))),
            ("docker-archive:x.tar", local(DockerArchive, "x.tar", Selector::Only)),
            ("docker-archive:x.tar:a:b", local(DockerArchive, "x.tar", Selector::Name("a:b".into()))),
            ("dir:/a:b", Source::Directory("/a:b".into())),
            ("host:", Source::Host),
        ] {
            assert_eq!(Source::parse(text).unwrap(), expected, "{text}");
        }
        for text in [
            "oci:",
            "oci:x:",
            "oci-archive::t",
            "dir:",
            "host:x",
            "oci:x:@",
            "oci:x:@+1",
            "oci:x:@99999999999999999999",
        ] {
            assert_eq!(Source::parse(text).unwrap_err().kind(), Kind::Invalid, "{text}");
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in ["alpine", "alpine:3", "127.0.0.1:5000/x:1", "0a1b", &digest, &digest[7..]] {
            assert_eq!(Source::parse(text).unwrap(), Source::Named(text.to_owned()));
        }
        assert_eq!(Source::parse("docker://a/b").unwrap(), Source::Registry("a/b".parse().unwrap()));
        for text in ["", "Alpine", "docker://", "docker:x y", "http://a.io/b"] {
            assert_eq!(Source::parse(text).unwrap_err().kind(), Kind::Invalid, "{text}");
        }
    }
}
