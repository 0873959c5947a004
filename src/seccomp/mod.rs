//! Compiles an OCI seccomp profile to classic BPF. Installs nothing.
//!
//! `profile` (what was written) -> `policy` (checked, resolved to the calls of this kernel) -> `compile` (one decision tree
//! for each ABI) -> `assemble` (instructions). `default` is the engine's own profile, and `features` what is understood.
//!
//! How a profile is read, where the specification leaves it open:
//!
//! - Rules of one system call with arguments are tried in the profile's order, before a rule without arguments; of those,
//!   the first counts. A rule is kept also when its action is the default one, since it may shadow a later rule.
//! - The comparisons of one rule must all hold, unless two look at the same argument: then each is a rule of its own. That
//!   is what runc does, and profiles rely on it.
//! - On ABIs of 32 bits (i386, arm, x32) the low halves are compared, as libseccomp does: the kernel sees no more than that.
//! - Names that no ABI has are skipped. Calls newer than the newest that a profile names fail with ENOSYS and not with the
//!   default action, so that a C library falls back to what the profile's author knew (unless the default allows).
//! - The native ABI is always filtered. Others are filtered if listed, and otherwise kill the process: x32 shares its
//!   architecture with x86_64, and would be open if only the architecture were looked at. Listed architectures that this
//!   machine's kernel can't run are accepted, and nothing is compiled for them.
//! - i386's socketcall(2) and ipc(2) hide a call in their first argument. Rules of the hidden calls hold there too, unless
//!   the profile has a rule for socketcall or ipc itself. A rule that looks at arguments can't be applied behind the pointer
//!   that socketcall takes, so the strictest action that the call's rules can give is taken.

mod abi;
mod action;
mod assemble;
mod call_names;
mod compile;
mod default;
mod features;
mod interpret;
mod policy;
mod table;

#[cfg(any(test, fuzzing))]
mod model;

pub use action::Refusal;
pub use call_names::{call_name, call_number};
pub use compile::{Listener, Program, compile, compile_strictly, take_program};
pub use default::default_profile;
pub use features::{ACTIONS, ARCHITECTURES, FLAGS, OPERATORS, supported_flags};
#[cfg(any(test, fuzzing))]
pub use model::{compare_with_model, names};
