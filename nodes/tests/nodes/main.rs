//! Real nodes: as processes, in the program that tests them, and inside a host. One file a subject; each says at the top what it
//! looks at, and which commands measure more than the suite does.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // clippy knows only functions marked as tests, not what they share

mod assets;
mod attacks;
mod client_tls;
mod clocks;
mod embedded;
mod exactly_once;
mod faults;
mod forks;
mod fuzzed;
mod fuzzer;
mod hostile;
mod hostile_peer;
mod in_process;
mod later_versions;
mod levels;
mod linearizable;
mod member_keys;
mod memory;
mod old_backups;
mod principals;
mod program;
mod protocol;
mod recovery;
mod replace;
mod running;
mod scale;
mod snapshots;
mod speed;
mod stores;
mod subscriptions;
mod support;

/// What the fuzz targets check, made of fewer inputs here.
#[allow(dead_code)]
#[path = "../../fuzz/src"]
mod targets {
    pub mod backup;
    pub mod client_frames;
    pub mod configuration;
    pub mod handshakes;
    pub mod parts;
    pub mod peer_frames;
    pub mod scopes;
    pub mod snapshot_rows;
    pub mod tokens;
}
