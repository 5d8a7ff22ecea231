//! How many files may be open at once.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Enough for thousands of requests, and little enough for programs that go through all possible descriptors.
const OPEN_FILES: u64 = 65_536;

/// Raises the number of open files, as far as this process may, since each command needs a few. Commands inherit it,
/// as they do in a container.
pub(super) fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = hard.min(OPEN_FILES);
        if soft < wanted {
            // it was enough until now; a request that has none left says so
            let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
        }
    }
}
