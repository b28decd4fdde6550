//! One thread pool per process and thread count, and a way to run long work in it that can report and be stopped.
//!
//! The global rayon pool is never used: after `fork` its threads do not exist in the child, and a child that waits for
//! them hangs. Pools here are keyed by process id, so a child builds its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

type Key = (u32, usize);
static POOLS: Mutex<Option<HashMap<Key, Arc<ThreadPool>>>> = Mutex::new(None);

/// Number of threads a call uses: the argument, else `RAYON_NUM_THREADS`, else the available parallelism.
///
/// # Errors
/// [`Error::Invalid`] when the argument is zero.
pub fn resolve_num_threads(num_threads: Option<usize>) -> Result<usize> {
    if num_threads == Some(0) {
        return Err(Error::invalid("`num_threads` must be at least 1; got 0"));
    }
    let from_environment = || std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|&n: &usize| n > 0);
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    Ok(num_threads.or_else(from_environment).unwrap_or_else(available))
}

/// The pool of this process with the given number of threads, built on first use.
///
/// # Errors
/// [`Error::Invalid`] when `num_threads` is zero, [`Error::Io`] when threads cannot be started.
pub fn pool(num_threads: Option<usize>) -> Result<Arc<ThreadPool>> {
    let key = (std::process::id(), resolve_num_threads(num_threads)?);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let pools = pools.get_or_insert_with(HashMap::new);
    if let Some(pool) = pools.get(&key) {
        return Ok(Arc::clone(pool));
    }
    // Pools of a parent process have no threads here; forgetting them avoids signalling threads that do not exist.
    let inherited: Vec<Key> = pools.keys().copied().filter(|k| k.0 != key.0).collect();
    for k in inherited {
        std::mem::forget(pools.remove(&k));
    }
    let built = ThreadPoolBuilder::new()
        .num_threads(key.1)
        .thread_name(|i| format!("pdeinfl-{i}"))
        .build()
        .map_err(|e| Error::Io(std::io::Error::other(e)))?;
    let built = Arc::new(built);
    pools.insert(key, Arc::clone(&built));
    Ok(built)
}

/// Shared between the threads that work and the one that waits: units done, and whether to stop.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Record `units` of finished work.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the caller asked to stop: return it at once.
    pub fn advance(&self, units: u64) -> Result<()> {
        self.done.fetch_add(units, Ordering::Relaxed);
        self.check()
    }

    /// Whether to go on, without recording work.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the caller asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Units finished so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// How often the waiting thread looks at the progress and asks the monitor whether to go on.
const POLL: Duration = Duration::from_millis(50);

/// Threads that are all woken at once. One that the first worker wakes while the calling thread is not asleep yet may be
/// put behind either of them, on few processors, and be moved only after milliseconds; on many there is a free one.
const FEW: usize = 8;

/// Run `work` inside the pool while the calling thread polls `monitor` with the units done; `monitor` returning `false`
/// cancels the work, which ends at its next [`Progress::advance`] or [`Progress::check`].
///
/// # Errors
/// Whatever `work` returns, [`Error::Interrupted`] after a cancellation, and the errors of [`pool`].
pub fn run<T: Send>(
    num_threads: Option<usize>,
    monitor: &mut dyn FnMut(u64) -> bool,
    work: impl FnOnce(&Progress) -> Result<T> + Send,
) -> Result<T> {
    let pool = pool(num_threads)?;
    let progress = &Progress::default();
    let mut result = None;
    let (into, (finished, wait)) = (&mut result, mpsc::sync_channel::<()>(1));
    // In place: the calling thread stays outside the pool, and none is started for the call.
    pool.in_place_scope(|scope| {
        scope.spawn(move |_| {
            *into = Some(work(progress));
            let _ = finished.send(());
        });
        if (2..=FEW).contains(&pool.current_num_threads()) {
            pool.spawn_broadcast(|_| {});
        }
        while let Err(mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(POLL) {
            if !monitor(progress.done()) {
                progress.cancelled.store(true, Ordering::Relaxed);
                break;
            }
        }
    });
    let Some(result) = result else { unreachable!("a panic of the work leaves the scope as one") };
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_threads_is_refused() {
        assert!(matches!(resolve_num_threads(Some(0)), Err(Error::Invalid(_))));
    }

    #[test]
    fn pools_are_reused() {
        let (a, b) = (pool(Some(2)).expect("pool"), pool(Some(2)).expect("pool"));
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!(a.current_num_threads(), 2);
    }

    #[test]
    fn monitor_cancels_long_work() {
        let work = |progress: &Progress| -> Result<()> {
            loop {
                std::thread::sleep(Duration::from_millis(5));
                progress.advance(1)?;
            }
        };
        assert!(matches!(run(Some(1), &mut |_| false, work), Err(Error::Interrupted)));
    }

    #[test]
    #[should_panic(expected = "in the pool")]
    fn a_panic_reaches_the_caller() {
        let _ = run(Some(2), &mut |_| true, |_| -> Result<()> { panic!("in the pool") });
    }

    #[test]
    fn result_comes_back() {
        let sum = run(Some(2), &mut |_| true, |p| p.advance(3).map(|()| p.done())).expect("runs");
        assert_eq!(sum, 3);
    }
}
