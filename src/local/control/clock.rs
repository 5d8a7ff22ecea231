//! The clock that timers and timestamps go by, so that tests of days take milliseconds.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// Tells the time and waits for it.
pub trait Clock: Send + Sync + Debug {
    /// Now.
    fn now(&self) -> SystemTime;

    /// Returns once [`Clock::now`] is at least `at`; at once if it already is.
    fn sleep_until(&self, at: SystemTime) -> BoxFuture<'_, ()>;
}

/// This machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// One sleep takes at most this long, so that a machine that was suspended, or whose clock was set, is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep_until(&self, at: SystemTime) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while let Ok(left) = at.duration_since(SystemTime::now()) {
                if left.is_zero() {
                    break;
                }
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            }
        })
    }
}

/// A clock that stands still until a test moves it.
#[derive(Clone, Debug)]
pub struct ManualClock(watch::Sender<SystemTime>);

impl ManualClock {
    /// A clock that stands at this machine's present time.
    pub fn new() -> Self {
        Self(watch::Sender::new(SystemTime::now()))
    }

    /// Moves the clock forward and wakes who waits for a time that has passed.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.borrow()
    }

    fn sleep_until(&self, at: SystemTime) -> BoxFuture<'_, ()> {
        let mut time = self.0.subscribe();
        Box::pin(async move {
            // the sender lives in `self`, which the future borrows, so this cannot fail
            let _ = time.wait_for(|now| *now >= at).await;
        })
    }
}
