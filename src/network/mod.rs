//! The containers' networks: links, addresses, rules. Knows no container's record.

pub mod cidr;
pub mod conntrack;
pub mod dns;
pub mod egress;
pub mod firewall;
pub mod forwarding;
pub mod lease;
pub mod link;
mod own;
pub mod passed;
pub mod port;
pub mod pump;
pub mod relay;
pub mod rootless;
mod setting;
pub mod watch;
pub mod way;

#[cfg(test)]
mod tests;
