//! The names of a layer's entries: split into components, and read for what they mean in a layer.
//!
//! A name is bytes, not text. It is never handed to the kernel whole: only single components are, which can be neither
//! empty nor `.` nor `..` nor hold a slash.

use crate::error::{Error, Result};
use crate::image::limits;

/// What an entry's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// Make `name` in the directory.
    Make { name: &'a [u8] },
    /// The layer's own root directory.
    Root,
    /// Hide `name` of the layers below (`.wh.NAME`).
    Whiteout { name: &'a [u8] },
    /// Hide all that the layers below have in the directory (`.wh..wh..opq`).
    Opaque,
    /// AUFS's own housekeeping, which old images carry.
    Skip,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk"];

/// Splits a path into components. A leading slash means the layer's root, as it does to docker.
pub(super) fn split(path: &[u8]) -> Result<Vec<&[u8]>> {
    if path.is_empty() {
        return Err(Error::invalid("the name is empty"));
    }
    if path.len() > limits::PATH_BYTES {
        return Err(Error::invalid(format!("limit: the name is longer than {} bytes", limits::PATH_BYTES)));
    }
    if path.contains(&0) {
        return Err(Error::invalid("the name holds a NUL"));
    }
    let mut components = Vec::with_capacity(8);
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(Error::invalid("the name climbs with `..`")),
            component => components.push(component),
        }
    }
    if components.len() > limits::PATH_DEPTH {
        return Err(Error::invalid(format!("limit: the name is deeper than {} directories", limits::PATH_DEPTH)));
    }
    Ok(components)
}

/// Reads components as the name of an entry: where it goes, and what it asks for.
pub(super) fn read<'a, 'b>(components: &'b [&'a [u8]]) -> Result<(&'b [&'a [u8]], Meaning<'a>)> {
    let Some((last, parents)) = components.split_last() else { return Ok((&[], Meaning::Root)) };
    if AUFS.iter().any(|name| components.contains(name)) {
        return Ok((&[], Meaning::Skip));
    }
    if parents.iter().any(|name| name.starts_with(WHITEOUT)) {
        return Err(Error::invalid("the name goes through a whiteout"));
    }
    let meaning = match last.strip_prefix(WHITEOUT) {
        None => Meaning::Make { name: last },
        Some(_) if *last == OPAQUE => Meaning::Opaque,
        // What would be hidden is nothing, the directory, the directory above, or a whiteout.
        Some(b"" | b"." | b"..") => return Err(Error::invalid("a whiteout of nothing")),
        Some(name) if name.starts_with(WHITEOUT) => return Err(Error::invalid("a whiteout of a whiteout")),
        Some(name) => Meaning::Whiteout { name },
    };
    Ok((parents, meaning))
}

/// Reads components as a name that means itself, whatever it begins with.
pub(super) fn read_plainly<'a, 'b>(components: &'b [&'a [u8]]) -> (&'b [&'a [u8]], Meaning<'a>) {
    match components.split_last() {
        None => (&[], Meaning::Root),
        Some((name, parents)) => (parents, Meaning::Make { name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meanings() {
        for (path, parents, meaning) in [
            (&b"a"[..], &[][..], Some(Meaning::Make { name: b"a" })),
            (b"./a//b/", &[&b"a"[..]], Some(Meaning::Make { name: b"b" })),
            (b"/a", &[], Some(Meaning::Make { name: b"a" })),
            (b"/", &[], Some(Meaning::Root)),
            (b"./", &[], Some(Meaning::Root)),
            (b"a/...", &[b"a"], Some(Meaning::Make { name: b"..." })),
            (b"a\xff", &[], Some(Meaning::Make { name: b"a\xff" })),
            (b"a/.wh.b", &[b"a"], Some(Meaning::Whiteout { name: b"b" })),
            (b".wh....", &[], Some(Meaning::Whiteout { name: b"..." })),
            (b"a/.wh..wh..opq", &[b"a"], Some(Meaning::Opaque)),
            (b".wh..opq", &[], Some(Meaning::Whiteout { name: b".opq" })),
            (b".wh..wh.plnk/1.2", &[], Some(Meaning::Skip)),
            (b".wh..wh.aufs", &[], Some(Meaning::Skip)),
            (b".wh", &[], Some(Meaning::Make { name: b".wh" })),
            (b"", &[], None),
            (b"..", &[], None),
            (b"a/../b", &[], None),
            (b"a/b/..", &[], None),
            (b"a\0b", &[], None),
            (b".wh.", &[], None),
            (b".wh..", &[], None),
            (b".wh...", &[], None),
            (b".wh.a/b", &[], None),
            (b".wh..wh.x", &[], None),
            (b".wh..wh..opq/x", &[], None),
        ] {
            let found = split(path)
                .and_then(|components| read(&components).map(|(parents, meaning)| (parents.to_vec(), meaning)));
            let expected = meaning.map(|meaning| (parents.to_vec(), meaning));
            assert_eq!(found.ok(), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn limits_hold_to_the_byte() {
        for (path, good) in [
            (vec![b'a'; limits::PATH_BYTES], true),
            (vec![b'a'; limits::PATH_BYTES + 1], false),
            (b"a/".repeat(limits::PATH_DEPTH), true),
            (b"a/".repeat(limits::PATH_DEPTH + 1), false),
        ] {
            assert_eq!(split(&path).is_ok(), good, "{}", path.len());
        }
    }
}
