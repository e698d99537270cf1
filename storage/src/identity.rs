//! Whose store a file is, and of which format: the rows that the log and the books begin with.

use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::StoreId;
use rabia_bank_messages::promise::Identity;

use crate::error::StoreError;
use crate::file::path::StorePath;
use crate::file::rows::{ReadRows, TableId, WriteRows};

/// The version of the file format that this program reads and writes.
pub const FORMAT: u32 = 6;
/// The version of a store that took the place of another. The same but for one row, by which a program that knows only the
/// former would be misled.
const FORMAT_REPLACING: u32 = 7;

/// The table with what a file says of itself. It also holds marks of the log and of the books, each its own.
pub(crate) const META: TableId = TableId::new("meta");
const META_FORMAT: &[u8] = b"format";
const META_IDENTITY: &[u8] = b"identity";
const META_STORE: &[u8] = b"store";

/// The id of the store that belongs to this identity.
pub(crate) fn store_of(identity: &Identity, place: &StorePath) -> Result<StoreId, StoreError> {
    identity.genesis.stores.get(identity.node.index()).copied().ok_or_else(|| StoreError::NoMember {
        file: place.file(),
        node: identity.node,
        members: identity.genesis.members(),
    })
}

/// Comes first: in a file of another version nothing else means what it does here.
fn read_format(meta: &ReadRows<'_>, place: &StorePath) -> Result<u32, StoreError> {
    let Some(body) = meta.get(META_FORMAT)? else {
        return Err(meta.damaged(META_FORMAT, "the row is missing"));
    };
    let Ok(bytes) = <[u8; 4]>::try_from(&body[..]) else {
        return Err(meta.damaged(META_FORMAT, format_args!("{} bytes where 4 should be", body.len())));
    };
    match u32::from_be_bytes(bytes) {
        known @ (FORMAT | FORMAT_REPLACING) => Ok(known),
        found => Err(StoreError::Version { file: place.file(), found, known: FORMAT }),
    }
}

/// Checks that the file is of a known version and belongs to this member. Answers which store it is.
pub(crate) fn check_identity(
    meta: &ReadRows<'_>,
    place: &StorePath,
    expected: &Identity,
) -> Result<StoreId, StoreError> {
    let format = read_format(meta, place)?;
    let Some(found) = meta.get_value::<Identity>(META_IDENTITY)? else {
        return Err(meta.damaged(META_IDENTITY, "the row is missing"));
    };
    let file = place.file();
    let (cluster, other_cluster) = (expected.genesis.cluster, found.genesis.cluster);
    if other_cluster != cluster {
        return Err(StoreError::OtherCluster { file, found: other_cluster, expected: cluster });
    }
    if found.node != expected.node {
        return Err(StoreError::OtherNode { file, found: found.node, expected: expected.node });
    }
    let (store, other_store) = (store_of(expected, place)?, store_of(&found, place)?);
    if other_store != store {
        return Err(StoreError::OtherStore { file, found: other_store, expected: store });
    }
    if found.genesis != expected.genesis {
        return Err(StoreError::OtherGenesis { file, what: difference(&found.genesis, &expected.genesis) });
    }
    match (format, meta.get(META_STORE)?) {
        (FORMAT, None) => Ok(store),
        (FORMAT_REPLACING, Some(body)) => {
            body.try_into().map(StoreId).map_err(|_| meta.damaged(META_STORE, "no id of a store"))
        }
        (FORMAT, Some(_)) => Err(meta.damaged(META_STORE, "this row does not belong into a first store")),
        _ => Err(meta.damaged(META_STORE, "the row is missing")),
    }
}

/// Writes what [`check_identity`] reads. `store` takes the place of the member's former one.
pub(crate) fn put_identity(
    meta: &mut WriteRows<'_, '_>,
    identity: &Identity,
    store: Option<StoreId>,
) -> Result<(), StoreError> {
    let format = if store.is_some() { FORMAT_REPLACING } else { FORMAT };
    meta.put(META_FORMAT, &format.to_be_bytes())?;
    meta.put_value(META_IDENTITY, identity)?;
    store.map_or(Ok(()), |store| meta.put(META_STORE, &store.0))
}

/// Says which constants differ, in the words of the configuration.
fn difference(file: &Genesis, configuration: &Genesis) -> String {
    let numbers: [(_, u64, u64); 7] = [
        ("members", file.members() as u64, configuration.members() as u64),
        ("window", file.window, configuration.window),
        ("owner_history", file.owner_history, configuration.owner_history),
        ("transaction_limit", file.transaction_limit, configuration.transaction_limit),
        ("max_sessions", file.sessions.open, configuration.sessions.open),
        ("session_idle_ms", file.sessions.idle_ms, configuration.sessions.idle_ms),
        ("level", file.level.into(), configuration.level.into()),
    ];
    let mut differences: Vec<String> = numbers
        .into_iter()
        .filter(|(_, file, configuration)| file != configuration)
        .map(|(name, file, configuration)| {
            format!("{name} is {file} in the file, {configuration} in the configuration")
        })
        .collect();
    let (asset, other) = (&file.bank.asset, &configuration.bank.asset);
    if asset != other {
        differences.push(format!("asset is {asset} in the file, {other} in the configuration"));
    }
    let (overdraft, other) = (file.bank.allow_overdraft, configuration.bank.allow_overdraft);
    if overdraft != other {
        differences.push(format!("allow_overdraft is {overdraft} in the file, {other} in the configuration"));
    }
    let stores = file.nodes().zip(file.stores.iter().zip(&configuration.stores));
    differences.extend(stores.filter(|(_, (file, configuration))| file != configuration).map(
        |(node, (file, configuration))| {
            format!("the store of node {node} is {file} in the file, {configuration} in the configuration")
        },
    ));
    if file.founding != configuration.founding {
        // Not which: the salts' secret stays one.
        differences
            .push("the first tokens or the salts' secret are others in the file than in the configuration".into());
    }
    differences.join("; ")
}
