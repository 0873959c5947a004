//! Whom TLS trusts, and as whom it presents itself: the machine's roots, and docker's and podman's folders `certs.d`.
//!
//! A registry's folder is the first of `certs.d/HOST[:PORT]` in the user's and the machine's configuration. Its `*.crt` are
//! trusted for that registry beside the machine's roots, and `*.cert` with `*.key` is the client's certificate. The machine's
//! roots are those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, else the distribution's; only where there are none at all, those
//! that husk was built with. Makes no connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_native_certs::CertificateResult;

use crate::error::{Context, Error, Result};
use crate::support::caller::Caller;
use crate::support::config_file;

use super::tls::{self, Anchors, Identity};

/// The variables by which OpenSSL's users name their roots.
const ROOT_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Certificates of a machine and of its registries.
pub struct Trust {
    /// Folders of registries' folders, the first that has one decides.
    folders: Vec<PathBuf>,
    /// The one folder to use (`--cert-dir`).
    named: Option<PathBuf>,
    roots_are_named: bool,
    /// Read when the first registry is verified: they are some hundred.
    roots: OnceLock<Vec<CertificateDer<'static>>>,
}

/// What a registry's folder holds.
#[derive(Default)]
struct Folder {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<Identity>,
}

impl Trust {
    /// Finds the folders; `named` is the one of `--cert-dir`.
    pub fn load(caller: &Caller, named: Option<&Path>) -> Self {
        let users = caller.config_home().map(|folder| folder.join("containers/certs.d"));
        let machines = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(|path| caller.system(path));
        Self {
            folders: users.into_iter().chain(machines).collect(),
            named: named.map(Path::to_owned),
            roots_are_named: ROOT_VARIABLES.iter().any(|name| caller.variable(name).is_some()),
            roots: OnceLock::new(),
        }
    }

    /// Gives the settings for a registry, by the name that images have it by: `HOST[:PORT]`, an IPv6 address in brackets.
    pub fn tls(&self, registry: &str, is_insecure: bool) -> Result<Arc<ClientConfig>> {
        let (anchors, client) = self.choose(registry, is_insecure)?;
        tls::configure(anchors, client).with_context(|| format!("certificates for {registry}"))
    }

    fn choose(&self, registry: &str, is_insecure: bool) -> Result<(Anchors, Option<Identity>)> {
        let Folder { authorities, client } = match self.folder(registry) {
            Some(path) => read_folder(&path).with_context(|| format!("certificates in {}", path.display()))?,
            None => Folder::default(),
        };
        if is_insecure {
            return Ok((Anchors::Anyone, client));
        }
        let roots = self.roots()?;
        let is_bare = roots.is_empty() && authorities.is_empty();
        let anchors = if is_bare { Anchors::BuiltIn } else { Anchors::These([roots, &authorities].concat()) };
        Ok((anchors, client))
    }

    fn folder(&self, registry: &str) -> Option<PathBuf> {
        if let Some(path) = &self.named {
            return Some(path.clone());
        }
        // It is one component of a path; a registry's name is, but that is not checked here.
        if registry.contains('/') || registry.starts_with('.') {
            return None;
        }
        self.folders.iter().map(|folder| folder.join(registry)).find(|path| path.is_dir())
    }

    fn roots(&self) -> Result<&[CertificateDer<'static>]> {
        if let Some(roots) = self.roots.get() {
            return Ok(roots);
        }
        let roots = self.judge(rustls_native_certs::load_native_certs())?;
        Ok(self.roots.get_or_init(|| roots))
    }

    fn judge(&self, found: CertificateResult) -> Result<Vec<CertificateDer<'static>>> {
        let CertificateResult { certs, errors, .. } = found;
        // Who has named their roots does not want to trust others in their place.
        if certs.is_empty() && self.roots_are_named {
            let why = errors.first().map_or_else(|| "no certificate in it".to_owned(), ToString::to_string);
            return Err(Error::invalid(format!("{}: {why}", ROOT_VARIABLES.join(", "))));
        }
        Ok(certs)
    }
}

/// Reads a registry's folder.
fn read_folder(folder: &Path) -> Result<Folder> {
    let mut authorities = Vec::new();
    for path in config_file::list(folder, ".crt")? {
        authorities.extend(read_certificates(&path)?);
    }
    let mut client = None;
    for path in config_file::list(folder, ".cert")? {
        let key = path.with_extension("key");
        let Some(bytes) = config_file::read_bytes(&key)? else {
            return Err(Error::invalid(format!("{} has no {}", file_name(&path), file_name(&key)))
                .with_hint("a certificate authority's file ends in .crt"));
        };
        if client.is_some() {
            return Err(Error::unsupported("there is more than one client certificate"));
        }
        let key = parse_key(&bytes).with_context(|| file_name(&key))?;
        client = Some((read_certificates(&path)?, key));
    }
    for path in config_file::list(folder, ".key")? {
        let certificate = path.with_extension("cert");
        if !certificate.exists() {
            return Err(Error::invalid(format!("{} has no {}", file_name(&path), file_name(&certificate))));
        }
    }
    Ok(Folder { authorities, client })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = config_file::read_bytes(path)?.unwrap_or_default();
    parse_certificates(&bytes).with_context(|| file_name(path))
}

/// Parses PEM, of which at least one part is to be a certificate, and none is to be broken.
fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        // A key may stand beside its certificate; what else there is, is not ours.
        if let (SectionKind::Certificate, der) = section.map_err(|_| Error::invalid("not PEM"))? {
            certificates.push(der.into());
        }
    }
    if certificates.is_empty() {
        return Err(Error::invalid("no certificate in PEM"));
    }
    Ok(certificates)
}

fn parse_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| Error::invalid("no private key in PEM that is not encrypted"))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests {
    use super::*;

    /// A certificate of its own key (P-256), made with `openssl req -x509`.
    const CERTIFICATE: &str = include_str!("../fixtures/tls/authority.pem");
    const KEY: &str = include_str!("../fixtures/tls/key.pem");

    fn load(files: &[(&str, &str)]) -> (tempfile::TempDir, Trust) {
        let scratch = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = scratch.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let home = scratch.path().join("home");
        let caller = Caller::assumed(0, scratch.path(), &[("HOME", home.to_str().unwrap())]);
        let trust = Trust::load(&caller, None);
        // What the machine that runs the tests trusts is no part of them.
        let _ = trust.roots.set(Vec::new());
        (scratch, trust)
    }

    /// How many are trusted; none where husk's own are.
    fn authorities(trust: &Trust, registry: &str) -> usize {
        match trust.choose(registry, false).unwrap() {
            (Anchors::These(certificates), None) => certificates.len(),
            (Anchors::BuiltIn, None) => 0,
            _ => panic!("{registry}"),
        }
    }

    fn report(files: &[(&str, &str)]) -> String {
        let (scratch, trust) = load(files);
        let report = trust.tls("a.io:5000", false).err().unwrap().report();
        report.replace(scratch.path().to_str().unwrap(), "")
    }

    #[test]
    fn a_registrys_folder_is_for_it_alone() {
        let two = format!("{CERTIFICATE}\n{CERTIFICATE}");
        let (_scratch, trust) = load(&[
            ("etc/containers/certs.d/a.io:5000/ca.crt", CERTIFICATE),
            ("etc/containers/certs.d/a.io:5000/more.crt", &two),
            ("etc/docker/certs.d/a.io:5000/passed-over.crt", &two),
            ("etc/docker/certs.d/b.io/ca.crt", CERTIFICATE),
            ("etc/docker/certs.d/[::1]:5000/ca.crt", CERTIFICATE),
            ("etc/docker/certs.d/c.io/ca.crt", CERTIFICATE),
            ("home/.config/containers/certs.d/c.io/ca.crt", &two),
        ]);
        for (registry, count) in
            [("a.io:5000", 3), ("b.io", 1), ("[::1]:5000", 1), ("c.io", 2), ("a.io", 0), ("b.io:5000", 0), ("..", 0)]
        {
            assert_eq!(authorities(&trust, registry), count, "{registry}");
            trust.tls(registry, false).unwrap();
        }
    }

    #[test]
    fn the_machines_roots_are_trusted_as_well() {
        let (_scratch, mut trust) = load(&[("etc/docker/certs.d/b.io/ca.crt", CERTIFICATE)]);
        trust.roots = OnceLock::from(parse_certificates(CERTIFICATE.as_bytes()).unwrap());
        assert_eq!(authorities(&trust, "b.io"), 2);
        assert_eq!(authorities(&trust, "c.io"), 1);
    }

    #[test]
    fn roots_that_were_named_are_not_replaced() {
        let (_scratch, mut trust) = load(&[]);
        assert!(trust.judge(CertificateResult::default()).unwrap().is_empty(), "husk's own are used");
        trust.roots_are_named = true;
        let report = trust.judge(CertificateResult::default()).unwrap_err().report();
        assert_eq!(report, "SSL_CERT_FILE, SSL_CERT_DIR: no certificate in it");
    }

    #[test]
    fn a_client_presents_itself() {
        let (scratch, mut trust) =
            load(&[("etc/docker/certs.d/a.io/client.cert", CERTIFICATE), ("etc/docker/certs.d/a.io/client.key", KEY)]);
        for is_insecure in [false, true] {
            let (anchors, client) = trust.choose("a.io", is_insecure).unwrap();
            assert_eq!(client.unwrap().0.len(), 1);
            assert_eq!(matches!(anchors, Anchors::Anyone), is_insecure);
            assert!(trust.tls("a.io", is_insecure).unwrap().client_auth_cert_resolver.has_certs());
        }
        trust.named = Some(scratch.path().join("etc/docker/certs.d/a.io"));
        assert!(trust.choose("other.io", false).unwrap().1.is_some());
    }

    #[test]
    fn half_a_folder_is_refused() {
        let folder = "etc/docker/certs.d/a.io:5000";
        let place = "certificates in /etc/docker/certs.d/a.io:5000: ";
        let file = |name: &str| format!("{folder}/{name}");
        assert_eq!(report(&[(&file("a.cert"), CERTIFICATE)]), format!("{place}a.cert has no a.key"));
        assert_eq!(report(&[(&file("a.key"), KEY)]), format!("{place}a.key has no a.cert"));
        assert_eq!(report(&[(&file("a.crt"), "")]), format!("{place}a.crt: no certificate in PEM"));
        assert_eq!(report(&[(&file("a.crt"), KEY)]), format!("{place}a.crt: no certificate in PEM"));
        let broken = CERTIFICATE.replace("-----END", "----END");
        assert_eq!(report(&[(&file("a.crt"), &broken)]), format!("{place}a.crt: not PEM"));
        let files = [(&file("a.cert")[..], CERTIFICATE), (&file("a.key"), CERTIFICATE)];
        assert!(report(&files).starts_with(&format!("{place}a.key: no private key")));
        let files = ["a.cert", "b.cert"].map(file);
        let keys = ["a.key", "b.key"].map(file);
        let files = [(&files[0][..], CERTIFICATE), (&files[1], CERTIFICATE), (&keys[0], KEY), (&keys[1], KEY)];
        assert!(report(&files).ends_with("more than one client certificate"));
    }
}
