//! A running node.

use std::future::Future;

use crate::NodeError;
use crate::config::NodeConfig;

/// Runs the node until `shutdown` resolves. Must run inside an actix System.
///
/// # Errors
/// Why it refused to start, or had to stop.
pub async fn run(config: NodeConfig, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    let _ = (config, shutdown);
    Err(NodeError::Refused("this build has no server".into()))
}
