//! Platforms: which of the images in an index this machine can run.
//!
//! Names are Go's (`amd64`, `arm64`). A variant is a level: a machine runs its own and those below it.

use std::fmt;

use oci_spec::image::Platform as Described;

use crate::error::{Error, Result};

/// An operating system and a processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Platform {
    /// Gives the platform of this machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None), // riscv64 and s390x are called the same
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.map(Into::into) }
    }

    /// Parses `[linux/]ARCHITECTURE[/VARIANT]`, as `--platform` takes it.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("platform {text:?}: not of the form OS/ARCHITECTURE[/VARIANT]"));
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(wrong()),
        };
        if parts.iter().any(|part| {
            part.is_empty() || !part.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"_-".contains(&letter))
        }) {
            return Err(wrong());
        }
        Ok(Self::named(os, architecture, variant))
    }

    /// Brings the spellings of a platform to one.
    pub(crate) fn named(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "i386" => ("386", None),
            "aarch64" | "arm64" => ("arm64", Some("v8")),
            "armhf" | "arm" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            other => (other, None),
        };
        let variant = match variant.filter(|variant| !variant.is_empty()) {
            Some(number @ ("5" | "6" | "7" | "8")) => Some(format!("v{number}")),
            Some("v1") if architecture == "amd64" => None,
            Some(other) => Some(other.to_owned()),
            None => implied.map(ToOwned::to_owned),
        };
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant }
    }

    pub(crate) fn described(platform: &Described) -> Self {
        Self::named(
            &platform.os().to_string(),
            &platform.architecture().to_string(),
            platform.variant().as_ref().map(String::as_str),
        )
    }

    /// Ranks an image for this platform: none if it cannot run, else the higher the better.
    pub(crate) fn rank(&self, image: &Self) -> Option<u32> {
        if self.os != image.os || self.architecture != image.architecture {
            return None;
        }
        // amd64 without a variant is level 1: asking for less than the machine has is always right.
        let (ours, theirs) = (level(self.variant.as_deref())?, level(image.variant.as_deref())?);
        (theirs <= ours).then_some(theirs)
    }
}

fn level(variant: Option<&str>) -> Option<u32> {
    match variant {
        None => Some(1),
        Some(text) => text.strip_prefix('v')?.parse().ok(),
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            // v8 is what arm64 means.
            Some(variant) if self.architecture != "arm64" || variant != "v8" => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_and_levels() {
        for (machine, image, rank) in [
            ("linux/amd64", "linux/amd64", Some(1)),
            ("linux/amd64", "linux/x86_64", Some(1)),
            ("linux/amd64", "linux/amd64/v1", Some(1)),
            ("linux/amd64", "linux/amd64/v3", None),
            ("linux/amd64/v3", "linux/amd64/v2", Some(2)),
            ("linux/amd64", "linux/386", None),
            ("linux/arm64", "linux/arm64/v8", Some(8)),
            ("linux/arm64", "linux/aarch64", Some(8)),
            ("linux/arm/v7", "linux/arm/v6", Some(6)),
            ("linux/arm/v6", "linux/arm", None),
            ("linux/arm/v7", "linux/arm/7", Some(7)),
            ("linux/amd64", "windows/amd64", None),
            ("amd64", "linux/amd64", Some(1)),
        ] {
            let (machine, image) = (Platform::parse(machine).unwrap(), Platform::parse(image).unwrap());
            assert_eq!(machine.rank(&image), rank, "{machine} runs {image}");
        }
        for text in ["", "/", "linux/", "linux/amd64/", "a/b/c/d", "linux/../x"] {
            assert!(Platform::parse(text).is_err(), "{text}");
        }
    }
}
