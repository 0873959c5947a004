//! The OCI configuration: reading, validating, defaults, mount option strings. Knows no process.

pub mod default;
pub mod load;
mod locate;
pub mod mount_options;
mod shape;
pub mod unimplemented;
pub mod validate;

#[cfg(test)]
mod engine_shapes;
