//! When a failure is tried again, how long to wait before, and when to give up.
//!
//! The failure says whether trying again can help ([`Status`]); whether it may have had an effect decides, together
//! with the idempotency of the request, whether trying again is safe.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, ErrorKind, Result, Status};

/// Bounds of the retries of one operation, by count and by total time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often at most, the first time included. Answers of a rate limiter don't count, since they say when to
    /// come back; the total time bounds them.
    pub attempts: u32,
    /// No attempt begins later than this after the first.
    pub total: Duration,
    /// The shortest wait.
    pub base: Duration,
    /// The longest wait, unless the server asks for more.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    /// 6 attempts within 2 minutes: longer than the minute-long window of Daytona's rate limiters and than the
    /// restart of one of its proxies, shorter than anybody's patience.
    fn default() -> Self {
        Self {
            attempts: 6,
            total: Duration::from_secs(120),
            base: Duration::from_millis(200),
            cap: Duration::from_secs(10),
        }
    }
}

/// Whether a failed attempt may have done something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Surely nothing: it was not sent, or it was refused.
    None,
    /// It may have been carried out.
    Possible,
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) effect: Effect,
}

impl Failure {
    pub(super) fn refused(error: Error) -> Self {
        Self { error, effect: Effect::None }
    }

    pub(super) fn ambiguous(error: Error) -> Self {
        Self { error, effect: Effect::Possible }
    }

    /// Whether waiting some seconds can help. Quota and capacity change in minutes, with what the account's other
    /// sandboxes do, so the provider waits for them.
    fn passes_soon(&self) -> bool {
        self.error.status() == Status::Temporary
            && !matches!(self.error.kind(), ErrorKind::QuotaExceeded | ErrorKind::NoCapacity)
    }
}

/// A small random generator (the algorithm is called splitmix64), so that waits are reproducible in tests; nothing here is a secret.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    #[cfg(test)]
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn from_entropy() -> Self {
        Self(uuid::Uuid::new_v4().as_u64_pair().0)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform between the two, to the microsecond.
    pub(super) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let width = u64::try_from(high.saturating_sub(low).as_micros()).unwrap_or(u64::MAX);
        low + Duration::from_micros(self.next() % width.saturating_add(1))
    }
}

/// Waits with decorrelated jitter: each is random between the base and three times the last, so that clients that
/// failed together don't come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
    cap: Duration,
    last: Duration,
    random: Random,
}

impl Backoff {
    pub(super) fn new(policy: &RetryPolicy, random: Random) -> Self {
        Self { base: policy.base, cap: policy.cap, last: policy.base, random }
    }

    /// The next wait, at least as long as the server asked for; a second of jitter is added to that, since many are
    /// told the same moment.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        self.last = self.random.between(self.base, self.last * 3).min(self.cap);
        match asked {
            Some(asked) => asked + self.random.between(Duration::ZERO, Duration::from_secs(1)),
            None => self.last,
        }
    }
}

/// Runs `attempt` until it succeeds, fails for good, or the bounds are reached. The final error carries attempts and
/// elapsed time, and is [`Status::Persistent`] where more tries might have helped.
pub(super) async fn retry<T, F>(
    policy: &RetryPolicy,
    random: Random,
    idempotent: bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T, Failure>>,
{
    let started = Instant::now();
    let mut backoff = Backoff::new(policy, random);
    let (mut attempts, mut counted) = (0, 0);
    loop {
        let failure = match attempt().await {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        attempts += 1;
        counted += u32::from(failure.error.kind() != ErrorKind::RateLimited);
        if !failure.passes_soon() {
            return Err(failure.error.with_attempts(attempts, started.elapsed()));
        }
        let safe = idempotent || failure.effect == Effect::None;
        let wait = backoff.next(failure.error.retry_after());
        if !safe || counted >= policy.attempts || started.elapsed() + wait > policy.total {
            // one that was not safe to repeat stays temporary: the caller may know better
            let status = if safe { Status::Persistent } else { Status::Temporary };
            return Err(failure.error.with_status(status).with_attempts(attempts, started.elapsed()));
        }
        tracing::debug!("{} (attempt {attempts}, next in {wait:?})", failure.error);
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy::default()
    }

    fn temporary(kind: ErrorKind) -> Error {
        Error::new(kind, "later").temporary()
    }

    async fn run(
        idempotent: bool,
        policy: &RetryPolicy,
        fail: impl Fn(u32) -> Option<Failure>,
    ) -> (Result<u32>, u32) {
        let count = Cell::new(0);
        let result = retry(policy, Random::seeded(7), idempotent, || {
            count.set(count.get() + 1);
            let outcome = fail(count.get()).map_or(Ok(count.get()), Err);
            async move { outcome }
        })
        .await;
        (result, count.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_temporary_failure_is_tried_again_until_it_passes() {
        let fail = |n| (n < 4).then(|| Failure::ambiguous(temporary(ErrorKind::Server)));
        assert_eq!(run(true, &policy(), fail).await.0.unwrap(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_and_the_error_says_how_many_there_were() {
        let (result, count) =
            run(true, &policy(), |_| Some(Failure::ambiguous(temporary(ErrorKind::Server)))).await;
        let error = result.unwrap_err();
        assert_eq!((count, error.attempts(), error.status()), (6, 6, Status::Persistent));
        assert!(error.to_string().contains("after 6 tries"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_happened_is_repeated_only_if_that_is_safe() {
        let (result, count) =
            run(false, &policy(), |_| Some(Failure::ambiguous(temporary(ErrorKind::Transport)))).await;
        assert_eq!((count, result.unwrap_err().status()), (1, Status::Temporary));
        let (result, count) =
            run(false, &policy(), |n| (n < 3).then(|| Failure::refused(temporary(ErrorKind::Transport))))
                .await;
        assert_eq!((count, result.unwrap()), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_failures_and_full_accounts_are_not_tried_again() {
        for error in [Error::new(ErrorKind::NotFound, "no"), temporary(ErrorKind::QuotaExceeded)] {
            let (kind, status) = (error.kind(), error.status());
            let error = Cell::new(Some(error));
            let (result, count) = run(true, &policy(), |_| error.take().map(Failure::refused)).await;
            let error = result.unwrap_err();
            assert_eq!((count, error.kind(), error.status()), (1, kind, status));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_limiter_is_obeyed_beyond_the_count_but_not_beyond_the_total() {
        let limited = |seconds| {
            Failure::refused(temporary(ErrorKind::RateLimited).with_retry_after(Duration::from_secs(seconds)))
        };
        let began = Instant::now();
        let (result, count) = run(false, &policy(), |n| (n <= 9).then(|| limited(10))).await;
        assert_eq!((count, result.unwrap()), (10, 10));
        assert!(began.elapsed() >= Duration::from_secs(90));
        let (result, count) = run(true, &policy(), |_| Some(limited(121))).await;
        assert_eq!((count, result.unwrap_err().status()), (1, Status::Persistent));
    }

    #[test]
    fn waits_are_random_grow_and_stay_below_the_cap() {
        let mut backoff = Backoff::new(&policy(), Random::seeded(1));
        let waits: Vec<_> = (0..200).map(|_| backoff.next(None)).collect();
        assert!(waits.iter().all(|wait| (policy().base..=policy().cap).contains(wait)));
        assert!(waits.iter().any(|wait| *wait == policy().cap));
        let again: Vec<_> = {
            let mut backoff = Backoff::new(&policy(), Random::seeded(1));
            (0..200).map(|_| backoff.next(None)).collect()
        };
        assert_eq!(waits, again);
        let mut other = Backoff::new(&policy(), Random::seeded(2));
        assert_ne!(waits[0], other.next(None));
    }
}
