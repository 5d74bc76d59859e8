//! Bytes as records are made of them: written into buffers that are zeroed, read without trusting a length.
//!
//! Numbers are little-endian; a length or count is a LEB128 number; a text is its length and its bytes; an optional value
//! is preceded by 0 or 1.

use zeroize::Zeroizing;

use crate::model::time::UnixTime;

/// The bytes are no record of a layout that is known: another version of Keyfob wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Malformed;

/// Room for most records, so that few buffers grow.
const USUAL_BYTES: usize = 2048;

/// Bytes being written; every buffer it outgrows is zeroed.
pub(super) struct Writing(Zeroizing<Vec<u8>>);

/// Bytes still to be read.
pub(super) struct Reading<'a>(&'a [u8]);

// === impl Writing ===

impl Writing {
    /// A record of this layout.
    pub(super) fn new(layout: u8) -> Self {
        let mut out = Self(Zeroizing::new(Vec::with_capacity(USUAL_BYTES)));
        out.byte(layout);
        out
    }

    pub(super) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            // `Vec` would leave the bytes it moves away from behind in freed memory.
            let mut wider = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.0.capacity())));
            wider.extend_from_slice(&self.0);
            self.0 = wider;
        }
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.raw(&[byte]);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.raw(&number.to_le_bytes());
    }

    pub(super) fn length(&mut self, mut length: usize) {
        while length >= 0x80 {
            self.byte((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        self.byte(length as u8);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.length(text.len());
        self.raw(text.as_bytes());
    }

    pub(super) fn time(&mut self, time: UnixTime) {
        self.number(time.as_millis());
    }

    pub(super) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) {
        self.length(items.len());
        items.for_each(|item| write(self, item));
    }
}

// === impl Reading ===

impl<'a> Reading<'a> {
    /// A record of a layout from 1 up to `newest`, and which.
    pub(super) fn new(bytes: &'a [u8], newest: u8) -> Result<(u8, Self), Malformed> {
        let mut from = Self(bytes);
        let layout = from.byte()?;
        (1..=newest)
            .contains(&layout)
            .then_some((layout, from))
            .ok_or(Malformed)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn length(&mut self) -> Result<usize, Malformed> {
        let mut length = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = usize::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Malformed);
            }
            length |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(length);
            }
        }
        Err(Malformed)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed)
    }

    pub(super) fn time(&mut self) -> Result<UnixTime, Malformed> {
        self.number().map(UnixTime::from_millis)
    }

    pub(super) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Malformed),
        }
    }

    /// Nothing is reserved for a count that was read: it grows by what is really there.
    pub(super) fn list<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        (0..self.length()?).map(|_| read(self)).collect()
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        self.0.is_empty().then_some(()).ok_or(Malformed)
    }
}
