//! The store as it is used: made, found again, shared, left by the dead.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Barrier;

use super::*;
use crate::image::image_builder::{self as build, LayerBlob};
use crate::image::platform::Platform;
use crate::image::resolve;
use crate::image::source::Source;
use crate::image::tar_builder::Tar;
use crate::image::unpack::{OverlayXattr, Ownership};

const FORM: Form = Form { ownership: Ownership::Record, overlay: OverlayXattr::User };

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> Store {
        Store::open(&self.directory.path().join("share/husk"), FORM).unwrap()
    }

    fn store_path(&self) -> PathBuf {
        self.directory.path().join("share/husk")
    }

    fn image(&self, layers: &[LayerBlob]) -> (Image, Box<dyn LayerReader>) {
        let path = tempfile::tempdir_in(self.directory.path()).unwrap().keep();
        build::write(&path, &build::layout(layers, "{}"));
        let Source::Local(local) = Source::parse(&format!("oci:{}", path.display())).unwrap() else { panic!() };
        resolve::open(&local, &Platform::host(), &|| panic!("nothing to spool")).unwrap()
    }

    fn tmp(&self) -> Vec<String> {
        let listing = std::fs::read_dir(self.store_path().join("tmp")).unwrap();
        listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn layer(name: &str) -> LayerBlob {
    LayerBlob::gzip(&Tar::new().directory("etc").file(&format!("etc/{name}"), name.as_bytes()).finish())
}

fn quiet(_: Event) {}

#[test]
fn layers_are_made_once_and_shared() {
    let place = Place::new();
    let store = place.store();
    let (first, reader) = place.image(&[layer("base"), layer("a")]);
    assert_eq!(store.find_layers(&first).unwrap(), None);
    let paths = store.ensure_layers(&first, &*reader, &quiet).unwrap();
    assert_eq!(std::fs::read(paths[0].join("etc/base")).unwrap(), b"base");
    assert_eq!(std::fs::read(paths[1].join("etc/a")).unwrap(), b"a");
    let inode = std::fs::metadata(&paths[0]).unwrap().ino();
    let events = Mutex::new(Vec::new());
    let (second, reader) = place.image(&[layer("base"), layer("b")]);
    let again = store.ensure_layers(&second, &*reader, &|event| events.lock().unwrap().push(event)).unwrap();
    assert_eq!((&again[0], std::fs::metadata(&again[0]).unwrap().ino()), (&paths[0], inode));
    let made: Vec<_> = events.into_inner().unwrap();
    assert_eq!(made.len(), 2, "{made:?}");
    assert!(matches!(made[0], Event::Unpacking { index: 1, total: 2, .. }), "{made:?}");
    assert_eq!(store.find_layers(&second).unwrap(), Some(again));
    assert_eq!(place.tmp(), Vec::<String>::new());
    // Another form of the same layer is another directory.
    let other = Form { overlay: OverlayXattr::Trusted, ..FORM };
    assert_eq!(Store::open(&place.store_path(), other).unwrap().find_layers(&second).unwrap(), None);
}

#[test]
fn equal_layers_and_opaque_ones() {
    let place = Place::new();
    let store = place.store();
    let opaque = LayerBlob::plain(Tar::new().file("x", b"").file(".wh..wh..opq", b"").finish());
    let (image, reader) = place.image(&[layer("a"), layer("b"), layer("a")]);
    let paths = store.ensure_layers(&image, &*reader, &quiet).unwrap();
    assert_eq!(paths.len(), 2, "overlayfs refuses a directory twice");
    assert!(paths[0].join("etc/b").exists() && paths[1].join("etc/a").exists());
    let (image, reader) = place.image(&[layer("a"), opaque, layer("b")]);
    let paths = store.ensure_layers(&image, &*reader, &quiet).unwrap();
    assert_eq!(paths.len(), 2, "what an opaque layer hides is left out");
    assert!(paths[0].join("x").exists() && paths[1].join("etc/b").exists());
    assert_eq!(store.ensure_layers(&image, &*reader, &quiet).unwrap(), paths);
}

#[test]
fn a_failed_layer_leaves_nothing() {
    let place = Place::new();
    let store = place.store();
    let mut lying = layer("bad");
    lying.diff_id = build::digest(b"other");
    let climbing = LayerBlob::plain(Tar::new().file("a", b"1").file("../b", b"2").finish());
    for bad in [lying, climbing] {
        let (image, reader) = place.image(&[layer("good"), bad]);
        let error = store.ensure_layers(&image, &*reader, &quiet).unwrap_err();
        assert!(error.report().starts_with("layer 2 of 2 (sha256:"), "{error:?}");
        assert_eq!(error.kind(), crate::error::Kind::Invalid);
        assert_eq!(place.tmp(), Vec::<String>::new());
        assert_eq!(store.find_layers(&image).unwrap(), None);
    }
    let kept = std::fs::read_dir(place.store_path().join("layers/record.user/sha256")).unwrap().count();
    assert_eq!(kept, 1, "the good layer is kept, the bad ones are not there");
}

#[test]
fn many_at_once_share_the_work() {
    let place = Place::new();
    let layers: Vec<_> = (0..6).map(|number| layer(&number.to_string())).collect();
    let made = AtomicUsize::new(0);
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let (image, reader) = place.image(&layers);
                let store = place.store();
                start.wait();
                let paths = store.ensure_layers(&image, &*reader, &|event| {
                    if matches!(event, Event::Unpacked { .. }) {
                        made.fetch_add(1, Ordering::SeqCst);
                    }
                });
                assert_eq!(paths.unwrap().len(), 6);
            });
        }
    });
    assert_eq!(made.load(Ordering::SeqCst), 6, "a layer was unpacked twice");
    assert_eq!(place.tmp(), Vec::<String>::new());
}

#[test]
fn what_the_dead_left_is_removed_and_the_living_are_spared() {
    let place = Place::new();
    let store = place.store();
    let staging = place.store_path().join("tmp");
    std::fs::create_dir_all(staging.join("dead/diff/deep")).unwrap();
    File::create_new(staging.join("dead.lock")).unwrap();
    std::fs::create_dir_all(staging.join("lockless/diff")).unwrap();
    std::fs::create_dir_all(staging.join("living/diff")).unwrap();
    let directory = rustix::fs::open(&staging, OPEN_PATH, Mode::empty()).unwrap();
    let held = Lock::try_take(directory.as_fd(), "living.lock").unwrap().unwrap();
    let (image, reader) = place.image(&[layer("a")]);
    // A staging directory of the very layer that is wanted.
    let key = format!("{}.sha256.{}", FORM.name(), image.layers[0].diff_id.hex());
    std::fs::create_dir_all(staging.join(&key).join("diff/etc/a")).unwrap();
    let paths = store.ensure_layers(&image, &*reader, &quiet).unwrap();
    assert_eq!(std::fs::read(paths[0].join("etc/a")).unwrap(), b"a");
    let mut left = place.tmp();
    left.sort();
    assert_eq!(left, ["living", "living.lock"]);
    drop(held);
}

/// A holder that dies while another waits leaves its staging directory to that other.
#[test]
fn the_waiting_inherit_from_the_dying() {
    let place = Place::new();
    let store = place.store();
    let (image, reader) = place.image(&[layer("a")]);
    let key = format!("{}.sha256.{}", FORM.name(), image.layers[0].diff_id.hex());
    let staging = place.store_path().join("tmp");
    std::fs::create_dir_all(staging.join(&key).join("diff/etc/a")).unwrap();
    let directory = rustix::fs::open(&staging, OPEN_PATH, Mode::empty()).unwrap();
    let held = Mutex::new(Lock::try_take(directory.as_fd(), &format!("{key}.lock")).unwrap());
    assert!(held.lock().unwrap().is_some());
    let waited = AtomicUsize::new(0);
    let report = |event| {
        if matches!(event, Event::Waiting { .. }) {
            waited.fetch_add(1, Ordering::SeqCst);
            drop(held.lock().unwrap().take());
        }
    };
    let paths = store.ensure_layers(&image, &*reader, &report).unwrap();
    assert_eq!(waited.load(Ordering::SeqCst), 1);
    assert_eq!(std::fs::read(paths[0].join("etc/a")).unwrap(), b"a");
    assert_eq!(place.tmp(), Vec::<String>::new());
}

/// security.md E9. The umask is the process's, so a process of its own is used.
#[test]
fn nobody_else_can_look_in() {
    const INNER: &str = "HUSK_TEST_STORE";
    if let Some(path) = std::env::var_os(INNER) {
        let place = Place::new();
        let (image, reader) = place.image(&[layer("a")]);
        let umask = std::env::var("HUSK_TEST_UMASK").unwrap();
        rustix::process::umask(Mode::from_raw_mode(u32::from_str_radix(&umask, 8).unwrap()));
        Store::open(Path::new(&path), FORM).unwrap().ensure_layers(&image, &*reader, &quiet).unwrap();
        return;
    }
    for umask in ["0", "22", "777"] {
        if umask == "777" && !rustix::process::geteuid().is_root() {
            println!("umask 777 skipped: without CAP_DAC_OVERRIDE nothing can be made with it");
            continue;
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b/store");
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "storage::store::tests::nobody_else_can_look_in"])
            .env(INNER, &path)
            .env("HUSK_TEST_UMASK", umask)
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        let mut seen = 0;
        for entry in walkdir::WalkDir::new(&path).max_depth(4) {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, 0o700, "umask {umask}: {}", entry.path().display());
            seen += 1;
        }
        assert_eq!(seen, 6, "store, tmp, layers, form, algorithm, layer");
        for (name, mode) in [("", 0o755), ("etc", 0o755), ("etc/a", 0o644)] {
            let layer = std::fs::read_dir(path.join("layers/record.user/sha256")).unwrap().next().unwrap().unwrap();
            let m = std::fs::metadata(layer.path().join("diff").join(name)).unwrap();
            assert_eq!(m.permissions().mode() & 0o7777, mode, "umask {umask}: {name}");
        }
    }
}

#[test]
fn bad_layers_leak_nothing() {
    let place = Place::new();
    let store = place.store();
    let climbing = LayerBlob::gzip(&Tar::new().file("a/b/c", b"1").file("../b", b"2").finish());
    let (image, reader) = place.image(&[climbing]);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let open = |count| (0..count).for_each(|_| drop(store.ensure_layers(&image, &*reader, &quiet).unwrap_err()));
    open(10);
    let before = descriptors();
    open(500);
    // Other tests of this process come and go meanwhile.
    assert!(descriptors() < before + 200, "{before} descriptors grew to {}", descriptors());
}

#[test]
fn scratch_files_have_no_name() {
    let place = Place::new();
    let store = place.store();
    let file = store.scratch_file().unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    let directory = rustix::fs::open(place.store_path().join("tmp"), OPEN_PATH, Mode::empty()).unwrap();
    let file = File::from(scratch_by_name(&directory).unwrap());
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    assert_eq!(place.tmp(), Vec::<String>::new());
}
