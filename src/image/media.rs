//! Media types: what a descriptor says that its blob is, in OCI's words and in Docker's.
//!
//! A closed list: what is not on it is refused by name. Docker's schema 1 is refused with the way out.

use crate::error::{Error, Result};

/// What a document of JSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    Manifest,
    Index,
}

/// How a layer's tar is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Recognises the first bytes of a stream.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one of the 16 skippable frames of RFC 8878 that zstd:chunked may begin with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Gives the name that stands in media types.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "plain tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Reads the media type of a manifest or an index.
pub fn document(media_type: &str) -> Result<Document> {
    match media_type {
        "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
            Ok(Document::Manifest)
        }
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
            Ok(Document::Index)
        }
        "application/vnd.docker.distribution.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v1+prettyjws" => {
            Err(Error::unsupported("mediaType: Docker's manifest schema 1 cannot be verified against a digest")
                .with_hint("push the image again with a current docker, podman or skopeo"))
        }
        other => Err(Error::invalid(format!("mediaType: {other:?} is neither a manifest nor an index"))),
    }
}

/// Checks the media type of a manifest's `config`.
pub fn config(media_type: &str) -> Result<()> {
    match media_type {
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" => Ok(()),
        other => Err(Error::unsupported(format!("config.mediaType: {other:?} is not a container image"))),
    }
}

/// Reads the media type of a layer.
pub fn layer(media_type: &str) -> Result<Compression> {
    let suffix = [
        "application/vnd.oci.image.layer.v1.tar",
        // Deprecated by OCI, and for Docker the base layers of Windows; both still occur and hold a plain layer.
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ]
    .iter()
    .find_map(|start| media_type.strip_prefix(start));
    match suffix {
        Some("") => Ok(Compression::None),
        Some("+gzip" | ".gzip") => Ok(Compression::Gzip),
        Some("+zstd" | ".zstd") => Ok(Compression::Zstd),
        _ => Err(Error::unsupported(format!("mediaType: {media_type:?} is not a layer that can be unpacked"))),
    }
}

/// Gives the media type of a layer that is packed in another way, in the words of its own family.
pub fn packed_type(media_type: &str, compression: Compression) -> String {
    let end = media_type.find(".tar").map_or(media_type.len(), |place| place + ".tar".len());
    let joint = if media_type.starts_with("application/vnd.docker.") { '.' } else { '+' };
    let plain = &media_type[..end];
    match compression {
        Compression::None => plain.to_owned(),
        Compression::Gzip => format!("{plain}{joint}gzip"),
        Compression::Zstd => format!("{plain}{joint}zstd"),
    }
}

/// Gives OCI's word for a media type of Docker's; others stay.
pub fn oci_type(media_type: &str) -> String {
    let layer = |rest: &str, plain: &str| format!("{plain}{}", rest.replacen('.', "+", 1));
    if let Some(rest) = media_type.strip_prefix("application/vnd.docker.image.rootfs.diff.tar") {
        return layer(rest, "application/vnd.oci.image.layer.v1.tar");
    }
    if let Some(rest) = media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar") {
        return layer(rest, "application/vnd.oci.image.layer.nondistributable.v1.tar");
    }
    match media_type {
        "application/vnd.docker.container.image.v1+json" => "application/vnd.oci.image.config.v1+json".to_owned(),
        other => other.to_owned(),
    }
}

/// In whose words a manifest is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    #[default]
    Oci,
    Docker,
}

impl Family {
    /// Gives the media type of a manifest.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    /// Gives the media type of a configuration.
    pub fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    /// Gives the media type of a layer.
    pub fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Self::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Docker, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Self::Docker, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_both_families() {
        for (media_type, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", Some(Compression::None)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Compression::Zstd)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Compression::Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar", Some(Compression::None)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Compression::Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar.zstd", Some(Compression::Zstd)),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", None),
            ("application/vnd.oci.image.layer.v1.tarball", None),
            ("application/vnd.in-toto+json", None),
            ("", None),
        ] {
            assert_eq!(layer(media_type).ok(), compression, "{media_type}");
        }
    }

    #[test]
    fn layers_that_are_packed_anew_have_a_type_of_their_family() {
        use Compression::{Gzip, None, Zstd};
        const OCI: &str = "application/vnd.oci.image.layer.v1.tar";
        const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";
        for (from, compression, to) in [
            (OCI.to_owned(), Gzip, format!("{OCI}+gzip")),
            (format!("{OCI}+gzip"), Zstd, format!("{OCI}+zstd")),
            (format!("{OCI}+zstd"), None, OCI.to_owned()),
            (DOCKER.to_owned(), Gzip, format!("{DOCKER}.gzip")),
            (format!("{DOCKER}.gzip"), None, DOCKER.to_owned()),
        ] {
            assert_eq!(packed_type(&from, compression), to, "{from}");
            assert_eq!(layer(&to).unwrap(), compression);
        }
        assert_eq!(oci_type(DOCKER), OCI);
        assert_eq!(oci_type(&format!("{DOCKER}.gzip")), format!("{OCI}+gzip"));
        assert_eq!(oci_type(&format!("{OCI}+zstd")), format!("{OCI}+zstd"));
        assert!(config(&oci_type("application/vnd.docker.container.image.v1+json")).is_ok());
        let foreign = oci_type("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        assert_eq!(foreign, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    }

    #[test]
    fn what_is_written_is_read() {
        for family in [Family::Oci, Family::Docker] {
            assert_eq!(document(family.manifest()).unwrap(), Document::Manifest);
            config(family.config()).unwrap();
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                assert_eq!(layer(family.layer(compression)).unwrap(), compression);
            }
        }
    }

    #[test]
    fn streams_are_recognised() {
        for (start, compression) in [
            (&[0x1f, 0x8b, 8][..], Compression::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&[0x50, 0x2a, 0x4d, 0x18], Compression::Zstd),
            (b"usr/", Compression::None),
            (&[], Compression::None),
            (&[0x1f], Compression::None),
        ] {
            assert_eq!(Compression::detect(start), compression, "{start:?}");
        }
    }
}
