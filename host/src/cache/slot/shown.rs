//! The token of a slot as readers see it who take no lock and count no reference.
//!
//! A reader looks under a guard of its thread, which costs one exchange on a line of its own; what was shown is let go when no
//! guard that may have seen it is left (`retired`). Who may change what is shown, and when, is decided in `publish`.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use sdd::Guard;

use super::retired::Retired;
use crate::model::token::AccessToken;
use crate::shim::atomic::{AtomicPtr, Ordering};

/// What is on show, if anything: null, or a pointer that [`Arc::into_raw`] gave, with the one count that it stands for.
pub(super) struct Shown(AtomicPtr<AccessToken>);

/// What is on show, for as long as the guard lives that it was seen under. It stands for no count of its own.
pub(in crate::cache) struct Lent<'g> {
    token: ManuallyDrop<Arc<AccessToken>>,
    under: PhantomData<&'g Guard>,
}

// === impl Shown ===

impl Shown {
    /// Nothing is on show.
    pub(super) fn nothing() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// What is on show now.
    #[inline]
    pub(super) fn see<'g>(&'g self, _: &'g Guard) -> Option<Lent<'g>> {
        let seen = self.0.load(Ordering::Acquire);
        if seen.is_null() {
            return None;
        }
        // SAFETY: what is stored came from `Arc::into_raw`. The count it stands for is given up by `Retired`, after every
        // guard that was alive when it was taken from view, and in `Drop for Shown`, which no borrow of `self` outlives.
        // `ManuallyDrop` keeps this one from being given up here.
        #[expect(
            unsafe_code,
            reason = "a look that counts nothing, and finds the token behind one pointer instead of two"
        )]
        let token = unsafe { Arc::from_raw(seen.cast_const()) };
        Some(Lent {
            token: ManuallyDrop::new(token),
            under: PhantomData,
        })
    }

    /// Shows something else from now on.
    pub(super) fn show(&self, token: Option<Arc<AccessToken>>) -> Retired {
        let new = token.map_or(ptr::null_mut(), |token| Arc::into_raw(token).cast_mut());
        Retired::new(owned(self.0.swap(new, Ordering::AcqRel)))
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        drop(owned(*self.0.get_mut()));
    }
}

/// Takes over the count of a pointer that is on show no more.
fn owned(shown: *mut AccessToken) -> Option<Arc<AccessToken>> {
    // SAFETY: whoever calls this took the pointer out of a `Shown`, where only `Arc::into_raw` puts one, and nobody else can
    // take it out again.
    #[expect(
        unsafe_code,
        reason = "the other half of `Arc::into_raw` in `Shown::show`"
    )]
    (!shown.is_null()).then(|| unsafe { Arc::from_raw(shown.cast_const()) })
}

// === impl Lent ===

impl Deref for Lent<'_> {
    type Target = Arc<AccessToken>;

    #[inline]
    fn deref(&self) -> &Arc<AccessToken> {
        &self.token
    }
}
