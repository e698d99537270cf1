//! Who waits for the requests that gather in the pool. The pool knows a request by a number; here is whose it is.

/// Waiters, each under a number that is free again when it is taken.
#[derive(Debug)]
pub struct Waiters<W> {
    places: Vec<Option<W>>,
    free: Vec<usize>,
}

impl<W> Default for Waiters<W> {
    fn default() -> Waiters<W> {
        Waiters { places: Vec::new(), free: Vec::new() }
    }
}

impl<W> Waiters<W> {
    /// Keeps a waiter, and says under which number.
    pub fn keep(&mut self, waiter: W) -> u64 {
        match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(waiter);
                place as u64
            }
            None => {
                self.places.push(Some(waiter));
                self.places.len() as u64 - 1
            }
        }
    }

    /// The waiter of this number, which is kept no longer.
    ///
    /// # Panics
    /// If none has it.
    pub fn take(&mut self, number: u64) -> W {
        let place = number as usize;
        let waiter = self.places.get_mut(place).and_then(Option::take);
        let Some(waiter) = waiter else { unreachable!("nobody waits under number {number}") };
        self.free.push(place);
        waiter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_when_its_waiter_was_taken() {
        let mut waiters = Waiters::default();
        let numbers = [7, 8, 9].map(|waiter| waiters.keep(waiter));
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(waiters.take(1), 8);
        assert_eq!(waiters.keep(10), 1);
        assert_eq!([0, 1, 2].map(|number| waiters.take(number)), [7, 10, 9]);
    }
}
