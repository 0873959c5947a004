//! Signatures of images in sigstore's form: cosign's "simple signing" statement, signed with a key.
//!
//! A statement says "the manifest with this digest is what this name stands for". Its bytes are verified first, and are only
//! read if a trusted key has signed them. Certificates of Fulcio, entries of Rekor's log and GPG are not understood, and
//! nothing is taken for signed because of them. Whether the name that is stated is the right one is the policy's to say.

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{AlgorithmIdentifier, SubjectPublicKeyInfoDer, alg_id};

use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::support::base64;
use crate::support::strict_json::{self, Fields};

/// What a statement calls itself.
const STATEMENT_TYPE: &str = "cosign container image signature";

/// A statement has a few hundred bytes.
const PAYLOAD_BYTES: usize = 1 << 20;

/// How keys may have signed. cosign hashes with SHA-256 whatever the curve; its newer versions suit the hash to the curve.
const ALGORITHMS: &[(AlgorithmIdentifier, AlgorithmIdentifier)] = &[
    (alg_id::ECDSA_P256, alg_id::ECDSA_SHA256),
    (alg_id::ECDSA_P384, alg_id::ECDSA_SHA256),
    (alg_id::ECDSA_P384, alg_id::ECDSA_SHA384),
    (alg_id::RSA_ENCRYPTION, alg_id::RSA_PKCS1_SHA256),
    (alg_id::ED25519, alg_id::ED25519),
];

/// A signature as a registry holds it: a blob, and the annotation beside it. Nothing about it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The statement, as it was signed.
    pub payload: Vec<u8>,
    /// Base64, of `dev.cosignproject.cosign/signature`.
    pub signature: String,
}

/// What somebody has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The manifest.
    pub digest: Digest,
    /// What it is called; some signers leave out the tag.
    pub name: Reference,
}

/// A key that signatures are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The algorithm's identifier, without its outer tag.
    algorithm: Vec<u8>,
    key: Vec<u8>,
}

impl PublicKey {
    /// Reads a key in PEM (`BEGIN PUBLIC KEY`): ECDSA with P-256 or P-384, RSA, or Ed25519.
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        let information =
            SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| Error::invalid("no public key in PEM"))?;
        let key = Self::from_der(&information).ok_or_else(|| Error::invalid("not a public key"))?;
        if !ALGORITHMS.iter().any(|(algorithm, _)| algorithm.as_ref() == key.algorithm) {
            return Err(Error::unsupported("the key is none of ECDSA with P-256 or P-384, RSA, Ed25519"));
        }
        Ok(key)
    }

    /// Reads a SubjectPublicKeyInfo: a sequence of the algorithm and a string of whole bytes (RFC 5280, 4.1).
    fn from_der(der: &[u8]) -> Option<Self> {
        const SEQUENCE: u8 = 0x30;
        const BIT_STRING: u8 = 0x03;
        let (body, rest) = element(der, SEQUENCE)?;
        let (algorithm, key) = element(body, SEQUENCE)?;
        let (key, after) = element(key, BIT_STRING)?;
        let key = key.strip_prefix(&[0])?;
        (rest.is_empty() && after.is_empty()).then(|| Self { algorithm: algorithm.to_vec(), key: key.to_vec() })
    }

    /// Tells whether this key has signed a message.
    fn has_signed(&self, provider: &CryptoProvider, message: &[u8], signature: &[u8]) -> bool {
        provider.signature_verification_algorithms.all.iter().any(|verifier| {
            let (key, how) = (verifier.public_key_alg_id(), verifier.signature_alg_id());
            key.as_ref() == self.algorithm
                && ALGORITHMS.contains(&(key, how))
                && verifier.verify_signature(&self.key, message, signature).is_ok()
        })
    }
}

/// Splits off one element of DER with a tag: its content, and what follows.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(length)
}

/// Verifies that one of the keys has made a signature, and gives what it states.
pub fn verify(signature: &Signature, keys: &[PublicKey]) -> Result<Statement> {
    let Signature { payload, signature } = signature;
    if payload.len() > PAYLOAD_BYTES {
        return Err(Error::invalid(format!("the statement is larger than {PAYLOAD_BYTES} bytes")));
    }
    let bytes = base64::decode(signature).ok_or_else(|| Error::invalid("the signature is not base64"))?;
    let provider = rustls::crypto::ring::default_provider();
    if !keys.iter().any(|key| key.has_signed(&provider, payload, &bytes)) {
        return Err(Error::invalid("none of the keys has made it"));
    }
    Statement::parse(payload).context("what is signed")
}

impl Statement {
    /// Parses a statement; what is not of its form exactly may mean something else to others, and is refused.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self> {
        let mut document = Fields::of(strict_json::parse(payload)?, "it")?;
        let mut critical = document.needed_fields("critical")?;
        // Who has signed it and when; nobody vouches for that.
        document.skip(&["optional"]);
        let kind = critical.needed_text("type")?;
        if kind != STATEMENT_TYPE {
            return Err(Error::invalid(format!("it is of the type {kind:?}")));
        }
        let mut image = critical.needed_fields("image")?;
        let mut identity = critical.needed_fields("identity")?;
        let digest = image.needed_text("docker-manifest-digest")?.parse()?;
        let name = Reference::parse_exact(&identity.needed_text("docker-reference")?)?;
        for fields in [document, critical, image, identity] {
            fields.end()?;
        }
        Ok(Self { digest, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Keys, and statements that they have signed, made with `openssl genpkey`, `dgst -sign` and `pkeyutl -sign -rawin`.
    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("fixtures/sigstore/", $name))
        };
    }

    const PAYLOAD: &str = fixture!("payload.json");
    const P256: &str = fixture!("p256.pem");

    fn key(pem: &str) -> PublicKey {
        PublicKey::from_pem(pem.as_bytes()).unwrap()
    }

    fn signature(payload: &str, signature: &str) -> Signature {
        Signature { payload: payload.into(), signature: signature.to_owned() }
    }

    #[test]
    fn every_kind_of_key_verifies() {
        let keys = [P256, fixture!("p384.pem"), fixture!("rsa.pem"), fixture!("ed25519.pem")].map(key);
        let signatures = [
            (0, fixture!("p256.sig")),
            (1, fixture!("p384.sig")),
            (1, fixture!("p384-sha384.sig")),
            (2, fixture!("rsa.sig")),
            (3, fixture!("ed25519.sig")),
        ];
        for (owner, text) in signatures {
            let signed = signature(PAYLOAD, text);
            let statement = verify(&signed, &keys).unwrap_or_else(|error| panic!("{owner}: {}", error.report()));
            assert_eq!(statement.name.to_string(), "quay.io/team/app:1");
            assert!(statement.digest.to_string().starts_with("sha256:e3b0c442"));
            for (index, key) in keys.iter().enumerate() {
                assert_eq!(verify(&signed, std::slice::from_ref(key)).is_ok(), index == owner, "{owner} by {index}");
            }
            let other = signature(&PAYLOAD.replace("app:1", "app:2"), text);
            assert_eq!(verify(&other, &keys).unwrap_err().report(), "none of the keys has made it");
        }
        // RSA-PSS is not what cosign makes.
        assert!(verify(&signature(PAYLOAD, fixture!("rsa-pss.sig")), &keys).is_err());
        assert!(verify(&signature(PAYLOAD, fixture!("p256.sig")), &[]).is_err());
    }

    #[test]
    fn what_is_no_key_or_signature() {
        let p521 = PublicKey::from_pem(fixture!("p521.pem").as_bytes()).unwrap_err();
        assert_eq!(p521.kind(), crate::error::Kind::Unsupported);
        let broken = P256.replace("MFkw", "MFkx");
        for pem in ["", "x", &broken, &P256.replace("PUBLIC", "PRIVATE"), &P256.replace("-----END", "")] {
            assert!(PublicKey::from_pem(pem.as_bytes()).is_err(), "{pem}");
        }
        let information = SubjectPublicKeyInfoDer::from_pem_slice(P256.as_bytes()).unwrap();
        assert!(PublicKey::from_der(&information).is_some());
        for length in 0..information.len() {
            assert!(PublicKey::from_der(&information[..length]).is_none(), "{length}");
        }
        assert!(PublicKey::from_der(&[&information[..], b"x"].concat()).is_none());
        let keys = [key(P256)];
        for text in ["", "x", "AAAA", &fixture!("p256.sig")[4..]] {
            assert!(verify(&signature(PAYLOAD, text), &keys).is_err(), "{text}");
        }
        let long = signature(&" ".repeat(PAYLOAD_BYTES + 1), fixture!("p256.sig"));
        assert!(verify(&long, &keys).unwrap_err().report().contains("larger than"));
    }

    #[test]
    fn a_good_signature_of_something_else_is_none() {
        let keys = [key(P256)];
        for (payload, text, report) in [
            (fixture!("other-type.json"), fixture!("other-type.sig"), "of the type \"atomic container signature\""),
            (fixture!("twice.json"), fixture!("twice.sig"), "key \"image\" is there twice"),
            (fixture!("extra.json"), fixture!("extra.sig"), "unknown field \"more\""),
        ] {
            let found = verify(&signature(payload, text), &keys).unwrap_err().report();
            assert!(found.starts_with("what is signed: ") && found.contains(report), "{found}");
        }
        let statement = verify(&signature(fixture!("repository.json"), fixture!("repository.sig")), &keys).unwrap();
        assert_eq!((statement.name.to_string(), statement.name.tag()), ("quay.io/team/app".to_owned(), None));
    }

    #[test]
    fn statements_have_one_form() {
        let base: Value = serde_json::from_str(PAYLOAD).unwrap();
        let with = |pointer: &str, value: Value| {
            let mut document = base.clone();
            *document.pointer_mut(pointer).unwrap() = value;
            Statement::parse(document.to_string().as_bytes())
        };
        assert!(with("/optional", serde_json::json!({ "creator": "x", "timestamp": 1 })).is_ok());
        assert!(with("/critical", Value::Null).is_err());
        assert!(with("/critical/image", serde_json::json!({})).is_err());
        assert!(with("/critical/image/docker-manifest-digest", "md5:00".into()).is_err());
        assert!(with("/critical/identity/docker-reference", "a b".into()).is_err());
        assert!(with("/critical/identity", serde_json::json!({ "docker-reference": "a", "x": 1 })).is_err());
        for text in ["", "[]", "{}", "null"] {
            assert!(Statement::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
