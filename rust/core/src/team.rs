//! Threads that stay awake for a run of short parallel rounds.
//!
//! A thread of a pool that finds nothing to do falls asleep, and the system may wake it on the processor of the thread
//! that called it and move it away only after milliseconds, by when a short round is over. The threads of a [`Team`]
//! look for work until the run of rounds ends, so that they are spread once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Part<'a> = &'a (dyn Fn(usize) + Sync);

/// Calls the parts of one round after the other, on the calling thread and on those that help; see [`with_team`].
///
/// Helpers are not waited for, only parts that one of them has begun are: a round ends whatever else the threads of the
/// pool have to do. Between parts a helper does other work of the pool that is waiting.
pub struct Team(Arc<Rounds>);

#[derive(Default)]
struct Rounds {
    part: Mutex<Option<Part<'static>>>,
    unclaimed: AtomicUsize,
    unfinished: AtomicUsize,
    panicked: AtomicBool,
    helpers: AtomicUsize,
    dismissed: AtomicBool,
}

impl Team {
    /// The calling thread, without help.
    pub fn alone() -> Self {
        Self(Arc::default())
    }

    /// One round: call `part` once with each of `0..n`, in no particular order.
    ///
    /// # Panics
    /// When a part does, after all parts that were begun have ended.
    #[allow(unsafe_code)]
    pub fn run(&mut self, n: usize, part: impl Fn(usize) + Sync) {
        let rounds = &*self.0;
        // SAFETY: only the lifetime changes. A part is called only between its claim and its end, and `Round` does not
        // let this function return or unwind before no part is unclaimed and none unfinished.
        let part = unsafe { std::mem::transmute::<Part<'_>, Part<'static>>(&part) };
        *rounds.part.lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
        rounds.panicked.store(false, Ordering::Relaxed);
        rounds.unfinished.store(n, Ordering::Relaxed);
        rounds.unclaimed.store(n, Ordering::Release);
        let round = Round(rounds);
        while rounds.call_one() {}
        drop(round);
        assert!(!rounds.panicked.load(Ordering::Relaxed), "a part of a parallel round panicked");
    }
}

impl Rounds {
    /// Claim a part and call it; false if there was none to claim.
    fn call_one(&self) -> bool {
        let claim = self.unclaimed.fetch_update(Ordering::Acquire, Ordering::Relaxed, |left| left.checked_sub(1));
        let Ok(left) = claim else { return false };
        let _begun = Begun(self);
        let part = *self.part.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = part {
            part(left - 1);
        }
        true
    }

    /// Help until dismissed, unless `limit` others do already.
    fn help(&self, limit: usize) {
        if self.dismissed.load(Ordering::Relaxed) || self.helpers.fetch_add(1, Ordering::Relaxed) >= limit {
            return;
        }
        while !self.dismissed.load(Ordering::Relaxed) {
            if !self.call_one() && rayon::yield_now() != Some(rayon::Yield::Executed) {
                std::thread::yield_now();
            }
        }
    }
}

/// A round; when dropped, it takes back the parts that nobody claimed and waits for those that were begun.
struct Round<'a>(&'a Rounds);

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let unclaimed = self.0.unclaimed.swap(0, Ordering::Relaxed);
        self.0.unfinished.fetch_sub(unclaimed, Ordering::Relaxed);
        while self.0.unfinished.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        *self.0.part.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A part that was begun; when dropped, also by a panic, it has ended.
struct Begun<'a>(&'a Rounds);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.store(true, Ordering::Relaxed);
        }
        self.0.unfinished.fetch_sub(1, Ordering::Release);
    }
}

/// The run of rounds; when dropped, helpers go.
struct Run<'a>(&'a Rounds);

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.0.dismissed.store(true, Ordering::Relaxed);
    }
}

/// Call `work` with a team of at most `size` threads of this rayon pool, or, outside a pool, with one of the calling
/// thread alone.
///
/// Neither `work` nor a part may wait for rayon, nor call this again: a thread that waits may begin to help, and come
/// back only when the team that it helps is done. While every `work` goes on by itself, all of them end.
pub fn with_team<T>(size: usize, work: impl FnOnce(&mut Team) -> T) -> T {
    let mut team = Team::alone();
    let limit = size.saturating_sub(1);
    if limit == 0 || rayon::current_thread_index().is_none() {
        return work(&mut team);
    }
    rayon::in_place_scope(|scope| {
        let rounds = Arc::clone(&team.0);
        scope.spawn_broadcast(move |_, _| rounds.help(limit));
        let rounds = Arc::clone(&team.0);
        let _run = Run(&rounds);
        work(&mut team)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use rayon::prelude::*;

    use super::*;
    use crate::pool;

    /// Rounds of various lengths on borrowed data that changes from round to round.
    fn rounds(team: &mut Team) {
        for round in 0..200_u64 {
            let counts: Vec<AtomicU64> = (0..round as usize % 17).map(|_| AtomicU64::new(0)).collect();
            team.run(counts.len(), |k| {
                counts[k].fetch_add(round + k as u64, Ordering::Relaxed);
            });
            for (k, count) in counts.iter().enumerate() {
                assert_eq!(count.load(Ordering::Relaxed), round + k as u64);
            }
        }
    }

    #[test]
    fn each_part_is_called_once_with_teams_beside_each_other() {
        rounds(&mut Team::alone());
        with_team(3, rounds);
        let pool = pool::pool(Some(3)).expect("pool");
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for size in 0..20 {
                        pool.install(|| with_team(size % 5, rounds));
                        // What others do meanwhile may be done by helpers.
                        let sum: u32 = pool.install(|| (0..1000_u32).into_par_iter().sum());
                        assert_eq!(sum, 499_500);
                    }
                });
            }
        });
    }

    #[test]
    fn parts_run_at_the_same_time() {
        let pool = pool::pool(Some(2)).expect("pool");
        let begun = AtomicU64::new(0);
        pool.install(|| {
            with_team(2, |team| {
                team.run(2, |_| {
                    begun.fetch_add(1, Ordering::Relaxed);
                    while begun.load(Ordering::Relaxed) < 2 {
                        std::thread::yield_now();
                    }
                });
            });
        });
    }

    #[test]
    fn a_panic_comes_through_and_the_pool_goes_on() {
        let pool = pool::pool(Some(2)).expect("pool");
        for bad in 0..4 {
            let call = || pool.install(|| with_team(2, |team| team.run(4, |k| assert!(k != bad, "on purpose"))));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err());
        }
        pool.install(|| with_team(3, rounds));
    }
}
