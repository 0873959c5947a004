//! Networks as people know them: definitions, who is in them, and what is shown of that. What packets do is not looked at here.

use std::path::PathBuf;

use serde_json::Value;

use super::support::image::{Image, Layout};
use super::support::launch::Step;
use super::support::{Need, Outcome, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(networks_are_made_and_removed).and_plain(),
        test!(networks_are_listed_and_inspected).and_plain(),
        test!(containers_say_which_networks_they_want).and_plain(),
        test!(networks_in_use_stay).and_plain(),
        test!(containers_share_a_network).and_plain(),
        test!(containers_show_what_they_have).root().needs(Need::Program("unshare")).needs(Need::Program("nft")),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn layout(scene: &Scene) -> Layout {
    let mut image = Image::probe(scene);
    image.config["ExposedPorts"] = serde_json::json!({ "80/tcp": {}, "53/udp": {} });
    image.layout(scene, "layout")
}

fn network(scene: &Scene, words: &[&str]) -> Outcome {
    scene.husk().arg("network").args(words).run()
}

fn create(scene: &Scene, layout: &Layout, name: &str, flags: &[&str]) -> Outcome {
    let mut command = scene.husk();
    command.args(["create", "--name", name]).args(flags);
    command.arg(layout.reference()).args(["/bin/busybox", "sleep", "100"]).run()
}

fn inspect(scene: &Scene, name: &str) -> Value {
    let found: Value = serde_json::from_str(&scene.husk().args(["inspect", name]).run().success().stdout).unwrap();
    found[0].clone()
}

fn networks_are_made_and_removed(scene: &Scene) {
    let id = network(scene, &["create", "--label", "a=b", "front"]).success().stdout;
    assert_eq!(id.trim().len(), 64);
    network(scene, &["create", "front"]).exits_with(1).says("network with name front already exists");
    assert_eq!(network(scene, &["create", "--ignore", "front"]).success().stdout, id);
    network(scene, &["exists", "front"]).success();
    network(scene, &["exists", &id[..8]]).success();
    network(scene, &["exists", "back"]).exits_with(1);
    for (words, cause) in [
        (&["bridge"][..], "operation is not permitted on predefined bridge network"),
        (&["host"], "operation is not permitted on predefined host network"),
        (&["../x"], "network name"),
        (&["--driver", "overlay", "x"], "swarm"),
        (&["--driver", "cloud", "x"], "could not find plugin cloud"),
        (&["--ingress", "x"], "--ingress: swarm"),
        (&["--config-from", "y", "x"], "--config-from: swarm"),
        (&["--ipam-driver", "dhcp", "x"], "dhcp"),
        (&["--opt", "colour=red", "x"], "option colour"),
        (&["--opt", "mtu=1", "x"], "option mtu"),
        (&["--subnet", "10.99.0.1/24", "x"], "the block is 10.99.0.0/24"),
        (&["--subnet", "10.99.0.0/24", "--gateway", "10.98.0.1", "x"], "no matching subnet for gateway 10.98.0.1"),
        (&["--subnet", "10.99.0.0/24", "--ip-range", "10.98.0.0/25", "x"], "no matching subnet for range"),
        (&["--subnet", "10.99.0.0/24", "--aux-address", "a=10.98.0.1", "x"], "no matching subnet for aux-address"),
    ] {
        let refused = network(scene, &[&["create"], words].concat());
        assert!([1, 125].contains(&refused.code()), "{words:?}");
        refused.says(cause);
    }
    network(scene, &["create", "--subnet", "10.99.0.0/24", "back"]).success();
    network(scene, &["create", "--subnet", "10.99.0.128/25", "x"]).exits_with(1).says("Pool overlaps with other one");
    network(scene, &["create", "-o", "com.docker.network.bridge.name=hk-same", "same"]).success();
    let taken = network(scene, &["create", "-o", "com.docker.network.bridge.name=hk-same", "x"]);
    taken.exits_with(1).says("bridge name hk-same already in use by network same");
    assert_eq!(network(scene, &["rm", &id[..12], "same"]).success().stdout, format!("{}\nsame\n", &id[..12]));
    network(scene, &["rm", "front"]).exits_with(1).says("network front not found");
    assert_eq!(network(scene, &["rm", "-f", "front", "back"]).success().stdout, "back\n");
    network(scene, &["rm", "bridge"]).exits_with(1).says("bridge is a pre-defined network and cannot be removed");
    let format = "{{.Type}} {{.Action}} {{.Name}} {{.Actor.Attributes.type}}";
    let words = ["events", "--stream=false", "--filter", "network=same", "--format", format];
    assert_eq!(
        scene.husk().args(words).run().success().stdout,
        "network create same bridge\nnetwork destroy same bridge\n"
    );
}

fn networks_are_listed_and_inspected(scene: &Scene) {
    let flags =
        ["--subnet=10.99.1.0/24", "--subnet=fd00:99::/64", "--gateway=10.99.1.254", "--ip-range=10.99.1.128/25"];
    let more =
        ["--aux-address=router=10.99.1.1", "--internal", "--label=tier=front", "-o", "mtu=1400", "--dns=192.0.2.1"];
    network(scene, &[&["create"][..], &flags, &more, &["front"]].concat()).success();
    network(scene, &["create", "-d", "macvlan", "-o", "parent=dummy0", "--disable-dns", "lan"]).success();
    let table = network(scene, &["ls"]).success().stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    let shown: Vec<&[&str]> = rows[1..].iter().map(|row| &row[1..]).collect();
    let expected: [&[&str]; 5] = [
        &["bridge", "bridge", "local"],
        &["front", "bridge", "local"],
        &["host", "host", "local"],
        &["lan", "macvlan", "local"],
        &["none", "null", "local"],
    ];
    assert_eq!(shown, expected);
    let names = |filter: &str| network(scene, &["ls", "--filter", filter, "--format", "{{.Name}}"]).success().stdout;
    for (filter, expected) in [
        ("driver=macvlan", "lan\n"),
        ("name=ro", "front\n"),
        ("label=tier", "front\n"),
        ("label=tier=back", ""),
        ("label!=tier", "bridge\nhost\nlan\nnone\n"),
        ("type=custom", "front\nlan\n"),
        ("scope=global", ""),
        ("dangling=true", "front\nlan\n"),
        ("until=1h", "host\nnone\n"),
    ] {
        assert_eq!(names(filter), expected, "{filter}");
    }
    network(scene, &["ls", "--filter", "type=x"]).exits_with(1).says("invalid filter 'type=x'");
    let id = network(scene, &["ls", "-q", "--no-trunc", "--filter", "name=front"]).success().stdout;
    let format = "{{.ID}} {{.IPv6}} {{.Internal}} {{.Label \"tier\"}}";
    let line = network(scene, &["ls", "--filter", "name=front", "--format", format]).success().stdout;
    assert_eq!(line, format!("{} true true front\n", &id[..12]));
    let found: Value = serde_json::from_str(&network(scene, &["inspect", "front"]).success().stdout).unwrap();
    let expected = serde_json::json!([
        { "Subnet": "10.99.1.0/24", "Gateway": "10.99.1.254", "IPRange": "10.99.1.128/25",
          "AuxiliaryAddresses": { "router": "10.99.1.1" } },
        { "Subnet": "fd00:99::/64", "Gateway": "fd00:99::1" },
    ]);
    assert_eq!(found[0]["IPAM"]["Config"], expected);
    for (name, expected) in [
        ("Id", serde_json::json!(id.trim())),
        ("Driver", "bridge".into()),
        ("EnableIPv6", true.into()),
        ("Internal", true.into()),
        ("Containers", serde_json::json!({})),
        ("Options", serde_json::json!({ "mtu": "1400" })),
        ("Labels", serde_json::json!({ "tier": "front" })),
        ("NetworkInterface", format!("hk-{}", &id[..10]).into()),
        ("DNSEnabled", true.into()),
        ("NetworkDNSServers", serde_json::json!(["192.0.2.1"])),
    ] {
        assert_eq!(found[0][name], expected, "{name}");
    }
    network(scene, &["update", "--dns-add", "192.0.2.2", "--dns-drop", "192.0.2.1", "front"]).success();
    network(scene, &["update", "--dns-drop", "192.0.2.1", "front"]).exits_with(1).says("does not ask 192.0.2.1");
    network(scene, &["update", "--dns-add", "192.0.2.1", "lan"]).exits_with(1).says("no name server");
    let format = "{{json .NetworkDNSServers}} {{range .IPAM.Config}}{{.Gateway}} {{end}}";
    let line = network(scene, &["inspect", "-f", format, "front"]).success().stdout;
    assert_eq!(line, "[\"192.0.2.2\"] 10.99.1.254 fd00:99::1 \n");
    let both = scene.husk().args(["inspect", "--type", "network", "-f", "{{.Name}}", "lan", "host"]).run().success();
    assert_eq!(both.stdout, "lan\nhost\n");
    network(scene, &["inspect", "nobody"]).exits_with(1).says("network nobody not found");
}

fn containers_say_which_networks_they_want(scene: &Scene) {
    let layout = layout(scene);
    network(scene, &["create", "--subnet=10.99.2.0/24", "front"]).success();
    network(scene, &["create", "--internal", "back"]).success();
    for (flags, cause) in [
        (&["--network", "nobody"][..], "network nobody not found"),
        (&["--network", "front", "--ip", "10.98.0.1"], "address 10.98.0.1 is not in network front (10.99.2.0/24)"),
        (
            &["--network", "host", "--ip", "10.99.2.5"],
            "user specified IP address is supported on user defined networks only",
        ),
        (
            &["--network", "host", "--network-alias", "x"],
            "network-scoped alias is supported only for containers in user defined",
        ),
        (&["--network", "none", "-p", "80:80"], "port publishing and --network none"),
        (&["--network", "front", "--network", "host"], "cannot attach both user-defined and non-user-defined"),
        (&["--network", "front", "-p", "80:a"], "invalid containerPort: a"),
        (&["--network", "front", "-p", "80:80", "-p", "80:81"], "published twice"),
        (&["--network", "container:nobody"], "nobody"),
        (&["--link", "x"], "--link"),
    ] {
        create(scene, &layout, "refused", flags).exits_with(125).says(cause);
    }
    let host = create(scene, &layout, "on-host", &["--network", "host", "-p", "80:80"]).success();
    host.says("Published ports are discarded when using host network mode");
    let flags = ["--network=front:ip=10.99.2.5,alias=www", "--net", "back", "--net-alias=web"];
    let ports = ["-p=127.0.0.1:8080:80", "-p=8443-8444:443-444", "--expose=9000/sctp", "-P"];
    create(scene, &layout, "web", &[&flags[..], &ports].concat()).success();
    let found = inspect(scene, "web");
    assert_eq!(found["HostConfig"]["NetworkMode"], "front");
    let expected = serde_json::json!({
        "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }],
        "443/tcp": [{ "HostIp": "", "HostPort": "8443" }],
        "444/tcp": [{ "HostIp": "", "HostPort": "8444" }],
        "53/udp": [{ "HostIp": "", "HostPort": "" }],
        "9000/sctp": [{ "HostIp": "", "HostPort": "" }],
    });
    assert_eq!(found["HostConfig"]["PortBindings"], expected);
    let exposed: Vec<&String> = found["Config"]["ExposedPorts"].as_object().unwrap().keys().collect();
    assert_eq!(exposed, ["443/tcp", "444/tcp", "53/udp", "80/tcp", "9000/sctp"]);
    let networks = &found["NetworkSettings"]["Networks"];
    assert_eq!(networks["front"]["IPAMConfig"]["IPv4Address"], "10.99.2.5");
    assert_eq!(networks["front"]["Aliases"], serde_json::json!(["www", "web"]));
    assert_eq!(networks["back"]["Aliases"], serde_json::json!(["web"]));
    assert_eq!(networks["front"]["IPAddress"], "", "it does not run");
    let id = network(scene, &["inspect", "-f", "{{.Id}}", "front"]).success().stdout;
    assert_eq!(networks["front"]["NetworkID"], id.trim());
    let ps = |filter: &str| {
        let format = "{{.Names}}:{{.Networks}}:{{.Ports}}";
        scene.husk().args(["ps", "-a", "--format", format, "--filter", filter]).run().success().stdout
    };
    for (filter, expected) in [
        ("network=front", "web:front,back:\n"),
        (&format!("network={}", &id[..12]), "web:front,back:\n"),
        ("network=host", "on-host:host:\n"),
        ("network=bridge", ""),
        ("publish=8443", "web:front,back:\n"),
        ("publish=444/tcp", "web:front,back:\n"),
        ("publish=444/udp", ""),
        ("expose=53/udp", "web:front,back:\non-host:host:\n"),
        ("expose=9000-9001/sctp", "web:front,back:\n"),
    ] {
        assert_eq!(ps(filter), expected, "{filter}");
    }
    scene.husk().args(["port", "web"]).run().success();
    scene.husk().args(["port", "web", "80"]).run().exits_with(1).says("no public port '80/tcp' published for web");
    scene.husk().args(["port", "web", "x"]).run().exits_with(1).says("not PORT");
}

fn networks_in_use_stay(scene: &Scene) {
    let layout = layout(scene);
    for name in ["front", "back", "spare"] {
        network(scene, &["create", name]).success();
    }
    create(scene, &layout, "web", &["--network", "front"]).success();
    create(scene, &layout, "alone", &["--network", "none"]).success();
    network(scene, &["rm", "front"]).exits_with(1).says("network front has active endpoints (name:\"web\"");
    network(scene, &["connect", "--alias", "x", "back", "web"]).success();
    network(scene, &["connect", "back", "web"])
        .exits_with(1)
        .says("endpoint with name web already exists in network back");
    network(scene, &["connect", "--ip", "192.0.2.1", "spare", "web"]).exits_with(1).says("is not in network spare");
    network(scene, &["connect", "back", "alone"]).exits_with(1).says("private (none) mode");
    network(scene, &["connect", "nobody", "web"]).exits_with(1).says("network nobody not found");
    network(scene, &["connect", "bridge", "nobody"]).exits_with(1).says("nobody");
    assert_eq!(inspect(scene, "web")["NetworkSettings"]["Networks"]["back"]["Aliases"], serde_json::json!(["x"]));
    network(scene, &["disconnect", "spare", "web"]).exits_with(1).says("is not connected to network spare");
    network(scene, &["disconnect", "front", "web"]).success();
    network(scene, &["rm", "front"]).success();
    let old = ["prune", "--force", "--filter", "until=1h"];
    assert_eq!(network(scene, &old).success().stdout, "");
    assert_eq!(network(scene, &["prune", "--force"]).success().stdout, "Deleted Networks:\nspare\n\n");
    scene.husk().args(["rm", "web"]).run().success();
    assert_eq!(network(scene, &["prune", "--force"]).success().stdout, "Deleted Networks:\nback\n\n");
    let words = ["events", "--stream=false", "--filter", "network=front", "--format", "{{.Action}}"];
    assert_eq!(scene.husk().args(words).run().success().stdout, "create\ndisconnect\ndestroy\n");
}

/// `container:NAME` is in the other's network namespace, with its names.
fn containers_share_a_network(scene: &Scene) {
    let layout = layout(scene);
    let run = |flags: &[&str], script: &str| {
        let mut command = scene.husk();
        command.arg("run").args(flags).arg(layout.reference()).args(["/bin/busybox", "sh", "-c", script]).run()
    };
    run(&["-d", "--name", "first", "--network", "none", "--add-host", "db:192.0.2.9"], "exec busybox sleep 100")
        .success();
    let joined = ["--rm", "--network", "container:first"];
    let namespace = |words: &[&str]| scene.husk().args(words).run().success().stdout;
    let theirs = namespace(&["exec", "first", "/bin/busybox", "readlink", "/proc/self/ns/net"]);
    let script = "busybox readlink /proc/self/ns/net; busybox grep -c 192.0.2.9 /etc/hosts; busybox hostname";
    let id = namespace(&["inspect", "-f", "{{.Id}}", "first"]);
    assert_eq!(run(&joined, script).success().stdout, format!("{theirs}1\n{}\n", &id[..12]));
    for (flags, cause) in [
        (&["-p", "80:80"][..], "port publishing and the container type network mode"),
        (&["--expose", "80"], "port exposing and the container type network mode"),
        (&["--hostname", "x"], "hostname and the network mode"),
        (&["--dns", "192.0.2.1"], "dns and the network mode"),
        (&["--add-host", "x:192.0.2.1"], "custom host-to-IP mapping and the network mode"),
        (&["--mac-address", "02:00:00:00:00:01"], "mac-address and the network mode"),
    ] {
        run(&[&joined[..], flags].concat(), "true").exits_with(125).says(cause);
    }
    let path = format!("ns:/proc/{}/ns/net", namespace(&["inspect", "-f", "{{.State.Pid}}", "first"]).trim());
    if scene.who == Who::Root {
        let found = run(&["--rm", "--network", &path], "busybox readlink /proc/self/ns/net");
        assert_eq!(found.success().stdout, theirs);
    }
    scene.husk().args(["rm", "-f", "first"]).run().success();
}

/// What a container that runs has in its networks is shown by whoever is asked.
fn containers_show_what_they_have(scene: &Scene) {
    let layout = layout(scene);
    let mut holder = scene.program("unshare").args(["--net", "sh", "-c", "echo $$; exec sleep 1000"]).start();
    let namespace = PathBuf::from(format!("/proc/{}/ns/net", holder.line()));
    let husk = |words: &[&str]| scene.husk().step(Step::Network(namespace.clone())).args(words).run();
    let json = |words: &[&str]| serde_json::from_str::<Value>(&husk(words).success().stdout).unwrap();
    husk(&["network", "create", "--subnet=10.99.3.0/24", "--subnet=fd00:99:3::/64", "front"]).success();
    let place = "front:ip=10.99.3.5,mac=02:00:00:00:00:05,alias=www";
    let flags = ["-p", "8080:80", "-p", "127.0.0.1::53/udp", "--expose", "9000"];
    let image = layout.reference();
    let command = [&image[..], "/bin/busybox", "sleep", "1000"];
    let run = [&["run", "-d", "--name", "web", "--network", place][..], &flags, &command].concat();
    let id = husk(&run).success().stdout.trim().to_owned();

    let found = &json(&["inspect", "web"])[0];
    let front = &found["NetworkSettings"]["Networks"]["front"];
    for (name, expected) in [
        ("IPAddress", Value::from("10.99.3.5")),
        ("IPPrefixLen", 24.into()),
        ("Gateway", "10.99.3.1".into()),
        ("GlobalIPv6Address", "fd00:99:3::2".into()),
        ("GlobalIPv6PrefixLen", 64.into()),
        ("IPv6Gateway", "fd00:99:3::1".into()),
        ("MacAddress", "02:00:00:00:00:05".into()),
        ("DNSNames", serde_json::json!(["web", "www", &id[..12]])),
    ] {
        assert_eq!(front[name], expected, "{name}");
    }
    let own = husk(&["exec", "web", "/bin/busybox", "ip", "address", "show", "eth0"]).success().stdout;
    for text in ["10.99.3.5/24", "fd00:99:3::2/64", "02:00:00:00:00:05"] {
        assert!(own.contains(text), "{text}: {own}");
    }
    let ports = &found["NetworkSettings"]["Ports"];
    let everywhere =
        serde_json::json!([{ "HostIp": "0.0.0.0", "HostPort": "8080" }, { "HostIp": "::", "HostPort": "8080" }]);
    assert_eq!((&ports["80/tcp"], &ports["9000/tcp"]), (&everywhere, &Value::Null));
    let given = ports["53/udp"][0]["HostPort"].as_str().unwrap().to_owned();
    assert_eq!(husk(&["port", "web", "80"]).success().stdout, "0.0.0.0:8080\n[::]:8080\n");
    let lines = husk(&["port", "web"]).success().stdout;
    assert_eq!(lines, format!("53/udp -> 127.0.0.1:{given}\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"));
    let cell = format!("9000/tcp, 127.0.0.1:{given}->53/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp\n");
    assert_eq!(husk(&["ps", "--format", "{{.Ports}}"]).success().stdout, cell);

    let containers = json(&["network", "inspect", "-f", "{{json .Containers}}", "front"]);
    assert_eq!(containers[&id]["IPv4Address"], "10.99.3.5/24");
    assert_eq!(containers[&id]["EndpointID"], front["EndpointID"]);
    husk(&["rename", "web", "site"]).success();
    let containers = json(&["network", "inspect", "-f", "{{json .Containers}}", "front"]);
    assert_eq!(containers[&id]["Name"], "site");

    husk(&["network", "create", "--subnet=10.99.4.0/24", "back"]).success();
    husk(&["network", "connect", "--ip", "10.99.4.9", "back", "site"]).success();
    let format = "{{.NetworkSettings.Networks.back.IPAddress}}";
    assert_eq!(husk(&["inspect", "-f", format, "site"]).success().stdout, "10.99.4.9\n");
    let own = husk(&["exec", "site", "/bin/busybox", "ip", "address", "show", "eth1"]).success().stdout;
    assert!(own.contains("10.99.4.9/24"), "{own}");
    // It was made after the rules of the other were written.
    let rules = scene.program("nft").step(Step::Network(namespace.clone())).args(["list", "ruleset"]).run().success();
    let interface = husk(&["network", "inspect", "-f", "{{.NetworkInterface}}", "back"]).success().stdout;
    assert!(rules.stdout.contains(&format!("{0:?} . {0:?}", interface.trim())), "{}", rules.stdout);
    husk(&["network", "rm", "back"]).exits_with(1).says("has active endpoints");
    husk(&["network", "disconnect", "back", "site"]).success();
    husk(&["network", "rm", "back"]).success();

    // Another namespace has none of the rules that this one has.
    let (told, untold) = (scene.husk().arg("ps").run().success(), husk(&["ps"]).success());
    told.says("husk network reload");
    assert_eq!(untold.stderr, "");
    husk(&["rm", "-f", "site"]).success();
    assert_eq!(json(&["network", "inspect", "-f", "{{json .Containers}}", "front"]), serde_json::json!({}));
    husk(&["network", "rm", "front"]).success();
    holder.signal(rustix::process::Signal::KILL);
    holder.wait();
}
