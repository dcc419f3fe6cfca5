//! A handle on an operation under way: to be waited on, or awaited under any executor.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// An operation under way. Dropping it does not end the operation; nobody hears how it ended.
#[must_use = "the outcome is only known to who waits"]
pub struct Pending<T, E> {
    slot: Arc<Slot<Result<T, E>>>,
}

/// Sets the outcome.
pub(crate) struct Completion<R>(Arc<Slot<R>>);

struct Slot<R> {
    state: Mutex<State<R>>,
    done: Condvar,
}

struct State<R> {
    outcome: Option<R>,
    waker: Option<Waker>,
}

/// Both ends of an operation.
pub(crate) fn completion<T, E>() -> (Completion<Result<T, E>>, Pending<T, E>) {
    let slot = Arc::new(Slot::new(None));
    (Completion(slot.clone()), Pending { slot })
}

impl<R> Completion<R> {
    pub(crate) fn complete(self, outcome: R) {
        let mut state = self.0.state.lock();
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        self.0.done.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<R> Slot<R> {
    fn new(outcome: Option<R>) -> Self {
        Self { state: Mutex::new(State { outcome, waker: None }), done: Condvar::new() }
    }
}

impl<T, E> Pending<T, E> {
    pub(crate) fn ready(outcome: Result<T, E>) -> Self {
        Self { slot: Arc::new(Slot::new(Some(outcome))) }
    }

    /// Blocks this thread until the operation is over.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn wait(self) -> Result<T, E> {
        let mut state = self.slot.state.lock();
        loop {
            if let Some(outcome) = state.outcome.take() {
                return outcome;
            }
            self.slot.done.wait(&mut state);
        }
    }

    /// Blocks this thread until the operation is over or the time is up; then the handle comes
    /// back, and the operation goes on.
    ///
    /// # Errors
    /// `Err` is the handle: not over yet.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<T, E>, Self> {
        // Without a moment that a clock can tell there is no end to the wait.
        let until = Instant::now().checked_add(timeout);
        let mut state = self.slot.state.lock();
        loop {
            if let Some(outcome) = state.outcome.take() {
                return Ok(outcome);
            }
            let is_late = match until {
                Some(until) => self.slot.done.wait_until(&mut state, until).timed_out(),
                None => {
                    self.slot.done.wait(&mut state);
                    false
                }
            };
            if is_late && state.outcome.is_none() {
                drop(state);
                return Err(self);
            }
        }
    }
}

impl<T, E> Future for Pending<T, E> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.state.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
