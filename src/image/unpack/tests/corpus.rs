//! Archives that somebody could send: what has been tried against the unpackers of others, and kin. Unpacks none.

use crate::image::tar_builder::{Member, Tar};

/// What becomes of an archive.
pub(super) enum Answer {
    /// It is taken, and everything is inside.
    Good,
    /// It is refused, saying so.
    Bad(&'static str),
}
use Answer::{Bad, Good};

/// Adds one entry called `x` to an archive.
type Add = fn(Tar, &str) -> Tar;

/// Rows of security.md E1, E3, E4: what has been tried against the unpackers of others, and kin.
pub(super) fn corpus(sentinel: &str) -> Vec<(&'static str, Vec<u8>, Answer)> {
    let t = Tar::new;
    let under = |name: &str| format!("{sentinel}/{name}");
    let long = |length: usize| "d/".repeat(length / 2);
    let mut all = vec![
        // Names.
        ("name climbs", t().file("../sentinel/secret", b"x").finish(), Bad("climbs")),
        ("name climbs in the middle", t().file("a/../../sentinel/secret", b"x").finish(), Bad("climbs")),
        ("name climbs at the end", t().directory("a/..").finish(), Bad("climbs")),
        ("directory climbs", t().directory("..").finish(), Bad("climbs")),
        ("symlink climbs", t().symlink("../sentinel/new", "x").finish(), Bad("climbs")),
        ("absolute name", t().file(&under("secret"), b"x").finish(), Good),
        ("absolute directory", t().directory(&format!("/{sentinel}/new/")).finish(), Good),
        ("empty name", t().file("", b"x").finish(), Bad("empty")),
        ("slash as a file", t().file("/", b"").finish(), Good),
        ("slash with data", t().file("/", b"x").finish(), Bad("slash")),
        ("dot as a file", t().file(".", b"x").finish(), Bad("root is not a directory")),
        ("dot as a symlink", t().symlink(".", sentinel).file("secret", b"x").finish(), Bad("root is not a directory")),
        ("slash dot as a symlink", t().symlink("/.", sentinel).finish(), Bad("root is not a directory")),
        ("dot as a hard link", t().file("a", b"").hard_link("./", "a").finish(), Bad("root is not a directory")),
        ("dot slash with a mode", t().member(Member::new(b'5', "./").mode(0o711)).finish(), Good),
        ("NUL in a PAX name", t().pax(&[("path", b"a\0b")]).file("a", b"").finish(), Bad("malformed")),
        ("5000-byte name", t().pax(&[("path", &vec![b'a'; 5000])]).file("a", b"").finish(), Bad("limit")),
        ("4096-byte component", t().pax(&[("path", &vec![b'a'; 4096])]).file("a", b"").finish(), Bad("ENAMETOOLONG")),
        ("4000-byte path", t().pax(&[("path", long(2000).as_bytes())]).file("a", b"").finish(), Good),
        ("1025 levels", t().pax(&[("path", long(2050).as_bytes())]).directory("a").finish(), Bad("limit")),
        ("newline in a name", t().file("a\nb", b"x").finish(), Good),
        ("file with a slash", t().file("a/", b"x").finish(), Bad("slash")),
        ("empty file with a slash is a directory", t().file("a/", b"").file("a/b", b"x").finish(), Good),
        // Through symlinks: they lead inside, wherever they point.
        (
            "symlink, then a file through it",
            t().symlink("l", sentinel).file("l/secret", b"x").finish(),
            Bad("to no directory of this layer"),
        ),
        ("symlink to slash", t().symlink("l", "/").file(&format!("l{sentinel}/secret"), b"x").finish(), Good),
        ("symlink to slash, then a directory", t().symlink("l", "/").directory(&format!("l{sentinel}")).finish(), Good),
        (
            "relative climb",
            t().symlink("l", "../sentinel").file("l/secret", b"x").finish(),
            Bad("to no directory of this layer"),
        ),
        (
            "climb with a target inside",
            t().directory("sentinel").symlink("l", "../sentinel").file("l/secret", b"x").finish(),
            Good,
        ),
        (
            "two-step climb",
            t().directory("a/b")
                .symlink("a/b/up", "../..")
                .symlink("a/b/up/out", "..")
                .file("out/sentinel/secret", b"x")
                .finish(),
            Good,
        ),
        (
            "three links",
            t().symlink("a", "b").symlink("b", "c").symlink("c", sentinel).file("a/secret", b"x").finish(),
            Bad("to no directory of this layer"),
        ),
        ("loop of links", t().symlink("a", "b").symlink("b", "a").file("a/x", b"x").finish(), Bad("ELOOP")),
        ("link to itself", t().symlink("a", "a").file("a/x", b"x").finish(), Bad("ELOOP")),
        (
            "magic link",
            t().symlink("l", "/proc/self/root").file(&format!("l{sentinel}/secret"), b"x").finish(),
            Bad("to no directory of this layer"),
        ),
        ("dangling link", t().symlink("l", "missing").file("l/x", b"x").finish(), Bad("to no directory of this layer")),
        (
            "link to a file",
            t().file("f", b"").symlink("l", "f").file("l/x", b"x").finish(),
            Bad("to no directory of this layer"),
        ),
        ("file over a symlink", t().symlink("l", &under("secret")).file("l", b"x").finish(), Good),
        (
            "directory over a symlink",
            t().symlink("l", sentinel).member(Member::new(b'5', "l").mode(0o777)).file("l/secret", b"x").finish(),
            Good,
        ),
        ("directory over a symlink with a slash", t().symlink("l", sentinel).directory("l/").finish(), Good),
        (
            "chmod through a symlink",
            t().symlink("l", &under("secret")).member(Member::new(b'0', "l").mode(0o777)).finish(),
            Good,
        ),
        (
            "owner through a symlink",
            t().member(Member::new(b'2', "l").link(&under("secret")).owner(0, 0)).finish(),
            Good,
        ),
        ("FIFO over a symlink", t().symlink("l", &under("secret")).member(Member::new(b'6', "l")).finish(), Good),
        (
            "FIFO through a symlink",
            t().symlink("l", sentinel).member(Member::new(b'6', "l/new")).finish(),
            Bad("to no directory of this layer"),
        ),
        (
            "xattr through a symlink",
            t().symlink("l", &under("secret"))
                .pax(&[("SCHILY.xattr.user.x", b"y")])
                .symlink("l", &under("secret"))
                .finish(),
            Good,
        ),
        (
            "a link replaced while it is in use",
            t().directory("d")
                .symlink("d/l", ".")
                .file("d/l/a", b"1")
                .symlink("d/l/l", sentinel)
                .file("d/l/secret", b"x")
                .finish(),
            Bad("to no directory of this layer"),
        ),
        (
            "a directory replaced while it is in use",
            t().directory("d").file("d/a", b"1").symlink("d", sentinel).file("d/secret", b"x").finish(),
            Bad("to no directory of this layer"),
        ),
        (
            "replaced through another name",
            t().directory("a/b")
                .symlink("l", ".")
                .file("a/b/x", b"1")
                .symlink("l/a/b", sentinel)
                .file("a/b/secret", b"x")
                .finish(),
            Bad("to no directory of this layer"),
        ),
        (
            "replaced from below",
            t().directory("a").symlink("a/up", "/").symlink("a/up/a", sentinel).file("a/secret", b"x").finish(),
            Bad("to no directory of this layer"),
        ),
        ("case-folded names", t().symlink("A", sentinel).directory("a").file("a/secret", b"x").finish(), Good),
        ("empty symlink", t().symlink("l", "").finish(), Bad("without a target")),
        ("long symlink", t().pax(&[("linkpath", &vec![b'a'; 4096])]).symlink("l", "x").finish(), Bad("ENAMETOOLONG")),
        // Hard links.
        ("hard link climbs", t().hard_link("h", "../sentinel/secret").finish(), Bad("climbs")),
        ("hard link to an absolute name", t().hard_link("h", &under("secret")).finish(), Bad("not in this layer")),
        (
            "hard link to a file above",
            t().hard_link("h", &format!("//{sentinel}//secret")).finish(),
            Bad("not in this layer"),
        ),
        (
            "hard link through a symlink",
            t().symlink("l", sentinel).hard_link("h", "l/secret").finish(),
            Bad("not in this layer"),
        ),
        (
            "hard link to a symlink, then a write",
            t().symlink("l", &under("secret")).hard_link("h", "l").file("h", b"x").finish(),
            Good,
        ),
        (
            "hard link to a symlink, then through it",
            t().symlink("l", sentinel).hard_link("h", "l").file("h/secret", b"x").finish(),
            Bad("to no directory of this layer"),
        ),
        ("hard link to a directory", t().directory("d").hard_link("h", "d").finish(), Bad("it is a directory")),
        ("hard link to the root", t().hard_link("h", "/").finish(), Bad("root")),
        ("hard link to itself", t().file("f", b"x").hard_link("f", "f").finish(), Good),
        (
            "hard link to what is not there yet",
            t().hard_link("h", "f").file("f", b"").finish(),
            Bad("not in this layer"),
        ),
        (
            "hard link over the directory of its target",
            t().file("a/f", b"").hard_link("a", "a/f").finish(),
            Bad("ENOENT"),
        ),
        ("hard link without a target", t().hard_link("h", "").finish(), Bad("empty")),
        ("hard link chain", t().file("a", b"1").hard_link("b", "a").hard_link("c", "b").file("a", b"2").finish(), Good),
        (
            "hard link with data",
            t().file("a", b"").member(Member::new(b'1', "b").link("a").data(b"x")).finish(),
            Bad("size"),
        ),
        ("hard link to a whiteout", t().file(".wh.a", b"").hard_link("b", "a").finish(), Bad("not in this layer")),
        // Whiteouts.
        ("whiteout of the parent", t().file(".wh...", b"").finish(), Bad("whiteout of nothing")),
        ("whiteout of itself", t().file(".wh..", b"").finish(), Bad("whiteout of nothing")),
        ("whiteout of nothing", t().file(".wh.", b"").finish(), Bad("whiteout of nothing")),
        ("whiteout as a directory", t().file(".wh.a/b", b"x").finish(), Bad("through a whiteout")),
        ("whiteout of a climb", t().file("../.wh.sentinel", b"").finish(), Bad("climbs")),
        (
            "whiteout through a symlink",
            t().symlink("l", sentinel).file("l/.wh.secret", b"").finish(),
            Bad("to no directory of this layer"),
        ),
        (
            "opaque through a symlink",
            t().symlink("l", sentinel).file("l/.wh..wh..opq", b"").finish(),
            Bad("to no directory of this layer"),
        ),
        ("whiteout of a symlink of this layer", t().symlink("l", sentinel).file(".wh.l", b"").finish(), Good),
        ("whiteout of a whiteout", t().file(".wh..wh.a", b"").finish(), Bad("whiteout of a whiteout")),
        ("whiteout, then through it", t().file(".wh.a", b"").file("a/b", b"x").finish(), Good),
        (
            "AUFS's own files",
            t().directory(".wh..wh.plnk").file(".wh..wh.plnk/1", b"x").file(".wh..wh.aufs", b"").finish(),
            Good,
        ),
        ("a node that is a whiteout", t().member(Member::new(b'3', "w").device(0, 0)).file("w", b"x").finish(), Good),
        // Attributes.
        (
            "overlay xattrs",
            t().pax(&[
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.trusted.overlay.metacopy", b""),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ])
            .file("f", b"")
            .finish(),
            Good,
        ),
        ("xattr without a name", t().pax(&[("SCHILY.xattr.", b"x")]).file("f", b"").finish(), Bad("attribute")),
        (
            "xattr with an unusable name",
            t().pax(&[("SCHILY.xattr.user.", b"x")]).file("f", b"").finish(),
            Bad("EINVAL"),
        ),
        ("uid of -1", t().pax(&[("uid", b"4294967295")]).file("f", b"").finish(), Bad("uid")),
        ("uid beyond 32 bits", t().pax(&[("uid", b"4294967296")]).file("f", b"").finish(), Bad("uid")),
        ("device number out of range", t().member(Member::new(b'3', "d").device(0x1000, 0)).finish(), Bad("device")),
        // What is in the way.
        ("through a file", t().file("f", b"").file("f/x", b"x").finish(), Bad("not a directory")),
        ("through a FIFO", t().member(Member::new(b'6', "f")).file("f/x", b"x").finish(), Bad("not a directory")),
        (
            "file over a full directory",
            t().symlink("d/out", sentinel).file("d/a/b", b"x").file("d", b"y").finish(),
            Good,
        ),
        ("symlink over a full directory", t().file("d/a/b", b"x").symlink("d", sentinel).finish(), Good),
        // The archive itself.
        (
            "truncated in data",
            t().member(Member::new(b'0', "f").size(10_000)).unfinished(),
            Bad("the archive ends inside"),
        ),
        ("truncated in a header", t().file("f", b"x").raw(&[1; 100]).unfinished(), Bad("ends inside a header")),
        ("no end", t().file("f", b"x").unfinished(), Good),
        ("a lone block of zeros", t().file("f", b"x").raw(&[0; 512]).file("g", b"x").finish(), Bad("lone block")),
        ("bad checksum", t().file("f", b"x").raw(&[7; 512]).finish(), Bad("checksum")),
        ("unknown type", t().member(Member::new(b'Q', "f")).finish(), Bad("unknown type")),
        ("size of 2^63", t().pax(&[("size", b"9223372036854775808")]).file("f", b"").finish(), Bad("size")),
        ("size of 2^63-1", t().pax(&[("size", b"9223372036854775807")]).file("f", b"").finish(), Bad("limit")),
        ("negative size", t().member(Member::new(b'0', "f").bytes(124, &[0xff; 12])).finish(), Bad("size")),
        ("a directory with a size", t().member(Member::new(b'5', "d").data(b"x")).finish(), Bad("size")),
        ("a header at the end", t().pax(&[("path", b"x")]).finish(), Bad("ends after")),
        ("a huge extended header", t().member(Member::new(b'x', "x").size(1 << 40)).finish(), Bad("limit")),
    ];
    // Every kind over every other kind, each pointing outside where it can.
    let kinds: [(&str, Add); 6] = [
        ("file", |tar, _| tar.file("x", b"data")),
        ("directory", |tar, _| tar.directory("x").file("x/inner", b"")),
        ("symlink", |tar, out| tar.symlink("x", out)),
        ("hard link", |tar, _| tar.hard_link("x", "target")),
        ("FIFO", |tar, _| tar.member(Member::new(b'6', "x"))),
        ("whiteout", |tar, _| tar.file(".wh.x", b"")),
    ];
    for (_, first) in kinds {
        for (_, second) in kinds {
            let tar = second(first(t().file("target", b"t"), sentinel), sentinel);
            all.push(("one kind over another", tar.finish(), Good));
        }
    }
    all
}
