//! The shim program; see the library's `shim` module.

use std::process::ExitCode;

fn main() -> ExitCode {
    inspect_daytona::shim::main()
}
