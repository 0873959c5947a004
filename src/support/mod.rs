//! Small topics, one a file.

pub mod activation;
pub mod atomic;
pub mod base64;
pub mod caller;
pub mod config_file;
pub mod csv;
pub mod id;
pub mod journal;
pub mod lock;
pub mod log;
pub mod mode;
pub mod mountinfo;
pub mod network;
pub mod number_set;
pub mod passwd;
pub mod remove;
pub mod resolv_conf;
pub mod root;
pub mod strict_json;
pub mod text;
pub mod units;
pub mod usage;
pub mod xattr;
