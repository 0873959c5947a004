//! Merged trees against a model: the layers applied one after the other to a map.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;
use crate::image::digest::{Algorithm, Digest, Expected};
use crate::image::limits::LayerLimits;
use crate::image::resolve::Layer;
use crate::image::tar_builder::{Member, Tar};
use crate::image::trees::through_overlayfs;
use crate::image::unpack::{OWNER_XATTR, OverlayXattr, unpack_layer};

const FORM: Form = Form { ownership: Ownership::Record, overlay: OverlayXattr::User };

fn directory(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn unpack(place: &Path, name: &str, tar: &[u8]) -> PathBuf {
    let path = place.join(name);
    std::fs::create_dir(&path).unwrap();
    let layer = Layer { blob: Expected::default(), compression: None, diff_id: Digest::of(Algorithm::Sha256, tar) };
    unpack_layer(Box::new(tar), &layer, directory(&path), FORM, LayerLimits::default()).unwrap();
    path
}

fn merge(place: &Path, layers: &[PathBuf], access: Access) -> (PathBuf, Method) {
    let target = place.join("merged");
    std::fs::create_dir(&target).unwrap();
    let method = merge_layers(layers, directory(&target), FORM, access, None).unwrap();
    (target, method)
}

/// Paths, with the contents of files and the targets of links.
fn contents(tree: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(tree).min_depth(1) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(tree).unwrap().to_str().unwrap().to_owned();
        let kind = entry.file_type();
        let content = match () {
            () if kind.is_dir() => None,
            () if kind.is_symlink() => {
                Some(std::fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes())
            }
            () => Some(std::fs::read(entry.path()).unwrap()),
        };
        all.insert(path, content);
    }
    all
}

/// Where no device can be made, whiteouts are files with an attribute (Linux 6.7), and hide all the same.
#[test]
fn whiteouts_without_devices_hide_as_well() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let place = tempfile::tempdir().unwrap();
    let low =
        Tar::new().file("d/gone", b"low").file("d/kept", b"low").file("e/gone", b"low").file("f", b"low").finish();
    let high = Tar::new()
        .file("d/.wh.gone", b"")
        .file(".wh.e", b"")
        .file("e/new", b"high")
        .file(".wh.f", b"")
        .file("swept/.wh.x", b"")
        .file("swept/.wh..wh..opq", b"")
        .file("d/empty", b"")
        .finish();
    let layers = std::thread::scope(|scope| {
        let denied = scope.spawn(|| {
            let rules = [libc::SYS_mknodat, libc::SYS_mknod].map(|call| (call, vec![])).into_iter().collect();
            let deny = SeccompAction::Errno(libc::EPERM.unsigned_abs());
            let filter =
                SeccompFilter::new(rules, SeccompAction::Allow, deny, std::env::consts::ARCH.try_into().unwrap());
            let program: BpfProgram = filter.unwrap().try_into().unwrap();
            seccompiler::apply_filter(&program).unwrap();
            [unpack(place.path(), "low", &low), unpack(place.path(), "high", &high)]
        });
        denied.join().unwrap()
    });
    let m = std::fs::symlink_metadata(layers[1].join("d/gone")).unwrap();
    assert!(m.is_file() && m.len() == 0, "the filter was not in force");
    assert!(!layers[1].join("swept/x").exists());
    let (merged, _) = merge(place.path(), &layers, Access::Writable);
    let found = contents(&merged);
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["d", "d/empty", "d/kept", "e", "e/new", "swept"]);
    if let Some(overlay) = through_overlayfs(place.path(), layers.iter().rev(), true, "true") {
        let (kernel, shown) = (rustix::system::uname(), contents(&overlay.shown));
        assert_eq!(shown, found, "Linux {} (6.7 is the first that can)", kernel.release().to_string_lossy());
    }
}

#[test]
fn a_merge_is_what_overlayfs_shows() {
    let place = tempfile::tempdir().unwrap();
    let low = Tar::new()
        .member(Member::new(b'5', "./").mode(0o711))
        .member(Member::new(b'5', "etc").mode(0o750).mtime(1000))
        .file("etc/kept", b"low")
        .file("etc/changed", b"low")
        .file("etc/gone", b"low")
        .file("tree/a/b", b"low")
        .file("shut/a", b"low")
        .file("shut/b", b"low")
        .symlink("link", "etc/kept")
        .file("kind", b"low")
        .directory("became-file/inner")
        .member(Member::new(b'0', "suid").mode(0o4755).owner(1, 2))
        .hard_link("second", "suid")
        .finish();
    let high = Tar::new()
        .member(Member::new(b'5', "etc").mode(0o700).mtime(2000))
        .file("etc/changed", b"high")
        .file("etc/.wh.gone", b"")
        .file(".wh.tree", b"")
        .file("shut/.wh..wh..opq", b"")
        .file("shut/new", b"high")
        .symlink("link", "elsewhere")
        .file("kind/is/directory", b"high")
        .file("became-file", b"high")
        .finish();
    let layers = [unpack(place.path(), "low", &low), unpack(place.path(), "high", &high)];
    let (merged, method) = merge(place.path(), &layers, Access::Writable);
    assert_ne!(method, Method::HardLink);
    if let Some(overlay) = through_overlayfs(place.path(), layers.iter().rev(), true, "true") {
        assert_eq!(contents(&merged), contents(&overlay.shown));
    }
    let file = |text: &str| Some(text.as_bytes().to_vec());
    let expected = BTreeMap::from(
        [
            ("etc", None),
            ("etc/kept", file("low")),
            ("etc/changed", file("high")),
            ("shut", None),
            ("shut/new", file("high")),
            ("link", file("elsewhere")),
            ("kind", None),
            ("kind/is", None),
            ("kind/is/directory", file("high")),
            ("became-file", file("high")),
            ("suid", file("")),
            ("second", file("")),
        ]
        .map(|(path, content)| (path.to_owned(), content)),
    );
    assert_eq!(contents(&merged), expected);
    let look = |name: &str| std::fs::symlink_metadata(merged.join(name)).unwrap();
    assert_eq!((look("etc").mode() & 0o7777, look("etc").mtime()), (0o700, 2000));
    assert_eq!(look("suid").ino(), look("second").ino());
    let mut record = [0; 64];
    let length = rustix::fs::getxattr(merged.join("suid"), OWNER_XATTR, record.as_mut_slice()).unwrap();
    assert_eq!(&record[..length], b"1:2:4755");
    let mark = rustix::fs::getxattr(merged.join("shut"), FORM.overlay.opaque(), record.as_mut_slice());
    assert_eq!(mark, Err(Errno::NODATA), "overlay's marks stay in the layers");
}

/// A container that writes to its files must never write to the layer's.
#[test]
fn only_a_read_only_root_shares_inodes() {
    let tar = Tar::new().file("f", b"original").finish();
    for access in [Access::Writable, Access::ReadOnly] {
        let place = tempfile::tempdir().unwrap();
        let layer = unpack(place.path(), "layer", &tar);
        let (merged, method) = merge(place.path(), std::slice::from_ref(&layer), access);
        let inode = |tree: &Path| std::fs::metadata(tree.join("f")).unwrap().ino();
        assert_eq!(inode(&merged) == inode(&layer), access == Access::ReadOnly);
        assert_eq!(method == Method::HardLink, access == Access::ReadOnly);
        if access == Access::Writable {
            let file = std::fs::OpenOptions::new().write(true).open(merged.join("f")).unwrap();
            file.write_all_at(b"changed!", 0).unwrap();
            assert_eq!(std::fs::read(layer.join("f")).unwrap(), b"original");
        }
    }
}

#[test]
fn holes_stay_holes() {
    let place = tempfile::tempdir().unwrap();
    let tar = Tar::new()
        .pax(&[("GNU.sparse.size", b"50000000"), ("GNU.sparse.map", b"10000000,512,49999999,1")])
        .file("f", &[&[b'A'; 512][..], b"Z"].concat())
        .finish();
    let layer = unpack(place.path(), "layer", &tar);
    let (merged, _) = merge(place.path(), std::slice::from_ref(&layer), Access::Writable);
    let m = std::fs::metadata(merged.join("f")).unwrap();
    assert_eq!(m.len(), 50_000_000);
    assert!(m.blocks() < 100, "{} blocks", m.blocks());
    assert!(std::fs::read(merged.join("f")).unwrap() == std::fs::read(layer.join("f")).unwrap());
    // The slow road of the same copy.
    let copy = std::fs::File::create_new(place.path().join("slow")).unwrap();
    let source = std::fs::File::open(layer.join("f")).unwrap();
    copy_through_memory(&source.into(), &copy.into(), 0, 50_000_000).unwrap();
    assert!(std::fs::read(place.path().join("slow")).unwrap() == std::fs::read(layer.join("f")).unwrap());
}

/// Random layers: the merge equals the layers applied in order to a model that knows no file system.
#[test]
fn any_layers_merge_as_the_model_does() {
    use proptest::prelude::*;
    // One step of a layer. Names from a small pool, so that they meet.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        File(usize),
        Directory(usize),
        Whiteout(usize),
        Opaque(usize),
    }
    const NAMES: [&str; 7] = ["a", "a/b", "a/b/c", "a/c", "d", "d/e", "d/e/f"];
    let step = (0..NAMES.len(), 0..4).prop_map(|(name, kind)| match kind {
        0 => Step::File(name),
        1 => Step::Directory(name),
        2 => Step::Whiteout(name),
        _ => Step::Opaque(name),
    });
    let layers = proptest::collection::vec(proptest::collection::vec(step, 0..8), 1..4);
    let mut runner = proptest::test_runner::TestRunner::new(proptest::test_runner::Config {
        cases: 200,
        failure_persistence: None,
        ..Default::default()
    });
    let below = |name: &str, path: &str| path == name || path.starts_with(&format!("{name}/"));
    runner
        .run(&layers, |layers| {
            let place = tempfile::tempdir().unwrap();
            let mut model: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
            let mut paths = Vec::new();
            for (number, steps) in layers.iter().enumerate() {
                // A well-formed layer, as a differ writes it: what it hides first, then each name once, parents first.
                let mut tar = Tar::new();
                let mut made: BTreeMap<&str, bool> = BTreeMap::new();
                for step in steps {
                    let (Step::File(name) | Step::Directory(name)) = step else { continue };
                    let name = NAMES[*name];
                    let parents_are_directories =
                        made.iter().all(|(path, is_file)| !(*is_file && *path != name && below(path, name)));
                    let is_parent = made.keys().any(|path| *path != name && below(name, path));
                    if parents_are_directories
                        && !(matches!(step, Step::File(_)) && is_parent)
                        && !made.contains_key(name)
                    {
                        made.insert(name, matches!(step, Step::File(_)));
                    }
                }
                let mut implied = BTreeSet::new();
                for step in steps {
                    let (hidden, entry) = match step {
                        Step::Whiteout(name) => {
                            let (parent, last) = NAMES[*name].rsplit_once('/').unwrap_or(("", NAMES[*name]));
                            (NAMES[*name], format!("{parent}/.wh.{last}"))
                        }
                        Step::Opaque(name) => (NAMES[*name], format!("{}/.wh..wh..opq", NAMES[*name])),
                        _ => continue,
                    };
                    let is_opaque = matches!(step, Step::Opaque(_));
                    let directory = entry.rsplit_once('/').unwrap().0.trim_start_matches('/').to_owned();
                    // Hiding inside what this layer makes a file of, or already hides, is not well-formed.
                    let blocked =
                        made.iter().any(|(path, is_file)| *is_file && (below(path, &directory) || below(path, hidden)));
                    if blocked {
                        continue;
                    }
                    tar = tar.file(&entry, b"");
                    model.retain(|path, _| !below(hidden, path) || (is_opaque && path == hidden));
                    // What hides makes the directories it stands in, and hides nothing of its own layer.
                    let mut parent = directory.as_str();
                    while !parent.is_empty() {
                        implied.insert(parent.to_owned());
                        parent = parent.rsplit_once('/').map_or("", |(parent, _)| parent);
                    }
                    for path in &implied {
                        model.insert(path.clone(), None);
                    }
                }
                let content = number.to_string().into_bytes();
                for (name, is_file) in &made {
                    if *is_file {
                        model.retain(|path, _| !below(name, path));
                        tar = tar.file(name, &content);
                    } else {
                        tar = tar.directory(name);
                    }
                    model
                        .entry((*name).to_owned())
                        .and_modify(|old| {
                            if !is_file {
                                *old = None;
                            }
                        })
                        .or_insert(None);
                    if *is_file {
                        model.insert((*name).to_owned(), Some(content.clone()));
                    }
                    let mut parent = *name;
                    while let Some((above, _)) = parent.rsplit_once('/') {
                        model.insert(above.to_owned(), None);
                        parent = above;
                    }
                }
                paths.push(unpack(place.path(), &number.to_string(), &tar.finish()));
            }
            let (merged, _) = merge(place.path(), &paths, Access::Writable);
            prop_assert_eq!(contents(&merged), model);
            Ok(())
        })
        .unwrap();
}
