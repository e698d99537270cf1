//! What unit tests of several files begin with.

use rabia_bank_messages::ids::StoreId;
use rabia_bank_messages::lineage::Secret;
use rabia_bank_messages::promise::Recovered;

/// What the first start of a new store finds.
pub(crate) fn first_start(store: StoreId) -> Recovered {
    Recovered {
        store,
        starts: 1,
        reserved: 1,
        records: Vec::new(),
        payloads: Vec::new(),
        decided: 0,
        sparse: Vec::new(),
        hashes: Vec::new(),
        kept: None,
        peers: Vec::new(),
        promised: 0,
        runs: Vec::new(),
        secret: Secret([9; 32]),
    }
}
