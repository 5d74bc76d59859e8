//! What the process is told to do from outside: to read its configuration again, and to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Where orders come from.
///
/// # Cancel safety
///
/// Nothing that was told is lost when a call is dropped; orders of one kind that nobody heard become one.
pub(super) trait Orders {
    /// Waits for an order to read the configuration again; false if the order is to end.
    async fn reload(&mut self) -> bool;

    /// Waits for an order to end, and leaves others untouched.
    async fn end(&mut self);
}

/// The signals that the daemon hears: SIGHUP to reload, SIGTERM and SIGINT to end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Reloads as often as it is told, until it is told to end. That is heard during a reload too, which is then given up.
pub(super) async fn until_end(orders: &mut impl Orders, mut reload: impl AsyncFnMut()) {
    while orders.reload().await {
        tokio::select! {
            biased;
            () = orders.end() => return,
            () = reload() => {}
        }
    }
}

// === impl Signals ===

impl Signals {
    /// Hears them from now on.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl Orders for Signals {
    async fn reload(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
            _ = self.hangup.recv() => true,
        }
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use futures_util::{FutureExt, poll};
    use tokio::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Orders as a test gives them; one of each kind waits at most, as with signals.
    struct Told {
        reload: Receiver<()>,
        end: Receiver<()>,
    }

    impl Orders for Told {
        async fn reload(&mut self) -> bool {
            tokio::select! {
                biased;
                _ = self.end.recv() => false,
                _ = self.reload.recv() => true,
            }
        }

        async fn end(&mut self) {
            self.end.recv().await;
        }
    }

    fn told() -> (Sender<()>, Sender<()>, Told) {
        let (reload, reloads) = channel(1);
        let (end, ends) = channel(1);
        let told = Told {
            reload: reloads,
            end: ends,
        };
        (reload, end, told)
    }

    #[tokio::test]
    async fn a_reload_that_hangs_does_not_delay_the_end() {
        let (reload, end, mut told) = told();
        let mut serving = Box::pin(until_end(&mut told, async || pending().await));
        reload.try_send(()).unwrap();
        assert!(poll!(&mut serving).is_pending());
        end.try_send(()).unwrap();
        assert!(poll!(&mut serving).is_ready());
    }

    #[tokio::test]
    async fn an_order_to_reload_that_comes_during_a_reload_is_obeyed_after_it() {
        let (reload, end, mut told) = told();
        let (finish, mut finished) = channel::<()>(1);
        let reloads = Cell::new(0);
        let mut serving = Box::pin(until_end(&mut told, async || {
            finished.recv().await;
            reloads.set(reloads.get() + 1);
        }));
        reload.try_send(()).unwrap();
        assert!(poll!(&mut serving).is_pending());
        reload.try_send(()).unwrap();
        finish.try_send(()).unwrap();
        assert!(poll!(&mut serving).is_pending());
        finish.try_send(()).unwrap();
        assert!(poll!(&mut serving).is_pending());
        assert_eq!(reloads.get(), 2);
        end.try_send(()).unwrap();
        assert!(serving.now_or_never().is_some());
    }
}
