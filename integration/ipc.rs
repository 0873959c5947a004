//! `--ipc`: System V queues and `/dev/shm`, of the container's own or shared with another one.

use super::lifecycle::{Yard, soon};
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [test!(memory_is_shared_with_the_namespace).and_plain(), test!(who_does_not_share).and_plain()]
        .into_iter()
        .map(engine)
        .collect()
}

const WAIT: &str = "while ! busybox test -e /dev/shm/end; do sleep 0.01; done";

fn memory_is_shared_with_the_namespace(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = format!("[ -e /dev/shm/kept ] && echo kept; echo donor > /dev/shm/word; echo up; {WAIT}");
    let donor = ["run", "-d", "--name", "donor", "--ipc", "shareable", "--shm-size", "1m"];
    let id = yard.sh(&donor, &script).success().stdout;
    soon("it is up", || yard.husk(&["logs", "donor"]).stdout.contains("up"));
    let own = yard.husk(&["exec", "donor", "busybox", "readlink", "/proc/self/ns/ipc"]).success().stdout;
    let script = "busybox readlink /proc/self/ns/ipc; busybox cat /dev/shm/word; echo answer > /dev/shm/back; \
                  busybox df /dev/shm | busybox awk 'END {print $2}'; busybox grep -c ' /dev/shm .*noexec' /proc/mounts";
    let made = ["create", "--name", "guest", "--ipc", "container:donor"];
    yard.sh(&made, script).success();
    let started = yard.husk(&["start", "-a", "guest"]).success().stdout;
    assert_eq!(started, format!("{own}donor\n1024\n1\n"));
    assert_eq!(yard.husk(&["exec", "donor", "busybox", "cat", "/dev/shm/back"]).success().stdout, "answer\n");
    let told = yard.husk(&["inspect", "-f", "{{.HostConfig.IpcMode}}", "guest"]).success().stdout;
    assert_eq!(told, format!("container:{id}"), "the one that was meant, whatever its name becomes");
    // The donor's end: whoever joined has the memory as long as it lives, and a new run of the donor has its own.
    yard.husk(&["rename", "donor", "other"]).success();
    yard.husk(&["kill", "other"]).success();
    yard.husk(&["wait", "other"]).success();
    let refused = yard.husk(&["start", "-a", "guest"]);
    refused.exits_with(1).says("is not running");
    yard.husk(&["start", "other"]).success();
    soon("it is up again", || yard.husk(&["logs", "other"]).stdout.matches("up").count() == 2);
    assert!(!yard.husk(&["logs", "other"]).stdout.contains("kept"), "memory ends with the container");
    assert!(yard.husk(&["start", "-a", "guest"]).success().stdout.contains("donor\n"));
    yard.husk(&["exec", "other", "busybox", "touch", "/dev/shm/end"]).success();
    yard.husk(&["wait", "other"]).success();
}

fn who_does_not_share(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "--name", "alone", "--ipc", "private"], WAIT).success();
    yard.sh(&["run", "--rm", "--ipc", "container:alone"], "true").exits_with(125).says("non-shareable IPC");
    yard.sh(&["run", "--rm", "--ipc", "container:nobody"], "true").exits_with(125).says("nobody");
    let without = yard.sh(&["run", "--rm", "--ipc", "none"], "busybox grep -c /dev/shm /proc/mounts");
    assert_eq!(without.stdout, "0\n");
    // What the donor has put in the place of its directory leads nowhere.
    let sly = "busybox umount /dev/shm; busybox rmdir /dev/shm && busybox ln -s / /dev/shm && echo up; sleep 100";
    yard.sh(&["run", "-d", "--name", "sly", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"], sly)
        .success();
    soon("it is up", || yard.husk(&["logs", "sly"]).stdout.contains("up"));
    yard.sh(&["run", "--rm", "--ipc", "container:sly"], "true").exits_with(125).says("/dev/shm");
}
