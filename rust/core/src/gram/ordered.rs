//! Adds the partial tiles of concurrent workers in the order of their units, with a bounded number of them alive.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::Result;

/// A claim on one unit: its index and a zeroed partial tile.
pub(super) struct Claim {
    pub(super) unit: usize,
    pub(super) partial: Vec<f64>,
}

struct State<F> {
    claimed: usize,
    folded: usize,
    waiting: BTreeMap<usize, Vec<f64>>,
    spare: Vec<Vec<f64>>,
    allowed: usize,
    failed: bool,
    fold: F,
}

/// Hands out units in order and folds their results in the same order.
///
/// The lowest unfinished unit always holds a buffer, so a worker that waits for one is waiting for a worker that runs.
pub(super) struct Ordered<F> {
    n_units: usize,
    length: usize,
    state: Mutex<State<F>>,
    freed: Condvar,
}

impl<F: FnMut(usize, &[f64])> Ordered<F> {
    /// `fold(unit, partial)` is called once per unit, in order; partial tiles have `length` elements and at most
    /// `buffers` of them exist.
    pub(super) fn new(n_units: usize, length: usize, buffers: usize, fold: F) -> Self {
        let state = State {
            claimed: 0,
            folded: 0,
            waiting: BTreeMap::new(),
            spare: Vec::new(),
            allowed: buffers.max(1),
            failed: false,
            fold,
        };
        Self { n_units, length, state: Mutex::new(state), freed: Condvar::new() }
    }

    /// Work on units until there are none: run by every thread of the pool at once. Ends early, quietly, when another
    /// worker failed.
    pub(super) fn work(&self, mut unit: impl FnMut(usize, &mut [f64]) -> Result<()>) -> Result<()> {
        let mut abandon = Abandon { ordered: self, armed: true };
        while let Some(mut claim) = self.claim() {
            unit(claim.unit, &mut claim.partial)?;
            self.hand_in(claim);
        }
        abandon.armed = false;
        Ok(())
    }

    fn claim(&self) -> Option<Claim> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.failed || state.claimed == self.n_units {
                return None;
            }
            let buffer = state.spare.pop().or_else(|| {
                state.allowed = state.allowed.checked_sub(1)?;
                Some(Vec::new())
            });
            if let Some(mut partial) = buffer {
                let unit = state.claimed;
                state.claimed += 1;
                drop(state);
                partial.clear();
                partial.resize(self.length, 0.0);
                return Some(Claim { unit, partial });
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn hand_in(&self, claim: Claim) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.insert(claim.unit, claim.partial);
        loop {
            let next = state.folded;
            let Some(partial) = state.waiting.remove(&next) else { break };
            (state.fold)(next, &partial);
            state.folded += 1;
            state.spare.push(partial);
        }
        drop(state);
        self.freed.notify_all();
    }
}

/// Tells the others to stop when a worker ends by an error or a panic.
struct Abandon<'a, F> {
    ordered: &'a Ordered<F>,
    armed: bool,
}

impl<F> Drop for Abandon<'_, F> {
    fn drop(&mut self) {
        if self.armed {
            self.ordered.state.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
            self.ordered.freed.notify_all();
        }
    }
}
