//! The containers' networks: links, addresses, rules. Knows no container's record.

pub mod cidr;
pub mod firewall;
pub mod lease;
pub mod link;
pub mod rootless;

#[cfg(test)]
mod tests;
