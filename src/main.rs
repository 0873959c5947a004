//! The executable: hands its arguments to the library and its status to the caller.

use std::process::ExitCode;

fn main() -> ExitCode {
    husk::cli::main()
}
