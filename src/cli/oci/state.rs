//! `state`: prints what is known of a container, as the specification's state document.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser;
use serde::Serialize;

use super::{Invocation, Manners, Verb, json, print};
use crate::cli::status::Status;
use crate::error::Result;
use crate::runtime::container::owner_name;

/// Print the state of a container
#[derive(Debug, Parser)]
#[command(name = "state")]
pub(super) struct State {
    /// Container id
    id: String,
}

/// The document as crun has it: another order, an owner, and always the same version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfCrun<'a> {
    oci_version: &'static str,
    id: &'a str,
    pid: i32,
    status: &'a str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    owner: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Verb for State {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let document = invocation.runtime.state(&self.id)?;
        if invocation.manners != Manners::Crun {
            return print(&json::indented(&document, "  ")?);
        }
        let document = OfCrun {
            oci_version: "1.0.0",
            id: &document.id,
            pid: document.pid,
            status: &document.status,
            bundle: &document.bundle,
            rootfs: &document.rootfs,
            created: &document.created,
            owner: &owner_name(document.owner_id),
            annotations: &document.annotations,
        };
        print(&format!("{}\n", json::indented(&document, "  ")?))
    }
}
