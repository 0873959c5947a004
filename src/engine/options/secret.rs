//! The grammar of `--secret NAME[,type=mount|env][,target=…][,uid=…][,gid=…][,mode=…]`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::engine::volume_option::clean_destination;
use crate::error::{Context, Error, Result};
use crate::rootfs::secrets::DIRECTORY;
use crate::support::csv;
use crate::support::text::serialise_as_text;

/// One `--secret`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRequest {
    /// Its name, or its id.
    pub source: String,
    pub how: SecretUse,
}

/// How a container gets a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretUse {
    /// As a file.
    Mount {
        /// A path, or a name below `/run/secrets`; else the secret's.
        target: Option<String>,
        uid: u32,
        gid: u32,
        mode: u32,
    },
    /// As a variable, called as the secret is unless something else is said.
    Environment { variable: Option<String> },
}

/// Everybody in the container may read it, as with docker and podman.
const MODE: u32 = 0o444;

impl SecretRequest {
    /// Gives the absolute path of a target.
    pub fn place(target: &str) -> PathBuf {
        Path::new(DIRECTORY).join(target)
    }

    /// Where a file is made or mounted on, from the root of the container; nowhere for a variable.
    pub fn destination(&self) -> Option<PathBuf> {
        match &self.how {
            SecretUse::Mount { target, .. } => Some(Self::place(target.as_deref().unwrap_or(&self.source))),
            SecretUse::Environment { .. } => None,
        }
    }
}

impl FromStr for SecretRequest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).with_context(|| format!("secret {text:?}"))
    }
}

fn parse(text: &str) -> Result<SecretRequest> {
    let fields = csv::split(text)?;
    let (mut source, mut kind, mut target) = (None, "mount".to_owned(), None);
    let (mut uid, mut gid, mut mode) = (None, None, None);
    for (place, field) in fields.into_iter().enumerate() {
        let Some((name, value)) = field.split_once('=') else {
            if place > 0 {
                return Err(Error::invalid(format!("{field:?} is not NAME=VALUE")));
            }
            source = Some(field);
            continue;
        };
        let number = || value.parse::<u32>().map_err(|_| Error::invalid(format!("{field}: not a number")));
        match name {
            "source" | "src" => source = Some(value.to_owned()),
            "type" if matches!(value, "mount" | "env") => value.clone_into(&mut kind),
            "type" => return Err(Error::invalid(format!("type {value:?} is neither mount nor env"))),
            "target" | "dst" | "destination" => target = Some(value.to_owned()),
            "uid" => uid = Some(number()?),
            "gid" => gid = Some(number()?),
            "mode" => {
                let octal = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777 && !value.starts_with('+'));
                mode = Some(octal.ok_or_else(|| Error::invalid(format!("{field}: not an octal mode up to 0777")))?);
            }
            _ => return Err(Error::invalid(format!("unknown key {name:?}"))),
        }
    }
    let source = source.filter(|source| !source.is_empty()).ok_or_else(|| Error::invalid("no secret is named"))?;
    if kind == "env" {
        if uid.or(gid).or(mode).is_some() {
            return Err(Error::invalid("uid, gid and mode are for files"));
        }
        if target.as_ref().is_some_and(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(Error::invalid("the target is no name of a variable"));
        }
        return Ok(SecretRequest { source, how: SecretUse::Environment { variable: target } });
    }
    let target = match target {
        None => None,
        Some(target) if target.starts_with('/') => Some(clean_destination(&target)?),
        // Cleaned as what it stands for, and kept as what was said.
        Some(target) => {
            let whole = clean_destination(&format!("{DIRECTORY}/{target}"))?;
            let name = whole.strip_prefix(DIRECTORY).and_then(|name| name.strip_prefix('/'));
            Some(name.ok_or_else(|| Error::invalid("the target is empty"))?.to_owned())
        }
    };
    let (uid, gid, mode) = (uid.unwrap_or(0), gid.unwrap_or(0), mode.unwrap_or(MODE));
    Ok(SecretRequest { source, how: SecretUse::Mount { target, uid, gid, mode } })
}

impl fmt::Display for SecretRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = |f: &mut fmt::Formatter<'_>, name: &str, value: &str| {
            if value.contains([',', '"']) {
                write!(f, ",\"{name}={}\"", value.replace('"', "\"\""))
            } else {
                write!(f, ",{name}={value}")
            }
        };
        f.write_str(&self.source)?;
        match &self.how {
            SecretUse::Environment { variable } => {
                f.write_str(",type=env")?;
                variable.as_ref().map_or(Ok(()), |variable| field(f, "target", variable))
            }
            SecretUse::Mount { target, uid, gid, mode } => {
                if let Some(target) = target {
                    field(f, "target", target)?;
                }
                if (*uid, *gid) != (0, 0) {
                    write!(f, ",uid={uid},gid={gid}")?;
                }
                if *mode == MODE { Ok(()) } else { write!(f, ",mode={mode:o}") }
            }
        }
    }
}

serialise_as_text!(SecretRequest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_say_how_a_secret_comes() {
        let file =
            |target: Option<&str>, uid, gid, mode| SecretUse::Mount { target: target.map(Into::into), uid, gid, mode };
        let variable = |name: Option<&str>| SecretUse::Environment { variable: name.map(Into::into) };
        for (text, how, destination) in [
            ("s", file(None, 0, 0, 0o444), Some("/run/secrets/s")),
            ("s,target=a/b", file(Some("a/b"), 0, 0, 0o444), Some("/run/secrets/a/b")),
            ("s,target=/etc/key,uid=5,gid=6,mode=0400", file(Some("/etc/key"), 5, 6, 0o400), Some("/etc/key")),
            ("source=s,type=mount,\"target=a,b\"", file(Some("a,b"), 0, 0, 0o444), Some("/run/secrets/a,b")),
            ("s,type=env", variable(None), None),
            ("s,type=env,target=KEY", variable(Some("KEY")), None),
        ] {
            let request: SecretRequest = text.parse().unwrap();
            assert_eq!((request.source.as_str(), &request.how), ("s", &how), "{text}");
            assert_eq!(request.destination().as_deref(), destination.map(Path::new), "{text}");
            assert_eq!(request.to_string().parse::<SecretRequest>().unwrap(), request, "{text}");
        }
    }

    #[test]
    fn what_means_nothing_is_named() {
        for (text, cause) in [
            ("", "no secret is named"),
            ("s,colour=red", "unknown key \"colour\""),
            ("s,x", "\"x\" is not NAME=VALUE"),
            ("s,type=file", "type \"file\" is neither mount nor env"),
            ("s,mode=9", "mode=9: not an octal mode up to 0777"),
            ("s,type=env,uid=1", "uid, gid and mode are for files"),
            ("s,target=../x", "destination \"/run/secrets/../x\" climbs with .."),
            ("s,type=env,target=A=B", "the target is no name of a variable"),
        ] {
            assert_eq!(text.parse::<SecretRequest>().unwrap_err().report(), format!("secret {text:?}: {cause}"));
        }
    }
}
