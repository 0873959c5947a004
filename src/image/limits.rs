//! What an image may at most ask of the machine. Every number is checked before memory is taken or bytes are written.
//!
//! A cap on the ratio of compression would not help: zstd reaches 32,000 to 1 on honest zeros. A quota of bytes does.

/// Bytes of a manifest or an index.
pub const MANIFEST_BYTES: usize = 4 << 20;

/// Bytes of an image's configuration.
pub const CONFIG_BYTES: usize = 4 << 20;

/// Bytes of a packed layer.
pub const BLOB_BYTES: u64 = 64 << 30;

/// Layers of an image; overlayfs takes 500 lower directories (`OVL_MAX_STACK`).
pub const LAYERS: usize = 500;

/// Indexes inside indexes.
pub const INDEX_DEPTH: usize = 4;

/// Members of an archive that holds an image.
pub const ARCHIVE_MEMBERS: usize = 1 << 16;

/// Bytes of the extended headers of one entry of a layer.
pub const TAR_HEADER_BYTES: u64 = 1 << 20;

/// Bytes of a path, and of the target of a link (`PATH_MAX`).
pub const PATH_BYTES: usize = 4096;

/// Components of a path.
pub const PATH_DEPTH: usize = 1024;

/// Bytes of one extended attribute (`XATTR_SIZE_MAX`).
pub const XATTR_BYTES: usize = 64 << 10;

/// Segments of a sparse file.
pub const SPARSE_SEGMENTS: usize = 1 << 16;

/// What one layer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerLimits {
    /// Bytes of the layer's tar, and of any one file in it with its holes.
    pub bytes: u64,
    /// Entries of the layer's tar.
    pub entries: u64,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000 }
    }
}
