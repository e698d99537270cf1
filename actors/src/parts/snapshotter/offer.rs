//! Sending a snapshot: a peer asks for one piece after the other, and gets them all from one read transaction.

use bytes::Bytes;
use rabia_bank_messages::peer::{SnapshotCursor, SnapshotPart};
use rabia_bank_storage::{BooksView, StoreError};

/// The most bytes of rows in one answer, so that other messages to the peer get between.
pub const PIECE: usize = 1 << 20;

/// Rows of a snapshot, by number.
pub type Rows = Vec<(u64, Bytes)>;

/// The part that rows are of, the rows, and where it goes on.
pub type Offer = (SnapshotPart, Rows, Option<SnapshotCursor>);

/// The part that comes after another.
fn part_after(part: SnapshotPart) -> Option<SnapshotPart> {
    match part {
        SnapshotPart::Blocks => Some(SnapshotPart::State),
        SnapshotPart::State => Some(SnapshotPart::Accounts),
        SnapshotPart::Accounts => Some(SnapshotPart::Sessions),
        SnapshotPart::Sessions => None,
    }
}

/// The rows from a place on, `piece` bytes of them at most, and where it goes on; none after the last row of all.
///
/// # Errors
/// If the store can't be read.
pub fn rows_at(view: &BooksView, mut at: SnapshotCursor, piece: usize) -> Result<Offer, StoreError> {
    loop {
        let found = fetch(view, at, piece)?;
        if !found.is_empty() {
            let (rows, next) = cut(found, at, piece);
            return Ok((at.part, rows, Some(next)));
        }
        match part_after(at.part) {
            Some(part) => at = SnapshotCursor { part, row: 0, offset: 0 },
            None => return Ok((at.part, Rows::new(), None)),
        }
    }
}

fn fetch(view: &BooksView, at: SnapshotCursor, piece: usize) -> Result<Rows, StoreError> {
    let page = u32::try_from(at.row);
    Ok(match at.part {
        SnapshotPart::Blocks => view.blocks(at.row, piece)?.into_iter().map(|(key, row)| (key, row.into())).collect(),
        SnapshotPart::State if at.row > 0 => Rows::new(),
        SnapshotPart::State => view.state()?.into_iter().map(|row| (0, row.into())).collect(),
        SnapshotPart::Accounts => match page {
            Ok(page) => view.accounts(page, piece)?.into_iter().map(|(key, row)| (key.into(), row.into())).collect(),
            Err(_) => Rows::new(),
        },
        SnapshotPart::Sessions => {
            view.sessions(at.row, piece)?.into_iter().map(|(key, row)| (key, row.into())).collect()
        }
    })
}

/// As much as fits, and where it goes on. A row that is longer than all of it is sent in pieces.
fn cut(found: Rows, at: SnapshotCursor, piece: usize) -> (Rows, SnapshotCursor) {
    let mut rows = Rows::new();
    let mut room = piece;
    let mut next = at;
    for (number, row) in found {
        let offset = if number == at.row { (at.offset as usize).min(row.len()) } else { 0 };
        let rest = row.slice(offset..);
        if rest.len() > room {
            next = SnapshotCursor { part: at.part, row: number, offset: offset as u64 };
            if rows.is_empty() {
                rows.push((number, rest.slice(..room)));
                next.offset += room as u64;
            }
            return (rows, next);
        }
        room -= rest.len();
        rows.push((number, rest));
        next = SnapshotCursor { part: at.part, row: number + 1, offset: 0 };
    }
    (rows, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SnapshotCursor = SnapshotCursor { part: SnapshotPart::Sessions, row: 0, offset: 0 };

    #[test]
    fn short_rows_share_an_answer_and_a_long_one_takes_several() {
        let row = |length: usize| Bytes::from(vec![7; length]);
        let all: Rows = vec![(1, row(10)), (2, row(PIECE)), (5, row(2 * PIECE + 3)), (6, row(1))];
        let mut at = START;
        let mut pieces = Vec::new();
        loop {
            let left: Rows = all.iter().filter(|(number, _)| *number >= at.row).cloned().collect();
            if left.is_empty() {
                break;
            }
            let (rows, next) = cut(left, at, PIECE);
            assert!(rows.iter().map(|(_, row)| row.len()).sum::<usize>() <= PIECE);
            assert!(next > at, "no progress from {at:?}");
            pieces.push(rows.iter().map(|(number, row)| (*number, row.len())).collect::<Vec<_>>());
            at = next;
        }
        let expected = [vec![(1, 10)], vec![(2, PIECE)], vec![(5, PIECE)], vec![(5, PIECE)], vec![(5, 3), (6, 1)]];
        assert_eq!(pieces, expected);
    }
}
