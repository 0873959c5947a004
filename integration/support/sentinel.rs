//! Host files that nothing may touch, and the proof that nothing did: contents, every field of statx that a write, a
//! change of owner or a rename would move (ctime among them), extended attributes, names.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, StatxFlags, XattrFlags};
use sha2::{Digest, Sha256};

use super::scene::write;
use super::user::Account;

/// The text in the file `secret`, which no container may ever show.
pub(crate) const SECRET: &str = "sentinel-secret-7f3a";

/// A planted tree with its state when it was planted.
pub(crate) struct Sentinel {
    path: PathBuf,
    planted: BTreeMap<PathBuf, String>,
}

impl Sentinel {
    /// Plants the tree: files, directories, a FIFO, a set-user-id file, names that runtimes remove or make (`ptmx`,
    /// `null`, `console`), attributes, links.
    pub(crate) fn plant(path: &Path, account: &Account) -> Self {
        std::fs::create_dir_all(path.join("directory/inner")).expect("plant a directory");
        std::fs::create_dir(path.join("empty")).expect("plant a directory");
        for name in ["secret", "ptmx", "null", "console", "passwd", "directory/file", "directory/inner/file"] {
            write(&path.join(name), format!("{SECRET}\n"));
        }
        write(&path.join("suid"), "#!/bin/sh\n");
        symlink("secret", path.join("link")).expect("plant a link");
        rustix::fs::mkfifoat(CWD, path.join("fifo"), Mode::from_raw_mode(0o600)).expect("plant a FIFO");
        account.own(path);
        let set = |name: &str, mode: u32| {
            std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(mode)).expect("set a mode");
        };
        set("suid", 0o4755);
        set("directory", 0o1777);
        let attribute =
            |name: &str| rustix::fs::setxattr(path.join(name), "user.husk-test", b"kept", XattrFlags::empty());
        // Not every file system has user attributes: then there is none to lose.
        _ = attribute("secret");
        _ = attribute("directory");
        Self { path: path.to_owned(), planted: record(path) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names every difference from what was planted.
    pub(crate) fn changes(&self) -> Vec<String> {
        let now = record(&self.path);
        let mut changes = Vec::new();
        for (path, then) in &self.planted {
            match now.get(path) {
                None => changes.push(format!("sentinel: {} is gone", path.display())),
                Some(now) if now != then => {
                    changes.push(format!("sentinel: {} changed\n  from {then}\n  to   {now}", path.display()));
                }
                Some(_) => {}
            }
        }
        let new = now.keys().filter(|path| !self.planted.contains_key(*path));
        changes.extend(new.map(|path| format!("sentinel: {} is new", path.display())));
        changes
    }
}

/// Describes every file of a tree in one line each.
pub(crate) fn record(tree: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(tree) {
        let entry = entry.expect("walk the sentinel");
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = rustix::fs::statx(CWD, entry.path(), AtFlags::SYMLINK_NOFOLLOW, wanted).expect("statx the sentinel");
        let contents = if entry.file_type().is_file() {
            let bytes = std::fs::read(entry.path()).expect("read the sentinel");
            format!("{:x}", u64::from_be_bytes(Sha256::digest(bytes)[..8].try_into().expect("eight bytes")))
        } else {
            std::fs::read_link(entry.path()).map(|target| target.display().to_string()).unwrap_or_default()
        };
        let line = format!(
            "inode {} mode {:o} owner {}:{} links {} size {} mtime {}.{} ctime {}.{} btime {}.{} xattrs {:?} contents {contents}",
            stat.stx_ino,
            stat.stx_mode,
            stat.stx_uid,
            stat.stx_gid,
            stat.stx_nlink,
            stat.stx_size,
            stat.stx_mtime.tv_sec,
            stat.stx_mtime.tv_nsec,
            stat.stx_ctime.tv_sec,
            stat.stx_ctime.tv_nsec,
            stat.stx_btime.tv_sec,
            stat.stx_btime.tv_nsec,
            attributes(entry.path()),
        );
        files.insert(entry.into_path(), line);
    }
    files
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return Vec::new() };
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
            (String::from_utf8_lossy(name).into_owned(), value[..length].to_vec())
        })
        .collect()
}
