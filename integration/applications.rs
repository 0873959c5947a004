//! An application of three containers, as people run them: nginx before a program before something like a database, in two
//! networks, called from the world; as root and as an ordinary user.
//!
//! nginx is the machine's own, in a container of the machine's files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use super::support::stage::{HOST, Stage, Tun, WORLD, husk, image, start, wait_until};
use super::support::{Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let real = |test: Test| {
        test.needs(Need::Husk)
            .needs(Need::Busybox)
            .needs(Need::Overlay)
            .needs(Need::Program("ip"))
            .needs(Need::Program("nft"))
            .needs(Need::Program("nginx"))
            .needs(Need::File("/dev/net/tun"))
            .needs(Need::Capability(caps::Capability::CAP_SYS_ADMIN))
    };
    vec![real(test!(three_containers_serve_the_world))]
}

/// Asks the application for its front page. Whoever cannot hears nothing.
fn ask(host: &str) -> String {
    let mut said = String::new();
    if let Ok(mut stream) = TcpStream::connect((host, 8080)) {
        let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(5)));
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let _ = stream.read_to_string(&mut said);
    }
    said.lines().last().unwrap_or_default().to_owned()
}

/// A configuration of nginx's that leaves nothing anywhere but in /tmp.
fn site(scene: &Scene) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|name| format!("{name}_temp_path /tmp/{name};\n")).concat();
    let configuration = format!(
        "user root;\nworker_processes 1;\npid /tmp/nginx.pid;\nerror_log stderr;\nevents {{ }}\n\
         http {{\naccess_log /dev/stdout;\n{temporary}\
         server {{ listen 80; location / {{ proxy_pass http://app:8000/cgi-bin/row; }} }}\n}}\n"
    );
    scene.tree("site", &[("nginx.conf", &configuration)]).display().to_string()
}

fn three_containers_serve_the_world(scene: &Scene) {
    let _tun = (scene.who != Who::Root && Path::new("/dev/net/tun").exists()).then(|| Tun::new(scene));
    let stage = Stage::new();
    let layout = image(scene);
    for network in ["front", "back"] {
        husk(scene, &["network", "create", network]).success();
    }
    start(scene, &layout, &["--name", "db", "--network", "back"], "nc -ll -p 6000 -e /bin/busybox echo row 42");
    let app = "mkdir -p /www/cgi-bin && cd /www/cgi-bin && printf '#!/bin/sh\\necho; nc db 6000 </dev/null\\n' >row \
               && chmod 755 row && exec httpd -f -p 8000 -h /www";
    start(scene, &layout, &["--name", "app", "--network", "front", "--network", "back"], app);
    let volume = format!("{}:/site:ro", site(scene));
    let nginx = ["nginx", "-e", "stderr", "-c", "/site/nginx.conf", "-g", "daemon off;"];
    let mut words = vec!["run", "-d", "--name", "web", "--network", "front", "-p", "8080:80", "-v", &volume, "host:"];
    words.extend(nginx);
    husk(scene, &words).success();
    wait_until("the application answers the world", || stage.outside(|| ask(HOST)) == "row 42");
    assert_eq!(ask("127.0.0.1"), "row 42", "the host itself");
    let log = husk(scene, &["logs", "web"]).success().stdout;
    assert!(log.lines().any(|line| line.starts_with(&format!("{WORLD} - - "))), "who has called: {log}");
    // The one in front has no way to the one behind, not by name and not at all.
    let asked = husk(scene, &["exec", "web", "getent", "hosts", "db"]);
    assert_ne!(asked.code(), 0, "{}", asked.stdout);
    // A part that is started anew is where it was.
    husk(scene, &["restart", "-t", "0", "app", "db"]).success();
    wait_until("it answers again", || stage.outside(|| ask(HOST)) == "row 42");
    husk(scene, &["rm", "-f", "web", "app", "db"]).success();
    husk(scene, &["network", "rm", "front", "back"]).success();
    assert_eq!(stage.outside(|| ask(HOST)), "", "nobody answers any more");
}
