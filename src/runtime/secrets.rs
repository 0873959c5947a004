//! What a caller hands to a container beside its configuration, which is written to disk.

use std::fmt;

use crate::rootfs::secrets::SecretFile;

/// Secrets of a container.
#[derive(Clone, Default)]
pub struct Secrets {
    pub files: Vec<SecretFile>,
    /// `NAME=value`
    pub variables: Vec<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} files, {} variables)", self.files.len(), self.variables.len())
    }
}
