//! A table whose rows are checked: the one place that puts check values on and takes them off.

use std::fmt::Display;

use rabia_bank_messages::msgpack;
use redb::{Range, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StoreError;
use crate::format::{self, CHECK, Part};
use crate::place::Place;

type Bytes = &'static [u8];
type Definition = TableDefinition<'static, Bytes, Bytes>;

/// An open table of redb. `T` is redb's read-only or writable table.
pub(crate) struct Rows<'p, T> {
    table: T,
    name: &'static str,
    place: &'p Place,
}

/// A row as it was written: its key and its body.
pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl<'p> Rows<'p, ReadOnlyTable<Bytes, Bytes>> {
    pub(crate) fn read(
        transaction: &ReadTransaction,
        name: &'static str,
        place: &'p Place,
    ) -> Result<Self, StoreError> {
        place.work();
        let table = transaction.open_table(Definition::new(name)).map_err(|e| place.redb(e))?;
        Ok(Rows { table, name, place })
    }
}

impl<'p, 't> Rows<'p, Table<'t, Bytes, Bytes>> {
    /// Opens the table for writing. One that is not there is made, which only the creation of a store relies on.
    pub(crate) fn write(
        transaction: &'t WriteTransaction,
        name: &'static str,
        place: &'p Place,
    ) -> Result<Self, StoreError> {
        place.work();
        let table = transaction.open_table(Definition::new(name)).map_err(|e| place.redb(e))?;
        Ok(Rows { table, name, place })
    }

    pub(crate) fn put(&mut self, key: &[u8], body: &[u8]) -> Result<(), StoreError> {
        let mut value = self.table.insert_reserve(key, CHECK + body.len()).map_err(|e| self.place.redb(e))?;
        let (check, rest) = value.as_mut().split_at_mut(CHECK);
        check.copy_from_slice(&format::check_value(self.name, key, body));
        rest.copy_from_slice(body);
        Ok(())
    }

    pub(crate) fn put_value(&mut self, key: &[u8], value: &impl Serialize) -> Result<(), StoreError> {
        self.put(key, &msgpack::encode(value))
    }

    /// Removes a row, if it is there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.table.remove(key).map(|_| ()).map_err(|e| self.place.redb(e))
    }

    /// Removes all rows.
    pub(crate) fn clear(&mut self) -> Result<(), StoreError> {
        self.table.retain(|_, _| false).map_err(|e| self.place.redb(e))
    }

    /// Removes the rows of a part of the log whose keys are not to be kept.
    pub(crate) fn retain(&mut self, part: Part, keep: impl Fn(&[u8]) -> bool) -> Result<(), StoreError> {
        let (begin, end) = (&part.begin()[..], &[part as u8 + 1][..]);
        self.table.retain_in(begin..end, |key, _| keep(key)).map_err(|e| self.place.redb(e))
    }

    /// Removes all rows from the first to the last key, both included.
    pub(crate) fn remove_range(&mut self, first: &[u8], last: &[u8]) -> Result<(), StoreError> {
        self.table.retain_in(first..=last, |_, _| false).map_err(|e| self.place.redb(e))
    }
}

impl<'p, T: ReadableTable<Bytes, Bytes>> Rows<'p, T> {
    /// The body of a row.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.table.get(key).map_err(|e| self.place.redb(e))? {
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
        format::read_u64(&body).map(Some).map_err(|e| self.damaged(key, e))
    }

    /// Whether there is such a row. Does not check its value.
    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.table.get(key).map_err(|e| self.place.redb(e))?.is_some())
    }

    /// All rows from this key on, in order. Empty for all rows.
    pub(crate) fn from(&self, first: &[u8]) -> Result<impl Iterator<Item = Result<Row, StoreError>>, StoreError> {
        self.rows(self.table.range(first..))
    }

    /// The rows of a part of the log from this key on, which is one of the part's.
    pub(crate) fn part_from<'r>(
        &'r self,
        first: &[u8],
    ) -> Result<impl Iterator<Item = Result<Row, StoreError>> + use<'r, 'p, T>, StoreError> {
        let end = [first[0] + 1];
        self.rows(self.table.range(first..&end[..]))
    }

    /// The last row of a part of the log.
    pub(crate) fn last_of(&self, part: Part) -> Result<Option<Row>, StoreError> {
        let (begin, end) = (&part.begin()[..], &[part as u8 + 1][..]);
        let mut rows = self.table.range(begin..end).map_err(|e| self.place.redb(e))?;
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
        self.place.damaged_row(self.name, key, what)
    }

    fn body(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let Some((check, body)) = value.split_first_chunk::<CHECK>() else {
            return Err(self.damaged(key, format_args!("only {} bytes", value.len())));
        };
        if *check != format::check_value(self.name, key, body) {
            return Err(self.damaged(key, "the check value does not fit"));
        }
        Ok(body.to_vec())
    }
}
