//! TLS for the client: what a connection is wrapped in, and whose certificates it accepts.
//!
//! The HTTP library would do this itself, but it lets nobody say what a good certificate is, and registries show one that
//! webpki refuses: their own authority's, see [`Verifier`]. Reads no files; what is trusted is decided by [`super::certs`].

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme, StreamOwned,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use crate::error::{Error, Result};

/// A certificate of the user's, and the key to it.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Whose certificates are accepted.
pub(super) enum Anchors {
    /// Anybody's.
    Anyone,
    /// The authorities that husk was built with.
    BuiltIn,
    /// These, each also as a registry's own.
    These(Vec<CertificateDer<'static>>),
}

/// Settles how a registry is spoken to in TLS.
pub(super) fn configure(anchors: Anchors, identity: Option<Identity>) -> Result<Arc<ClientConfig>> {
    let failed = |error: rustls::Error| Error::invalid(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let builder = match anchors {
        Anchors::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified)),
        Anchors::BuiltIn => {
            builder.with_root_certificates(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
        }
        Anchors::These(certificates) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(certificates)?))
        }
    };
    let config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(failed)?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Gives ring, the one implementation of cryptography that is linked.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// Accepts what webpki accepts, and one case more: an anchor that a registry shows as its own certificate.
///
/// That is what `openssl req -x509` makes (`CA:TRUE`), and what Go, and so docker and podman, accept of a certificate that
/// the user trusts. It gives nothing away: whoever has the key of an anchor could sign a certificate for the host with it.
#[derive(Debug)]
struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    anchors: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(anchors: Vec<CertificateDer<'static>>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        // Distributions ship some that webpki cannot read.
        roots.add_parsable_certificates(anchors.iter().cloned());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let webpki = webpki.map_err(|_| Error::invalid("no certificate to trust can be read"))?;
        Ok(Self { webpki, anchors })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.webpki.verify_server_cert(shown, intermediates, name, ocsp, now) {
            // webpki looks at the dates before this; `dates_count_for_an_anchor_too` holds it to that.
            Err(error) if is_authoritys(&error) && self.anchors.iter().any(|anchor| anchor == shown) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            answer => answer,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Says whether a certificate was refused because it is an authority's.
pub(super) fn is_authoritys(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else { return false };
    matches!(cause.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Accepts everything, of a registry that is configured as insecure.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        // None of them is looked at, so that all will do.
        let mut schemes = provider().signature_verification_algorithms.supported_schemes();
        schemes.extend([
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED448,
            SignatureScheme::RSA_PKCS1_SHA1,
        ]);
        schemes
    }
}

/// Wraps connections for https in TLS, and leaves others as they are.
pub(super) struct TlsConnector(pub(super) Arc<ClientConfig>);

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, below: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(below) = below else { return Ok(None) };
        if !details.needs_tls() || below.is_tls() {
            return Ok(Some(Either::A(below)));
        }
        let host = details.uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ureq::Error::Tls("not the name of a host"))?;
        let connection = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        let socket = TransportAdapter::new(below.boxed(), Arc::clone(&details.current_time));
        let mut stream = StreamOwned { conn: connection, sock: socket };
        stream.sock.set_timeout(details.timeout);
        stream.conn.complete_io(&mut stream.sock)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream })))
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

/// A connection in TLS.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let length = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(length);
        Ok(length > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;
    use std::time::Duration;

    /// For `registry.test` and 127.0.0.1, as `openssl req -x509` makes it: of its own key, and `CA:TRUE`. Good from 2026 to 2036.
    const SHOWN: &[u8] = include_bytes!("../fixtures/tls/registry.pem");
    /// Another authority.
    const OTHER: &[u8] = include_bytes!("../fixtures/tls/authority.pem");

    const IN_2027: u64 = 1_800_000_000;
    const IN_2017: u64 = 1_500_000_000;
    const IN_2037: u64 = 2_130_000_000;

    fn ask(anchors: &[&[u8]], name: &str, seconds: u64) -> Result<(), rustls::Error> {
        let certificate = |pem: &&[u8]| CertificateDer::from_pem_slice(pem).unwrap();
        let verifier = Verifier::new(anchors.iter().map(certificate).collect()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&certificate(&SHOWN), &[], &name, &[], now).map(drop)
    }

    #[test]
    fn an_anchor_is_good_as_a_registrys_own() {
        for name in ["registry.test", "127.0.0.1"] {
            ask(&[SHOWN], name, IN_2027).unwrap();
            ask(&[OTHER, SHOWN], name, IN_2027).unwrap();
        }
    }

    #[test]
    fn an_authority_that_is_not_trusted_is_refused() {
        let error = ask(&[OTHER], "registry.test", IN_2027).unwrap_err();
        assert!(is_authoritys(&error), "{error}");
    }

    #[test]
    fn an_anchor_is_good_for_its_names_alone() {
        for name in ["other.test", "a.registry.test", "127.0.0.2"] {
            let error = ask(&[SHOWN], name, IN_2027).unwrap_err();
            assert!(error.to_string().contains("not valid for name"), "{name}: {error}");
        }
    }

    #[test]
    fn dates_count_for_an_anchor_too() {
        for (seconds, words) in [(IN_2017, "not valid yet"), (IN_2037, "expired")] {
            let error = ask(&[SHOWN], "registry.test", seconds).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
