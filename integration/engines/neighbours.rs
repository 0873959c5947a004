//! husk's networks beside those of another engine on one machine: both serve the world, neither gets at what the other has not
//! published, and what the other has told the kernel is the same before husk came and after it has gone.

use super::IMAGE;
use super::site::Site;
use crate::support::scene::{RUN_VARIABLE, STORE_VARIABLE};
use crate::support::{Invocation, Outcome, Scene};

/// The world: a network namespace behind a wire, that knows the way to everything here.
const WORLD: &str = "ip netns add hk-world && ip link add out0 type veth peer name in0 netns hk-world && \
    ip address add 198.51.100.1/24 dev out0 && ip link set out0 up && \
    ip -n hk-world address add 198.51.100.2/24 dev in0 && ip -n hk-world link set in0 up && ip -n hk-world link set lo up && \
    ip -n hk-world route add default via 198.51.100.1";

/// What a container serves: its own word, at port 80.
pub(super) fn serve(word: &str) -> String {
    format!("echo {word} >/tmp/a; exec /bin/busybox httpd -f -p 80 -h /tmp")
}

/// Runs the scenario beside an engine that has its bridge.
pub(super) fn are_unharmed(scene: &Scene, site: &Site<'_>, engine: impl Fn(&str, &[&str])) {
    let shell = |script: &str| -> Outcome {
        let mut command: Invocation<'_> = site.command("sh");
        command.args(["-c", script]).run()
    };
    let husk = |words: &[&str]| -> Outcome {
        let mut husk = site.command(site.runtime("husk"));
        husk.env(STORE_VARIABLE, scene.store()).env(RUN_VARIABLE, scene.run_root());
        husk.args(words).run().success()
    };
    let get = |at: &str| shell(&format!("ip netns exec hk-world timeout 2 busybox wget -q -O- http://{at}/a")).stdout;
    // Without what the kernel counts, and without husk's own tables and its two rules at the head of each foreign chain.
    let foreign = || {
        let script = "nft list tables | grep -v ' husk' | while read line; do nft list $line; done | \
                      sed 's/counter packets [0-9]* bytes [0-9]*//'";
        shell(script).success().stdout
    };
    shell(WORLD).success();
    let words = format!("run --detach --name theirs --publish 8081:80 {IMAGE}");
    engine(&words, &["sh", "-c", &serve("theirs")]);
    Site::wait_until("the other serves the world", || get("198.51.100.1:8081") == "theirs\n");
    let before = foreign();
    assert!(before.contains("chain "), "the other has rules: {before}");

    husk(&["load", "--quiet", "--input", &scene.path().join("image.tar").display().to_string()]);
    husk(&["network", "create", "front"]);
    let run = |name: &str, ports: &[&str], word: &str| {
        let mut words = vec!["run", "-d", "--name", name, "--network", "front"];
        words.extend(ports);
        let script = serve(word);
        words.extend([IMAGE, "sh", "-c", &script]);
        husk(&words);
    };
    run("ours", &["-p", "8082:80"], "ours");
    Site::wait_until("husk's serves the world", || get("198.51.100.1:8082") == "ours\n");
    assert_eq!(get("198.51.100.1:8081"), "theirs\n", "and the other's still does");
    let said = husk(&["exec", "ours", "/bin/busybox", "wget", "-q", "-O-", "http://198.51.100.1:8081/a"]);
    assert_eq!(said.stdout, "theirs\n", "by the port that the other has published");
    let mut server = site.command("ip");
    let _server =
        server.args(["netns", "exec", "hk-world", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc"]).start();
    let listens = "ip netns exec hk-world cat /proc/net/tcp /proc/net/tcp6 | grep ':0050 [^ ]* 0A '";
    Site::wait_until("the world serves", || shell(listens).status.success());
    husk(&["exec", "ours", "/bin/busybox", "wget", "-q", "-O", "/dev/null", "http://198.51.100.2/hostname"]);
    let ours = husk(&["inspect", "-f", "{{.NetworkSettings.Networks.front.IPAddress}}", "ours"]).stdout;
    assert_eq!(get(ours.trim()), "", "what was not published, to who knows the way");
    let direct = format!("! /bin/busybox timeout 1 /bin/busybox wget -q -O- http://{}/a", ours.trim());
    engine("exec theirs", &["sh", "-c", &direct]);

    husk(&["rm", "-f", "ours"]);
    husk(&["network", "rm", "front"]);
    assert_eq!(foreign(), before, "what the other has told the kernel");
    assert_eq!(get("198.51.100.1:8081"), "theirs\n");
    engine("rm --force theirs", &[]);
}
