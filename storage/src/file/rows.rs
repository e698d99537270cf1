//! A table whose rows are checked: the one place that puts check values on and takes them off.

use std::fmt::Display;

use rabia_bank_messages::ids::Digest;
use rabia_bank_messages::msgpack;
use redb::{Range, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::path::StorePath;
use crate::error::StoreError;

type Bytes = &'static [u8];

/// The bytes of a check value.
const CHECK: usize = 4;

/// Which table it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableId {
    name: &'static str,
    /// Says in words which row has this key, for errors; nothing of a key that no row has.
    describe: fn(&[u8]) -> Option<String>,
}

impl TableId {
    /// A table whose keys speak for themselves.
    pub(crate) const fn new(name: &'static str) -> TableId {
        TableId { name, describe: |_| None }
    }

    /// A table whose rows errors name by what they are.
    pub(crate) const fn described(name: &'static str, describe: fn(&[u8]) -> Option<String>) -> TableId {
        TableId { name, describe }
    }

    fn definition(self) -> TableDefinition<'static, Bytes, Bytes> {
        TableDefinition::new(self.name)
    }
}

/// The rows of a table that is open to be read.
pub(crate) type ReadRows<'p> = Rows<'p, ReadOnlyTable<Bytes, Bytes>>;
/// The rows of a table that is open to be written.
pub(crate) type WriteRows<'p, 't> = Rows<'p, Table<'t, Bytes, Bytes>>;

/// An open table of redb. `T` is redb's read-only or writable table.
pub(crate) struct Rows<'p, T> {
    rows: T,
    table: TableId,
    place: &'p StorePath,
}

/// A row as it was written: its key and its body.
pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl<'p> ReadRows<'p> {
    pub(crate) fn read(
        transaction: &ReadTransaction,
        table: TableId,
        place: &'p StorePath,
    ) -> Result<Self, StoreError> {
        place.work();
        let rows = transaction.open_table(table.definition()).map_err(|e| place.redb(e))?;
        Ok(Rows { rows, table, place })
    }
}

impl<'p, 't> WriteRows<'p, 't> {
    /// Opens the table for writing. One that is not there is made, which only the creation of a store relies on.
    pub(crate) fn write(
        transaction: &'t WriteTransaction,
        table: TableId,
        place: &'p StorePath,
    ) -> Result<Self, StoreError> {
        place.work();
        let rows = transaction.open_table(table.definition()).map_err(|e| place.redb(e))?;
        Ok(Rows { rows, table, place })
    }

    pub(crate) fn put(&mut self, key: &[u8], body: &[u8]) -> Result<(), StoreError> {
        let mut value = self.rows.insert_reserve(key, CHECK + body.len()).map_err(|e| self.place.redb(e))?;
        let (check, rest) = value.as_mut().split_at_mut(CHECK);
        check.copy_from_slice(&check_value(self.table.name, key, body));
        rest.copy_from_slice(body);
        Ok(())
    }

    pub(crate) fn put_value(&mut self, key: &[u8], value: &impl Serialize) -> Result<(), StoreError> {
        self.put(key, &msgpack::encode(value))
    }

    /// Removes a row, if it is there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.rows.remove(key).map(|_| ()).map_err(|e| self.place.redb(e))
    }

    pub(crate) fn clear(&mut self) -> Result<(), StoreError> {
        self.rows.retain(|_, _| false).map_err(|e| self.place.redb(e))
    }

    /// Removes the rows whose keys begin with this byte and are not to be kept.
    pub(crate) fn retain(&mut self, first: u8, keep: impl Fn(&[u8]) -> bool) -> Result<(), StoreError> {
        self.rows.retain_in(&[first][..]..&[first + 1][..], |key, _| keep(key)).map_err(|e| self.place.redb(e))
    }

    /// Removes all rows from the first to the last key, both included.
    pub(crate) fn remove_range(&mut self, first: &[u8], last: &[u8]) -> Result<(), StoreError> {
        self.rows.retain_in(first..=last, |_, _| false).map_err(|e| self.place.redb(e))
    }
}

impl<'p, T: ReadableTable<Bytes, Bytes>> Rows<'p, T> {
    /// The body of a row.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.rows.get(key).map_err(|e| self.place.redb(e))? {
            Some(value) => self.body(key, value.value()).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn get_value<V: Serialize + DeserializeOwned>(&self, key: &[u8]) -> Result<Option<V>, StoreError> {
        self.get(key)?.map(|body| self.decode(key, &body)).transpose()
    }

    /// What the body of a row of this table says in MessagePack.
    pub(crate) fn decode<V: Serialize + DeserializeOwned>(&self, key: &[u8], body: &[u8]) -> Result<V, StoreError> {
        msgpack::decode_as_written(body).map_err(|why| self.damaged(key, why))
    }

    pub(crate) fn get_u64(&self, key: &[u8]) -> Result<Option<u64>, StoreError> {
        let Some(body) = self.get(key)? else { return Ok(None) };
        read_u64(&body).map(Some).map_err(|e| self.damaged(key, e))
    }

    /// Whether there is such a row. Does not check its value.
    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.rows.get(key).map_err(|e| self.place.redb(e))?.is_some())
    }

    /// All rows from this key on, in order. Empty for all rows.
    pub(crate) fn from(&self, first: &[u8]) -> Result<impl Iterator<Item = Result<Row, StoreError>>, StoreError> {
        self.rows(self.rows.range(first..))
    }

    /// The rows from this key on whose keys begin with the same byte.
    pub(crate) fn alike_from<'r>(
        &'r self,
        first: &[u8],
    ) -> Result<impl Iterator<Item = Result<Row, StoreError>> + use<'r, 'p, T>, StoreError> {
        let end = [first[0] + 1];
        self.rows(self.rows.range(first..&end[..]))
    }

    /// The last row whose key begins with this byte.
    pub(crate) fn last_of(&self, first: u8) -> Result<Option<Row>, StoreError> {
        let mut rows = self.rows.range(&[first][..]..&[first + 1][..]).map_err(|e| self.place.redb(e))?;
        let Some(row) = rows.next_back() else { return Ok(None) };
        let (key, value) = row.map_err(|e| self.place.redb(e))?;
        let body = self.body(key.value(), value.value())?;
        Ok(Some(Row { key: key.value().to_vec(), body }))
    }

    fn rows<'r>(
        &'r self,
        range: redb::Result<Range<'r, Bytes, Bytes>>,
    ) -> Result<impl Iterator<Item = Result<Row, StoreError>> + use<'r, 'p, T>, StoreError> {
        let rows = range.map_err(|e| self.place.redb(e))?;
        Ok(rows.map(|row| {
            let (key, value) = row.map_err(|e| self.place.redb(e))?;
            let body = self.body(key.value(), value.value())?;
            Ok(Row { key: key.value().to_vec(), body })
        }))
    }

    /// An error that names a row of this table.
    pub(crate) fn damaged(&self, key: &[u8], what: impl Display) -> StoreError {
        let TableId { name, describe } = self.table;
        match describe(key) {
            Some(row) => self.place.damaged(format_args!("table {name}, {row}: {what}")),
            None => self.place.damaged(format_args!("table {name}, key {}: {what}", show_key(key))),
        }
    }

    fn body(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let Some((check, body)) = value.split_first_chunk::<CHECK>() else {
            return Err(self.damaged(key, format_args!("only {} bytes", value.len())));
        };
        if *check != check_value(self.table.name, key, body) {
            return Err(self.damaged(key, "the check value does not fit"));
        }
        Ok(body.to_vec())
    }
}

/// The check value of a row.
fn check_value(table: &str, key: &[u8], body: &[u8]) -> [u8; CHECK] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(table.as_bytes());
    hasher.update(&[0]);
    hasher.update(&(key.len() as u32).to_be_bytes()); // the longest key has 50 bytes
    hasher.update(key);
    hasher.update(body);
    hasher.finalize().to_be_bytes()
}

pub(crate) fn read_digest(body: &[u8]) -> Result<Digest, String> {
    body.try_into().map(Digest).map_err(|_| format!("{} bytes where 32 should be", body.len()))
}

pub(crate) fn read_u64(body: &[u8]) -> Result<u64, String> {
    body.try_into().map(u64::from_be_bytes).map_err(|_| format!("{} bytes where 8 should be", body.len()))
}

/// Names are shown as they are, binary keys as hexadecimal digits.
fn show_key(key: &[u8]) -> String {
    match str::from_utf8(key) {
        Ok(name) if name.bytes().all(|b| b.is_ascii_lowercase()) => name.into(),
        _ => hex::encode(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_covers_table_key_and_body() {
        let whole = check_value("log", b"k", b"body");
        assert_ne!(whole, check_value("meta", b"k", b"body"));
        assert_ne!(whole, check_value("log", b"l", b"body"));
        assert_ne!(whole, check_value("log", b"kb", b"ody"));
        assert_ne!(whole, check_value("log", b"k", b"bodx"));
        // The exact value, so that a change of the format is seen: crc32("log" 00 00000001 "k" "body").
        assert_eq!(u32::from_be_bytes(whole), crc32fast::hash(b"log\0\0\0\0\x01kbody"));
    }
}
