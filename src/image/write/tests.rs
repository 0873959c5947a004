//! Trees that are written and unpacked again, layers beside the kernel's own overlay, and what GNU tar reads.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags, XattrFlags};

use super::walk::walk;
use super::*;
use crate::image::digest::{Digest, Expected};
use crate::image::limits::LayerLimits;
use crate::image::resolve::Layer;
use crate::image::tar::{Entry, EntryKind, Reader, Xattr};
use crate::image::tar_builder::Tar;
use crate::image::trees::{Overlay, is_full_root, through_overlayfs};
use crate::image::unpack::{Form, OWNER_XATTR, unpack_layer};

const KEEP: Form = Form { ownership: Ownership::Keep, overlay: OverlayXattr::Trusted };
const RECORD: Form = Form { ownership: Ownership::Record, overlay: OverlayXattr::User };

fn settings(form: Form) -> Settings {
    Settings {
        compression: Compression::None,
        algorithm: Algorithm::Sha256,
        ownership: form.ownership,
        latest: None,
        with_fractions: false,
        changing: Changing::Refuse,
    }
}

fn unpack_packed(into: &Path, packed: &[u8], names: Packed, compression: Compression, form: Form) {
    let layer = Layer {
        blob: Expected { digest: Some(names.digest), size: Some(names.size) },
        compression: Some(compression),
        diff_id: names.diff_id,
    };
    std::fs::create_dir(into).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(into, flags, Mode::empty()).unwrap();
    unpack_layer(Box::new(packed), &layer, directory, form, LayerLimits::default()).unwrap();
}

fn unpack(into: &Path, tar: &[u8], form: Form) {
    let digest = Digest::of(Algorithm::Sha256, tar);
    let size = tar.len() as u64;
    let names = Packed { digest, size, diff_id: digest, unpacked_size: size };
    unpack_packed(into, tar, names, Compression::None, form);
}

fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::new(tar);
    let mut entries = Vec::new();
    let mut entry = Entry::default();
    while reader.next(&mut entry).unwrap() {
        entries.push(entry.clone());
    }
    entries
}

fn tree_of(directory: &Path, settings: &Settings) -> Result<(Vec<u8>, Written)> {
    write_tree(&Root::open(directory).unwrap(), settings, Vec::new())
}

fn layer_of(upper: &Path, form: Form) -> Result<(Vec<u8>, Written)> {
    write_layer(&Root::open(upper).unwrap(), form.overlay, &[], &settings(form), Vec::new())
}

/// A tar as we write it: sorted, with all kinds of things.
fn all_kinds() -> Vec<Entry> {
    let at = |path: &[u8], kind, mode| Entry {
        path: path.to_vec(),
        kind,
        mode,
        mtime: crate::image::tar::Time { seconds: 1_700_000_000, nanoseconds: 0 },
        ..Entry::default()
    };
    let deep: Vec<u8> = b"z/".repeat(100);
    let mut all = vec![
        at(b"bin/", EntryKind::Directory, 0o755),
        Entry { size: 3, uid: 1000, gid: 50, ..at(b"bin/sh", EntryKind::Regular, 0o4755) },
        Entry { link: b"bin/sh".to_vec(), uid: 1000, gid: 50, ..at(b"bin/sh2", EntryKind::HardLink, 0o4755) },
        at(b"dev/", EntryKind::Directory, 0o700),
        Entry { major: 8, minor: 1, gid: 6, ..at(b"dev/block", EntryKind::Block, 0o660) },
        Entry { major: 1, minor: 3, ..at(b"dev/null", EntryKind::Character, 0o666) },
        at(b"dev/pipe", EntryKind::Fifo, 0o600),
        Entry { uid: 4_000_000_000, gid: 3_000_000, ..at(b"ids", EntryKind::Regular, 0o600) },
        Entry { link: b"/etc/passwd".to_vec(), ..at(b"link", EntryKind::Symlink, 0o777) },
        Entry { link: vec![b'l'; 200], ..at(&[b'n'; 180], EntryKind::Symlink, 0o777) },
        Entry {
            xattrs: vec![Xattr { name: b"user.a".to_vec(), value: b"\0\n=".to_vec() }],
            size: 100_000,
            ..at("ü \n".as_bytes(), EntryKind::Regular, 0o644)
        },
        Entry {
            xattrs: vec![Xattr { name: b"user.b".to_vec(), value: vec![7; 3000] }],
            uid: 5,
            ..at(b"tmp/", EntryKind::Directory, 0o1777)
        },
    ];
    all.extend((1..=100).map(|depth| at(&deep[..depth * 2], EntryKind::Directory, 0o755)));
    all.sort_by(|one, other| one.path.cmp(&other.path));
    all
}

fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut writer = tar::TarWriter::new(Vec::new());
    for entry in entries {
        writer.entry(entry).unwrap();
        writer.data(&vec![b'x'; usize::try_from(entry.size).unwrap()]).unwrap();
    }
    writer.finish().unwrap()
}

/// Files' times are theirs; those of nodes that are stood in for by empty files as well.
#[test]
fn a_tree_is_written_as_it_was_unpacked() {
    let place = tempfile::tempdir().unwrap();
    for (name, form) in [("record", RECORD), ("keep", KEEP)] {
        if form == KEEP && !is_full_root("a_tree_is_written_as_it_was_unpacked (keep)") {
            continue;
        }
        let mut all = all_kinds();
        for entry in &mut all {
            // A symlink's owner is recorded nowhere, and unpacking takes attributes of files and directories alone.
            if form == KEEP && entry.kind == EntryKind::Symlink {
                (entry.uid, entry.gid) = (3, 4);
            }
        }
        let tar = tar_of(&all);
        let directory = place.path().join(name);
        unpack(&directory, &tar, form);
        let (written, facts) = tree_of(&directory, &settings(form)).unwrap();
        let read = entries(&written);
        for (read, expected) in read.iter().zip(&all) {
            assert_eq!(read, expected, "{name}");
        }
        assert_eq!(written, tar, "{name}: the same entries in other bytes");
        assert_eq!((facts.entries, facts.packed.unpacked_size), (all.len() as u64, tar.len() as u64));
    }
}

#[test]
fn a_mode_that_was_changed_since_counts() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("d");
    let entry = Entry { path: b"a".to_vec(), uid: 7, mode: 0o4755, ..Entry::default() };
    unpack(&directory, &tar_of(&[entry]), RECORD);
    std::fs::set_permissions(directory.join("a"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let (written, _) = tree_of(&directory, &settings(RECORD)).unwrap();
    assert_eq!((entries(&written)[0].mode, entries(&written)[0].uid), (0o700, 7));
    rustix::fs::setxattr(directory.join("a"), OWNER_XATTR, b"forged", XattrFlags::empty()).unwrap();
    let error = tree_of(&directory, &settings(RECORD)).unwrap_err();
    assert_eq!(error.report(), "a: attribute user.husk.owner: malformed");
}

#[test]
fn whiteouts_and_opaque_directories_are_written_as_they_were_unpacked() {
    let tar = Tar::new()
        .directory("d/")
        .file("d/.wh.gone", b"")
        .file("d/kept", b"1")
        .directory("opaque/")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"2")
        .file(".wh.e", b"")
        .finish();
    let place = tempfile::tempdir().unwrap();
    for (name, form) in [("record", RECORD), ("keep", KEEP)] {
        if form == KEEP && !is_full_root("whiteouts_and_opaque_directories_are_written_as_they_were_unpacked (keep)") {
            continue;
        }
        let upper = place.path().join(name);
        unpack(&upper, &tar, form);
        let (written, _) = layer_of(&upper, form).unwrap();
        let paths: Vec<String> = entries(&written).iter().map(Entry::name).collect();
        let expected = ["d/", "d/.wh.gone", "d/kept", ".wh.e", "opaque/", "opaque/.wh..wh..opq", "opaque/new"];
        assert_eq!(paths, expected, "{name}");
        for entry in entries(&written).iter().filter(|entry| entry.name().contains(".wh.")) {
            let expected = Entry { path: entry.path.clone(), ..Entry::default() };
            assert_eq!(*entry, expected, "a marker says nothing but its name");
        }
        // As a tree, and not a layer, they are what they are.
        let (written, _) = tree_of(&upper, &settings(form)).unwrap();
        assert!(!entries(&written).iter().any(|entry| entry.name().contains(".wh.")));
    }
}

#[test]
fn what_a_layer_cannot_say_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let refused = |name: &str, make: &dyn Fn(&Path)| {
        let upper = place.path().join(name);
        std::fs::create_dir(&upper).unwrap();
        make(&upper);
        layer_of(&upper, RECORD).unwrap_err()
    };
    let attribute = |path: PathBuf, name: &str| {
        rustix::fs::setxattr(path, name, b"x", XattrFlags::empty()).unwrap();
    };
    let error = refused("redirect", &|upper| {
        std::fs::create_dir(upper.join("d")).unwrap();
        attribute(upper.join("d"), "user.overlay.redirect");
    });
    assert_eq!(error.report(), "d: attribute user.overlay.redirect: a layer cannot say it");
    let error = refused("metacopy", &|upper| {
        std::fs::write(upper.join("f"), "").unwrap();
        attribute(upper.join("f"), "user.overlay.metacopy");
    });
    assert!(error.report().starts_with("f: attribute user.overlay.metacopy"));
    let error = refused("whiteout", &|upper| {
        std::fs::create_dir(upper.join("d")).unwrap();
        std::fs::write(upper.join("d/.wh.f"), "").unwrap();
    });
    assert_eq!(error.report(), "d/.wh.f: in a layer, a name that begins with .wh. hides another");
}

#[test]
fn overlayfs_and_husk_keep_their_attributes_to_themselves() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("f"), "").unwrap();
    for name in ["user.overlay.origin", "user.overlay.impure", "user.kept", "user.husk.other"] {
        rustix::fs::setxattr(place.path().join("f"), name, b"x", XattrFlags::empty()).unwrap();
    }
    let (written, _) = layer_of(place.path(), RECORD).unwrap();
    let names: Vec<_> = entries(&written)[0].xattrs.iter().map(|xattr| xattr.name.clone()).collect();
    assert_eq!(names, [b"user.kept"]);
}

/// Proved by what unpacks them: it compares both digests and the size.
#[test]
fn packed_layers_have_the_names_that_are_said() {
    let place = tempfile::tempdir().unwrap();
    let all = all_kinds();
    let directory = place.path().join("tree");
    unpack(&directory, &tar_of(&all), RECORD);
    let mut diff_ids = Vec::new();
    for (index, compression) in [Compression::None, Compression::Gzip, Compression::Zstd].into_iter().enumerate() {
        let settings = Settings { compression, ..settings(RECORD) };
        let (packed, written) = tree_of(&directory, &settings).unwrap();
        assert_eq!(packed.len() as u64, written.packed.size);
        assert_eq!(Compression::detect(&packed), compression);
        unpack_packed(&place.path().join(index.to_string()), &packed, written.packed, compression, RECORD);
        assert_eq!(tree_of(&directory, &settings).unwrap().0, packed, "twice is not the same");
        diff_ids.push(written.packed.diff_id);
    }
    assert!(diff_ids.windows(2).all(|two| two[0] == two[1]));
    let sha512 = Settings { algorithm: Algorithm::Sha512, ..settings(RECORD) };
    let (packed, written) = tree_of(&directory, &sha512).unwrap();
    assert_eq!(written.packed.digest, Digest::of(Algorithm::Sha512, &packed));
}

#[test]
fn bytes_do_not_depend_on_when_and_how_the_tree_was_made() {
    let place = tempfile::tempdir().unwrap();
    let names = ["b", "a", "d/x", "c", "d.x", "D"];
    let make = |name: &str, order: &mut dyn Iterator<Item = &&str>| {
        let tree = place.path().join(name);
        std::fs::create_dir_all(tree.join("d")).unwrap();
        for name in order {
            std::fs::write(tree.join(name), name).unwrap();
            std::fs::set_permissions(tree.join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        std::fs::hard_link(tree.join("c"), tree.join("d/a link")).unwrap();
        std::fs::set_permissions(tree.join("d"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = Settings { latest: Some(1_000_000), compression: Compression::Gzip, ..settings(RECORD) };
        tree_of(&tree, &settings).unwrap().0
    };
    let one = make("one", &mut names.iter());
    let other = make("other", &mut names.iter().rev());
    assert_eq!(one, other);
    assert_eq!(one[4..10], [0, 0, 0, 0, 0, 255], "gzip says when or where");
    let tree = place.path().join("one");
    let (tar, _) = tree_of(&tree, &Settings { latest: Some(1_000_000), ..settings(RECORD) }).unwrap();
    let paths: Vec<_> = entries(&tar).iter().map(Entry::name).collect();
    assert_eq!(paths, ["D", "a", "b", "c", "d/", "d/a link", "d/x", "d.x"]);
    assert!(entries(&tar).iter().all(|entry| entry.mtime.seconds == 1_000_000));
    let link = entries(&tar).into_iter().find(|entry| entry.kind == EntryKind::HardLink).unwrap();
    assert_eq!((link.name().as_str(), link.link.as_slice()), ("d/a link", &b"c"[..]));
}

#[test]
fn times_have_fractions_only_if_asked() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("f"), "").unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1000, 123_456_789);
    std::fs::File::options().write(true).open(place.path().join("f")).unwrap().set_modified(time).unwrap();
    for (with_fractions, latest, expected) in [
        (false, None, (1000, 0)),
        (true, None, (1000, 123_456_789)),
        (true, Some(1000), (1000, 0)),
        (true, Some(999), (999, 0)),
        (true, Some(1001), (1000, 123_456_789)),
    ] {
        let (tar, _) = tree_of(place.path(), &Settings { latest, with_fractions, ..settings(RECORD) }).unwrap();
        let time = entries(&tar)[0].mtime;
        assert_eq!((time.seconds, time.nanoseconds), expected, "{with_fractions} {latest:?}");
    }
}

#[test]
fn sockets_are_left_out_and_links_are_not_followed() {
    let place = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let _socket = UnixListener::bind(place.path().join("socket")).unwrap();
    symlink(outside.path(), place.path().join("directory")).unwrap();
    symlink(outside.path().join("secret"), place.path().join("file")).unwrap();
    let (tar, written) = tree_of(place.path(), &settings(RECORD)).unwrap();
    assert_eq!(written.left_out, [b"socket"]);
    assert!(entries(&tar).iter().all(|entry| entry.kind == EntryKind::Symlink), "{:?}", entries(&tar));
    assert_eq!(entries(&tar).len(), 2);
}

#[test]
fn a_directory_that_is_replaced_while_it_is_read_is_noticed() {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    // Deep enough that the first directories are closed; `z` in each makes the walk return to it.
    let deep: PathBuf = std::iter::repeat_n("a", 60).collect();
    std::fs::create_dir_all(tree.join(&deep)).unwrap();
    std::fs::create_dir(tree.join("a/z")).unwrap();
    let names = |tree: &Path| {
        let mut names = Vec::new();
        walk(&Root::open(tree).unwrap(), |found| {
            names.push(String::from_utf8(found.path.to_vec()).unwrap());
            Ok(())
        })
        .map(|()| names)
    };
    let all = names(&tree).unwrap();
    assert_eq!((all.len(), all.last().unwrap().as_str()), (61, "a/z"));
    for replacement in ["directory", "symlink"] {
        let error = walk(&Root::open(&tree).unwrap(), |found| {
            if found.path.len() == 119 {
                std::fs::rename(tree.join("a"), place.path().join(replacement)).unwrap();
                match replacement {
                    "directory" => std::fs::create_dir_all(tree.join("a/z")).unwrap(),
                    _ => symlink(place.path().join(replacement), tree.join("a")).unwrap(),
                }
            }
            Ok(())
        })
        .unwrap_err();
        assert!(error.report().starts_with("a/z: "), "{}", error.report());
        match replacement {
            "directory" => std::fs::remove_dir_all(tree.join("a")).unwrap(),
            _ => std::fs::remove_file(tree.join("a")).unwrap(),
        }
        std::fs::rename(place.path().join(replacement), tree.join("a")).unwrap();
    }
}

#[test]
fn an_epoch_is_a_number_of_seconds() {
    for (text, expected) in [("", Some(None)), ("0", Some(Some(0))), ("1700000000", Some(Some(1_700_000_000)))] {
        assert_eq!(source_date_epoch(text).ok(), expected, "{text}");
    }
    for text in ["-1", "+1", "1.5", "now", " 1", "99999999999999999999"] {
        assert!(source_date_epoch(text).is_err(), "{text}");
    }
}

/// What another reader makes of it: kinds, modes, owners, sizes, times, names and links.
#[test]
fn gnu_tar_reads_what_was_written() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("all.tar");
    let all = all_kinds();
    std::fs::write(&path, tar_of(&all)).unwrap();
    let list = |flags: &[&str]| {
        let mut command = Command::new("tar");
        command.args(["--quoting-style=escape", "--utc", "--full-time", "--numeric-owner"]).args(flags).arg(&path);
        command.env("LC_ALL", "C.UTF-8").output()
    };
    let output = match list(&["-tvf"]) {
        Ok(output) => output,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a test that does not run says so")]
            {
                eprintln!("skipped gnu_tar_reads_what_was_written: tar: {error}");
            }
            return;
        }
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines.len(), all.len());
    for expected in [
        "drwxr-xr-x 0/0 0 2023-11-14 22:13:20 bin/",
        "-rwsr-xr-x 1000/50 3 2023-11-14 22:13:20 bin/sh",
        "hrwsr-xr-x 1000/50 0 2023-11-14 22:13:20 bin/sh2 link to bin/sh",
        "brw-rw---- 0/6 8,1 2023-11-14 22:13:20 dev/block",
        "crw-rw-rw- 0/0 1,3 2023-11-14 22:13:20 dev/null",
        "prw------- 0/0 0 2023-11-14 22:13:20 dev/pipe",
        "-rw------- 4000000000/3000000 0 2023-11-14 22:13:20 ids",
        "lrwxrwxrwx 0/0 0 2023-11-14 22:13:20 link -> /etc/passwd",
        &format!("lrwxrwxrwx 0/0 0 2023-11-14 22:13:20 {} -> {}", "n".repeat(180), "l".repeat(200)),
        "-rw-r--r-- 0/0 100000 2023-11-14 22:13:20 ü\\ \\n",
        "drwxrwxrwt 5/0 0 2023-11-14 22:13:20 tmp/",
        &format!("drwxr-xr-x 0/0 0 2023-11-14 22:13:20 {}", "z/".repeat(100)),
    ] {
        assert!(
            lines.iter().any(|line| line == expected || line == &expected.replace("\\ ", " ")),
            "{expected}\n{}",
            lines.join("\n")
        );
    }
    // With the options above, it says nothing of attributes.
    let output = Command::new("tar").args(["--xattrs", "--xattrs-include=*", "-tvvf"]).arg(&path).output().unwrap();
    let attributes = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = attributes.split_whitespace().collect();
    for expected in [["x:", "3", "user.a"], ["x:", "3000", "user.b"]] {
        assert!(words.windows(3).any(|words| words == expected), "{attributes}");
    }
}

/// Paths, with what they are and hold.
fn contents(tree: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(tree).min_depth(1) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(tree).unwrap().to_str().unwrap().to_owned();
        let facts = std::fs::symlink_metadata(entry.path()).unwrap();
        let content = match entry.file_type() {
            kind if kind.is_symlink() => std::fs::read_link(entry.path()).unwrap().display().to_string(),
            kind if kind.is_file() => std::fs::read_to_string(entry.path()).unwrap(),
            _ => String::new(),
        };
        let links = if facts.is_dir() { 0 } else { facts.nlink() };
        all.insert(path, format!("{:o} {links} {} {content}", facts.mode(), facts.mtime()));
    }
    all
}

#[test]
fn a_layer_of_the_kernels_own_making_says_what_was_done() {
    check_layer_of_the_kernels_own_making(RECORD);
}

/// With the attributes of the host's root.
#[test]
fn a_layer_of_roots_own_making_says_what_was_done() {
    if is_full_root("a_layer_of_roots_own_making_says_what_was_done") {
        check_layer_of_the_kernels_own_making(KEEP);
    }
}

fn check_layer_of_the_kernels_own_making(form: Form) {
    let place = tempfile::tempdir().unwrap();
    let low = Tar::new()
        .directory("etc/")
        .file("etc/passwd", b"root")
        .file("etc/gone", b"")
        .directory("old/")
        .file("old/a", b"a")
        .file("old/b", b"b")
        .directory("same/")
        .file("same/f", b"")
        .directory("var/")
        .directory("var/log/")
        .file("var/log/x", b"x")
        .directory("hidden/")
        .file("hidden/low", b"")
        .file("replaced", b"")
        .finish();
    let high = Tar::new().file("etc/middle", b"m").directory("hidden/").file("hidden/.wh.low", b"").finish();
    let [low, high] = [("low", low), ("high", high)].map(|(name, tar)| {
        let path = place.path().join(name);
        unpack(&path, &tar, form);
        path
    });
    let script = "echo new > etc/passwd; rm etc/gone etc/middle; rm -r old; mkdir old; echo c > old/b; echo d > old/d
                  chmod 700 var/log; mkdir -p new/dir; echo n > new/dir/f; ln new/dir/f new/link; ln -s f new/s
                  touch hidden/low; rm replaced; mkdir replaced; mkfifo new/p; touch tmp; rm tmp; ls same/f";
    let has_user_xattrs = form.overlay == OverlayXattr::User;
    let first = through_overlayfs(&place.path().join("one"), [&high, &low], has_user_xattrs, script);
    let Some(Overlay { upper, shown }) = first else { return };
    let lowers = [Root::open(&high).unwrap(), Root::open(&low).unwrap()];
    let list = |tree: &Path, listing| -> Vec<String> {
        let changes = list_changes(&Root::open(tree).unwrap(), &lowers, form.overlay, listing).unwrap();
        let line = |change: &Change| format!("{} {}", change.kind.letter(), String::from_utf8_lossy(&change.path));
        changes.iter().map(line).collect()
    };
    let expected = [
        "C /etc",
        "D /etc/gone",
        "D /etc/middle",
        "C /etc/passwd",
        "C /hidden",
        "A /hidden/low",
        "A /new",
        "A /new/dir",
        "A /new/dir/f",
        "A /new/link",
        "A /new/p",
        "A /new/s",
        "C /old",
        "D /old/a",
        "C /old/b",
        "A /old/d",
        "C /replaced",
        "C /var",
        "C /var/log",
    ];
    assert_eq!(list(&upper, Listing::default()), expected);
    assert_eq!(list(&shown, Listing { is_whole: true, ..Listing::default() }), expected, "the merged tree");

    let (tar, _) = layer_of(&upper, form).unwrap();
    let committed = place.path().join("committed");
    unpack(&committed, &tar, form);
    // The new layer on top of the others shows what the container saw.
    let second = place.path().join("two");
    let second = through_overlayfs(&second, [&committed, &high, &low], has_user_xattrs, "true").unwrap();
    let [before, after] = [shown, second.shown].map(|tree| contents(&tree));
    assert_eq!(before, after);
    assert_eq!(before.len(), 19, "{before:?}");
}

#[test]
fn changes_without_layers_below_are_all_new() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("d")).unwrap();
    std::fs::write(place.path().join("d/f"), "").unwrap();
    let changes =
        list_changes(&Root::open(place.path()).unwrap(), &[], OverlayXattr::User, Listing::default()).unwrap();
    let kinds: Vec<_> = changes.iter().map(|change| (change.kind, change.path.as_slice())).collect();
    assert_eq!(kinds, [(ChangeKind::Added, &b"/d"[..]), (ChangeKind::Added, b"/d/f")]);

    // A place for a mount is nobody's; what is in it is.
    for name in ["a", "a-b", "a.b"] {
        std::fs::create_dir(place.path().join(name)).unwrap();
        std::fs::write(place.path().join(name).join("f"), "").unwrap();
    }
    let mount_points = ["a", "a-b/f", "d", "d/f"].map(|path| path.as_bytes().to_vec());
    let listing = Listing { mount_points: &mount_points, ..Listing::default() };
    let changes = list_changes(&Root::open(place.path()).unwrap(), &[], OverlayXattr::User, listing).unwrap();
    let paths: Vec<_> = changes.iter().map(|change| std::str::from_utf8(&change.path).unwrap()).collect();
    assert_eq!(paths, ["/a", "/a/f", "/a-b", "/a.b", "/a.b/f"]);
    assert_eq!([ChangeKind::Changed, ChangeKind::Added, ChangeKind::Deleted].map(ChangeKind::number), [0, 1, 2]);
}
