//! Layouts and archives, honest and lying.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::image::image_builder::{self as build, Files, LayerBlob};
use crate::image::source::Source;
use crate::image::stream::{Inflater, LayerStream};
use crate::image::tar_builder::{Member, Tar, pax_record};

type Opened = (Image, Box<dyn LayerReader>);

fn open_word(word: &str) -> Result<Opened> {
    let Source::Local(local) = Source::parse(word)? else { panic!("{word}") };
    open(&local, &Platform::host(), &|| Ok(tempfile::tempfile()?))
}

fn read(reader: &dyn LayerReader, index: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.open_layer(index).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn two_layers() -> Vec<LayerBlob> {
    let first = Tar::new().file("a", b"1").finish();
    let second = Tar::new().file("b", b"2").finish();
    vec![LayerBlob::gzip(&first), LayerBlob::zstd(&second)]
}

fn tar(files: &Files) -> Vec<u8> {
    let name = |tar: Tar, name: &str| tar.pax(&[("path", name.as_bytes())]);
    files.iter().fold(Tar::new(), |tar, (path, bytes)| name(tar, path).file("x", bytes)).finish()
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Finds a member of a layout by the start of its name.
fn member<'a>(files: &'a mut Files, start: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|(name, _)| name.starts_with(start)).unwrap().1
}

#[test]
fn a_layout_and_its_archives_are_one_image() {
    let place = tempfile::tempdir().unwrap();
    let layers = two_layers();
    let files = build::layout(&layers, r#"{"Env":["A=b"],"Cmd":["sh"]}"#);
    build::write(&place.path().join("layout"), &files);
    let archive = tar(&files);
    write(&place.path().join("plain.tar"), &archive);
    write(&place.path().join("gzip.tar"), &build::gzip(&archive));
    write(&place.path().join("zstd.tar"), &build::zstd(&archive));
    symlink("layout", place.path().join("link")).unwrap();
    let mut digests = Vec::new();
    for word in [
        "oci:layout",
        "oci:layout:latest",
        "oci:layout:@0",
        "oci:link",
        "oci-archive:plain.tar:latest",
        "oci-archive:gzip.tar",
        "oci-archive:zstd.tar",
    ] {
        let (scheme, rest) = word.split_once(':').unwrap();
        let (image, reader) = open_word(&format!("{scheme}:{}/{rest}", place.path().display())).unwrap();
        assert_eq!((image.config.env, image.config.cmd), (vec!["A=b".to_owned()], vec!["sh".to_owned()]), "{word}");
        assert_eq!(image.layers.len(), 2);
        for (index, layer) in layers.iter().enumerate() {
            assert_eq!(image.layers[index].diff_id.to_string(), layer.diff_id);
            assert_eq!(read(&*reader, index), layer.packed, "{word}");
        }
        assert_eq!(image.layers[1].compression, Some(Compression::Zstd));
        digests.push((image.manifest_digest.unwrap(), image.config_digest));
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
}

#[test]
fn lies_in_a_layout_are_refused() {
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = build::layout(&two_layers(), "{}");
        change(&mut files);
        files
    };
    let manifest_path = {
        let files = build::layout(&two_layers(), "{}");
        files[3].0.clone()
    };
    let outside = tempfile::NamedTempFile::new().unwrap();
    write(outside.path(), b"canary");
    let cases: Vec<(&str, Files, &str)> = vec![
        ("no marker", changed(&|files| files.retain(|(name, _)| name != "oci-layout")), "not an OCI"),
        (
            "a newer layout",
            changed(&|files| *member(files, "oci-layout") = br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec()),
            "imageLayoutVersion",
        ),
        ("no index", changed(&|files| files.retain(|(name, _)| name != "index.json")), "index.json"),
        ("a broken index", changed(&|files| *member(files, "index.json") = b"{".to_vec()), "index.json: EOF"),
        ("an empty index", changed(&|files| *member(files, "index.json") = build::index(&[]).into_bytes()), "no image"),
        ("no manifest", changed(&|files| files.retain(|(name, _)| *name != manifest_path)), "blob sha256:"),
        (
            "another manifest of the same size",
            changed(&|files| {
                let manifest = member(files, &manifest_path);
                let place = manifest.iter().position(|byte| *byte == b'v').unwrap();
                manifest[place] = b'V';
            }),
            "digest mismatch",
        ),
        ("a longer manifest", changed(&|files| member(files, &manifest_path).push(b' ')), "size mismatch"),
        (
            "a shorter manifest",
            changed(&|files| {
                member(files, &manifest_path).pop();
            }),
            "size mismatch",
        ),
        ("another configuration", changed(&|files| files[2].1 = files[2].1.to_ascii_uppercase()), "digest mismatch"),
        (
            "a huge index",
            changed(&|files| *member(files, "index.json") = vec![b' '; limits::MANIFEST_BYTES + 1]),
            "larger than",
        ),
    ];
    for (name, files, text) in cases {
        let place = tempfile::tempdir().unwrap();
        build::write(&place.path().join("layout"), &files);
        write(&place.path().join("archive"), &tar(&files));
        for word in ["oci:{}/layout", "oci-archive:{}/archive"] {
            let error = open_word(&word.replace("{}", place.path().to_str().unwrap())).map(|_| ()).unwrap_err();
            let report = error.report();
            assert!(report.contains(text), "{name} {word}: {report}");
        }
    }
    // A layer is only looked at when it is opened.
    let mut files = build::layout(&two_layers(), "{}");
    files[4].1.push(0);
    let place = tempfile::tempdir().unwrap();
    build::write(place.path(), &files);
    let (_, reader) = open_word(&format!("oci:{}", place.path().display())).unwrap();
    assert!(reader.open_layer(0).map(|_| ()).unwrap_err().report().contains("size mismatch"));
    assert!(reader.open_layer(1).is_ok());
}

/// security.md E11: whatever in a layout or an archive is a link, the host's files are not read through it.
#[test]
fn links_in_a_layout_are_not_followed() {
    let files = build::layout(&two_layers(), "{}");
    let outside = tempfile::tempdir().unwrap();
    build::write(outside.path(), &files);
    for name in files.iter().map(|(name, _)| name.as_str()).chain(["blobs", "blobs/sha256"]) {
        let place = tempfile::tempdir().unwrap();
        build::write(place.path(), &files);
        let path = place.path().join(name);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        symlink(outside.path().join(name), &path).unwrap();
        let opened = open_word(&format!("oci:{}", place.path().display()));
        let read = opened.and_then(|(_, reader)| {
            reader.open_layer(0)?;
            reader.open_layer(1).map(|_| ())
        });
        assert_eq!(read.unwrap_err().errno(), Some(rustix::io::Errno::LOOP), "{name}");
    }
    let place = tempfile::tempdir().unwrap();
    build::write(place.path(), &files);
    std::fs::remove_file(place.path().join("index.json")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, place.path().join("index.json"), rustix::fs::Mode::RWXU).unwrap();
    let error = open_word(&format!("oci:{}", place.path().display())).map(|_| ()).unwrap_err();
    assert!(error.report().contains("not a regular file"), "{error:?}");
}

#[test]
fn one_image_of_several() {
    let layers = two_layers();
    let config = build::config(&layers, "{}");
    let manifest = build::manifest(&config, &layers);
    let other = build::manifest(&config, &layers[..1]);
    let describe = |bytes: &str, rest: &str| build::descriptor(build::MANIFEST, bytes.as_bytes(), rest);
    let platform = |architecture: &str| format!(r#","platform":{{"architecture":"{architecture}","os":"linux"}}"#);
    let named = |name: &str| format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#);
    let nested = build::index(&[
        describe(&other, &platform("s390x")),
        describe(&manifest, &platform(build::architecture())),
        describe(&other, &platform("unknown").replace("linux", "unknown")),
    ]);
    let foreign = build::index(&[describe(&other, &platform("s390x"))]);
    let index_of = |bytes: &str, rest: &str| build::descriptor(build::INDEX, bytes.as_bytes(), rest);
    let mut endless = nested.clone();
    let mut chain = Vec::new();
    for _ in 0..limits::INDEX_DEPTH {
        chain.push(build::blob(endless.as_bytes()));
        endless = build::index(&[index_of(&endless, "")]);
    }
    let cases: Vec<(&str, String, &str, Result<(), &str>)> = vec![
        ("one, unnamed", build::index(&[describe(&manifest, "")]), "", Ok(())),
        ("nested by platform", build::index(&[index_of(&nested, "")]), "", Ok(())),
        ("flat by platform", nested.clone(), "", Ok(())),
        ("by name", build::index(&[describe(&other, &named("a")), describe(&manifest, &named("b"))]), ":b", Ok(())),
        ("by place", build::index(&[describe(&other, &named("a")), describe(&manifest, &named("b"))]), ":@1", Ok(())),
        (
            "one under two names",
            build::index(&[describe(&manifest, &named("a")), describe(&manifest, &named("b"))]),
            "",
            Ok(()),
        ),
        (
            "two",
            build::index(&[describe(&other, &named("a")), describe(&manifest, &named("b"))]),
            "",
            Err("2 images fit"),
        ),
        ("no such name", build::index(&[describe(&manifest, &named("a"))]), ":c", Err("no image is called \"c\"")),
        ("no such place", build::index(&[describe(&manifest, "")]), ":@1", Err("no image at place 1 of 1")),
        ("no such platform", build::index(&[index_of(&foreign, "")]), "", Err("only for linux/s390x")),
        ("no such platform, flat", foreign.clone(), "", Err("only for linux/s390x")),
        ("indexes in indexes", endless, "", Err("indexes inside each other")),
        ("a manifest called an index", build::index(&[index_of(&manifest, "")]), "", Err("mediaType")),
        ("an index called a manifest", build::index(&[describe(&nested, "")]), "", Err("mediaType")),
        ("only attestations", build::index(&[build::descriptor("application/x", b"", "")]), "", Err("no image")),
    ];
    for (name, index, selector, answer) in cases {
        let place = tempfile::tempdir().unwrap();
        let mut files = build::layout(&layers, "{}");
        *member(&mut files, "index.json") = index.into_bytes();
        files.extend([&nested, &foreign, &other].map(|document| build::blob(document.as_bytes())));
        files.extend(chain.iter().cloned());
        build::write(place.path(), &files);
        let opened = open_word(&format!("oci:{}{selector}", place.path().display()));
        match (opened, answer) {
            (Ok((image, _)), Ok(())) => {
                assert_eq!(image.manifest_digest.unwrap().to_string(), build::digest(manifest.as_bytes()), "{name}");
            }
            (Err(error), Err(text)) => assert!(error.report().contains(text), "{name}: {error:?}"),
            (opened, _) => panic!("{name}: {:?}", opened.map(|(image, _)| image)),
        }
    }
    // More layers than diff ids.
    let place = tempfile::tempdir().unwrap();
    let mut files = build::layout(&layers, "{}");
    let short = build::config(&layers[..1], "{}");
    let manifest = build::manifest(&short, &layers);
    *member(&mut files, "index.json") = build::index(&[describe(&manifest, "")]).into_bytes();
    files.extend([build::blob(short.as_bytes()), build::blob(manifest.as_bytes())]);
    build::write(place.path(), &files);
    let error = open_word(&format!("oci:{}", place.path().display())).map(|_| ()).unwrap_err();
    assert!(error.report().contains("rootfs.diff_ids: 1 of them for 2 layers"), "{error:?}");
}

fn saved(config: &str, tags: &str, layers: &str) -> String {
    format!(r#"{{"Config":"{config}","RepoTags":{tags},"Layers":{layers}}}"#)
}

#[test]
fn docker_archives() {
    let layers = two_layers();
    let plain: Vec<Vec<u8>> =
        [("a", "1"), ("b", "2")].iter().map(|(name, data)| Tar::new().file(name, data.as_bytes()).finish()).collect();
    let config = build::config(&layers, r#"{"Cmd":["sh"]}"#);
    let name = format!("{}.json", build::digest(config.as_bytes()).replace("sha256:", ""));
    let image = saved(&name, r#"["docker.io/library/app:latest"]"#, r#"["1/layer.tar","2/layer.tar"]"#);
    let other = saved(&name, "null", r#"["1/layer.tar","2/layer.tar"]"#);
    let base = |manifest: &str| {
        Tar::new()
            .file("manifest.json", manifest.as_bytes())
            .pax(&[("path", name.as_bytes())])
            .file("x", config.as_bytes())
    };
    let whole = |manifest: &str| base(manifest).file("1/layer.tar", &plain[0]).file("2/layer.tar", &plain[1]).finish();
    let one = format!("[{image}]");
    let two = format!("[{other},{image}]");
    let link = |target: &str| base(&one).file("1/layer.tar", &plain[0]).symlink("2/layer.tar", target).finish();
    let good: Vec<(&str, Vec<u8>, &str)> = vec![
        ("as docker writes it", whole(&one), ""),
        ("by a short name", whole(&two), ":app"),
        ("by the whole name", whole(&two), ":docker.io/library/app:latest"),
        ("by place", whole(&two), ":@1"),
        ("compressed as a whole", build::gzip(&whole(&one)), ""),
        (
            "with compressed layers",
            base(&one)
                .file("./1/layer.tar", &build::gzip(&plain[0]))
                .file("2/layer.tar", &build::zstd(&plain[1]))
                .finish(),
            "",
        ),
        (
            "with a symlink between layers",
            base(&one)
                .file("1/layer.tar", &plain[0])
                .file("x.tar", &plain[1])
                .symlink("2/layer.tar", "../x.tar")
                .finish(),
            "",
        ),
        (
            "with a hard link between layers",
            base(&one)
                .file("1/layer.tar", &plain[0])
                .file("x.tar", &plain[1])
                .hard_link("2/layer.tar", "x.tar")
                .finish(),
            "",
        ),
    ];
    for (case, archive, selector) in good {
        let place = tempfile::tempdir().unwrap();
        write(&place.path().join("a.tar"), &archive);
        let (image, reader) = open_word(&format!("docker-archive:{}/a.tar{selector}", place.path().display()))
            .unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_eq!((image.layers.len(), image.config.cmd), (2, vec!["sh".to_owned()]), "{case}");
        for (index, plain) in plain.iter().enumerate() {
            let layer = &image.layers[index];
            let mut bytes = Vec::new();
            let packed = reader.open_layer(index).unwrap();
            let inflater = Inflater::new(packed, layer, 1 << 20).unwrap();
            let mut stream = LayerStream::inline(inflater, layer.diff_id);
            stream.read_to_end(&mut bytes).unwrap();
            stream.finish().unwrap();
            assert_eq!(bytes, *plain, "{case}");
        }
    }
    let global = Member::new(b'g', "g").data(&pax_record("path", b"x"));
    let bad: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("no manifest", Tar::new().file("x", b"").finish(), "", "not a docker archive"),
        ("two unnamed", whole(&two), "", "2 images, and none of them is named"),
        ("no such name", whole(&one), ":other", "no image is called"),
        ("no such place", whole(&one), ":@7", "no image at place 7"),
        ("no layer", base(&one).file("1/layer.tar", &plain[0]).finish(), "", "no file 2/layer.tar"),
        ("a link outside", link("/etc/passwd"), "", "no file 2/layer.tar"),
        ("a link that climbs", link("../../../etc/passwd"), "", "no file 2/layer.tar"),
        ("a loop", link("../2/layer.tar"), "", "too many links"),
        (
            "a manifest that climbs",
            whole(&one.replace("2/layer.tar", "../../etc/passwd")),
            "",
            "no file ../../etc/passwd",
        ),
        ("an absolute layer", whole(&one.replace("2/layer.tar", "/etc/passwd")), "", "no file /etc/passwd"),
        (
            "a layer twice",
            base(&one).file("1/layer.tar", b"").file("1/layer.tar", b"").file("2/layer.tar", b"").finish(),
            "",
            "in the archive twice",
        ),
        ("a name that climbs", base(&one).file("../1/layer.tar", b"").finish(), "", "climbs out"),
        ("truncated", whole(&one)[..6000].to_vec(), "", "ends inside"),
        ("a global header", Tar::new().member(global).file("x", b"").finish(), "", "global"),
        ("not a tar", vec![b'x'; 2000], "", "malformed tar"),
        ("empty", Vec::new(), "", "not a docker archive"),
        ("truncated gzip", build::gzip(&whole(&one))[..200].to_vec(), "", "a.tar"),
        ("broken manifest", whole("[{}]"), "", "manifest.json: [0]: missing field"),
    ];
    for (case, archive, selector, text) in bad {
        let place = tempfile::tempdir().unwrap();
        write(&place.path().join("a.tar"), &archive);
        let opened = open_word(&format!("docker-archive:{}/a.tar{selector}", place.path().display()));
        let report = opened.map(|_| ()).unwrap_err().report();
        assert!(report.contains(text), "{case}: {report}");
    }
    // The configuration's name is its digest.
    let place = tempfile::tempdir().unwrap();
    let lying = Tar::new()
        .file("manifest.json", one.as_bytes())
        .pax(&[("path", name.as_bytes())])
        .file("x", config.replace("sh", "su").as_bytes())
        .file("1/layer.tar", b"")
        .file("2/layer.tar", b"");
    write(&place.path().join("a.tar"), &lying.finish());
    let opened = open_word(&format!("docker-archive:{}/a.tar", place.path().display()));
    assert!(opened.map(|_| ()).unwrap_err().report().contains("digest mismatch"));
    let opened = open_word(&format!("docker-archive:{}", place.path().display()));
    let report = opened.map(|_| ()).unwrap_err().report();
    assert!(report.contains("neither a file nor a pipe"), "{report}");
}
