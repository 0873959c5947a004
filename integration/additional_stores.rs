//! Additional stores: images of another data root are used where they lie, and nothing there is ever written.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use caps::Capability;
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::Value;

use super::support::image::Image;
use super::support::registry::Scripted;
use super::support::tar::Entry;
use super::support::{Invocation, Need, Scene, Test, Who, test};

const VARIABLE: &str = "HUSK_ADDITIONAL_STORES";

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(images_are_used_and_nothing_is_written).and_plain(),
        test!(images_are_not_changed),
        test!(a_read_only_mount_will_do).root().needs(Need::Capability(Capability::CAP_SYS_ADMIN)),
        test!(layers_of_another_form_are_passed_over).root(),
        test!(a_store_of_somebody_else_is_refused).needs(Need::Capability(Capability::CAP_CHOWN)),
        test!(a_store_that_others_may_write_in_is_refused),
        test!(a_container_says_which_layers_are_gone),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

/// A data root with one image, which nobody changes any more.
struct Other<'a> {
    scene: &'a Scene,
    path: PathBuf,
    image: String,
}

impl<'a> Other<'a> {
    fn new(scene: &'a Scene) -> Self {
        let layout = Image::busybox(scene).layer(&[Entry::file("mark", "of the image")]).layout(scene, "layout");
        let registry = Scripted::serve(&layout, |_| None);
        let other = Self { scene, path: scene.path().join("other"), image: registry.image() };
        scene.husk().env("HUSK_DATA_ROOT", &other.path).args(["pull", "-q", &other.image]).run().success();
        other.set_mode(0o500);
        other
    }

    /// Of the directories that a store is written in.
    fn set_mode(&self, mode: u32) {
        for name in ["", "store", "store/images", "store/names", "store/tmp", "store/layers", "store/blobs"] {
            set_mode(&self.path.join(name), mode);
        }
    }

    fn husk(&self) -> Invocation<'a> {
        let mut command = self.scene.husk();
        command.env(VARIABLE, &self.path);
        command
    }

    /// Everything that is in it, and when it was last changed in any way.
    fn listing(&self) -> Vec<(PathBuf, u64, i64, i64)> {
        let (mut listing, mut left) = (Vec::new(), vec![self.path.clone()]);
        while let Some(path) = left.pop() {
            let data = path.symlink_metadata().unwrap_or_else(|error| panic!("look at {}: {error}", path.display()));
            if let Some(entries) = std::fs::read_dir(&path).ok().filter(|_| data.is_dir()) {
                left.extend(entries.map(|entry| entry.expect("an entry").path()));
            }
            listing.push((path, data.len(), data.ctime(), data.ctime_nsec()));
        }
        listing.sort();
        listing
    }

    #[track_caller]
    fn runs(&self) {
        let mut command = self.husk();
        command.args(["run", "--rm", "--pull=never", &self.image, "/bin/ls", "/"]);
        let outcome = command.run().success();
        assert!(outcome.stdout.contains("mark"), "{}", outcome.stdout);
    }
}

impl Drop for Other<'_> {
    fn drop(&mut self) {
        if self.path.exists() {
            self.set_mode(0o700); // or its owner could not remove it
        }
    }
}

#[track_caller]
fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .unwrap_or_else(|error| panic!("chmod {}: {error}", path.display()));
}

fn images_are_used_and_nothing_is_written(scene: &Scene) {
    let other = Other::new(scene);
    let before = other.listing();
    scene.husk().args(["run", "--rm", "--pull=never", &other.image, "/bin/true"]).run().exits_with(125);
    other.runs();
    let listed = other.husk().args(["images", "--format", "{{json .}}"]).run().success().stdout;
    let listed: Value = serde_json::from_str(&listed).expect("one image");
    assert_eq!(listed["ReadOnly"], true);
    let short = listed["ID"].as_str().expect("an id").to_owned();
    other.husk().args(["image", "exists", &short]).run().success();
    for verb in [&["inspect"][..], &["history", "-q"], &["image", "tree"], &["save", "-o", "/dev/null"]] {
        other.husk().args(verb).arg(&other.image).run().success();
    }
    // A second container of it lives on, and is looked at.
    let mut create = other.husk();
    create.args(["create", "--name", "kept", "--pull=never", &short, "/bin/sh", "-c", ": > /new"]).run().success();
    other.husk().args(["start", "-a", "kept"]).run().success();
    assert_eq!(other.husk().args(["diff", "kept"]).run().success().stdout, "A /new\n");
    other.husk().args(["inspect", "kept"]).run().success();
    other.husk().args(["ps", "-as"]).run().success();
    other.husk().args(["rm", "kept"]).run().success();
    for verb in [&["system", "check"][..], &["system", "df"], &["image", "prune", "-af"], &["system", "prune", "-af"]] {
        other.husk().args(verb).run().success();
    }
    assert_eq!(other.listing(), before);
    assert_eq!(scene.husk().args(["images", "-q"]).run().success().stdout, "", "it was brought into the own store");
}

fn images_are_not_changed(scene: &Scene) {
    let other = Other::new(scene);
    let before = other.listing();
    let told = format!("image {}: it is in the read-only store {}/store", other.image, other.path.display());
    for (verb, status) in [(&["rmi"][..], 1), (&["rmi", "-f"], 1), (&["untag"], 125), (&["push"], 125)] {
        other.husk().args(verb).arg(&other.image).run().exits_with(status).says(&told);
    }
    other.husk().args(["tag", &other.image, "mine"]).run().exits_with(125).says(&told);
    assert_eq!(other.listing(), before);
}

fn a_read_only_mount_will_do(scene: &Scene) {
    let other = Other::new(scene);
    std::fs::remove_file(other.path.join("store/lock")).expect("a store that was packed without its lock");
    let place = scene.path().join("mounted");
    std::fs::create_dir(&place).expect("make a mount point");
    let _mount = Mount::read_only(&other.path, place.clone());
    let mut command = scene.husk();
    command.env(VARIABLE, &place).args(["run", "--rm", "--pull=never", &other.image, "/bin/ls", "/"]);
    let outcome = command.run().success();
    assert!(outcome.stdout.contains("mark"), "{}", outcome.stdout);
    assert!(!other.path.join("store/lock").exists());
}

struct Mount(PathBuf);

impl Mount {
    fn read_only(source: &Path, place: PathBuf) -> Self {
        rustix::mount::mount_bind(source, &place).expect("bind the store");
        let mount = Self(place);
        rustix::mount::mount_remount(&mount.0, MountFlags::BIND | MountFlags::RDONLY, "").expect("make it read-only");
        mount
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn layers_of_another_form_are_passed_over(scene: &Scene) {
    let other = Other::new(scene);
    let layers = other.path.join("store/layers");
    std::fs::rename(layers.join("keep.trusted"), layers.join("keep.user")).expect("a store of an ordinary user");
    assert_eq!(other.husk().args(["images", "-q"]).run().success().stdout, "");
    let mut command = other.husk();
    command.args(["run", "--rm", "--pull=never", &other.image, "/bin/true"]);
    command.run().exits_with(125).says("no such image");
}

fn a_store_of_somebody_else_is_refused(scene: &Scene) {
    let other = Other::new(scene);
    for path in [other.path.clone(), other.path.join("store")] {
        chown(&path, Some(65_533), None).expect("give the store away");
        set_mode(&path, 0o755);
        let outcome = other.husk().args(["run", "--rm", &other.image, "/bin/true"]).run().exits_with(125);
        let outcome = outcome.says("belongs to user 65533, neither to root nor to");
        outcome.says(&format!("additional store {}", other.path.display()));
        // Root's will do for everybody.
        chown(&path, Some(0), None).expect("give the store to root");
        other.husk().args(["run", "--rm", "--pull=never", &other.image, "/bin/true"]).run().success();
    }
    if scene.who == Who::User {
        // For whoever removes it.
        for path in [other.path.clone(), other.path.join("store")] {
            chown(path, Some(scene.account().uid), None).expect("give the store back");
        }
    }
}

fn a_store_that_others_may_write_in_is_refused(scene: &Scene) {
    let other = Other::new(scene);
    set_mode(&other.path.join("store"), 0o720);
    let told = format!("additional store {}: store: others may write in it (mode 0720)", other.path.display());
    other.husk().args(["images"]).run().exits_with(125).says(&told);
    let missing = scene.path().join("missing");
    let mut command = scene.husk();
    command.env(VARIABLE, &missing).arg("images");
    command.run().exits_with(125).says(&format!("additional store {}: open: no such file", missing.display()));
}

fn a_container_says_which_layers_are_gone(scene: &Scene) {
    let other = Other::new(scene);
    other.husk().args(["create", "--name", "kept", "--pull=never", &other.image, "/bin/true"]).run().success();
    let away = scene.path().join("away");
    set_mode(&other.path, 0o700);
    std::fs::rename(&other.path, &away).expect("take the store away");
    let outcome = other.husk().args(["start", "kept"]).run().exits_with(1);
    outcome.says(&format!("{}/store/layers/", other.path.display())).says("no such file");
    std::fs::rename(&away, &other.path).expect("bring the store back");
    other.husk().args(["start", "-a", "kept"]).run().success();
    // With no store configured it can be taken away.
    scene.husk().args(["rm", "kept"]).run().success();
}
