//! What a hostile registry can cost: time, memory and rights of the process that pulls.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::support::image::{Compression, Image, Layer, Layout};
use super::support::launch::Step;
use super::support::registry::{Reply, Scripted};
use super::support::tar::{self, Entry};
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    [
        test!(a_silent_registry_is_not_waited_for_without_end),
        test!(documents_and_bombs_take_little_memory),
        test!(who_fetches_and_inflates_has_no_rights).and_plain(),
    ]
    .into_iter()
    .map(|test| test.needs(Need::Husk))
    .collect()
}

fn layout(scene: &Scene) -> Layout {
    Image::new(Vec::new()).layer(&[Entry::file("mark", vec![b'x'; 100_000])]).layout(scene, "layout")
}

fn a_silent_registry_is_not_waited_for_without_end(scene: &Scene) {
    let layout = layout(scene);
    let pull = |image: &str, case: &str| {
        let start = Instant::now();
        let mut command = scene.husk();
        command.env("HUSK_REGISTRY_TIMEOUT", "200ms").args(["pull", "-q", "--retry", "1", "--retry-delay", "1ms"]);
        command.arg(image).run().exits_with(125);
        assert!(start.elapsed() < Duration::from_secs(10), "{case}: {:?}", start.elapsed());
    };
    // (what stalls, after so many bytes; what is said)
    for (place, after) in [("/manifests/", 0), ("/manifests/", 9), ("/blobs/", 0), ("/blobs/", 60_000)] {
        let registry = Scripted::serve(&layout, move |request| {
            let reply = Reply::ok("application/vnd.oci.image.manifest.v1+json", vec![b' '; 110_000]);
            request.path.contains(place).then_some(Reply { stall: Some(after), ..reply })
        });
        pull(&registry.image(), &format!("{place} {after}"));
    }
    // Nobody takes the connection up, and the hello of TLS has no answer.
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listen on loopback");
    pull(&format!("{}/app", listener.local_addr().expect("an address")), "no answer");
}

/// Bytes of its own that a pull may have, whatever it is given: its buffers, the stacks of its threads and the largest
/// documents that are read. Bombs and documents of the limits' size need more by far where they are not taken in pieces.
const MEMORY: u64 = 64 << 20;

fn documents_and_bombs_take_little_memory(scene: &Scene) {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let pull = |registry: &Scripted| {
        let mut command = scene.husk();
        command.step(Step::Data(MEMORY)).args(["pull", "-q", "--retry", "0"]).arg(registry.image()).run()
    };
    // 500:1 and 20,000:1; what is in them is more than the process may have.
    let zeros = |name: &str| tar::archive(&[Entry::file(name, vec![0; 80 << 20])]);
    let bombs = vec![Layer::new(&zeros("gzip"), Compression::Gzip), Layer::new(&zeros("zstd"), Compression::Zstd)];
    let image = Image::new(bombs);
    pull(&Scripted::serve(&image.layout(scene, "bombs"), |_| None)).success();

    let layout = layout(scene);
    let manifest = layout.manifest();
    let pairs = |count: usize| (0..count).map(|number| format!("\"{number:x}\":\"\"")).collect::<Vec<_>>().join(",");
    let annotated = manifest.to_string().replacen('{', &format!("{{\"annotations\":{{{}}},", pairs(300_000)), 1);
    let nested = manifest.to_string().replacen('{', &format!("{{\"unknown\":[{}[]],", "[],".repeat(1_300_000)), 1);
    let entry = format!("{{\"mediaType\":\"{MANIFEST}\",\"digest\":{},\"size\":7}}", manifest["config"]["digest"]);
    let index = format!("{{\"schemaVersion\":2,\"manifests\":[{}]}}", vec![&entry[..]; 25_000].join(","));
    let layers = manifest.to_string().replacen(
        "\"layers\":[",
        &format!("\"layers\":[{}", format!("{entry},").repeat(25_000)),
        1,
    );
    // In one chunk, so that no length is stated.
    let without_end = format!("{:x}\r\n{}\r\n0\r\n\r\n", 80 << 20, " ".repeat(80 << 20));
    let answer = |kind: &str, body: &str| {
        let reply = Reply::ok(kind, body);
        if body.starts_with('{') { reply } else { reply.header("transfer-encoding", "chunked") }
    };
    for (name, place, body) in [
        ("annotations", "manifests", annotated),
        ("nested", "manifests", nested),
        ("index", "manifests", index),
        ("layers", "manifests", layers),
        ("manifest", "manifests", without_end.clone()),
        ("config", "blobs", without_end.clone()),
    ] {
        assert!(body.len() > 3 << 20, "{name}: {} bytes", body.len());
        let registry = Scripted::serve(&layout, move |request| {
            let is_index = body.contains("manifests");
            let kind = if is_index { "application/vnd.oci.image.index.v1+json" } else { MANIFEST };
            request.path.contains(place).then(|| answer(kind, &body))
        });
        let outcome = pull(&registry);
        assert!([0, 125].contains(&outcome.code()), "{name}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("memory"), "{name}: {}", outcome.stderr);
    }
    // Errors and tokens are answers as well.
    for status in [401, 500] {
        let body = without_end.clone();
        let registry = Scripted::start(move |request| match request.path.starts_with("/v2/app") {
            true if status == 401 => Reply::new(401).header(
                "www-authenticate",
                format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap_or_default()),
            ),
            true => Reply { status: 500, ..answer("application/json", &body) },
            false => answer("application/json", &body),
        });
        let outcome = pull(&registry).exits_with(125);
        assert!(!outcome.stderr.contains("memory"), "{status}: {}", outcome.stderr);
    }
}

/// What the threads that speak to registries may do, by /proc: of husk, and of the process that it has for a user's files.
fn rights_of_fetching(pid: i32) -> Vec<(String, String)> {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let children = read(format!("/proc/{pid}/task/{pid}/children"));
    let processes = children.split_whitespace().map(ToOwned::to_owned).chain([pid.to_string()]);
    let mut found = Vec::new();
    for process in processes {
        for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let status = read(task.path().join("status").display().to_string());
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().trim_start_matches(':').trim().to_owned()
            };
            if field("Name") == "fetch" {
                found.push((field("CapPrm") + &field("CapEff"), field("NoNewPrivs")));
            }
        }
    }
    found
}

fn who_fetches_and_inflates_has_no_rights(scene: &Scene) {
    let layout = layout(scene);
    let layer = layout.manifest()["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    for (place, after) in [("/manifests/", 9), (&layer[..], 60_000)] {
        let theirs = place.to_owned();
        let registry = Scripted::serve(&layout, move |request| {
            let reply = Reply::ok("application/vnd.oci.image.manifest.v1+json", vec![b' '; 110_000]);
            request.path.contains(&theirs).then_some(Reply { stall: Some(after), ..reply })
        });
        let mut command = scene.husk();
        let running = command.args(["pull", "-q"]).arg(registry.image()).start();
        registry.wait_for(|request| request.path.contains(place));
        let rights = rights_of_fetching(running.pid().as_raw_nonzero().get());
        super::pull::kill_all(&running);
        assert!(!rights.is_empty(), "{place}: no thread fetches");
        for (capabilities, no_new_privileges) in rights {
            assert_eq!(capabilities, "0".repeat(32), "{place}");
            assert_eq!(no_new_privileges, "1", "{place}");
        }
    }
}
