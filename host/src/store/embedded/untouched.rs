//! A database file that is looked at without being touched: what the engine writes stays in memory and is thrown away.
//!
//! Opening a database writes to it, at the least that it is open, and repairs it after a crash. A file is therefore first
//! opened through here, and only opened for real once the key fits and nothing is damaged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// Bytes that are kept together: a page of the engine.
const BLOCK_BYTES: usize = 4096;

/// The file, and what would have been written to it.
#[derive(Debug)]
pub(super) struct Untouched {
    file: FileBackend,
    /// Held for one read or write, never across one of the other lock's.
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    /// How long the file would be.
    len: u64,
    /// Up to where the file's own bytes count: where it was cut, it reads as zeros.
    own: u64,
    /// Blocks that were written, by their number.
    blocks: BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>,
}

// === impl Untouched ===

impl Untouched {
    pub(super) fn new(file: File) -> Result<Self, DatabaseError> {
        let file = FileBackend::new(file)?;
        let len = file.len()?;
        Ok(Self {
            file,
            written: Mutex::new(Written {
                len,
                own: len,
                blocks: BTreeMap::new(),
            }),
        })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's own bytes from `offset`, zeros after its end.
    fn read_own(&self, own: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(own.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (from_file, beyond) = out.split_at_mut(there.min(out.len()));
        beyond.fill(0);
        if from_file.is_empty() {
            Ok(())
        } else {
            self.file.read(offset, from_file)
        }
    }
}

/// The parts of `length` bytes from `offset` on, as block number, place in the block, place in the bytes.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % BLOCK_BYTES as u64) as usize;
        let part = (BLOCK_BYTES - within).min(length - done);
        let range = done..done + part;
        done += part;
        (part > 0).then_some((at / BLOCK_BYTES as u64, within, range))
    })
}

impl StorageBackend for Untouched {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset
            .checked_add(out.len() as u64)
            .is_none_or(|end| end > written.len)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_own(written.own, offset, out)?;
        for (block, within, range) in parts(offset, out.len()) {
            if let Some(bytes) = written.blocks.get(&block) {
                let length = range.len();
                out[range].copy_from_slice(&bytes[within..within + length]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        written.len = len;
        written.own = written.own.min(len);
        let whole = len / BLOCK_BYTES as u64;
        let within = (len % BLOCK_BYTES as u64) as usize;
        written
            .blocks
            .retain(|block, _| *block < whole || (*block == whole && within > 0));
        if let Some(cut) = written.blocks.get_mut(&whole) {
            cut[within..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        for (block, within, range) in parts(offset, data.len()) {
            if !written.blocks.contains_key(&block) {
                let mut bytes = Box::new([0; BLOCK_BYTES]);
                self.read_own(
                    written.own,
                    block * BLOCK_BYTES as u64,
                    bytes.as_mut_slice(),
                )?;
                written.blocks.insert(block, bytes);
            }
            if let Some(bytes) = written.blocks.get_mut(&block) {
                bytes[within..within + range.len()].copy_from_slice(&data[range]);
            }
        }
        written.len = written.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // The locks are the file's own: a store that is in use is not looked at.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write = (
            0..20_000_u64,
            proptest::collection::vec(any::<u8>(), 0..9_000),
        )
            .prop_map(|(offset, data)| Step::Write(offset, data));
        proptest::collection::vec(
            prop_oneof![write, (0..25_000_u64).prop_map(Step::SetLen)],
            0..12,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_reads_as_if_it_had_been_written_and_the_file_stays(steps in steps()) {
            let original: Vec<u8> = (0..10_001_u32).map(|at| at as u8).collect();
            let mut file = tempfile::NamedTempFile::new().unwrap();
            io::Write::write_all(&mut file, &original).unwrap();
            let untouched = Untouched::new(file.reopen().unwrap()).unwrap();

            let mut model = original.clone();
            for step in steps {
                match step {
                    Step::Write(offset, data) => {
                        let end = offset as usize + data.len();
                        model.resize(model.len().max(end), 0);
                        model[offset as usize..end].copy_from_slice(&data);
                        untouched.write(offset, &data).unwrap();
                    }
                    Step::SetLen(len) => {
                        model.resize(len as usize, 0);
                        untouched.set_len(len).unwrap();
                    }
                }
                let mut read = vec![0; model.len()];
                untouched.read(0, &mut read).unwrap();
                prop_assert!(read == model);
                prop_assert!(untouched.read(1, &mut read).is_err() || model.is_empty());
            }
            prop_assert!(std::fs::read(file.path()).unwrap() == original);
        }
    }
}
