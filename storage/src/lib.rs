//! The durable store of one node: what it promised, what it was sent, what was decided. The only room that knows redb.
//!
//! A node speaks only from the store that made its promises (PROTOCOL.md, rule 12), so a store is made once, with its
//! [`Identity`] in it ([`LogStore::create`]), and is never made again in passing: [`LogStore::open`] refuses a file
//! that is missing, damaged, another member's, or open elsewhere, and its [`StoreError`] says which and what to do.
//! While it is open, one [`LogStore`] writes ([`LogStore::commit`]: all of a [`Commit`] or nothing, one fdatasync), and
//! any number of [`LogReader`]s on other threads serve catch-up and replay.
//!
//! Beside the log lie the books ([`BooksStore`]): the state of the bank after a slot and the whole history. The log is small,
//! hot, and verified whole at every start; the books are written once a snapshot and grow with the history.
//!
//! # The log's file
//!
//! One redb 4 database (redb's file format 3, copy-on-write B-trees with an XXH3 checksum on every page), with two
//! tables. Keys and values of both are byte strings (`&[u8]`). Every integer is big-endian, so that redb's byte
//! order is the order of numbers, and rows that come later are appended.
//!
//! | table | key | body of the value |
//! | --- | --- | --- |
//! | `meta` | `format` | u32: the version of everything on this page, [`FORMAT`]; 7 in a store that took the place of another |
//! | `meta` | `identity` | MessagePack: [`Identity`] |
//! | `meta` | `store` | 16 bytes: the id of a store that took the place of another (below); no row in a first store |
//! | `meta` | `secret` | 32 bytes: what the store makes proofs with ([`Secret`]) |
//! | `meta` | `starts` | u64: how often the store was opened |
//! | `meta` | `reserved` | u64: the node has said nothing at or above this slot (rule 1); in a new store the one behind that of the books |
//! | `meta` | `compacted` | u64: everything up to this slot was removed, since the books cover it; and the hash of the log there |
//! | `log` | 1, origin u8, incarnation u64, sequence u64, digest 32 bytes | a payload as it is |
//! | `log` | 2, slot u64 | a decision. MessagePack: the batch id, or nil for a slot that is forfeited; and the hash of the log up to this slot, nil behind a gap |
//! | `log` | 3, slot u64, phase u32, kind u8 | a record. MessagePack: kind 0 a `State`, kind 1 a `Vote` (rules 4, 5, 10) |
//! | `log` | 4 | u64: how many promises this store has kept (rule 12) |
//! | `log` | 5, node u8, store 16 bytes | MessagePack: what is remembered of this store of a peer, a [`Memory`] without the store (rule 12) |
//! | `log` | 6, start u64 | MessagePack: the run of this store that began then, and how many promises it had kept before (rule 12) |
//! | `log` | 7, slot u64 | 32 bytes: the hash of the log up to this slot, a multiple of [`DIGEST_INTERVAL`]. Kept for ever |
//!
//! The first byte of a key in `log` says what the row is. They share a table, in this order, because redb writes every page
//! on the way to a row that changed, and each is work: the newest decisions, the records of open slots and what is known of peers are
//! neighbours, mostly in one page.
//!
//! A value is a check value and the body. The check value is a CRC-32 (IEEE, as in zlib; u32) over the table's name, a
//! zero byte, the length of the key (u32), the key, and the body: a row that stands in a wrong place fails it as one
//! that was altered does. A payload must also hash (BLAKE3) to the digest in its key. MessagePack is what
//! [`encode`] writes for the types of `rabia-bank-messages`, and nothing else is accepted:
//! a struct is an array of its fields in order, an enum without data its name, an enum with data a map of its name to the data,
//! an id a `bin`. A change of any of these types is a new [`FORMAT`].
//!
//! What holds between the rows, checked before a commit writes and again when rows are read:
//! - A slot is decided once; no commit decides it differently. The decided log begins behind `compacted`, and may have gaps
//!   that were not filled yet.
//! - What was said in (slot, phase, kind) never changes, and goes when the slot's decision comes, in the same
//!   transaction. Nothing is recorded at or above `reserved`. `reserved` never goes down.
//! - Every batch that a record or a decision names has its payload in the store. A payload is written once, however
//!   many rows name it. One that no row names (voted for, then decided otherwise) stays until the next start: it may yet be decided.
//! - Promises only grow in number, those of this store and those that are remembered of another.
//! - The hash of a decision follows from the one before it.
//!
//! # Stores that take the place of others
//!
//! A member whose store is lost gets a new one, under a new id ([`LogStore::create_replacing`], [`BooksStore::create_replacing`]): an id
//! is that of a key which lies beside the store, and which is none of this crate's business. The identity in it is the cluster's and the member's as ever; the row `store` says that it
//! is another store than the first one, which the identity names. So a file of the former store beside a new one is found
//! ([`BooksStore::check_store`]). The format is another version, so that a program that does not know of the row can't take it for a
//! first store. Whether a store is the member's *now*, the log of the cluster says, and nothing on this disk alone.
//! When a member's former store is refused for good, what is remembered of it goes ([`Commit::forget`]).
//!
//! What the books cover is removed, a few slots with each commit. redb uses the freed pages again, so the file stays as long
//! as it ever had to be: about two snapshots' worth of batches.
//!
//! # The books' file
//!
//! Another redb database, with the check values of the log's. Bodies are compressed (LZ4, with the size before it), except in
//! `meta`. What is in them the ledger says (`rabia-bank-ledger`).
//!
//! | table | key | body of the value |
//! | --- | --- | --- |
//! | `meta` | `format`, `identity`, `store` | as in the log |
//! | `meta` | `slot` | u64: what `state`, `accounts` and `sessions` stand after; 0 in new books |
//! | `state` | `state` | one row: counters, figures, the head of the chain, the digest of the whole state, the last decisions |
//! | `accounts` | page u32 | 64 accounts, by the order of their creation |
//! | `sessions` | number u64 | a session with the replies that it keeps |
//! | `blocks` | number u64 | 512 transactions of the history; the last block may have fewer |
//!
//! - A snapshot is one transaction with the rows that changed since the one before, so the file always holds one whole state. It
//!   is committed in two phases and with redb's quick repair: two syncs, off the path of every answer, and for that the file
//!   opens in the same time whatever its size, also after a crash.
//! - *Blocks are the archive.* A block that is full is sealed: it is never written again, has the same bytes on every node, and
//!   carries the hash before its first transaction and the one of its last, so that whoever reads it recomputes the chain
//!   in it. Histories, subscriptions, audits, backups and transfers to other nodes read blocks; nothing else of old
//!   transactions is kept anywhere, in memory or on disk. They lie in the file of the accounts, and not in files of their own,
//!   because one commit then covers both, and because opening does not read them.
//! - For the same reason damage is found when a row is read, by its check value, its chain, and, for the state with all accounts
//!   and sessions, by the digest at every start. [`BooksReader::open`], which audits use, verifies every page first.
//! - Pages that a snapshot frees are used by the next but one. The file therefore has room for the accounts about three times, and
//!   the history once.
//!
//! # What is assumed of the disk, and what is not
//!
//! - When fdatasync returns, what was written before is on the disk. A disk or a virtual machine that lies about this
//!   breaks promises, and with them agreement.
//! - A write that was not synced may be there, or not, or in part, at any boundary between bytes, and in any order with
//!   others. Bytes outside of it stay as they are. A commit is one such set of writes and one fdatasync; redb tells a
//!   torn commit from a whole one by its checksums. (A commit that makes the file longer syncs that first.)
//! - Other damage of the log, a byte or a gigabyte, is found when it is opened: every page is verified against its checksum
//!   then, before anything in it is believed. Opening therefore reads the whole file (a second or two per GB).
//! - One kind can't be found: damage of the very pages of the last commit before a crash (not before a clean stop), or of
//!   the one byte (offset 9) that says which commit is the last, done between the crash and the next start. It looks
//!   like a commit that was torn, and the store opens without that commit, as any store does that pays one fdatasync a
//!   commit. The commit that counts a start takes two, so that only that one byte can take it back.
//! - While the store is open redb does not verify what it reads again. Check values and digests turn damage of a value
//!   into [`StoreError::Damaged`]; damage of a B-tree's own pages can make redb panic instead. A panic hook learns from
//!   [`last_file`] which file that was, so that the program can say so instead of the panic.
//!
//! # What a crash leaves
//!
//! - While a store is created: no store, and perhaps a file `.rabia-bank-*.new` beside it that may be deleted. The
//!   file gets its name after it is complete and synced; then the directory is synced.
//! - In a commit: all of it or nothing. The same is true after a commit that answered an error: what it held may or may
//!   not be there after the next start. So the first error is the last answer: a store that failed refuses all further
//!   commits ([`StoreError::Stopped`]), and the node stops.
//! - While a store is opened: the start counter is raised or not. The node that crashed had not yet said anything.
//! - After a crash redb rebuilds its list of free pages when the store is opened; this is part of the reading above.
//!
//! An open [`LogReader`] call keeps the pages that it sees from being reused, so that the file grows if it lasts long;
//! a call reads one answer and ends. The file is closed when the store and all its readers are dropped. One process can
//! have it open at a time ([`StoreError::InUse`]).
//!
//! [`Commit`]: rabia_bank_messages::promise::Commit
//! [`Commit::forget`]: rabia_bank_messages::promise::Commit::forget
//! [`DIGEST_INTERVAL`]: rabia_bank_messages::peer::DIGEST_INTERVAL
//! [`Identity`]: rabia_bank_messages::promise::Identity
//! [`Memory`]: rabia_bank_messages::lineage::Memory
//! [`Secret`]: rabia_bank_messages::lineage::Secret
//! [`encode`]: rabia_bank_messages::msgpack::encode

mod books;
mod error;
mod file;
mod identity;
mod log;
mod probe;

pub use books::{BooksReader, BooksStore, BooksView, Snapshot};
pub use error::StoreError;
pub use file::path::last_file;
pub use file::shared::Held;
pub use identity::FORMAT;
pub use log::{Entries, LogReader, LogStore};
pub use probe::probe;
pub use redb::StorageBackend;
