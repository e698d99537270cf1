//! What every process of this program does first: it takes the descriptors that it may have, and leaves no copy of its memory behind.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files to what the system allows, and turns core dumps off: the memory of nodes and clients holds keys.
/// Where the system refuses, things are as they were; a node checks how many files it may open.
pub(super) fn prepare() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Some systems name a hard limit that can't be reached: the soft one stays then.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // Where cores go into a pipe, the limit says nothing.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}
