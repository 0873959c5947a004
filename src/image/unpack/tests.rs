//! Layers honest and hostile. The corpus is unpacked beside a sentinel tree, which must not change by a byte or an inode.
//!
//! What leads out of a layer here leads to the sentinel and nowhere else: where a guard is broken, the test goes red and
//! the machine that runs it, as root perhaps, is not harmed.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use self::corpus::Answer::{Bad, Good};
use self::corpus::corpus;
use super::*;
use crate::image::digest::{Algorithm, Digest, Expected};
use crate::image::image_builder as build;
use crate::image::limits;
use crate::image::media::Compression;
use crate::image::tar_builder::{Member, Tar, pax_record};
use crate::image::trees::is_full_root;

mod corpus;

const KEEP: Form = Form { ownership: Ownership::Keep, overlay: OverlayXattr::Trusted };
const RECORD: Form = Form { ownership: Ownership::Record, overlay: OverlayXattr::User };

/// A directory to unpack into, beside what must not be reached.
struct Place {
    outside: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        let sentinel = outside.path().join("sentinel");
        std::fs::create_dir_all(sentinel.join("directory/inner")).unwrap();
        for (name, mode) in [("secret", 0o600), ("directory/file", 0o644), ("suid", 0o4755), ("ptmx", 0o644)] {
            let path = sentinel.join(name);
            std::fs::write(&path, name).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        rustix::fs::mkfifoat(rustix::fs::CWD, sentinel.join("fifo"), Mode::RWXU).unwrap();
        symlink("secret", sentinel.join("link")).unwrap();
        std::fs::create_dir(outside.path().join("layer")).unwrap();
        Self { outside }
    }

    fn sentinel(&self) -> PathBuf {
        self.outside.path().join("sentinel")
    }

    fn layer(&self) -> PathBuf {
        self.outside.path().join("layer")
    }

    fn unpack(&self, tar: &[u8], form: Form) -> Result<Unpacked> {
        unpack(&self.layer(), tar, form, LayerLimits::default())
    }
}

fn unpack(into: &Path, tar: &[u8], form: Form, limits: LayerLimits) -> Result<Unpacked> {
    let layer = Layer {
        blob: Expected::default(),
        compression: Some(Compression::None),
        diff_id: Digest::of(Algorithm::Sha256, tar),
    };
    let directory =
        rustix::fs::open(into, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    unpack_layer(Box::new(tar), &layer, directory, form, limits)
}

/// Everything about a tree that a stray write would change.
fn snapshot(tree: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(tree) {
        let entry = entry.unwrap();
        let m = std::fs::symlink_metadata(entry.path()).unwrap();
        let content = if m.is_file() { std::fs::read(entry.path()).unwrap() } else { Vec::new() };
        let text = format!(
            "{} {:o} {}:{} {} {} {}.{} {}.{} {content:?}",
            m.ino(),
            m.mode(),
            m.uid(),
            m.gid(),
            m.nlink(),
            m.len(),
            m.mtime(),
            m.mtime_nsec(),
            m.ctime(),
            m.ctime_nsec()
        );
        all.insert(entry.path().to_owned(), text);
    }
    all
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 70_000];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn run_corpus(form: Form) {
    let mut count = 0;
    let place = Place::new();
    let sentinel = place.sentinel();
    for (name, tar, answer) in corpus(sentinel.to_str().unwrap()) {
        let place = Place { outside: tempfile::tempdir_in(place.outside.path()).unwrap() };
        std::fs::create_dir(place.layer()).unwrap();
        // The tree that relative climbs reach.
        std::fs::create_dir(place.sentinel()).unwrap();
        std::fs::write(place.sentinel().join("secret"), "near").unwrap();
        let before = (snapshot(&sentinel), snapshot(&place.sentinel()));
        let found = place.unpack(&tar, form);
        match (&found, answer) {
            (Ok(_), Good) => {}
            (Err(error), Bad(text)) if error.report().contains(text) => {}
            (_, Good) => panic!("{name}: refused: {found:?}"),
            (_, Bad(text)) => panic!("{name}: not refused with {text:?}: {found:?}"),
        }
        assert_eq!((snapshot(&sentinel), snapshot(&place.sentinel())), before, "{name}: the outside changed");
        assert_eq!(std::fs::read_dir(place.outside.path()).unwrap().count(), 2, "{name}: something new outside");
        count += 1;
    }
    assert!(count >= 120, "{count} cases");
}

#[test]
fn the_corpus_stays_inside() {
    if is_full_root("the_corpus_stays_inside") {
        run_corpus(KEEP);
    }
}

#[test]
fn the_corpus_stays_inside_with_a_single_id() {
    run_corpus(RECORD);
}

/// The control of the test above: an unpacker that joins paths is caught by the same eyes.
#[test]
fn a_naive_unpacker_would_be_caught() {
    let place = Place::new();
    let before = snapshot(&place.sentinel());
    symlink(place.sentinel(), place.layer().join("l")).unwrap();
    std::fs::write(place.layer().join("l/secret"), "x").unwrap();
    assert_ne!(snapshot(&place.sentinel()), before);
}

#[test]
fn everything_a_layer_can_hold() {
    if !is_full_root("everything_a_layer_can_hold") {
        return;
    }
    let place = Place::new();
    let long = format!("long/{}", "n".repeat(200));
    let tar = Tar::new()
        .member(Member::new(b'5', "./").mode(0o751).owner(7, 8).mtime(1000))
        .member(Member::new(b'5', "bin/").mode(0o1777).owner(1, 2).mtime(2000))
        .member(Member::new(b'0', "bin/suid").mode(0o6755).owner(3, 4).mtime(3000).data(b"program"))
        .member(Member::new(b'2', "bin/link").link("/bin/suid").owner(5, 6).mtime(4000))
        .hard_link("bin/hard", "bin/suid")
        .hard_link("bin/hard-link", "bin/link")
        .member(Member::new(b'3', "null").mode(0o666).owner(9, 10).device(1, 3))
        .member(Member::new(b'4', "disk").mode(0o640).device(259, 0xfffff))
        .member(Member::new(b'6', "fifo").mode(0o622))
        .member(Member::new(b'3', "zero").device(0, 0))
        .pax(&[("mtime", b"1.25"), ("uid", b"3000000000"), ("gid", b"3000000001"), ("SCHILY.xattr.user.a", b"\0b\n")])
        .file("pax", b"p")
        .gnu_long(b'L', long.as_bytes())
        .file("short", b"l")
        .gnu_long(b'K', &[b't'; 300])
        .symlink("long-link", "short")
        .pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")])
        .file("capable", b"c")
        .file("bin/late", b"")
        .member(Member::new(b'0', "big-id").gnu().bytes(108, b"\x80\0\0\0\x01\0\0\0").bytes(136, &[0xff; 12]))
        .file("dropped/by", b"")
        .file("dropped", b"")
        .finish();
    let unpacked = place.unpack(&tar, KEEP).unwrap();
    assert_eq!(unpacked, Unpacked { entries: 18, bytes: unpacked.bytes, is_opaque: false });
    let root = place.layer();
    let look = |name: &str| std::fs::symlink_metadata(root.join(name)).unwrap();
    for (name, kind, mode, uid, gid, mtime) in [
        ("", 'd', 0o751, 7, 8, 1000),
        ("bin", 'd', 0o1777, 1, 2, 2000),
        ("bin/suid", '-', 0o6755, 3, 4, 3000),
        ("bin/link", 'l', 0o777, 5, 6, 4000),
        ("null", 'c', 0o666, 9, 10, 1_700_000_000),
        ("disk", 'b', 0o640, 0, 0, 1_700_000_000),
        ("fifo", 'p', 0o622, 0, 0, 1_700_000_000),
        ("zero", '-', 0o644, 0, 0, 1_700_000_000),
        ("pax", '-', 0o644, 3_000_000_000, 3_000_000_001, 1),
        ("big-id", '-', 0o644, 1 << 24, 0, -1),
        ("long", 'd', 0o755, 0, 0, look("long").mtime()),
    ] {
        let m = look(name);
        let found = match m.file_type() {
            kind if kind.is_dir() => 'd',
            kind if kind.is_symlink() => 'l',
            kind if kind.is_char_device() => 'c',
            kind if kind.is_block_device() => 'b',
            kind if kind.is_fifo() => 'p',
            _ => '-',
        };
        let found = (found, m.mode() & 0o7777, m.uid(), m.gid(), m.mtime());
        assert_eq!(found, (kind, mode, uid, gid, mtime), "{name}");
    }
    assert_eq!(look("pax").mtime_nsec(), 250_000_000);
    assert_eq!(
        (look("null").rdev(), look("disk").rdev()),
        (rustix::fs::makedev(1, 3), rustix::fs::makedev(259, 0xfffff))
    );
    assert_eq!((look("bin/hard").ino(), look("bin/hard-link").ino()), (look("bin/suid").ino(), look("bin/link").ino()));
    assert_eq!(std::fs::read(root.join(&long)).unwrap(), b"l");
    assert_eq!(std::fs::read_link(root.join("long-link")).unwrap().as_os_str().as_bytes(), [b't'; 300]);
    assert_eq!(xattr(&root.join("pax"), "user.a").unwrap(), b"\0b\n");
    assert_eq!(xattr(&root.join("capable"), "security.capability").unwrap().len(), 20);
    assert_eq!(xattr(&root.join("zero"), OWNER_XATTR).unwrap(), b"0:0:644:c:0:0");
    assert!(look("dropped").is_file());
}

#[test]
fn a_single_id_records_what_it_cannot_do() {
    let place = Place::new();
    let tar = Tar::new()
        .member(Member::new(b'5', "d").mode(0o2755).owner(1, 2))
        .member(Member::new(b'0', "d/suid").mode(0o4755).owner(0, 0).data(b"x"))
        .member(Member::new(b'0', "plain").mode(0o640))
        .member(Member::new(b'0', "owned").owner(70_000, 1000))
        .member(Member::new(b'3', "null").mode(0o666).device(1, 3))
        .member(Member::new(b'4', "disk").mode(0o640).owner(0, 6).device(8, 1))
        .pax(&[("SCHILY.xattr.user.husk.owner", b"0:0:4777"), ("SCHILY.xattr.security.capability", b"bad")])
        .file("forged", b"")
        .finish();
    place.unpack(&tar, RECORD).unwrap();
    let us = rustix::process::geteuid().as_raw();
    for (name, mode, record) in [
        ("d", 0o755, Some("1:2:2755")),
        ("d/suid", 0o755, Some("0:0:4755")),
        ("plain", 0o640, None),
        ("owned", 0o644, Some("70000:1000:644")),
        ("null", 0o666, Some("0:0:666:c:1:3")),
        ("disk", 0o640, Some("0:6:640:b:8:1")),
        ("forged", 0o644, None),
    ] {
        let path = place.layer().join(name);
        let m = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((m.mode() & 0o7777, m.uid()), (mode, us), "{name}");
        assert!(m.is_file() || m.is_dir(), "{name} is a node");
        let found = xattr(&path, OWNER_XATTR).map(|value| String::from_utf8(value).unwrap());
        assert_eq!(found.as_deref(), record, "{name}");
    }
}

#[test]
fn overlay_marks_are_ours_alone() {
    for form in [KEEP, RECORD] {
        if form == KEEP && !is_full_root("overlay_marks_are_ours_alone") {
            continue;
        }
        let place = Place::new();
        let forged = ["opaque", "redirect", "metacopy", "whiteout", "origin", "overlay.opaque"];
        let mut tar = Tar::new();
        for kind in ["trusted", "user"] {
            for name in forged {
                let key = format!("SCHILY.xattr.{kind}.overlay.{name}");
                tar = tar.pax(&[(&key, b"y")]).directory("d").pax(&[(&key, b"y")]).file("f", b"");
            }
        }
        place.unpack(&tar.finish(), form).unwrap();
        for kind in ["trusted", "user"] {
            for name in forged {
                for file in ["d", "f"] {
                    assert_eq!(
                        xattr(&place.layer().join(file), &format!("{kind}.overlay.{name}")),
                        None,
                        "{file} {name}"
                    );
                }
            }
        }
    }
}

#[test]
fn whiteouts_hide_the_layers_below_and_nothing_else() {
    let form = RECORD;
    let opaque = |place: &Place, name: &str| {
        xattr(&place.layer().join(name), form.overlay.opaque()).is_some_and(|value| value == b"y")
    };
    let place = Place::new();
    let tar = Tar::new()
        .file(".wh.gone", b"")
        .file("d/.wh.gone", b"")
        .file("kept", b"x")
        .file(".wh.kept", b"")
        .file("tree/kept", b"x")
        .file(".wh.tree", b"")
        .file(".wh.again", b"")
        .file("again", b"x")
        .file(".wh.anew", b"")
        .file("anew/inner", b"x")
        .file("opaque/early", b"x")
        .file("opaque/.wh.before", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/.wh.after", b"")
        .directory("opaque/deep")
        .file("opaque/deep/.wh.after", b"")
        .file("changed", b"")
        .directory("changed")
        .finish();
    let unpacked = place.unpack(&tar, form).unwrap();
    assert!(!unpacked.is_opaque);
    for name in ["gone", "d/gone"] {
        assert!(is_whiteout(&place.layer().join(name)), "{name}");
    }
    for name in ["kept", "tree/kept", "again", "anew/inner", "opaque/early"] {
        assert_eq!(std::fs::read(place.layer().join(name)).unwrap(), b"x", "{name}");
    }
    for (name, expected) in
        [("tree", true), ("anew", true), ("opaque", true), ("changed", true), ("d", false), ("opaque/deep", false)]
    {
        assert_eq!(opaque(&place, name), expected, "{name}");
    }
    // Overlayfs would list a whiteout that has nothing to hide.
    for name in ["opaque/before", "opaque/after", "opaque/deep/after"] {
        assert!(!is_whiteout(&place.layer().join(name)), "{name}");
    }
    let place = Place::new();
    let tar = Tar::new().file(".wh.a", b"").file("b", b"").file(".wh..wh..opq", b"").finish();
    assert!(place.unpack(&tar, form).unwrap().is_opaque);
    assert!(!is_whiteout(&place.layer().join("a")));
}

#[test]
fn directories_keep_their_times() {
    let place = Place::new();
    let old = |name: &str| Member::new(b'5', name).mode(0o755).mtime(1000);
    let tar = Tar::new()
        .member(old("a"))
        .member(old("a/b"))
        .file("a/b/c", b"")
        .file("z", b"")
        .file("a/late", b"")
        .symlink("l", "a/b")
        .file("l/through", b"")
        .file("l/new/deep", b"")
        .file("a/b/.wh.c2", b"")
        .file("a/b/c", b"again")
        .finish();
    place.unpack(&tar, RECORD).unwrap();
    for name in ["a", "a/b"] {
        assert_eq!(std::fs::metadata(place.layer().join(name)).unwrap().mtime(), 1000, "{name}");
    }
    assert!(place.layer().join("a/b/through").is_file());
    assert!(place.layer().join("a/b/new/deep").is_file());
}

#[test]
fn names_that_differ_in_case_are_two() {
    let place = Place::new();
    let tar = Tar::new().directory("Up").file("Up/one", b"").file("up/two", b"").file("Up/three", b"").finish();
    place.unpack(&tar, RECORD).unwrap();
    for name in ["Up/one", "up/two", "Up/three"] {
        assert!(place.layer().join(name).exists(), "{name}");
    }
}

#[test]
fn sparse_files_of_every_kind() {
    let stored = [[b'A'; 512].as_slice(), b"tail"].concat();
    let size = 1_000_000_u64;
    let octal = |value: u64| format!("{value:011o}\0");
    let gnu = |member: Member| {
        member
            .gnu()
            .bytes(386, octal(4096).as_bytes())
            .bytes(398, octal(512).as_bytes())
            .bytes(410, octal(999_996).as_bytes())
            .bytes(422, octal(4).as_bytes())
            .bytes(483, octal(size).as_bytes())
    };
    let map = b"2\n4096\n512\n999996\n4\n";
    let with_map = [map.as_slice(), &vec![0; 512 - map.len()], &stored].concat();
    let real = size.to_string();
    let mut zero = Vec::new();
    for (key, value) in [("size", "1000000"), ("numblocks", "2"), ("offset", "4096"), ("numbytes", "512")] {
        zero.extend(pax_record(&format!("GNU.sparse.{key}"), value.as_bytes()));
    }
    for (key, value) in [("offset", "999996"), ("numbytes", "4")] {
        zero.extend(pax_record(&format!("GNU.sparse.{key}"), value.as_bytes()));
    }
    let extended = {
        let mut block = [0; 512];
        block[..12].copy_from_slice(octal(999_996).as_bytes());
        block[12..24].copy_from_slice(octal(4).as_bytes());
        let header = Member::new(b'S', "f")
            .gnu()
            .bytes(386, octal(4096).as_bytes())
            .bytes(398, octal(512).as_bytes())
            .bytes(482, b"\x01")
            .bytes(483, octal(size).as_bytes())
            .size(516)
            .finish();
        let mut data = stored.clone();
        data.resize(1024, 0);
        Tar::new().raw(&header).raw(&block).raw(&data).file("next", b"n").finish()
    };
    let cases = [
        ("GNU", Tar::new().member(gnu(Member::new(b'S', "f")).data(&stored)).file("next", b"n").finish()),
        ("GNU, continued", extended),
        (
            "PAX 0.0",
            Tar::new().member(Member::new(b'x', "x").data(&zero)).file("f", &stored).file("next", b"n").finish(),
        ),
        (
            "PAX 0.1",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.size", real.as_bytes()),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.map", b"4096,512,999996,4"),
                    ("GNU.sparse.name", b"f"),
                ])
                .file("GNUSparseFile.0/f", &stored)
                .file("next", b"n")
                .finish(),
        ),
        (
            "PAX 1.0",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"f"),
                    ("GNU.sparse.realsize", real.as_bytes()),
                ])
                .file("GNUSparseFile.0/f", &with_map)
                .file("next", b"n")
                .finish(),
        ),
    ];
    let mut expected = vec![0; 1_000_000];
    expected[4096..4608].fill(b'A');
    expected[999_996..].copy_from_slice(b"tail");
    for (name, tar) in cases {
        let place = Place::new();
        place.unpack(&tar, RECORD).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(std::fs::read(place.layer().join("f")).unwrap() == expected, "{name}");
        assert!(std::fs::metadata(place.layer().join("f")).unwrap().blocks() < 100, "{name}: holes were written");
        assert_eq!(std::fs::read(place.layer().join("next")).unwrap(), b"n", "{name}");
    }
    let place = Place::new();
    let hole = Tar::new().pax(&[("GNU.sparse.size", b"99999999"), ("GNU.sparse.map", b"")]).file("f", b"").finish();
    place.unpack(&hole, RECORD).unwrap();
    assert_eq!(std::fs::metadata(place.layer().join("f")).unwrap().len(), 99_999_999);
}

/// What readers disagree about is refused (security.md E2).
#[test]
fn ambiguity_is_refused() {
    let t = Tar::new;
    let file = |tar: Tar| tar.file("f", b"x").finish();
    for (name, tar, text) in [
        ("a PAX name and a GNU name", file(t().pax(&[("path", b"a")]).gnu_long(b'L', b"b")), "one name in two"),
        (
            "a PAX link and a GNU link",
            t().pax(&[("linkpath", b"a")]).gnu_long(b'K', b"b").symlink("l", "c").finish(),
            "one name in two",
        ),
        ("two PAX headers", file(t().pax(&[("path", b"a")]).pax(&[("path", b"b")])), "two extended headers"),
        ("two GNU names", file(t().gnu_long(b'L', b"a").gnu_long(b'L', b"b")), "two extended headers"),
        ("an empty GNU name", file(t().gnu_long(b'L', b"")), "empty long name"),
        ("a global path", file(t().member(Member::new(b'g', "g").data(&pax_record("path", b"x")))), "global"),
        ("a global size", file(t().member(Member::new(b'g', "g").data(&pax_record("size", b"0")))), "global"),
        ("a malformed PAX size", file(t().pax(&[("size", b"0x1")])), "extended header size"),
        ("a PAX record with a wrong length", file(t().member(Member::new(b'x', "x").data(b"99 path=a\n"))), "record"),
        (
            "an unknown sparse version",
            file(t().pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.size", b"1")])),
            "unknown version",
        ),
        (
            "a sparse symlink",
            t().pax(&[("GNU.sparse.map", b""), ("GNU.sparse.size", b"1")]).symlink("l", "x").finish(),
            "sparse",
        ),
        (
            "a sparse map too short",
            file(t().pax(&[("GNU.sparse.map", b"0"), ("GNU.sparse.size", b"1")])),
            "half a segment",
        ),
        (
            "a sparse map of less than is stored",
            file(t().pax(&[("GNU.sparse.map", b""), ("GNU.sparse.size", b"1")])),
            "not what is stored",
        ),
    ] {
        let place = Place::new();
        let report = place.unpack(&tar, RECORD).unwrap_err().report();
        assert!(report.contains(text), "{name}: {report}");
    }
    // The classic differential: the header says 0, PAX says 1024, and the data is an entry of its own (CVE-2025-62518).
    let hidden = Tar::new().file("smuggled", b"").unfinished();
    let place = Place::new();
    let data = [hidden, vec![0; 512]].concat();
    let outer = Member::new(b'0', "outer").data(&data).size(0);
    place.unpack(&t().pax(&[("size", b"1024")]).member(outer).file("after", b"").finish(), RECORD).unwrap();
    assert!(!place.layer().join("smuggled").exists());
    assert_eq!(std::fs::metadata(place.layer().join("outer")).unwrap().len(), 1024);
    assert!(place.layer().join("after").exists());
    // A comment in a global header is git's, and harmless.
    let place = Place::new();
    place.unpack(&file(t().member(Member::new(b'g', "g").data(&pax_record("comment", b"x")))), RECORD).unwrap();
}

#[test]
fn limits_hold_at_the_limit() {
    let value = |length: usize| vec![b'v'; length];
    let with_xattr =
        |length: usize| Tar::new().pax(&[("SCHILY.xattr.trusted.x", &value(length))]).file("f", b"").finish();
    let files = |count: usize| (0..count).fold(Tar::new(), |tar, number| tar.file(&format!("f{number}"), b"")).finish();
    let sized = |size: usize| Tar::new().file("f", &value(size)).unfinished();
    let header = |length: usize| {
        let comment = value(length - 17);
        let record = pax_record("comment", &comment);
        assert_eq!(record.len(), length);
        Tar::new().member(Member::new(b'x', "x").data(&record)).file("f", b"").finish()
    };
    let segments = |count: usize| {
        let map = vec!["0,0"; count].join(",");
        Tar::new().pax(&[("GNU.sparse.size", b"1"), ("GNU.sparse.map", map.as_bytes())]).file("f", b"").finish()
    };
    let small = LayerLimits { bytes: 4096, entries: 10 };
    let usual = LayerLimits::default();
    let most = usize::try_from(limits::TAR_HEADER_BYTES).unwrap();
    for (name, tar, limits, good) in [
        ("entries", files(10), LayerLimits { entries: 10, ..usual }, true),
        ("one entry more", files(11), LayerLimits { entries: 10, ..usual }, false),
        ("bytes", sized(4096 - 512), small, true),
        ("one block more", sized(4096), small, false),
        ("one byte of padding more", [sized(4096 - 512), vec![0]].concat(), small, false),
        ("xattr", with_xattr(limits::XATTR_BYTES), usual, true),
        ("xattr and one byte", with_xattr(limits::XATTR_BYTES + 1), usual, false),
        ("header", header(most), usual, true),
        ("header and one byte", header(most + 1), usual, false),
        ("segments", segments(limits::SPARSE_SEGMENTS), usual, true),
        ("segments and one", segments(limits::SPARSE_SEGMENTS + 1), usual, false),
        (
            "holes",
            Tar::new().pax(&[("GNU.sparse.size", b"4096"), ("GNU.sparse.map", b"")]).file("f", b"").unfinished(),
            small,
            true,
        ),
        (
            "a hole too large",
            Tar::new().pax(&[("GNU.sparse.size", b"4097"), ("GNU.sparse.map", b"")]).file("f", b"").unfinished(),
            small,
            false,
        ),
    ] {
        let place = Place::new();
        let found = unpack(&place.layer(), &tar, RECORD, limits);
        assert_eq!(found.is_ok(), good, "{name}: {found:?}");
        if let Err(error) = found {
            let report = error.report();
            assert!(report.contains("limit") || report.contains("sparse.map"), "{name}: {report}");
        }
    }
}

/// The bug that must do no harm: an entry below this writes wherever it says, as if `tree` had been led astray.
const BUG: &[u8] = b"path-bug/";

/// Called for each entry, where a bug would be.
pub(super) fn act_up(entry: &Entry) -> Result<()> {
    match entry.path.strip_prefix(BUG) {
        Some(path) => Ok(std::fs::write(Path::new("/").join(std::ffi::OsStr::from_bytes(path)), "escaped")?),
        None => Ok(()),
    }
}

#[test]
fn a_path_bug_could_not_write_outside() {
    if crate::sys::landlock::abi().unwrap_or(0) < 2 {
        println!("a_path_bug_could_not_write_outside: not run: no Landlock of version 2");
        return;
    }
    let place = Place::new();
    let escape = |target: &Path| {
        let name = [BUG, target.strip_prefix("/").unwrap().as_os_str().as_bytes()].concat();
        place.unpack(&Tar::new().file(std::str::from_utf8(&name).unwrap(), b"x").finish(), RECORD)
    };
    let outside = place.layer().parent().unwrap().join("escaped");
    let error = escape(&outside).unwrap_err();
    assert!(error.report().ends_with("(EACCES)"), "{error:?}");
    assert!(!outside.exists());
    // The bug is one: inside it writes, and so does it where the thread is not confined.
    escape(&place.layer().join("inside")).unwrap();
    assert_eq!(std::fs::read(place.layer().join("inside")).unwrap(), b"escaped");
    std::fs::write(&outside, "x").expect("this thread is not confined");
}

#[test]
fn a_bomb_stops_at_the_quota() {
    let limits = LayerLimits { bytes: 8 << 20, ..LayerLimits::default() };
    let tar = Tar::new().file("zeros", &vec![0; 64 << 20]).finish();
    for packed in [build::gzip(&tar), build::zstd(&tar)] {
        let place = Place::new();
        let layer =
            Layer { blob: Expected::default(), compression: None, diff_id: Digest::of(Algorithm::Sha256, &tar) };
        let directory = rustix::fs::open(place.layer(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let error = unpack_layer(Box::new(packed.as_slice()), &layer, directory, RECORD, limits).unwrap_err();
        assert!(error.report().contains("limit"), "{error:?}");
    }
}

#[test]
fn every_lie_about_a_layer_is_found() {
    let tar = Tar::new().file("f", &vec![b'x'; 100_000]).finish();
    let true_id = Digest::of(Algorithm::Sha256, &tar);
    let other = Digest::of(Algorithm::Sha256, b"other");
    let (gzip, zstd) = (build::gzip(&tar), build::zstd(&tar));
    let blob =
        |bytes: &[u8]| Expected { digest: Some(Digest::of(Algorithm::Sha256, bytes)), size: Some(bytes.len() as u64) };
    let sha512 = Expected { digest: Some(Digest::of(Algorithm::Sha512, &gzip)), size: None };
    let cut = &gzip[..gzip.len() - 10];
    let cut_zstd = &zstd[..zstd.len() - 4];
    let garbage = [gzip.as_slice(), b"garbage"].concat();
    let twice = [build::gzip(&tar[..1000]), build::gzip(&tar[1000..])].concat();
    let frames = [build::zstd(&tar[..1000]), build::zstd(&tar[1000..])].concat();
    let mut flipped = gzip.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let (g, z, p) = (Some(Compression::Gzip), Some(Compression::Zstd), Some(Compression::None));
    for (name, packed, compression, expected, diff_id, problem) in [
        ("gzip", &gzip[..], g, blob(&gzip), true_id, None),
        ("zstd", &zstd, z, blob(&zstd), true_id, None),
        ("plain", &tar, p, blob(&tar), true_id, None),
        ("nothing stated", &gzip, None, Expected::default(), true_id, None),
        ("sha512", &gzip, g, sha512, Digest::of(Algorithm::Sha512, &tar), None),
        ("two gzip members", &twice, g, blob(&twice), true_id, None),
        ("two zstd frames", &frames, z, blob(&frames), true_id, None),
        ("another digest", &gzip, g, Expected { digest: Some(other), ..blob(&gzip) }, true_id, Some("digest mismatch")),
        ("a smaller size", &gzip, g, Expected { size: Some(100), ..blob(&gzip) }, true_id, Some("size mismatch")),
        ("a larger size", &gzip, g, Expected { size: Some(1 << 20), ..blob(&gzip) }, true_id, Some("size mismatch")),
        ("another diff id", &gzip, g, blob(&gzip), other, Some("diff id mismatch")),
        ("truncated gzip", cut, g, blob(&gzip), true_id, Some("size mismatch")),
        ("truncated gzip, said so", cut, g, blob(cut), true_id, Some("")),
        ("truncated zstd, said so", cut_zstd, z, blob(cut_zstd), true_id, Some("")),
        ("a flipped bit", &flipped, g, blob(&gzip), true_id, Some("digest mismatch")),
        ("garbage behind", &garbage, g, blob(&garbage), true_id, Some("")),
        ("gzip called zstd", &gzip, z, blob(&gzip), true_id, Some("mediaType")),
        ("plain called gzip", &tar, g, blob(&tar), true_id, Some("mediaType")),
        ("gzip called plain", &gzip, p, blob(&gzip), true_id, Some("mediaType")),
        ("empty", b"", g, blob(b""), true_id, Some("mediaType")),
    ] {
        let place = Place::new();
        let layer = Layer { blob: expected, compression, diff_id };
        let directory = rustix::fs::open(place.layer(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let found = unpack_layer(Box::new(packed), &layer, directory, RECORD, LayerLimits::default());
        match (found, problem) {
            (Ok(_), None) => {
                assert_eq!(std::fs::metadata(place.layer().join("f")).unwrap().len(), 100_000, "{name}");
            }
            (Err(error), Some(text)) => assert!(error.report().contains(text), "{name}: {error:?}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

/// Truncation at every step: an error each time, never a hang or a panic.
#[test]
fn truncation_anywhere_is_an_error() {
    let content: Vec<u8> =
        (0..60_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let tar = Tar::new().file("f", &content).finish();
    for packed in [build::gzip(&tar), build::zstd(&tar), tar.clone()] {
        for length in (0..packed.len()).step_by(4096) {
            let place = Place::new();
            let layer =
                Layer { blob: Expected::default(), compression: None, diff_id: Digest::of(Algorithm::Sha256, &tar) };
            let directory = rustix::fs::open(place.layer(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
            let packed = &packed[..length];
            assert!(
                unpack_layer(Box::new(packed), &layer, directory, RECORD, LayerLimits::default()).is_err(),
                "{length}"
            );
        }
    }
}

/// Any bytes at all: no panic, and nothing outside.
#[test]
fn noise_is_survived() {
    use proptest::prelude::*;
    let place = Place::new();
    let honest = corpus(place.sentinel().to_str().unwrap());
    let mut runner = proptest::test_runner::TestRunner::new(proptest::test_runner::Config {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    });
    let strategy =
        (0..honest.len(), proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), any::<bool>());
    let before = snapshot(&place.sentinel());
    runner
        .run(&strategy, |(case, changes, fix)| {
            let mut tar = honest[case].1.clone();
            tar.truncate(1 << 16);
            for (at, value) in changes {
                let at = at.index(tar.len());
                tar[at] = value;
                if fix {
                    // With its checksum made right, the header is looked at closer.
                    let start = at / 512 * 512;
                    if let Some(header) = tar.get_mut(start..start + 512) {
                        header[148..156].fill(b' ');
                        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                    }
                }
            }
            let layer = tempfile::tempdir_in(place.outside.path()).unwrap();
            let _ = unpack(layer.path(), &tar, RECORD, LayerLimits { bytes: 1 << 20, entries: 1000 });
            Ok(())
        })
        .unwrap();
    assert_eq!(snapshot(&place.sentinel()), before);
}
