//! `/etc/passwd` and `/etc/group` of a container whose user is none of the image's: the image's files with a line more.
//!
//! Only where it is asked for (`--passwd-entry`, `--group-entry`), or where the user is the caller (`--userns keep-id`):
//! else a number needs no name, as in docker. They are files of the container's own, as [`names`](super::names) makes.

use std::path::Path;

use oci_spec::runtime::Mount;

use super::{Input, OwnFile, mount, options_of};
use crate::engine::options::namespaces::UserMode;
use crate::error::{Error, Result};

/// What the places of a template stand for.
struct Words<'a> {
    user: &'a str,
    uid: u32,
    group: &'a str,
    gid: u32,
    /// Who they are, for people.
    name: &'a str,
    home: &'a str,
}

/// Adds the files, with the mounts that put them in their places. `cwd` is the home of whom nobody knows.
pub(super) fn build(input: &Input<'_>, cwd: &Path, files: &mut Vec<OwnFile>, mounts: &mut Vec<Mount>) -> Result<()> {
    let options = input.options;
    let keeps_caller = matches!(options.namespaces.user, UserMode::KeepId { .. });
    if !keeps_caller && options.passwd_entry.is_none() && options.group_entry.is_none() {
        return Ok(());
    }
    let identity = input.identity;
    let (uid, gid) = (identity.uid, identity.gid);
    let (uid_text, gid_text) = (uid.to_string(), gid.to_string());
    let cwd = cwd.to_string_lossy();
    let caller = input.host.caller.as_ref().filter(|_| keeps_caller && options.user.is_none());
    let words = match caller {
        Some(caller) => {
            Words { user: &caller.name, uid, group: &caller.group, gid, name: &caller.name, home: &caller.home }
        }
        None => Words { user: &uid_text, uid, group: &gid_text, gid, name: "container user", home: &cwd },
    };
    let defaults = keeps_caller.then_some(("$USERNAME:*:$UID:$GID:$NAME:$HOME:/bin/sh", "$GROUPNAME:x:$GID:$USERNAME"));
    let users = input.users;
    for (name, template, default, is_known, text, fields) in [
        ("passwd", &options.passwd_entry, defaults.map(|texts| texts.0), users.has_user(uid), users.passwd(), 7),
        ("group", &options.group_entry, defaults.map(|texts| texts.1), users.has_group(gid), users.group(), 4),
    ] {
        let Some(template) = template.as_deref().or(default).filter(|_| !is_known) else { continue };
        let line = words.fill(template);
        if line.contains(['\n', '\0']) || line.split(':').count() != fields {
            return Err(Error::invalid(format!("{name}-entry {template:?}: not a line of {fields} fields")));
        }
        let mut content = String::from_utf8_lossy(text).into_owned();
        if !content.is_empty() && !content.ends_with('\n') {
            content.push('\n');
        }
        content.push_str(&line);
        content.push('\n');
        let mut how = options_of(&["bind", "rprivate"]);
        how.extend(options.read_only.then(|| "ro".to_owned()));
        mounts.push(mount(format!("/etc/{name}"), "bind", input.directory.join(name), how));
        files.push(OwnFile { name, content });
    }
    Ok(())
}

impl Words<'_> {
    fn fill(&self, template: &str) -> String {
        // The longer name first, where one begins with another.
        let template = template.strip_suffix('\n').unwrap_or(template);
        [
            ("$USERNAME", self.user),
            ("$GROUPNAME", self.group),
            ("$USERLIST", self.user),
            ("$UID", &self.uid.to_string()),
            ("$GID", &self.gid.to_string()),
            ("$NAME", self.name),
            ("$HOME", self.home),
        ]
        .into_iter()
        .fold(template.to_owned(), |line, (place, word)| line.replace(place, word))
    }
}
