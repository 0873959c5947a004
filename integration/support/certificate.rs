//! Certificates for registries on loopback, made by openssl(1) for each test.

use std::path::PathBuf;

use super::{Invocation, Scene};

/// A certificate that signs itself, and its key.
pub(crate) struct Certificate {
    pub(crate) path: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// Makes one for a server or a client at 127.0.0.1.
    #[track_caller]
    pub(crate) fn new(scene: &Scene, name: &str) -> Self {
        let subject = "subjectAltName=IP:127.0.0.1,DNS:localhost";
        let mut command = Self::request(scene, name, subject);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        Self::make(scene, name, command)
    }

    /// Makes one as `openssl req -x509` does unless it is told otherwise: an authority's.
    #[track_caller]
    pub(crate) fn authority(scene: &Scene, name: &str, subject: &str) -> Self {
        Self::make(scene, name, Self::request(scene, name, &format!("subjectAltName={subject}")))
    }

    fn request<'s>(scene: &'s Scene, name: &str, subject: &str) -> Invocation<'s> {
        let mut command = scene.program("openssl");
        command
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={name}"), "-addext", subject]);
        command
    }

    #[track_caller]
    fn make(scene: &Scene, name: &str, mut command: Invocation<'_>) -> Self {
        let [path, key] = ["crt", "key"].map(|ending| scene.path().join(format!("{name}.{ending}")));
        command.arg("-keyout").arg(&key).arg("-out").arg(&path).run().success();
        Self { path, key }
    }

    /// Gives the lines by which docker-registry serves with it; `more` are further members of `tls`.
    pub(crate) fn serve(&self, more: &str) -> String {
        format!("  tls: {{certificate: {}, key: {}{more}}}\n", self.path.display(), self.key.display())
    }
}
