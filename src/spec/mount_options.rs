//! The option strings of a mount, sorted by the system call that each of them is for. Mounts nothing.
//!
//! Where two options contradict each other, the later one wins, as in `mount(8)`. What no table knows is data for the
//! file system, in order. The words are those that runc and crun know (`runc features` lists them).

use std::fmt::Write as _;

use crate::error::{Error, Result};

/// Attributes of one mount, as bits of `mount_setattr(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttributes {
    /// What to turn on.
    pub set: u64,
    /// What to turn off first. Holds the whole of [`ATTR_ATIME`] where an access time mode is asked for, and
    /// [`ATIME_UNASKED`] alone where a mode was only taken back.
    pub clear: u64,
}

pub const ATTR_RDONLY: u64 = 0x1;
pub const ATTR_NOSUID: u64 = 0x2;
pub const ATTR_NODEV: u64 = 0x4;
pub const ATTR_NOEXEC: u64 = 0x8;
/// The field that holds one of relatime (0), noatime and strictatime.
pub const ATTR_ATIME: u64 = 0x70;
pub const ATTR_NOATIME: u64 = 0x10;
pub const ATTR_STRICTATIME: u64 = 0x20;
/// A bit of the field that no mode uses: `atime`, `norelatime` or `nostrictatime` was said, and no mode is asked for.
const ATIME_UNASKED: u64 = 0x40;
pub const ATTR_NODIRATIME: u64 = 0x80;
pub const ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

impl MountAttributes {
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Puts `bits` into the field `mask`.
    fn put(&mut self, mask: u64, bits: u64) {
        self.set = (self.set & !mask) | bits;
        // A field of several bits is cleared as a whole, a flag only where it is not set: mount_setattr(2).
        let clear = if mask == ATTR_ATIME { mask } else { mask & !bits };
        self.clear = (self.clear & !mask) | clear;
    }

    /// Takes an access time mode back: what the mount has then stays, unless another mode is asked for.
    fn take_back(&mut self, mode: u64) {
        let asked = self.clear & ATTR_ATIME == ATTR_ATIME;
        if !asked || self.set & ATTR_ATIME == mode {
            self.set &= !ATTR_ATIME;
            self.clear = (self.clear & !ATTR_ATIME) | ATIME_UNASKED;
        }
    }

    /// Gives the change that makes a mount have these attributes and no others, as `mount -o remount` does.
    ///
    /// Access times are left as they are where nothing is asked of them: what clears one of their flags is no request
    /// (mount(2): "the default atime for remount is preservation"). A `nodiratime` alone asks for `relatime`.
    #[must_use]
    pub fn in_place_of_all(self) -> Self {
        let mut clear = (ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOSYMFOLLOW) & !self.set;
        if self.clear & ATTR_ATIME == ATTR_ATIME || self.set & ATTR_NODIRATIME != 0 {
            clear |= ATTR_ATIME | (ATTR_NODIRATIME & !self.set);
        }
        Self { set: self.set, clear }
    }
}

/// Flags of a file system, as bits of `mount(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SuperblockFlags {
    pub set: u32,
    pub clear: u32,
}

impl SuperblockFlags {
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn put(&mut self, mask: u32, is_on: bool) {
        let (to, from) = if is_on { (&mut self.set, &mut self.clear) } else { (&mut self.clear, &mut self.set) };
        *to |= mask;
        *from &= !mask;
    }

    /// Gives the words for `fsconfig(2)` with `FSCONFIG_SET_FLAG`.
    ///
    /// `silent` and `iversion` have none: the first hushes the kernel's log, the second is each file system's default.
    pub fn as_fsconfig_flags(self) -> impl Iterator<Item = &'static str> {
        const WORDS: &[&str] = &["sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime"];
        SUPERBLOCK
            .iter()
            .filter(move |(word, mask, is_on)| {
                WORDS.contains(word) && mask & if *is_on { self.set } else { self.clear } != 0
            })
            .map(|(word, ..)| *word)
    }
}

/// Whether a mount shows an existing tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bind {
    /// A new file system.
    #[default]
    No,
    /// One mount.
    One,
    /// The mount and all below it.
    Recursive,
}

/// How mounts and unmounts travel between peers: `mount_namespaces(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    pub mode: PropagationMode,
    pub is_recursive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropagationMode {
    Private,
    Slave,
    Shared,
    Unbindable,
}

impl Propagation {
    /// Reads a propagation word, as an option of a mount or as `linux.rootfsPropagation`.
    pub fn from_word(word: &str) -> Option<Self> {
        PROPAGATION.iter().find(|(known, _)| *known == word).map(|(_, propagation)| *propagation)
    }

    /// Gives the flags of `mount(2)`, and of `mount_setattr(2)` without `MS_REC`.
    pub fn as_mount_flags(self) -> u32 {
        let mode = match self.mode {
            PropagationMode::Unbindable => 1 << 17,
            PropagationMode::Private => 1 << 18,
            PropagationMode::Slave => 1 << 19,
            PropagationMode::Shared => 1 << 20,
        };
        mode | if self.is_recursive { 1 << 14 } else { 0 }
    }
}

/// An identity map asked for by an option rather than by `uidMappings`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdmapOption {
    /// Whether mounts below are mapped too (`ridmap`).
    pub is_recursive: bool,
    /// The ranges of users; with none here and in `gids`, those of the container's user namespace.
    pub uids: Vec<IdmapRange>,
    pub gids: Vec<IdmapRange>,
}

/// A range of `idmap=uids=…`: lines of `/proc/PID/uid_map`, written with dashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdmapRange {
    /// Whether `host` is counted in the container's user namespace (`@`).
    pub is_relative: bool,
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

/// An option that the file system itself reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataOption {
    pub key: String,
    /// Absent for a bare word, for `FSCONFIG_SET_FLAG`.
    pub value: Option<String>,
}

/// The options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    pub bind: Bind,
    pub remounts: bool,
    pub attributes: MountAttributes,
    /// For the mount and all below it.
    pub recursive_attributes: MountAttributes,
    pub superblock: SuperblockFlags,
    /// In the order in which they are to be applied.
    pub propagation: Vec<Propagation>,
    pub idmap: Option<IdmapOption>,
    /// A tmpfs starts with a copy of what it covers (`tmpcopyup`).
    pub copies_up: bool,
    /// A source that is a symlink is recreated as one (`copy-symlink`).
    pub copies_symlink: bool,
    /// A source that is a symlink is bound itself (`src-nofollow`).
    pub keeps_source_link: bool,
    /// A destination that is a symlink is mounted on itself (`dest-nofollow`).
    pub keeps_destination_link: bool,
    /// In the order in which they were given.
    pub data: Vec<DataOption>,
}

impl MountOptions {
    /// Sorts the options of a mount.
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option.as_ref())?;
        }
        if parsed.copies_symlink && (parsed.keeps_source_link || parsed.keeps_destination_link) {
            return Err(Error::invalid("`copy-symlink` is mutually exclusive with `src-nofollow` and `dest-nofollow`"));
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<()> {
        if option.contains('\0') {
            return Err(Error::invalid(format!("mount option {option:?}: contains a NUL byte")));
        }
        match option {
            "" | "defaults" => {}
            "bind" => self.bind = Bind::One,
            "rbind" => self.bind = Bind::Recursive,
            "remount" => self.remounts = true,
            "tmpcopyup" => self.copies_up = true,
            "copy-symlink" => self.copies_symlink = true,
            "src-nofollow" => self.keeps_source_link = true,
            "dest-nofollow" => self.keeps_destination_link = true,
            "idmap" | "ridmap" => {
                self.idmap = Some(IdmapOption { is_recursive: option == "ridmap", ..IdmapOption::default() });
            }
            _ => return self.add_from_tables(option),
        }
        Ok(())
    }

    fn add_from_tables(&mut self, option: &str) -> Result<()> {
        if let Some((_, mask, bits)) = ATTRIBUTES.iter().find(|(word, ..)| *word == option) {
            self.attributes.put(*mask, *bits);
        } else if let Some((_, mode)) = TAKEN_BACK.iter().find(|(word, _)| *word == option) {
            self.attributes.take_back(*mode);
        } else if let Some((_, mask, is_on)) = superblock_flag(option) {
            self.superblock.put(*mask, *is_on);
        } else if let Some(propagation) = Propagation::from_word(option) {
            self.propagation.push(propagation);
        } else if let Some((_, mask, bits)) =
            option.strip_prefix('r').and_then(|rest| ATTRIBUTES.iter().find(|(word, ..)| *word == rest))
        {
            self.recursive_attributes.put(*mask, *bits);
        } else if option.strip_prefix('r').is_some_and(|rest| TAKEN_BACK.iter().any(|(word, _)| *word == rest)) {
            // Recursively, a mode cannot be left as it is on each mount; the kernel's default (since 2.6.30) is what runc
            // sets.
            self.recursive_attributes.put(ATTR_ATIME, 0);
        } else if let Some((word, map)) = option.split_once('=').filter(|(word, _)| matches!(*word, "idmap" | "ridmap"))
        {
            self.idmap = Some(IdmapOption::parse(map, word == "ridmap").ok_or_else(|| {
                Error::invalid(format!("mount option {option:?}: expected uids=A-B-SIZE#…;gids=A-B-SIZE#…"))
            })?);
        } else {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (option, None),
            };
            self.data.push(DataOption { key: key.to_owned(), value });
        }
        Ok(())
    }

    /// Prints options that mean the same, in a fixed order.
    pub fn to_options(&self) -> Vec<String> {
        let mut options: Vec<String> = Vec::new();
        let mut word = |is_set: bool, word: &str| {
            if is_set {
                options.push(word.to_owned());
            }
        };
        word(self.bind == Bind::One, "bind");
        word(self.bind == Bind::Recursive, "rbind");
        word(self.remounts, "remount");
        word(self.attributes.clear & ATTR_ATIME == ATIME_UNASKED, "norelatime");
        for (known, mask, bits) in ATTRIBUTES {
            word(self.attributes.names(known, *mask, *bits), known);
        }
        for (known, mask, bits) in ATTRIBUTES {
            word(self.recursive_attributes.names(known, *mask, *bits), &format!("r{known}"));
        }
        for (known, mask, is_on) in SUPERBLOCK {
            word(mask & if *is_on { self.superblock.set } else { self.superblock.clear } != 0, known);
        }
        for propagation in &self.propagation {
            let known = PROPAGATION.iter().find(|(_, known)| known == propagation);
            word(true, known.map_or("", |(word, _)| word));
        }
        if let Some(idmap) = &self.idmap {
            word(true, &idmap.to_option());
        }
        word(self.copies_up, "tmpcopyup");
        word(self.copies_symlink, "copy-symlink");
        word(self.keeps_source_link, "src-nofollow");
        word(self.keeps_destination_link, "dest-nofollow");
        for DataOption { key, value } in &self.data {
            match value {
                Some(value) => word(true, &format!("{key}={value}")),
                None => word(true, key),
            }
        }
        options
    }

    /// Joins the options of the file system for the data argument of `mount(2)`.
    pub fn data_as_text(&self) -> String {
        let mut text = String::new();
        for DataOption { key, value } in &self.data {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(key);
            if let Some(value) = value {
                text.push('=');
                text.push_str(value);
            }
        }
        text
    }
}

impl MountAttributes {
    /// Says whether a word of the table is the one to print for what is in its field.
    fn names(self, word: &str, mask: u64, bits: u64) -> bool {
        let is_touched = (self.set | self.clear) & mask & !ATIME_UNASKED != 0;
        // The access time modes have several words for each value; these are printed.
        let is_printed = mask != ATTR_ATIME || matches!(word, "relatime" | "noatime" | "strictatime");
        is_touched && is_printed && self.set & mask == bits
    }
}

impl IdmapOption {
    fn parse(text: &str, is_recursive: bool) -> Option<Self> {
        let mut idmap = Self { is_recursive, ..Self::default() };
        for part in text.split(';') {
            let (kind, ranges) = part.split_once('=')?;
            let side = match kind {
                "uids" => &mut idmap.uids,
                "gids" => &mut idmap.gids,
                _ => return None,
            };
            for range in ranges.split('#') {
                side.push(IdmapRange::parse(range)?);
            }
        }
        // One side alone would leave the other unmapped, which no one means.
        (!idmap.uids.is_empty() && !idmap.gids.is_empty()).then_some(idmap)
    }

    fn to_option(&self) -> String {
        let mut option = String::from(if self.is_recursive { "ridmap" } else { "idmap" });
        let mut separator = '=';
        for (kind, ranges) in [("uids", &self.uids), ("gids", &self.gids)] {
            for (index, range) in ranges.iter().enumerate() {
                if index == 0 {
                    _ = write!(option, "{separator}{kind}=");
                    separator = ';';
                } else {
                    option.push('#');
                }
                let relative = if range.is_relative { "@" } else { "" };
                _ = write!(option, "{relative}{}-{}-{}", range.container, range.host, range.size);
            }
        }
        option
    }
}

impl IdmapRange {
    fn parse(text: &str) -> Option<Self> {
        let (is_relative, text) = text.strip_prefix('@').map_or((false, text), |rest| (true, rest));
        let mut numbers = text.splitn(3, '-').map(|number| number.parse().ok());
        let range = Self { is_relative, container: numbers.next()??, host: numbers.next()??, size: numbers.next()?? };
        (range.size > 0).then_some(range)
    }
}

/// Words for attributes of a mount: the field, and what goes into it. With an `r` in front, for all mounts below too.
const ATTRIBUTES: &[(&str, u64, u64)] = &[
    ("ro", ATTR_RDONLY, ATTR_RDONLY),
    ("rw", ATTR_RDONLY, 0),
    ("nosuid", ATTR_NOSUID, ATTR_NOSUID),
    ("suid", ATTR_NOSUID, 0),
    ("nodev", ATTR_NODEV, ATTR_NODEV),
    ("dev", ATTR_NODEV, 0),
    ("noexec", ATTR_NOEXEC, ATTR_NOEXEC),
    ("exec", ATTR_NOEXEC, 0),
    ("nodiratime", ATTR_NODIRATIME, ATTR_NODIRATIME),
    ("diratime", ATTR_NODIRATIME, 0),
    ("nosymfollow", ATTR_NOSYMFOLLOW, ATTR_NOSYMFOLLOW),
    ("symfollow", ATTR_NOSYMFOLLOW, 0),
    ("relatime", ATTR_ATIME, 0),
    ("noatime", ATTR_ATIME, ATTR_NOATIME),
    ("strictatime", ATTR_ATIME, ATTR_STRICTATIME),
];

/// Words that take an access time mode back.
const TAKEN_BACK: &[(&str, u64)] = &[("atime", ATTR_NOATIME), ("norelatime", 0), ("nostrictatime", ATTR_STRICTATIME)];

/// Words for flags of a file system, and whether they turn them on.
const SUPERBLOCK: &[(&str, u32, bool)] = &[
    ("sync", 1 << 4, true),
    ("async", 1 << 4, false),
    ("dirsync", 1 << 7, true),
    ("mand", 1 << 6, true),
    ("nomand", 1 << 6, false),
    ("lazytime", 1 << 25, true),
    ("nolazytime", 1 << 25, false),
    ("iversion", 1 << 23, true),
    ("noiversion", 1 << 23, false),
    ("silent", 1 << 15, true),
    ("loud", 1 << 15, false),
];

/// Words of crun's with an `r` in front: a new file system has no mounts below it, and on a bind the kernel does not set
/// flags of a file system.
const RECURSIVE_SUPERBLOCK: &[&str] = &["rasync", "rdirsync", "rmand", "rnomand", "rsync"];

fn superblock_flag(option: &str) -> Option<&'static (&'static str, u32, bool)> {
    let word = if RECURSIVE_SUPERBLOCK.contains(&option) { &option[1..] } else { option };
    SUPERBLOCK.iter().find(|(known, ..)| *known == word)
}

const PROPAGATION: &[(&str, Propagation)] = &[
    ("private", Propagation { mode: PropagationMode::Private, is_recursive: false }),
    ("rprivate", Propagation { mode: PropagationMode::Private, is_recursive: true }),
    ("slave", Propagation { mode: PropagationMode::Slave, is_recursive: false }),
    ("rslave", Propagation { mode: PropagationMode::Slave, is_recursive: true }),
    ("shared", Propagation { mode: PropagationMode::Shared, is_recursive: false }),
    ("rshared", Propagation { mode: PropagationMode::Shared, is_recursive: true }),
    ("unbindable", Propagation { mode: PropagationMode::Unbindable, is_recursive: false }),
    ("runbindable", Propagation { mode: PropagationMode::Unbindable, is_recursive: true }),
];

/// What `features` lists as known, in its order.
pub const FEATURE_MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "copy-symlink",
    "defaults",
    "dest-nofollow",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "rasync",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "rdirsync",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rmand",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnomand",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "rsync",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "src-nofollow",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(options: &[&str]) -> MountOptions {
        MountOptions::parse(options).unwrap()
    }

    #[test]
    fn attributes_become_masks_and_the_last_word_wins() {
        let rows: &[(&[&str], u64, u64)] = &[
            (&[], 0, 0),
            (&["defaults"], 0, 0),
            (&["ro"], ATTR_RDONLY, 0),
            (&["rw"], 0, ATTR_RDONLY),
            (&["ro", "rw"], 0, ATTR_RDONLY),
            (&["rw", "ro"], ATTR_RDONLY, 0),
            (&["nosuid", "nodev", "noexec"], ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, 0),
            (&["nosuid", "suid", "dev", "exec"], 0, ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC),
            (&["noatime"], ATTR_NOATIME, ATTR_ATIME),
            (&["noatime", "strictatime"], ATTR_STRICTATIME, ATTR_ATIME),
            (&["strictatime", "relatime"], 0, ATTR_ATIME),
            (&["nodiratime", "noatime"], ATTR_NODIRATIME | ATTR_NOATIME, ATTR_ATIME),
            (&["nosymfollow"], ATTR_NOSYMFOLLOW, 0),
        ];
        for (options, set, clear) in rows {
            assert_eq!(parse(options).attributes, MountAttributes { set: *set, clear: *clear }, "{options:?}");
            let recursive: Vec<String> =
                options.iter().filter(|word| **word != "defaults").map(|word| format!("r{word}")).collect();
            let parsed = MountOptions::parse(&recursive).unwrap();
            assert_eq!(parsed.recursive_attributes, MountAttributes { set: *set, clear: *clear }, "{recursive:?}");
            assert!(parsed.attributes.is_empty() && parsed.data.is_empty(), "{recursive:?}");
        }
    }

    #[test]
    fn a_bind_gets_what_is_asked_for_and_keeps_access_times_unless_asked() {
        const PLAIN: u64 = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOSYMFOLLOW;
        let rows: &[(&[&str], u64, u64)] = &[
            (&["ro"], ATTR_RDONLY, PLAIN & !ATTR_RDONLY),
            (&["rw"], 0, PLAIN),
            (&["dev"], 0, PLAIN),
            (&["sync"], 0, PLAIN),
            (&["atime"], 0, PLAIN),
            (&["norelatime"], 0, PLAIN),
            (&["noatime", "atime"], 0, PLAIN),
            (&["noatime", "norelatime"], ATTR_NOATIME, PLAIN | ATTR_ATIME | ATTR_NODIRATIME),
            (&["diratime"], 0, PLAIN),
            (&["relatime"], 0, PLAIN | ATTR_ATIME | ATTR_NODIRATIME),
            (&["nodiratime"], ATTR_NODIRATIME, PLAIN | ATTR_ATIME),
            (&["nodiratime", "norelatime"], ATTR_NODIRATIME, PLAIN | ATTR_ATIME),
            (&["strictatime", "nodiratime"], ATTR_STRICTATIME | ATTR_NODIRATIME, PLAIN | ATTR_ATIME),
        ];
        for (options, set, clear) in rows {
            let change = parse(options).attributes.in_place_of_all();
            assert_eq!(change, MountAttributes { set: *set, clear: *clear }, "{options:?}");
        }
        assert!(parse(&["rprivate", "rbind", "ratime"]).attributes.is_empty());
        assert_eq!(parse(&["ratime"]).recursive_attributes, MountAttributes { set: 0, clear: ATTR_ATIME });
    }

    #[test]
    fn the_rest_is_sorted_by_the_call_it_is_for() {
        let parsed = parse(&[
            "rbind",
            "rprivate",
            "shared",
            "sync",
            "lazytime",
            "nolazytime",
            "silent",
            "mode=755",
            "size=65536k",
            "",
            "newinstance",
            "lowerdir=/a=b:/c",
            "tmpcopyup",
        ]);
        assert_eq!(parsed.bind, Bind::Recursive);
        assert_eq!(
            parsed.propagation.iter().map(|propagation| propagation.as_mount_flags()).collect::<Vec<_>>(),
            [1 << 18 | 1 << 14, 1 << 20]
        );
        assert_eq!(parsed.superblock.as_fsconfig_flags().collect::<Vec<_>>(), ["sync", "nolazytime"]);
        assert_eq!(parsed.data_as_text(), "mode=755,size=65536k,newinstance,lowerdir=/a=b:/c");
        assert_eq!(parsed.data[3], DataOption { key: "lowerdir".into(), value: Some("/a=b:/c".into()) });
        assert!(parsed.copies_up);
        assert_eq!(parse(&["rbind", "bind"]).bind, Bind::One);
    }

    #[test]
    fn identity_maps_are_read() {
        assert_eq!(parse(&["idmap", "ridmap"]).idmap, Some(IdmapOption { is_recursive: true, ..Default::default() }));
        let idmap = parse(&["idmap=uids=0-1000-1#@1-2-3;gids=0-0-10"]).idmap.unwrap();
        assert_eq!(idmap.uids[1], IdmapRange { is_relative: true, container: 1, host: 2, size: 3 });
        for bad in
            ["idmap=", "idmap=uids=0-1-1", "idmap=uids=0-1-0;gids=0-1-1", "ridmap=uids=a;gids=b", "idmap=x=1-1-1"]
        {
            let error = MountOptions::parse(&[bad]).unwrap_err();
            assert!(error.report().contains(bad), "{error:?}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        assert!(MountOptions::parse(&["mode=\u{0}"]).is_err());
        for other in ["src-nofollow", "dest-nofollow"] {
            let error = MountOptions::parse(&[other, "copy-symlink"]).unwrap_err();
            assert!(error.report().contains("mutually exclusive"), "{error:?}");
        }
    }

    #[test]
    fn recursive_flags_of_a_file_system_are_those_of_the_file_system() {
        assert_eq!(parse(&["rsync", "rmand"]), parse(&["sync", "mand"]));
        assert_eq!(parse(&["rlazytime"]).data.len(), 1);
    }

    #[test]
    fn features_lists_every_word_once_and_in_order() {
        assert!(FEATURE_MOUNT_OPTIONS.is_sorted());
        for word in FEATURE_MOUNT_OPTIONS {
            assert!(parse(&[word]).data.is_empty(), "{word} is listed and not known");
        }
        let known = ATTRIBUTES.iter().map(|(word, ..)| (*word).to_owned());
        let recursive = ATTRIBUTES.iter().map(|(word, ..)| format!("r{word}"));
        let taken_back = TAKEN_BACK.iter().flat_map(|(word, _)| [(*word).to_owned(), format!("r{word}")]);
        let known = known.chain(taken_back).chain(RECURSIVE_SUPERBLOCK.iter().map(|word| (*word).to_owned()));
        let superblock = SUPERBLOCK.iter().map(|(word, ..)| (*word).to_owned());
        let propagation = PROPAGATION.iter().map(|(word, _)| (*word).to_owned());
        for word in known.chain(recursive).chain(superblock).chain(propagation) {
            assert!(FEATURE_MOUNT_OPTIONS.contains(&&word[..]), "{word} is known and not listed");
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_round_trip(
            words in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(FEATURE_MOUNT_OPTIONS).prop_map(str::to_owned),
                    "[a-z_]{1,6}=[a-z0-9=:/]{0,6}",
                    (0..9u32, 0..9u32, 1..9u32).prop_map(|(a, b, c)| format!("idmap=uids=@{a}-{b}-{c};gids={b}-{a}-{c}#0-0-1")),
                ],
                0..12,
            )
        ) {
            let Ok(parsed) = MountOptions::parse(&words) else { return Ok(()) };
            let printed = parsed.to_options();
            prop_assert_eq!(&MountOptions::parse(&printed).unwrap(), &parsed);
            prop_assert_eq!(MountOptions::parse(&printed).unwrap().to_options(), printed);
        }
    }
}
