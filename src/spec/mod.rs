//! The OCI configuration: reading, validating, defaults, mount option strings. Knows no process.
