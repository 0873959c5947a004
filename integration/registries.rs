//! The machine's configuration of registries, at `pull`: logins that are shared with other tools, certificates, mirrors,
//! what is blocked, proxies.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use super::support::certificate::Certificate;
use super::support::image::{Image, Layout};
use super::support::registry::{Real, Reply, Scripted};
use super::support::tar::Entry;
use super::support::{Invocation, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk);
    let real = |test: Test| test.needs(Need::Program("docker-registry")).needs(Need::Program("skopeo"));
    [
        real(test!(logins_are_shared_with_skopeo)).and_plain().needs(Need::Program("htpasswd")),
        real(test!(a_registrys_folder_is_trusted)).needs(Need::Program("openssl")),
        real(test!(an_authoritys_certificate_is_good_as_the_registrys_own)).needs(Need::Program("openssl")),
        test!(mirrors_are_asked_first).and_plain(),
        test!(what_is_blocked_is_not_asked),
        test!(a_proxy_is_asked_for_the_host),
        test!(a_socks_proxy_is_asked_for_the_host),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn layout(scene: &Scene) -> Layout {
    Image::new(Vec::new()).layer(&[Entry::file("mark", "of the image")]).layout(scene, "layout")
}

/// `husk` with a registries.conf of its own.
fn configured<'s>(scene: &'s Scene, text: &str, words: &[&str]) -> Invocation<'s> {
    let folder = scene.tree("config/containers", &[("registries.conf", text)]);
    let mut command = scene.husk();
    command.env("XDG_CONFIG_HOME", folder.parent().unwrap()).args(words);
    command
}

fn logins_are_shared_with_skopeo(scene: &Scene) {
    let password = scene.path().join("htpasswd");
    scene.program("htpasswd").args(["-Bbc", "-C", "4"]).arg(&password).args(["user", "secret"]).run().success();
    let registry = Real::start(scene, &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", password.display()));
    let (host, layout) = (registry.host(), layout(scene));
    let name = format!("{host}/app:1");
    let file = scene.path().join("auth.json");
    let husk = |words: &[&str]| scene.husk().env("REGISTRY_AUTH_FILE", &file).args(words).run();
    let skopeo = |words: &[&str]| {
        let mut command = scene.program("skopeo");
        command.env("HOME", scene.path()).env("REGISTRY_AUTH_FILE", &file).args(words).run()
    };
    // What skopeo writes, husk reads.
    skopeo(&["login", "--tls-verify=false", "-u", "user", "-p", "secret", &host]).success();
    skopeo(&[
        "--insecure-policy",
        "copy",
        "-q",
        "--dest-tls-verify=false",
        &layout.reference(),
        &format!("docker://{name}"),
    ])
    .success();
    assert_eq!(husk(&["login", "--get-login", &host]).success().stdout, "user\n");
    husk(&["pull", "-q", &name]).success();
    assert_eq!(husk(&["logout", &host]).success().stdout, format!("Removing login credentials for {host}\n"));
    husk(&["pull", "-q", &name]).exits_with(125).says("401");
    // What husk writes, skopeo reads.
    let mut login = scene.husk();
    login.env("REGISTRY_AUTH_FILE", &file).args(["login", "-u", "user", "--password-stdin", &host]).input("secret\n");
    assert_eq!(login.run().success().stdout, "Login Succeeded\n");
    assert_eq!(skopeo(&["login", "--get-login", &host]).success().stdout, "user\n");
    skopeo(&["inspect", "--tls-verify=false", &format!("docker://{name}")]).success();
    skopeo(&["logout", &host]).success();
    husk(&["pull", "-q", &name]).exits_with(125).says("401");
    // A file that is named is made, and one that is not there has no logins to pull with.
    std::fs::remove_file(&file).unwrap();
    husk(&["pull", "-q", &name]).exits_with(125).says("auth.json: does not exist");
    husk(&["login", "-u", "user", "-p", "secret", &host]).success().says("can be seen by others");
    husk(&["pull", "-q", &name]).success();
    let mut login = scene.husk();
    login
        .env("DOCKER_CONFIG", scene.path())
        .env("DOCKER_AUTH_CONFIG", format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"eDp5\"}}}}}}"));
    login.args(["login", "-u", "user", "-p", "secret", &host]).run().success().says("another login for 127.0.0.1");
}

fn a_registrys_folder_is_trusted(scene: &Scene) {
    let [server, client] = ["server", "client"].map(|name| Certificate::new(scene, name));
    let registry = Real::start(scene, &server.serve(&format!(", clientcas: [{}]", client.path.display())));
    let (host, layout) = (registry.host(), layout(scene));
    let name = format!("{host}/app:1");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let folder = format!("config/containers/certs.d/{host}");
    let file = |name: &str, text: &str| scene.tree(&folder, &[(name, text)]);
    let pull = || {
        let mut command = scene.husk();
        command.env("XDG_CONFIG_HOME", scene.path().join("config")).args(["pull", "-q", "--tls-verify", &name]).run()
    };
    pull().exits_with(125).says("TLS: ");
    let certificates = file("ca.crt", &read(&server.path));
    pull().exits_with(125);
    file("client.cert", &read(&client.path));
    pull().exits_with(125).says("client.cert has no client.key");
    file("client.key", &read(&client.key));
    scene
        .program("skopeo")
        .env("HOME", scene.path())
        .args(["--insecure-policy", "copy", "-q", "--dest-cert-dir"])
        .arg(&certificates)
        .args([layout.reference(), format!("docker://{name}")])
        .run()
        .success();
    pull().success();
    // The folder of another name is not used.
    let elsewhere = scene.path().join(&folder).with_file_name("127.0.0.1:1");
    std::fs::rename(scene.path().join(&folder), &elsewhere).unwrap();
    scene.husk().args(["rmi", &name]).run().success();
    pull().exits_with(125).says("TLS: ");
    scene.husk().args(["pull", "-q", "--tls-verify", "--cert-dir"]).arg(&elsewhere).arg(&name).run().success();
}

/// Makes one of yesterday, as `openssl req` makes none.
fn expired_authority(scene: &Scene) -> Certificate {
    let Certificate { key, .. } = Certificate::authority(scene, "expired", "IP:127.0.0.1");
    let text = "[ca]\ndefault_ca = x\n[x]\ndatabase = list\nnew_certs_dir = .\nrand_serial = yes\ndefault_md = sha256\npolicy = p\n\
                x509_extensions = e\n[p]\ncommonName = supplied\n[e]\nbasicConstraints = CA:TRUE\nsubjectAltName = IP:127.0.0.1\n";
    let folder = scene.tree("authority", &[("list", ""), ("configuration", text)]);
    let request = folder.join("request");
    let openssl = |words: &[&str]| {
        let mut command = scene.program("openssl");
        command.current_directory(&folder).args(words);
        command
    };
    openssl(&["req", "-new", "-subj", "/CN=expired", "-key"]).arg(&key).arg("-out").arg(&request).run().success();
    let dates = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"];
    let path = folder.join("expired.crt");
    openssl(&["ca", "-batch", "-selfsign", "-notext", "-config", "configuration", "-keyfile"])
        .arg(&key)
        .args(dates)
        .arg("-in")
        .arg(&request)
        .arg("-out")
        .arg(&path)
        .run()
        .success();
    Certificate { path, key }
}

fn an_authoritys_certificate_is_good_as_the_registrys_own(scene: &Scene) {
    let layout = layout(scene);
    let start = |certificate: &Certificate| Real::start(scene, &certificate.serve(""));
    let trusted = |certificate: &Certificate, name: &str| {
        let text = std::fs::read_to_string(&certificate.path).unwrap();
        let folder = format!("trusted-{}", certificate.path.file_stem().unwrap().display());
        let folder = scene.tree(&folder, &[("ca.crt", &text)]);
        scene.husk().args(["pull", "-q", "--tls-verify", "--cert-dir"]).arg(&folder).arg(name).run()
    };
    let [own, other] = ["own", "other"].map(|name| Certificate::authority(scene, name, "IP:127.0.0.1"));
    let registry = start(&own);
    let name = format!("{}/app:1", registry.host());
    let copy = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
    scene
        .program("skopeo")
        .env("HOME", scene.path())
        .args(copy)
        .args([layout.reference(), format!("docker://{name}")])
        .run()
        .success();
    scene
        .husk()
        .args(["pull", "-q", "--tls-verify", &name])
        .run()
        .exits_with(125)
        .says("authority that is not trusted");
    // Not even one of the same names: it has to be this very certificate.
    trusted(&other, &name).exits_with(125).says("authority that is not trusted").says("certs.d");
    trusted(&own, &name).success();
    scene.husk().args(["rmi", &name]).run().success();
    scene.husk().env("SSL_CERT_FILE", &own.path).args(["pull", "-q", "--tls-verify", &name]).run().success();
    drop(registry);

    let elsewhere = Certificate::authority(scene, "elsewhere", "DNS:other.test,IP:127.0.0.2");
    let registry = start(&elsewhere);
    trusted(&elsewhere, &format!("{}/app:1", registry.host())).exits_with(125).says("not valid for name");
    drop(registry);

    let expired = expired_authority(scene);
    let registry = start(&expired);
    trusted(&expired, &format!("{}/app:1", registry.host())).exits_with(125).says("expired");
}

fn mirrors_are_asked_first(scene: &Scene) {
    let layout = layout(scene);
    let empty = Scripted::start(|_| Reply::new(404));
    let mirror = Scripted::serve(&layout, |_| None);
    let primary = Scripted::serve(&layout, |_| None);
    let tag = primary.image().rsplit_once(':').unwrap().1.to_owned();
    let text = format!(
        "[[registry]]\nprefix = \"docker.io/team\"\nlocation = \"{}\"\n\
         [[registry.mirror]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
        primary.host(),
        empty.host(),
        mirror.host()
    );
    // What the one has not, the next has; the name stays as it was typed.
    let name = format!("team/app:{tag}");
    configured(scene, &text, &["pull", "-q", &name]).run().success();
    assert!(!empty.log().is_empty() && primary.log().is_empty(), "{:?}", primary.log());
    assert!(empty.log().iter().all(|request| !request.path.contains("team")), "{:?}", empty.log());
    configured(scene, &text, &["rmi", &name]).run().success();

    let broken = text.replace(&mirror.host(), "127.0.0.1:1");
    configured(scene, &broken, &["pull", "-q", &name]).run().success();
    assert!(!primary.log().is_empty());
}

fn what_is_blocked_is_not_asked(scene: &Scene) {
    let registry = Scripted::serve(&layout(scene), |_| None);
    let text = format!("[[registry]]\nlocation = \"{}\"\nblocked = true\n", registry.host());
    let image = registry.image();
    configured(scene, &text, &["pull", "-q", &image])
        .run()
        .exits_with(125)
        .says("is blocked in ")
        .says("registries.conf");
    assert!(registry.log().is_empty());
    let text = "unqualified-search-registries = []\n";
    configured(scene, text, &["pull", "-q", "app"]).run().exits_with(125).says("unqualified-search-registries");
}

fn a_proxy_is_asked_for_the_host(scene: &Scene) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = format!("http://user:hunter2@{address}");
    // Refuses, once it has heard what is asked of it.
    let heard = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        std::io::Write::write_all(&mut &stream, b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").unwrap();
        line
    });
    // Nobody looks up a name that a proxy is asked for, and this one cannot be looked up.
    let mut command = scene.husk();
    command.env("HTTPS_PROXY", &proxy).env("NO_PROXY", "other.invalid").args(["pull", "-q", "registry.invalid/app"]);
    let outcome = command.run().exits_with(125);
    assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    // Had husk not come, somebody has to.
    drop(TcpStream::connect(address));
    assert_eq!(heard.join().unwrap().trim_end(), "CONNECT registry.invalid:443 HTTP/1.1");
}

fn a_socks_proxy_is_asked_for_the_host(scene: &Scene) {
    for scheme in ["socks5", "socks5h"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // RFC 1928: takes the connection without a password, and refuses once it has heard what is asked of it.
        let heard = std::thread::spawn(move || -> std::io::Result<Vec<u8>> {
            let (mut stream, _) = listener.accept()?;
            let mut hello = [0; 2];
            stream.read_exact(&mut hello)?;
            stream.read_exact(&mut vec![0; usize::from(hello[1])])?;
            stream.write_all(&[5, 0])?;
            let mut request = vec![0; 5];
            stream.read_exact(&mut request)?;
            let mut rest = vec![0; usize::from(request[4]) + 2];
            stream.read_exact(&mut rest)?;
            stream.write_all(&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0])?;
            Ok([request, rest].concat())
        });
        let mut command = scene.husk();
        command.env("ALL_PROXY", format!("{scheme}://{address}"));
        command.args(["pull", "-q", "--retry", "0", "registry.invalid/app"]).run().exits_with(125);
        // Had husk not come, somebody has to.
        drop(TcpStream::connect(address));
        let expected = [&[5, 1, 0, 3, 16], &b"registry.invalid"[..], &443_u16.to_be_bytes()].concat();
        assert_eq!(heard.join().unwrap().unwrap(), expected, "{scheme}");
    }
}
