//! The runner program; see the library's `local::runner`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(u8::try_from(inspect_daytona::local::runner::run()).unwrap_or(1))
}
