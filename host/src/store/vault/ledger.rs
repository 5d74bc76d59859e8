//! What says that the rows of a store are those that were written last.

use super::super::sealing::{NoRandomness, about};
use super::{SEAL, Unsealed, Vault};

/// A sum over the rows of a store: of keyed hashes, by exclusive or, so that one commit costs one hash for each row it
/// removes or adds. A row that was rolled back, removed or brought in by hand leaves it wrong, and nobody without the tally
/// key can make it right again. With it, how far the logs are: an entry that is missing from a log is missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::store) struct Ledger {
    sum: [u8; 32],
    /// How many rows there are.
    pub(in crate::store) rows: u64,
    /// The number of the newest change.
    pub(in crate::store) changes: u64,
    /// The number of the newest revocation.
    pub(in crate::store) revocations: u64,
}

// === impl Ledger ===

impl Ledger {
    /// A row was added.
    pub(in crate::store) fn add(&mut self, element: [u8; 32]) {
        self.toggle(element);
        self.rows = self.rows.wrapping_add(1);
    }

    /// A row was removed.
    pub(in crate::store) fn remove(&mut self, element: [u8; 32]) {
        self.toggle(element);
        self.rows = self.rows.wrapping_sub(1);
    }

    /// Whether both are of the same rows.
    pub(in crate::store) fn same_rows(&self, other: &Self) -> bool {
        (self.sum, self.rows) == (other.sum, other.rows)
    }

    fn toggle(&mut self, element: [u8; 32]) {
        self.sum
            .iter_mut()
            .zip(element)
            .for_each(|(sum, byte)| *sum ^= byte);
    }

    fn bytes(&self) -> Vec<u8> {
        let numbers = [self.rows, self.changes, self.revocations];
        let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
        self.sum.iter().copied().chain(numbers).collect()
    }

    /// A record of schema 1 ends after the rows: there were no logs.
    fn read(plain: &[u8]) -> Option<Self> {
        let (sum, numbers) = plain.split_first_chunk()?;
        let (numbers, []) = numbers.as_chunks::<8>() else {
            return None;
        };
        let number = |at: usize| numbers.get(at).copied().map_or(0, u64::from_le_bytes);
        matches!(numbers.len(), 1 | 3).then(|| Self {
            sum: *sum,
            rows: number(0),
            changes: number(1),
            revocations: number(2),
        })
    }
}

// === impl Vault ===

impl Vault {
    /// The ledger as a record.
    pub(in crate::store) fn seal_ledger(&self, ledger: &Ledger) -> Result<Vec<u8>, NoRandomness> {
        self.host.seal(&self.about_ledger(), &ledger.bytes())
    }

    /// The ledger of a record.
    pub(in crate::store) fn open_ledger(&self, sealed: &[u8]) -> Result<Ledger, Unsealed> {
        let plain = self
            .host
            .open(&self.about_ledger(), sealed)
            .ok_or(Unsealed::Broken)?;
        Ledger::read(&plain).ok_or(Unsealed::Unknown)
    }

    fn about_ledger(&self) -> Vec<u8> {
        about(&[b"ledger", &SEAL.to_le_bytes(), &self.file])
    }
}
