//! Users and groups: passwd(5), group(5), subuid(5), and the grammar in which people and images name them.
//!
//! The parsers take bytes; the files come from a root file system through [`Root`], or from the host. A number is a `u32`
//! or an error, never 0 for want of a better one (CVE-2016-3697, CVE-2024-40635, CVE-2026-30892), and a word of digits is
//! a number even where a user of that name exists, so that nobody becomes another by an entry in `/etc/passwd`.
//! Deliberately without NSS: nothing of the container's, nor of the host's libraries, is loaded. (CVE-2019-14271)

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Context, Error, Kind, Result};

use super::root::Root;
use super::text::serialise_as_text;

/// Largest file that is read; what the peers read, too.
const FILE_BYTES: usize = 10 << 20;

/// Longest line that is taken for one.
const LINE_BYTES: usize = 64 << 10;

/// `NGROUPS_MAX`: what setgroups(2) takes.
const GROUPS: usize = 65_536;

/// A user or a group, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    Id(u32),
    Name(String),
}

impl Principal {
    /// Parses one half of a user specification. `what` is `user` or `group`, for the message.
    fn parse(text: &str, what: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid(format!("{what} is empty")));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // (uid_t) -1 means "leave as it is" to the kernel, and is nobody's.
            return match text.parse::<u32>() {
                Ok(id) if id != u32::MAX => Ok(Self::Id(id)),
                _ => Err(Error::invalid(format!("{what} {text:?}: ids end at {}", u32::MAX - 1))),
            };
        }
        // No file can hold such a name, so it can only be a mistake, or a trick.
        let strange = |letter: char| letter.is_whitespace() || letter.is_control() || letter == ':' || letter == '/';
        if text.contains(strange) || text.starts_with(['-', '+']) {
            return Err(Error::invalid(format!("{what} {text:?}: neither a number nor a name")));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl Principal {
    /// Parses a group, as `--group-add` takes it.
    pub fn group(text: &str) -> Result<Self> {
        Self::parse(text, "group")
    }
}

impl FromStr for Principal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text, "user or group")
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// `USER[:GROUP]`, as `-u` takes it and an image has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec {
    pub user: Principal,
    pub group: Option<Principal>,
}

impl UserSpec {
    /// Who runs where nothing is said: user 0, and whatever group it has.
    pub const ROOT: Self = Self { user: Principal::Id(0), group: None };
}

impl FromStr for UserSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let parse = || {
            let group = group.map(|group| Principal::parse(group, "group")).transpose()?;
            Ok::<_, Error>(Self { user: Principal::parse(user, "user")?, group })
        };
        parse().with_context(|| format!("user {text:?}"))
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => self.user.fmt(f),
        }
    }
}

serialise_as_text!(Principal, UserSpec);

/// What a user specification comes to in one root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// All groups for setgroups(2): the primary one first (CVE-2022-36109), then those that list the user.
    pub groups: Vec<u32>,
    /// The home directory, where passwd names one.
    pub home: Option<String>,
}

/// The two files of a root file system that name its users.
#[derive(Debug, Default)]
pub struct UserDatabase {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

impl UserDatabase {
    /// Reads `/etc/passwd` and `/etc/group` of a root file system. A missing one is an empty one.
    pub fn read(root: &Root) -> Result<Self> {
        let read = |path: &'static str| match root.read(Path::new(path), FILE_BYTES) {
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => Ok(Vec::new()),
            answer => answer.with_context(|| format!("read /{path} of the root file system")),
        };
        Ok(Self { passwd: read("etc/passwd")?, group: read("etc/group")? })
    }

    /// Takes the contents of the two files.
    pub fn from_bytes(passwd: Vec<u8>, group: Vec<u8>) -> Self {
        Self { passwd, group }
    }

    /// Gives the contents of `/etc/passwd`.
    pub fn passwd(&self) -> &[u8] {
        &self.passwd
    }

    /// Gives the contents of `/etc/group`.
    pub fn group(&self) -> &[u8] {
        &self.group
    }

    /// Says whether a user has a line.
    pub fn has_user(&self, uid: u32) -> bool {
        passwd_entries(&self.passwd).filter_map(Result::ok).any(|entry| entry.uid == uid)
    }

    /// Says whether a group has a line.
    pub fn has_group(&self, gid: u32) -> bool {
        group_entries(&self.group).filter_map(Result::ok).any(|entry| entry.gid == gid)
    }

    /// Gives how many ids there have to be for all users and groups.
    pub fn span(&self) -> u32 {
        // The overflow id is everybody's who has none, in files that have lines for it as well.
        let users = passwd_entries(&self.passwd).filter_map(Result::ok).flat_map(|entry| [entry.uid, entry.gid]);
        let groups = group_entries(&self.group).filter_map(Result::ok).map(|entry| entry.gid);
        users.chain(groups).max().map_or(0, |highest| highest.saturating_add(1))
    }

    /// Finds out who is meant, with `additional` groups (`--group-add`) on top.
    ///
    /// As docker does it: a number need not be in passwd, a name must; who names a group gets that one only, else the
    /// groups that list the user join it.
    pub fn resolve(&self, spec: &UserSpec, additional: &[Principal]) -> Result<Identity> {
        let entry = self.find_user(&spec.user)?;
        let uid = match (&spec.user, &entry) {
            (Principal::Id(uid), _) => *uid,
            (Principal::Name(_), Some(entry)) => entry.uid,
            (Principal::Name(name), None) => {
                return Err(Error::new(
                    Kind::NotFound,
                    format!("unable to find user {name}: no matching entries in passwd file"),
                ));
            }
        };
        let gid = match &spec.group {
            Some(group) => self.find_group(group)?,
            None => entry.as_ref().map_or(0, |entry| entry.gid),
        };
        let mut groups = vec![gid];
        if let (None, Some(entry)) = (&spec.group, &entry) {
            self.add_memberships(entry.name, &mut groups)?;
        }
        for group in additional {
            groups.push(self.find_group(group)?);
        }
        let mut seen = std::collections::HashSet::with_capacity(groups.len());
        groups.retain(|group| seen.insert(*group));
        if groups.len() > GROUPS {
            return Err(Error::invalid(format!("user {}: in more than {GROUPS} groups", spec.user)));
        }
        let home = entry
            .and_then(|entry| str::from_utf8(entry.home).ok())
            .filter(|home| home.starts_with('/') && !home.contains(char::is_control))
            .map(str::to_owned);
        Ok(Identity { uid, gid, groups, home })
    }

    fn find_user(&self, user: &Principal) -> Result<Option<PasswdEntry<'_>>> {
        for entry in passwd_entries(&self.passwd) {
            let entry = entry.context("/etc/passwd of the root file system")?;
            let found = match user {
                Principal::Id(uid) => entry.uid == *uid,
                Principal::Name(name) => entry.name == name.as_bytes(),
            };
            if found {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn find_group(&self, group: &Principal) -> Result<u32> {
        let name = match group {
            Principal::Id(gid) => return Ok(*gid),
            Principal::Name(name) => name,
        };
        for entry in group_entries(&self.group) {
            let entry = entry.context("/etc/group of the root file system")?;
            if entry.name == name.as_bytes() {
                return Ok(entry.gid);
            }
        }
        let message = format!("unable to find group {name}: no matching entries in group file");
        Err(Error::new(Kind::NotFound, message))
    }

    fn add_memberships(&self, user: &[u8], groups: &mut Vec<u32>) -> Result<()> {
        for entry in group_entries(&self.group) {
            let entry = entry.context("/etc/group of the root file system")?;
            if entry.members.split(|byte| *byte == b',').any(|member| member == user) {
                groups.push(entry.gid);
            }
        }
        Ok(())
    }
}

/// A line of passwd(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswdEntry<'a> {
    pub name: &'a [u8],
    pub uid: u32,
    pub gid: u32,
    pub home: &'a [u8],
}

/// A line of group(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry<'a> {
    pub name: &'a [u8],
    pub gid: u32,
    pub members: &'a [u8],
}

/// Gives the users of a passwd file; malformed lines and comments are passed over, as the C library does.
pub fn passwd_entries(text: &[u8]) -> impl Iterator<Item = Result<PasswdEntry<'_>>> {
    // name:password:uid:gid:comment:home:shell
    entries(text, |[name, _, uid, gid, _, home, _]| {
        Some(PasswdEntry { name, uid: number(uid)?, gid: number(gid)?, home })
    })
}

/// Gives the groups of a group file.
pub fn group_entries(text: &[u8]) -> impl Iterator<Item = Result<GroupEntry<'_>>> {
    // name:password:gid:members
    entries(text, |[name, _, gid, members]| Some(GroupEntry { name, gid: number(gid)?, members }))
}

/// Splits a file into lines, and those into exactly `N` fields.
fn entries<'a, T, const N: usize>(
    text: &'a [u8],
    parse: impl Fn([&'a [u8]; N]) -> Option<T> + 'a,
) -> impl Iterator<Item = Result<T>> {
    text.split(|byte| *byte == b'\n').enumerate().filter_map(move |(index, line)| {
        if line.len() > LINE_BYTES {
            return Some(Err(Error::invalid(format!("line {} is longer than {LINE_BYTES} bytes", index + 1))));
        }
        let mut fields = [b"".as_slice(); N];
        let mut parts = line.split(|byte| *byte == b':');
        for field in &mut fields {
            *field = parts.next()?;
        }
        let whole = parts.next().is_none() && !fields[0].is_empty() && fields[0][0] != b'#';
        whole.then(|| parse(fields)).flatten().map(Ok)
    })
}

/// A decimal `u32` without sign or space; -1 in disguise is nobody.
fn number(field: &[u8]) -> Option<u32> {
    let digits = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    let value = digits.then(|| str::from_utf8(field).ok()?.parse().ok()).flatten()?;
    (value != u32::MAX).then_some(value)
}

/// Ids of the host that a user may give to containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubordinateRange {
    pub start: u32,
    pub count: u32,
}

/// Finds the ranges of a user in a subuid(5) file, where it may stand by name and by number.
pub fn subordinate_ranges(text: &[u8], user: Option<&str>, uid: u32) -> Result<Vec<SubordinateRange>> {
    let ranges = entries(text, |[owner, start, count]| {
        let owned = number(owner) == Some(uid) || user.is_some_and(|user| user.as_bytes() == owner);
        let range = SubordinateRange { start: number(start)?, count: number(count)? };
        // A range that ends past the last id would wrap round to root.
        (owned && range.count > 0 && range.start.checked_add(range.count).is_some()).then_some(range)
    });
    let mut found: Vec<SubordinateRange> = Vec::new();
    for range in ranges {
        let range = range?;
        // The same range by name and by number is one range.
        if !found.contains(&range) {
            found.push(range);
        }
    }
    Ok(found)
}

/// A user of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostUser {
    pub name: String,
    pub home: PathBuf,
}

/// Looks a user of the host up in `/etc/passwd`, which is all that a static executable can ask.
pub fn host_user(uid: u32) -> Result<Option<HostUser>> {
    let text = read_host(Path::new("/etc/passwd"))?;
    for entry in passwd_entries(&text) {
        let entry = entry.context("/etc/passwd")?;
        if entry.uid == uid {
            let name = String::from_utf8_lossy(entry.name).into_owned();
            let home = PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(entry.home));
            return Ok(Some(HostUser { name, home }));
        }
    }
    Ok(None)
}

/// Reads the subordinate ids of a user of the host: those of `/etc/subuid`, and those of `/etc/subgid`.
pub fn host_subordinate_ranges(user: Option<&str>, uid: u32) -> Result<(Vec<SubordinateRange>, Vec<SubordinateRange>)> {
    let read = |path: &'static str| {
        read_host(Path::new(path)).and_then(|text| subordinate_ranges(&text, user, uid).context(path))
    };
    Ok((read("/etc/subuid")?, read("/etc/subgid")?))
}

fn read_host(path: &Path) -> Result<Vec<u8>> {
    match Root::open(Path::new("/"))?.read(path, FILE_BYTES) {
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => Ok(Vec::new()),
        answer => answer.with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        # comment:x:1:1::/:\n\
        short:x:2\n\
        negative:x:-1:5::/:/bin/sh\n\
        word:x:abc:5::/:/bin/sh\n\
        huge:x:4294967296:5::/:/bin/sh\n\
        all:x:4294967295:5::/:/bin/sh\n\
        plus:x:+7:5::/:/bin/sh\n\
        app:x:1000:1001:App,,,:/home/app:/bin/sh\n\
        1000:x:0:0:numeric name:/evil:/bin/sh\n\
        4242:x:0:0:numeric name:/evil:/bin/sh\n\
        0x0:x:77:78::relative:/bin/sh\n\
        news:x:9:13:news:/var\x07/spool:/bin/sh";
    const GROUP: &[u8] = b"root:x:0:root\nwheel:x:10:root,app\napps:x:1001:\nvideo:x:44:other,app,\n\
        7:x:0:\nbroken:x:zero:app\nwheel2:x:10:app\nnone:x:55:ap\n";

    fn resolve(text: &str) -> Result<Identity> {
        let database = UserDatabase::from_bytes(PASSWD.to_vec(), GROUP.to_vec());
        database.resolve(&text.parse()?, &[])
    }

    #[test]
    fn a_user_is_exact_or_an_error() {
        // (specification, uid, groups with the primary one first)
        let rows: &[(&str, u32, &[u32])] = &[
            ("0", 0, &[0, 10]),
            ("root", 0, &[0, 10]),
            ("1", 1, &[0]),
            ("1:1", 1, &[1]),
            ("app", 1000, &[1001, 10, 44]),
            ("app:video", 1000, &[44]),
            ("app:7", 1000, &[7]),
            ("1000", 1000, &[1001, 10, 44]),
            ("4242", 4242, &[0]),
            ("0x0", 77, &[78]),
            ("0001", 1, &[0]),
            ("2147483648", 2_147_483_648, &[0]),
            ("4294967294:4294967294", 4_294_967_294, &[4_294_967_294]),
        ];
        for (text, uid, groups) in rows {
            let identity = resolve(text).unwrap();
            assert_eq!(
                (identity.uid, identity.gid, identity.groups.as_slice()),
                (*uid, groups[0], *groups),
                "{text:?}"
            );
        }
        let wrong = [
            "",
            ":",
            ":1",
            "1:",
            "app:",
            ":app",
            "-1",
            "+0",
            " 0",
            "0 ",
            "root\n",
            "root\0",
            "1:1:1",
            "4294967295",
            "4294967296",
            "99999999999999999999",
            "0:4294967295",
            "1:-1",
            "1:+0",
            "\u{ff11}",
            "\u{0660}",
            "negative",
            "word",
            "huge",
            "all",
            "plus",
            "short",
            "comment",
            "# comment",
            "nobody",
            "app:nogroup",
            "app:broken",
            "../x",
            "a/b",
        ];
        for text in wrong {
            let answer = resolve(text);
            assert!(answer.is_err(), "{text:?} became {answer:?}");
        }
    }

    #[test]
    fn messages_name_the_user_and_the_cause() {
        for (text, message) in [
            ("1:", "user \"1:\": group is empty"),
            ("-1", "user \"-1\": user \"-1\": neither a number nor a name"),
            ("nobody", "unable to find user nobody: no matching entries in passwd file"),
            ("app:x", "unable to find group x: no matching entries in group file"),
        ] {
            assert_eq!(resolve(text).unwrap_err().report(), message);
        }
    }

    #[test]
    fn homes_come_from_passwd_when_they_can_be_one() {
        for (text, home) in
            [("app", Some("/home/app")), ("0", Some("/root")), ("0x0", None), ("news", None), ("5", None)]
        {
            assert_eq!(resolve(text).unwrap().home.as_deref(), home, "{text}");
        }
    }

    #[test]
    fn groups_are_added_once() {
        let database = UserDatabase::from_bytes(PASSWD.to_vec(), GROUP.to_vec());
        let additional = [Principal::Name("wheel".into()), Principal::Id(300), Principal::Id(1001)];
        assert_eq!(database.resolve(&"app".parse().unwrap(), &additional).unwrap().groups, [1001, 10, 44, 300]);
        let many: Vec<_> = (0..=65_536).map(Principal::Id).collect();
        assert!(database.resolve(&UserSpec::ROOT, &many).is_err());
    }

    #[test]
    fn files_are_bounded_and_regular() {
        let tree = tempfile::tempdir().unwrap();
        let etc = tree.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let root = Root::open(tree.path()).unwrap();
        let reports = || {
            UserDatabase::read(&root)
                .and_then(|database| database.resolve(&"app:apps".parse().unwrap(), &[]))
                .unwrap_err()
                .report()
        };
        let fresh = || {
            let _ = std::fs::remove_file(etc.join("group"));
            std::fs::write(etc.join("passwd"), PASSWD).unwrap();
        };

        fresh();
        assert!(reports().contains("unable to find group apps"), "a missing file is an empty one");

        std::fs::File::create_new(etc.join("group")).unwrap().set_len(1 << 30).unwrap();
        assert!(reports().starts_with("read /etc/group of the root file system: larger than"), "sparse");

        fresh();
        rustix::fs::mkfifoat(rustix::fs::CWD, etc.join("group"), rustix::fs::Mode::RUSR).unwrap();
        assert!(reports().contains("/etc/group of the root file system: not a regular file"), "FIFO");

        fresh();
        std::os::unix::fs::symlink("/dev/zero", etc.join("group")).unwrap();
        assert!(reports().contains("unable to find group apps"), "a link stays inside");

        fresh();
        let mut long = vec![b'a'; LINE_BYTES + 1];
        long.extend_from_slice(b"\napps:x:1001:\n");
        std::fs::write(etc.join("group"), long).unwrap();
        assert!(reports().contains("/etc/group of the root file system: line 1 is longer than"), "long line");

        fresh();
        let many: Vec<u8> =
            (0..1_000_000).flat_map(|number| format!("g{number}:x:{number}:app\n").into_bytes()).collect();
        std::fs::write(etc.join("group"), many).unwrap();
        assert!(reports().contains("/etc/group of the root file system: larger than"), "a million groups");
    }

    #[test]
    fn subordinate_ranges_are_found_by_name_and_number() {
        let text = b"app:100000:65536\n1000:100000:65536\n1000:300000:1\nother:200000:65536\napp:4294967290:10\n\
            app:5:0\napp:x:1\n# app:1:1\n";
        let range = |start, count| SubordinateRange { start, count };
        let both = [range(100_000, 65_536), range(300_000, 1)];
        assert_eq!(subordinate_ranges(text, Some("app"), 1000).unwrap(), both);
        assert_eq!(subordinate_ranges(text, None, 1000).unwrap(), both);
        assert_eq!(subordinate_ranges(text, Some("other"), 7).unwrap(), [range(200_000, 65_536)]);
        assert_eq!(subordinate_ranges(text, Some("nobody"), 7).unwrap(), []);
    }

    #[test]
    fn the_hosts_root_is_found() {
        assert_eq!(host_user(0).unwrap().unwrap().name, "root");
    }

    proptest::proptest! {
        #[test]
        fn no_word_becomes_another_number(text in "\\PC{0,12}") {
            if let Ok(spec) = text.parse::<UserSpec>() {
                let written = match &spec.group {
                    Some(group) => format!("{}:{group}", spec.user),
                    None => spec.user.to_string(),
                };
                let strip = |text: &str| text.split(':').map(|half| {
                    let digits = half.bytes().all(|byte| byte.is_ascii_digit());
                    let short = half.trim_start_matches('0');
                    if digits { if short.is_empty() { "0".into() } else { short.to_owned() } } else { half.to_owned() }
                }).collect::<Vec<_>>();
                assert_eq!(strip(&written), strip(&text));
            }
        }
    }
}
