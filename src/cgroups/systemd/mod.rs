//! Cgroups by way of systemd: a scope for each container, asked for over D-Bus.
//!
//! | file | holds |
//! |---|---|
//! | `unit` | `slice:prefix:name`, and where that is in the hierarchy |
//! | `properties` | limits and device rules as properties of the unit |
//! | `annotation` | `org.systemd.property.*` as properties |
//! | `manager` | the calls: start, change, stop, attach |
//! | `bus`, `wire` | a connection; messages as bytes |
//!
//! systemd is told every limit that it knows, since it writes its own idea of them again whenever it reloads. Then all
//! of them are written into the files as well, for what it does not know or has rounded.

mod annotation;
mod bus;
mod manager;
mod properties;
mod unit;
mod wire;

pub(super) use annotation::properties as annotated;
pub(super) use manager::{Manager, helper_properties, scope_properties};
pub use manager::{Owner, Scope, is_reachable};
pub(super) use properties::{Properties, devices, limits};
pub(super) use unit::Unit;
#[cfg(any(test, fuzzing))]
pub use wire::count_values;
