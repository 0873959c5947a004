//! Registries: images over HTTP, as the distribution specification 1.1 has it.
//!
//! `client` speaks the protocol; `auth` answers challenges with what `credentials` knows; `registries` and `certs` read the
//! host's configuration. A registry is not trusted: every document and blob is verified, every answer is bounded, and
//! credentials go to the origin that they were given for and to no other.

pub mod auth;
pub(crate) mod blob;
pub mod certs;
pub mod client;
pub mod credentials;
pub mod login;
pub(crate) mod manifest;
pub mod origin;
mod pages;
pub mod proxy;
pub mod push;
pub mod referrers;
pub mod registries;
pub mod resolver;
pub mod search;
pub(crate) mod signatures;
mod tls;
