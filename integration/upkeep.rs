//! The store's upkeep: `system check`, `system df`, and the prunes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use caps::Capability;
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::Value;

use super::support::image::{Image, Layout};
use super::support::launch::Step;
use super::support::registry::Scripted;
use super::support::scene::write;
use super::support::tar::Entry;
use super::support::{Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(a_sound_store_is_found_sound).and_plain(),
        test!(damaged_layers_are_made_again).and_plain(),
        test!(damaged_blobs_are_found_and_their_images_forgotten),
        test!(records_are_checked_and_mended),
        test!(what_killed_commands_left_is_found_and_cleared),
        test!(a_store_in_use_is_not_checked),
        test!(sizes_agree_with_du).and_plain(),
        test!(images_that_nobody_uses_are_pruned),
        test!(stopped_containers_are_pruned).and_plain(),
        test!(a_full_disk_is_named_and_harms_nothing).root().needs(Need::Capability(Capability::CAP_SYS_ADMIN)),
        test!(the_store_is_closed_whatever_the_umask).and_plain(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn layout(scene: &Scene) -> Layout {
    Image::busybox(scene).layer(&[Entry::file("mark", "of the image")]).layout(scene, "layout")
}

/// Pulls an image; gives its registry.
#[track_caller]
fn pulled(scene: &Scene) -> Scripted {
    let registry = Scripted::serve(&layout(scene), |_| None);
    scene.husk().args(["pull", "-q", &registry.image()]).run().success();
    registry
}

fn check(scene: &Scene, arguments: &[&str]) -> Outcome {
    let mut command = scene.husk();
    command.args(["system", "check"]).args(arguments).run()
}

#[track_caller]
fn is_sound(scene: &Scene) {
    assert_eq!(check(scene, &[]).success().stdout, "");
}

#[track_caller]
fn runs(scene: &Scene, name: &str) {
    let outcome = scene.husk().args(["run", "--rm", "--pull=never", name, "/bin/ls", "/"]).run().success();
    assert!(outcome.stdout.contains("mark"), "{}", outcome.stdout);
}

fn store(scene: &Scene) -> PathBuf {
    scene.store().join("store")
}

/// What is in a directory of the store, sorted.
#[track_caller]
fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("list {}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    found.sort();
    found
}

fn layers(scene: &Scene) -> Vec<PathBuf> {
    let forms = entries(&store(scene).join("layers"));
    forms.iter().flat_map(|form| entries(&form.join("sha256"))).collect()
}

fn a_sound_store_is_found_sound(scene: &Scene) {
    is_sound(scene);
    let _registry = pulled(scene);
    is_sound(scene);
    assert_eq!(check(scene, &["--repair", "--format", "json"]).success().stdout, "");
    check(scene, &["--format", "xml"]).exits_with(125).says("--format xml");
}

fn damaged_layers_are_made_again(scene: &Scene) {
    let registry = pulled(scene);
    let layers = layers(scene);
    assert_eq!(layers.len(), 2);
    std::fs::remove_file(layers[0].join("layer.json")).expect("delete layer.json");
    std::fs::rename(&layers[1], scene.path().join("gone")).expect("take a layer away");
    let found = check(scene, &["--quick"]).exits_with(1).says("system check --repair").stdout;
    assert!(found.contains("layer.json is missing") && found.contains("it is missing; image "), "{found}");
    assert_eq!(found.lines().count(), 2, "{found}");
    let mended = check(scene, &["--repair"]).success().stdout;
    assert_eq!(mended.matches(" (mended)").count(), 2, "{mended}");
    is_sound(scene);
    runs(scene, &registry.image());
}

fn damaged_blobs_are_found_and_their_images_forgotten(scene: &Scene) {
    let registry = pulled(scene);
    let blobs = entries(&store(scene).join("blobs/sha256"));
    assert_eq!(blobs.len(), 4, "{blobs:?}");
    for blob in &blobs {
        // As long as before: only the digest tells.
        let mut bytes = std::fs::read(blob).expect("read a blob");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        write(blob, bytes);
        assert_eq!(check(scene, &["--quick"]).success().stdout, "");
        let found = check(scene, &["--format", "json"]).exits_with(1).stdout;
        let line: Value = serde_json::from_str(&found).expect("one line of JSON");
        let name = blob.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(line["path"], format!("blobs/sha256/{name}"));
        assert_eq!(line["mended"], false);
        let problem = line["problem"].as_str().expect("a text");
        assert!(problem.contains("digest mismatch") && problem.contains(&registry.image()), "{problem}");
        check(scene, &["--repair"]).success();
        assert_eq!(scene.husk().args(["images", "-q"]).run().success().stdout, "");
        scene.husk().args(["pull", "-q", &registry.image()]).run().success();
        is_sound(scene);
    }
    // A blob that is cut, or gone, is found without reading any.
    std::fs::File::options().write(true).open(&blobs[0]).and_then(|file| file.set_len(1)).expect("cut a blob");
    std::fs::remove_file(&blobs[1]).expect("delete a blob");
    let found = check(scene, &["--quick"]).exits_with(1).stdout;
    assert!(found.contains("it has 1 bytes and not ") && found.contains("it is missing; image "), "{found}");
    check(scene, &["--repair", "--quick"]).success();
    assert_eq!(entries(&store(scene).join("blobs/sha256")), Vec::<PathBuf>::new(), "what nothing needs is left");
    is_sound(scene);
    scene.husk().args(["pull", "-q", &registry.image()]).run().success();
    runs(scene, &registry.image());
}

fn records_are_checked_and_mended(scene: &Scene) {
    let registry = pulled(scene);
    let (images, names) = (store(scene).join("images"), store(scene).join("names"));
    let name = entries(&names).remove(0);
    write(&images.join("sha256.x"), "{");
    write(&names.join("empty"), "");
    write(&names.join("docker.io+library+other:1"), std::fs::read(&name).expect("read"));
    write(&names.join(".tmp-1"), "");
    let newer = std::fs::read_to_string(&name).expect("read").replace("\"format\":1", "\"format\":9");
    let newer_file = names.join("docker.io+library+newer:1");
    write(&newer_file, newer);
    scene.account().own(&store(scene));
    let found = check(scene, &[]).exits_with(1).stdout;
    for problem in [
        "images/sha256.x: parse the record",
        "names/empty: it is empty",
        "names/docker.io+library+other:1: it is filed under another name",
        "names/.tmp-1: left by a command that was killed",
        "names/docker.io+library+newer:1: format 9: written by a newer husk",
    ] {
        assert!(found.contains(problem), "{problem}: {found}");
    }
    // What a newer husk has written is not this one's to delete.
    let left = check(scene, &["--repair"]).exits_with(1).stdout;
    assert_eq!(left.matches("(mended)").count(), 4, "{left}");
    assert!(newer_file.exists());
    std::fs::remove_file(&newer_file).expect("delete");
    is_sound(scene);
    runs(scene, &registry.image());
    // A name without its image.
    let image = entries(&images).remove(0);
    std::fs::remove_file(image).expect("delete");
    assert!(check(scene, &[]).exits_with(1).stdout.contains("that it stands for is missing"));
    check(scene, &["--repair"]).success();
    assert!(!name.exists());
    is_sound(scene);
}

fn what_killed_commands_left_is_found_and_cleared(scene: &Scene) {
    let _registry = pulled(scene);
    let staging = store(scene).join("tmp");
    std::fs::create_dir_all(staging.join("keep.trusted.sha256.ab/diff/x")).expect("make directories");
    write(&staging.join("blob.sha256.cd"), "half");
    std::fs::create_dir_all(staging.join("gone.1.2/y")).expect("make directories");
    scene.account().own(&staging);
    // It is no damage.
    let found = check(scene, &[]).success().stdout;
    assert_eq!(found.matches(": left by a command that was killed").count(), 2, "{found}");
    assert!(found.contains("tmp/blob.sha256.cd: a part of a blob, for the next pull to go on with"), "{found}");
    let lines = check(scene, &["--format=json"]).success().stdout;
    assert_eq!(lines.matches("\"damage\":false").count(), 3, "{lines}");
    check(scene, &["--repair"]).success();
    assert_eq!(entries(&staging), Vec::<PathBuf>::new());
    is_sound(scene);
}

fn a_store_in_use_is_not_checked(scene: &Scene) {
    let _registry = pulled(scene);
    let lock = std::fs::File::open(store(scene).join("lock")).expect("open the lock");
    lock.lock_shared().expect("lock");
    check(scene, &[]).exits_with(125).says("is in use").says("wait until the pulls");
    drop(lock);
    is_sound(scene);
}

/// What `du` says of the data root.
#[track_caller]
fn du(scene: &Scene) -> u64 {
    let mut command = scene.program("du");
    let outcome = command.as_root().args(["-s", "--block-size=1"]).arg(scene.store()).run().success();
    outcome.stdout.split('\t').next().and_then(|bytes| bytes.parse().ok()).expect("du prints a number")
}

/// Reads docker's sizes: thousands, three digits.
#[track_caller]
fn bytes(text: &str) -> f64 {
    let units = ["kB", "MB", "GB", "B"];
    let unit = units.into_iter().find(|unit| text.ends_with(unit)).expect("a unit");
    let factor = match unit {
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => 1.0,
    };
    text.trim_end_matches(unit).parse::<f64>().expect("a number") * factor
}

fn sizes_agree_with_du(scene: &Scene) {
    let image = Image::busybox(scene).layer(&[
        Entry::file("large", vec![7; 3_000_000]),
        Entry::hard_link("again", "large"),
        Entry::directory("closed").mode(0),
        Entry::file("closed/inside", vec![8; 500_000]),
    ]);
    let registry = Scripted::serve(&image.layout(scene, "layout"), |_| None);
    scene.husk().args(["pull", "-q", &registry.image()]).run().success();
    scene.husk().args(["run", "--name=one", &registry.image(), "/bin/true"]).run().success();
    let table = scene.husk().args(["system", "df"]).run().success().stdout;
    let header = table.lines().next().expect("a header");
    assert_eq!(header.split_whitespace().collect::<Vec<_>>(), ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    assert_eq!(table.lines().count(), 5, "{table}");
    let rows = scene.husk().args(["system", "df", "--format", "{{.Size}}"]).run().success().stdout;
    let (sum, du) = (rows.lines().map(bytes).sum::<f64>(), du(scene));
    #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
    let du = du as f64;
    assert!((sum - du).abs() <= du / 100.0, "{sum} bytes are shown, and du counts {du}:\n{table}");
    let images =
        scene.husk().args(["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]).run().success();
    assert_eq!(images.stdout, "Images 1 1\nContainers 1 0\nLocal Volumes 0 0\nBuild Cache 0 0\n");
    let each = scene.husk().args(["system", "df", "-v"]).run().success().stdout;
    assert!(each.contains("UNIQUE SIZE") && each.contains("Exited (0)"), "{each}");
}

fn images_that_nobody_uses_are_pruned(scene: &Scene) {
    let registry = pulled(scene);
    let husk = |arguments: &[&str]| scene.husk().args(arguments).run();
    let prune = |arguments: &[&str]| husk(&[&["image", "prune"], arguments].concat()).success().stdout;
    // It has a name.
    assert_eq!(prune(&["-f"]), "Total reclaimed space: 0B\n");
    husk(&["untag", &registry.image()]).success();
    let id = husk(&["images", "-q", "--no-trunc"]).success().stdout;
    assert_eq!(prune(&["-f", "--filter", "label=no"]), "Total reclaimed space: 0B\n");
    assert_eq!(prune(&["-f"]).lines().nth(1), Some(&*format!("deleted: {}", id.trim())));
    husk(&["image", "prune", "--filter", "size=1"]).exits_with(125);
    // One that a container uses stays, with a name and without.
    husk(&["run", "--name=one", &registry.image(), "/bin/true"]).success();
    assert_eq!(prune(&["-af"]), "Total reclaimed space: 0B\n");
    husk(&["system", "prune", "-f"]).success();
    assert_ne!(husk(&["images", "-q"]).success().stdout, "");
    let asked = scene.husk().args(["image", "prune", "-a"]).input("n\n").run().exits_with(1).says("WARNING!");
    assert_eq!(asked.stdout, "");
    let pruned = scene.husk().args(["image", "prune", "-a"]).input("y\n").run().success().stdout;
    assert!(
        pruned.contains(&format!("untagged: {}", registry.image())) && pruned.contains("deleted: sha256:"),
        "{pruned}"
    );
    assert_eq!(husk(&["images", "-q"]).success().stdout, "");
    assert_eq!(entries(&store(scene).join("blobs/sha256")), Vec::<PathBuf>::new());
    is_sound(scene);
}

fn stopped_containers_are_pruned(scene: &Scene) {
    let registry = pulled(scene);
    scene.husk().args(["run", "--name=one", &registry.image(), "/bin/true"]).run().success();
    let pruned = scene.husk().args(["system", "prune", "-f"]).run().success().stdout;
    assert!(pruned.starts_with("Deleted Containers:\n") && !pruned.contains("untagged"), "{pruned}");
    assert_eq!(entries(&scene.store().join("containers")), Vec::<PathBuf>::new());
    let pruned = scene.husk().args(["system", "prune", "-af"]).run().success().stdout;
    assert!(pruned.contains("untagged: ") && !pruned.contains("Containers"), "{pruned}");
    is_sound(scene);
}

/// A file system of a few megabytes.
pub(crate) struct Small(PathBuf);

impl Small {
    pub(crate) fn mount(place: PathBuf, size: &std::ffi::CStr) -> Self {
        rustix::mount::mount("tmpfs", &place, "tmpfs", MountFlags::empty(), size).expect("mount a tmpfs");
        Self(place)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn a_full_disk_is_named_and_harms_nothing(scene: &Scene) {
    let layer = [Entry::file("mark", "of the image"), Entry::file("large", noise(1_500_000))];
    let registry = Scripted::serve(&Image::busybox(scene).layer(&layer).layout(scene, "layout"), |_| None);
    let small = Small::mount(scene.store(), c"mode=700,size=16m");
    let ballast = scene.store().join("ballast");
    // From where the first documents do not fit to where the last layer does not.
    for room in [4, 12, 100, 1000, 2000, 3000, 4500, 5500, 6500] {
        let length = (16 << 20) - (room << 10) - used(&scene.store());
        write(&ballast, vec![0; usize::try_from(length).expect("there is room")]);
        let outcome = scene.husk().args(["pull", "-q", &registry.image()]).run();
        std::fs::remove_file(&ballast).expect("make room");
        if outcome.code() == 0 {
            assert!(room > 3000, "{room} KiB were enough");
            break;
        }
        outcome.exits_with(125).says(": no space left on device (ENOSPC)").says("store");
        assert_eq!(scene.husk().args(["images", "-q"]).run().success().stdout, "");
        // Parts to go on with are no damage.
        let found = check(scene, &[]).stdout;
        assert!(found.lines().all(|line| line.starts_with("tmp/blob.")), "{found}");
    }
    scene.husk().args(["pull", "-q", &registry.image()]).run().success();
    is_sound(scene);
    drop(small);
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(next).collect()
}

/// Bytes that are taken of the file system of a directory.
pub(crate) fn used(directory: &Path) -> u64 {
    let stat = rustix::fs::statvfs(directory).expect("ask the file system");
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

fn the_store_is_closed_whatever_the_umask(scene: &Scene) {
    let registry = Scripted::serve(&layout(scene), |_| None);
    for mask in [0, 0o777] {
        let mut command = scene.husk();
        command.step(Step::Umask(mask)).args(["pull", "-q", &registry.image()]).run().success();
        let mut pending = vec![store(scene)];
        while let Some(path) = pending.pop() {
            let metadata = std::fs::symlink_metadata(&path).expect("look");
            let mode = metadata.permissions().mode() & 0o777;
            // What is in a layer has the image's modes; nobody gets as far.
            if matches!(path.file_name().and_then(|name| name.to_str()), Some("diff" | "opaque")) {
                continue;
            }
            let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "umask {mask:o}: {} has mode {mode:o}", path.display());
            if metadata.is_dir() {
                pending.extend(entries(&path));
            }
        }
        runs(scene, &registry.image());
        is_sound(scene);
        scene.husk().args(["rmi", &registry.image()]).run().success();
    }
}
