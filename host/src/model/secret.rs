//! `Secret<T>`: a value from the byte it is read to the byte it is sent.
//!
//! It has no `Display` and no `Serialize`, its `Debug` is redacted, and its memory is zeroed when it is dropped.

use std::fmt;

use zeroize::Zeroize;

/// A value that must not be printed. `expose` is the only way to it, and greppable.
#[derive(Clone, Default)]
pub struct Secret<T: Zeroize>(T);

// === impl Secret ===

impl<T: Zeroize> Secret<T> {
    /// Takes a value into custody.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself: for the door where it leaves the process, or to derive another secret from it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<String> {
    /// True for a value of no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both hold the same bytes; takes the same time wherever they differ.
    pub fn same_as(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes())
            .is_ok()
    }
}

impl PartialEq for Secret<String> {
    fn eq(&self, other: &Self) -> bool {
        self.same_as(other)
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?} {secret:#?}"), "[redacted] [redacted]");
        assert!(secret.same_as(&Secret::from("hunter2")));
        assert!(!secret.same_as(&Secret::from("hunter3")));
    }
}
