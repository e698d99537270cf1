//! Why a node stopped, or never started.

/// Why a node stopped, or never started. The two kinds are two exit codes of the program: one that refused to start will
/// refuse again until a person changes something, one that failed may be started again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// It refused to start: its store is in use, damaged, of another cluster or node, a port is taken …
    #[error("{0}")]
    Refused(String),
    /// It started and had to stop: a full disk, a storage error, a digest that differs, a panic …
    #[error("{0}")]
    Failed(String),
}
