//! husk under the engines that people run: Podman, Buildah, containerd, Docker, and conmon as CRI-O calls it; and beside them
//! ([`beside`]).
//!
//! Each test starts what it needs in a [`site::Site`] of its own and takes it down again; nothing of the machine's own
//! engines is touched, and nothing is downloaded. What a container prints is computed in it, so that no echo of a
//! command line can pass for it: with `HUSK=/bin/true` every one of these tests fails, with `HUSK=/usr/sbin/runc` they
//! pass.

mod beside;
mod buildah;
mod conmon;
mod containerd;
mod docker;
mod neighbours;
mod podman;
mod rootless;
mod site;

use std::path::PathBuf;

use serde_json::json;

use crate::support::image::{Compression, Image, Layer};
use crate::support::suite::kit;
use crate::support::tar::{self, Entry};
use crate::support::{Scene, Test};

pub(crate) fn tests() -> Vec<Test> {
    [podman::tests, rootless::tests, buildah::tests, containerd::tests, docker::tests, conmon::tests, beside::tests]
        .into_iter()
        .flat_map(|tests: fn() -> Vec<Test>| tests())
        .collect()
}

/// The name of [`image`] in every engine.
const IMAGE: &str = "localhost/test:latest";

/// Prints the size of its terminal, echoes a line, and ends with 4. Most engines set the size a moment after the start,
/// and until then stty knows none.
const ON_TERMINAL: &str = "test -t 0 && test -t 1 && until stty size 2>/dev/null | grep '[1-9]'; do sleep 0.02; done; read line; echo \"$line$((3 * 3))\"; exit 4";

/// The names of busybox that scripts use. The shell would find them without, but other callers look in the PATH.
const APPLETS: [&str; 20] = [
    "cat", "dd", "echo", "false", "grep", "head", "hostname", "id", "kill", "ls", "mount", "nc", "sh", "sleep", "stat",
    "stty", "tail", "test", "tr", "true",
];

fn image(scene: &Scene) -> PathBuf {
    image_with(scene, &APPLETS)
}

/// Writes busybox as a docker archive, under these names, too: the one form that all engines load without a registry.
fn image_with(scene: &Scene, names: &[&str]) -> PathBuf {
    let busybox = std::fs::read(kit().payload(scene.who).join("busybox")).expect("read the busybox of the kit");
    let mut entries = vec![Entry::directory("bin"), Entry::directory("etc"), Entry::directory("tmp").mode(0o1777)];
    entries.push(Entry::program("bin/busybox", busybox));
    entries.extend(names.iter().map(|name| Entry::symlink(&format!("bin/{name}"), "busybox")));
    entries.push(Entry::file("etc/passwd", "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"));
    entries.push(Entry::file("etc/group", "root:x:0:\nuser:x:1000:\n"));
    let mut image = Image::new(vec![Layer::new(&tar::archive(&entries), Compression::None)]);
    image.config = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] });
    image.docker_archive(scene, "image.tar")
}
