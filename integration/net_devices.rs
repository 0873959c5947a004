//! `linux.netDevices`: interfaces of the runtime's network namespace, in the container with what was set on them.
//!
//! The suite has a network namespace of its own; the interfaces are veth pairs, which every kernel with containers has.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let veth = |test: Test| test.needs(Need::NotRunc).needs(Need::NotCrun).needs(Need::Program("ip"));
    vec![
        veth(test!(an_interface_moves_with_what_was_set_on_it).root()),
        veth(test!(an_interface_moves_into_a_namespace_that_is_there).root()),
        veth(test!(an_interface_moves_into_a_user_namespace).root()),
        veth(test!(a_missing_interface_is_named).root()),
        veth(test!(a_name_that_is_taken_is_an_error).root()),
        test!(an_ordinary_user_moves_none).users().needs(Need::Husk),
    ]
}

fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().expect("run ip");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Two interfaces that go together, and are taken down together.
struct Pair(&'static str, &'static str);

impl Pair {
    fn new(one: &'static str, other: &'static str) -> Self {
        ip(&format!("link add {one} type veth peer name {other}"));
        Self(one, other)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in [self.0, self.1] {
            _ = Command::new("ip").args(["link", "del", name]).output();
        }
    }
}

/// What the container sees of an interface.
fn see(scene: &Scene, devices: Value, name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["netDevices"] = devices;
    change(&mut bundle.config);
    bundle.without_mount("/sys").mount("/sys", "sysfs", "sysfs", &["ro"]);
    for file in ["address", "mtu", "flags"] {
        bundle.probe(["--read".to_owned(), format!("/sys/class/net/{name}/{file}")]);
    }
    bundle.probe(["--read", "/proc/net/fib_trie", "--read", "/proc/net/if_inet6"]);
    bundle.report()["reads"].clone()
}

fn an_interface_moves_with_what_was_set_on_it(scene: &Scene) {
    for (devices, name) in [(json!({ "hk0": {} }), "hk0"), (json!({ "hk0": { "name": "inside0" } }), "inside0")] {
        let _pair = Pair::new("hk0", "hk1");
        ip("link set hk0 mtu 1789 address 02:11:22:33:44:55");
        ip("address add 192.0.2.77/24 dev hk0");
        ip("address add 127.0.0.33/32 scope host dev hk0");
        ip("address add 2001:db8::7/64 dev hk0 nodad");
        let reads = see(scene, devices, name, |_| ());
        let read = |file: &str| reads[format!("/sys/class/net/{name}/{file}")].as_str().unwrap().trim().to_owned();
        assert_eq!((read("address"), read("mtu")), ("02:11:22:33:44:55".to_owned(), "1789".to_owned()));
        let flags = u32::from_str_radix(read("flags").trim_start_matches("0x"), 16).unwrap();
        assert_eq!(flags & 1, 1, "it is up");
        let routes = reads["/proc/net/fib_trie"].as_str().unwrap();
        assert!(routes.contains("192.0.2.77") && routes.contains("192.0.2.255"), "{routes}");
        assert!(!routes.contains("127.0.0.33"), "an address of the host's own went along: {routes}");
        let addresses = reads["/proc/net/if_inet6"].as_str().unwrap();
        assert!(addresses.contains("20010db8000000000000000000000007"), "{addresses}");
    }
}

/// A network namespace with a name, as ip(8) makes it.
struct Named(PathBuf);

impl Named {
    fn new(name: &str) -> Self {
        ip(&format!("netns add {name}"));
        Self(Path::new("/run/netns").join(name))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        _ = Command::new("ip").args(["netns", "del"]).arg(self.0.file_name().unwrap()).output();
        _ = rustix::mount::unmount("/run/netns", rustix::mount::UnmountFlags::DETACH);
        _ = std::fs::remove_dir("/run/netns");
    }
}

/// The interface outlives the container with the namespace.
fn an_interface_moves_into_a_namespace_that_is_there(scene: &Scene) {
    let _pair = Pair::new("hk0", "hk1");
    ip("address add 192.0.2.78/32 dev hk0");
    let namespace = Named::new("husk-test");
    let reads = see(scene, json!({ "hk0": { "name": "inside0" } }), "inside0", |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        let network = namespaces.iter_mut().find(|namespace| namespace["type"] == "network").unwrap();
        network["path"] = json!(namespace.0);
    });
    assert!(reads["/proc/net/fib_trie"].as_str().unwrap().contains("192.0.2.78"));
    assert!(ip("-n husk-test address show dev inside0").contains("192.0.2.78/32"));
    ip("-n husk-test link del inside0");
}

fn an_interface_moves_into_a_user_namespace(scene: &Scene) {
    let _pair = Pair::new("hk0", "hk1");
    let mut bundle = scene.bundle();
    super::bind_flags::with_user_namespace(&mut bundle);
    bundle.config["linux"]["netDevices"] = json!({ "hk0": {} });
    bundle.probe(["--read", "/proc/net/dev"]);
    let report = bundle.report();
    assert!(report["reads"]["/proc/net/dev"].as_str().unwrap().contains("hk0:"));
}

fn a_missing_interface_is_named(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["netDevices"] = json!({ "nosuch0": {} });
    bundle.run().exits_with(1).says("link not found for interface nosuch0 on runtime namespace").says("ENODEV");
}

fn a_name_that_is_taken_is_an_error(scene: &Scene) {
    let _pair = Pair::new("hk0", "hk1");
    let mut bundle = scene.bundle();
    bundle.config["linux"]["netDevices"] = json!({ "hk0": { "name": "lo" } });
    bundle.run().exits_with(1).says("fail to move network device hk0 to network namespace /proc/").says("EEXIST");
}

fn an_ordinary_user_moves_none(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["netDevices"] = json!({ "lo": {} });
    bundle.run().exits_with(1).says("network devices are not supported for rootless containers");
}
