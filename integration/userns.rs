//! `--userns`: which ids a container has, and that the files of its image have them, too.

use std::os::unix::fs::MetadataExt;

use super::lifecycle::Yard;
use super::supervision::folder;
use super::support::image::Image;
use super::support::tar::Entry;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(the_caller_keeps_its_ids).users(),
        test!(without_the_callers_id).user(),
        test!(no_two_have_the_same_ids),
        test!(what_root_has_no_use_for).root(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

/// The busybox image, with a file of somebody's in it.
fn yard(scene: &Scene) -> Yard<'_> {
    let users = "root:x:0:0::/root:/bin/sh\nmail:x:8:12::/:/bin/sh\n";
    let files = [
        Entry::directory("etc"),
        Entry::file("etc/passwd", users),
        Entry::file("etc/group", "root:x:0:\n"),
        Entry::directory("data"),
        Entry::file("data/mail", "letter\n").owner(8, 12),
        Entry::symlink("bin/cat", "busybox"),
    ];
    Yard { scene, layout: Image::busybox(scene).layer(&files).layout(scene, "layout") }
}

fn lines(yard: &Yard<'_>, flags: &[&str], script: &str) -> Vec<String> {
    let outcome = yard.sh(&[&["run", "--rm"], flags].concat(), script);
    outcome.success().stdout.lines().map(str::to_owned).collect()
}

fn the_caller_keeps_its_ids(scene: &Scene) {
    let yard = yard(scene);
    let account = scene.account();
    let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
    let home = scene.tree("home", &[("mine", "mine\n")]);
    let volume = format!("{}:/home/me", home.display());
    let script = "busybox id -u; busybox id -g; busybox stat -c %u:%g /home/me/mine; echo more > /home/me/new; \
                  busybox tail -n 1 /etc/passwd | busybox cut -d: -f3,4";
    let found = lines(&yard, &["--userns", "keep-id", "-v", &volume], script);
    assert_eq!(found, [uid.clone(), gid.clone(), format!("{uid}:{gid}"), format!("{uid}:{gid}")]);
    assert_eq!(std::fs::metadata(home.join("new")).unwrap().uid(), account.uid);
    let script = "busybox id -u; busybox stat -c %u:%g /home/me/mine; echo $HOME";
    let found = lines(&yard, &["--userns", "keep-id:uid=7,gid=9", "-v", &volume], script);
    assert_eq!(found[..2], ["7", "7:9"]);
    if account.subordinate.is_some() {
        // Root is another one, and files of the image have the owners that the image names.
        let script = "busybox id -u; busybox stat -c %u:%g /bin/busybox /data/mail; busybox touch /data/new && busybox stat -c %u /data/new /home/me/mine";
        let found = lines(&yard, &["--userns", "keep-id", "-u", "0", "-v", "/data", "-v", &volume], script);
        assert_eq!(found, ["0", "0:0", "8:12", "0", &uid]);
        yard.sh(&["create", "--name", "kept", "--userns", "keep-id"], "true").success();
        yard.husk(&["start", "-a", "kept"]).success();
        yard.husk(&["commit", "kept", "x"]).says("--userns keep-id");
        // What is copied in is its root's.
        let mine = home.join("mine").display().to_string();
        yard.husk(&["cp", &mine, "kept:/mine"]).success();
        let mine = std::fs::metadata(folder(&yard, "kept").join("root/rootfs/mine")).unwrap();
        assert_eq!(Some(mine.uid()), account.subordinate.map(|(first, _)| first));
        yard.husk(&["rm", "kept"]).success();
    }
}

fn without_the_callers_id(scene: &Scene) {
    let yard = yard(scene);
    let home = scene.tree("home", &[("mine", "mine\n")]);
    let volume = format!("{}:/home/me", home.display());
    let script = "busybox id -u; busybox stat -c %u /home/me/mine; busybox stat -c %u:%g /data/mail; \
                  busybox awk '{print $2}' /proc/self/uid_map; echo x > /data/mail && busybox cat /etc/hostname > /dev/null && echo done";
    let found = lines(&yard, &["--userns", "nomap", "-v", &volume], script);
    assert_eq!(found[0], "0");
    assert_eq!(found[1..3], ["65534", "8:12"], "the caller's files are nobody's");
    assert!(!found.contains(&scene.account().uid.to_string()), "{found:?}");
    assert_eq!(found.last().map(String::as_str), Some("done"));
}

fn no_two_have_the_same_ids(scene: &Scene) {
    let yard = yard(scene);
    let modes = [("one", "auto:size=2000"), ("two", "auto"), ("three", "auto:size=20")];
    let ranges = modes.map(|(name, mode)| {
        let script = "while :; do busybox sleep 0.01; done";
        yard.sh(&["run", "-d", "--name", name, "--userns", mode], script).success();
        let map = yard.husk(&["exec", name, "busybox", "cat", "/proc/1/uid_map"]).success().stdout;
        let numbers: Vec<u64> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert_eq!((numbers.len(), numbers[0]), (3, 0), "{map}");
        numbers[1]..numbers[1] + numbers[2]
    });
    assert_eq!(ranges.iter().map(|range| range.end - range.start).collect::<Vec<_>>(), [2000, 1024, 20]);
    for (index, range) in ranges.iter().enumerate() {
        let clash = ranges[..index].iter().find(|other| other.start < range.end && range.start < other.end);
        assert!(clash.is_none(), "{range:?} {ranges:?}");
    }
    // What is removed gives its ids back; what is asked for beyond the pool is refused, and leaves nothing.
    yard.husk(&["rm", "-f", "one"]).success();
    yard.sh(&["create", "--name", "again", "--userns", "auto:size=2000"], "true").success();
    yard.sh(&["run", "--rm", "--userns", "auto:size=4000000000"], "true")
        .exits_with(125)
        .says("no 4000000000 ids are left");
    let too_few = yard.sh(&["run", "--rm", "--userns", "auto:size=8"], "true");
    too_few.exits_with(125).says("user 8 owns a file of the image");
    let mode = yard.husk(&["inspect", "-f", "{{.HostConfig.UsernsMode}}", "again"]).success().stdout;
    assert_eq!(mode, "auto:size=2000\n");
}

fn what_root_has_no_use_for(scene: &Scene) {
    let yard = yard(scene);
    for mode in ["keep-id", "nomap", "private"] {
        yard.sh(&["run", "--rm", "--userns", mode], "true").exits_with(125).says(&format!("userns {mode}: "));
    }
    let script = "busybox stat -c %u:%g /data/mail; busybox touch /data/new; echo x > /etc/hostname; busybox id -u";
    assert_eq!(lines(&yard, &["--userns", "auto", "-v", "/data"], script), ["8:12", "0"]);
}
