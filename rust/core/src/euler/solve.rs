//! Trajectories of snapshots, in parallel over trajectories and rows.

use rayon::prelude::*;

use super::state::{CHANNELS, Grid};
use super::step::State;
use crate::error::{Error, Result};
use crate::pool::Progress;
use crate::team::{Team, with_team};

/// Largest CFL number that the scheme takes, and the default.
pub const MAX_CFL: f64 = 0.475;

/// Densities and pressures whose products in a Riemann problem are normal numbers.
const RANGE: std::ops::RangeInclusive<f64> = 1e-100..=1e100;

/// Below this many cells, a trajectory is not worth sharing among threads.
const CELLS_WORTH_SHARING: usize = 48 * 48;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Trajectories.
    pub n: usize,
    /// Cells along x of the simulation.
    pub nx: usize,
    /// Cells along y of the simulation.
    pub ny: usize,
    /// Snapshots of each trajectory, the initial state included.
    pub n_snapshots: usize,
    /// Time between snapshots.
    pub interval: f64,
    /// Ratio of specific heats.
    pub gamma: f64,
    /// `Δt · max((|vx| + c)/Δx + (|vy| + c)/Δy)`, the maximum over cells at the beginning of the step. The sum over
    /// axes is what limits an unsplit scheme: below ½, a MUSCL stage keeps density and pressure positive.
    pub cfl: f64,
    /// Snapshots are means over `refinement × refinement` cells.
    pub refinement: usize,
}

impl Setup {
    fn check(&self, primitives: usize, out: usize, steps: usize) -> Result<()> {
        let invalid = |message: String| Err(Error::Invalid(message));
        let Self { n, nx, ny, n_snapshots, interval, gamma, cfl, refinement } = *self;
        if nx == 0 || ny == 0 || n_snapshots == 0 {
            return invalid(format!(
                "a simulation needs cells and snapshots; got {nx} x {ny} cells, {n_snapshots} snapshots"
            ));
        }
        if refinement == 0 || nx % refinement != 0 || ny % refinement != 0 {
            return invalid(format!("`refinement` must divide the {nx} x {ny} cells; got {refinement}"));
        }
        if !(interval > 0.0 && interval.is_finite()) {
            return invalid(format!("`interval` must be positive and finite; got {interval}"));
        }
        if !(gamma > 1.0 && gamma.is_finite()) {
            return invalid(format!("`gamma` must be greater than 1; got {gamma}"));
        }
        if !(cfl > 0.0 && cfl <= MAX_CFL) {
            return invalid(format!("`cfl` must lie in (0, {MAX_CFL}]; got {cfl}"));
        }
        let snapshot = CHANNELS * (nx / refinement) * (ny / refinement);
        let expected = (n * CHANNELS * nx * ny, n * n_snapshots * snapshot, n);
        if (primitives, out, steps) != expected {
            let got = (primitives, out, steps);
            return invalid(format!("buffers must have lengths {expected:?} (primitives, out, steps); got {got:?}"));
        }
        Ok(())
    }
}

/// Element type of the snapshots.
pub trait Snapshot: Copy + Send + Sync {
    /// Rounded to this type.
    fn rounded(value: f64) -> Self;
}

impl Snapshot for f64 {
    fn rounded(value: f64) -> Self {
        value
    }
}

impl Snapshot for f32 {
    fn rounded(value: f64) -> Self {
        value as f32
    }
}

/// Simulate `setup.n` trajectories. `primitives` holds (ρ, vx, vy, p) as `(n, 4, nx, ny)`; conserved snapshots go to
/// `out` as `(n, n_snapshots, 4, nx/r, ny/r)`, time steps taken to `steps`. A unit of progress is one interval.
///
/// # Errors
/// [`Error::Invalid`] when a size or parameter is out of range, an initial state is not positive and finite, or a
/// trajectory stops being so; [`Error::Interrupted`] when `progress` is cancelled.
pub fn solve_into<T: Snapshot>(
    setup: &Setup,
    primitives: &[f64],
    out: &mut [T],
    steps: &mut [u64],
    progress: &Progress,
) -> Result<()> {
    setup.check(primitives.len(), out.len(), steps.len())?;
    if setup.n == 0 {
        return Ok(());
    }
    let threads = rayon::current_num_threads();
    let (initial, trajectory) = (primitives.len() / setup.n, out.len() / setup.n);
    // As many as keep all threads busy go one to a thread; the rest, one after the other, share theirs by rows.
    let shared = if threads > 1 && setup.nx * setup.ny >= CELLS_WORTH_SHARING { setup.n % threads } else { 0 };
    let whole = setup.n - shared;
    let (out_whole, out_shared) = out.split_at_mut(whole * trajectory);
    let (steps_whole, steps_shared) = steps.split_at_mut(whole);
    primitives[..whole * initial]
        .par_chunks_exact(initial)
        .zip(out_whole.par_chunks_exact_mut(trajectory))
        .zip(steps_whole)
        .enumerate()
        .with_max_len(1)
        .try_for_each(|(k, ((w, out), steps))| -> Result<()> {
            *steps = solve_one(&mut Team::alone(), setup, k, w, out, setup.nx, progress)?;
            Ok(())
        })?;
    let rows = setup.nx.div_ceil(2 * threads).max(8);
    let team_size = if shared > 0 { threads.min(setup.nx.div_ceil(rows)) } else { 1 };
    with_team(team_size, |team| {
        for k in 0..shared {
            let w = &primitives[(whole + k) * initial..][..initial];
            let out = &mut out_shared[k * trajectory..][..trajectory];
            steps_shared[k] = solve_one(team, setup, whole + k, w, out, rows, progress)?;
        }
        Ok(())
    })
}

fn solve_one<T: Snapshot>(
    team: &mut Team,
    setup: &Setup,
    index: usize,
    primitives: &[f64],
    out: &mut [T],
    rows: usize,
    progress: &Progress,
) -> Result<u64> {
    let grid = Grid { nx: setup.nx, ny: setup.ny, gamma: setup.gamma };
    let mut state = State::new(grid, primitives, rows);
    let (density, pressure) = (&primitives[..grid.cells()], &primitives[3 * grid.cells()..]);
    let in_range = density.iter().chain(pressure).all(|value| RANGE.contains(value));
    if !in_range || !state.signal_rate().is_finite() {
        return Err(Error::invalid(format!(
            "initial state {index} must have finite values, and positive density and pressure (from {:e} to {:e}), in \
             every cell",
            RANGE.start(),
            RANGE.end(),
        )));
    }
    let mut steps = 0;
    let snapshots = out.chunks_exact_mut(out.len() / setup.n_snapshots);
    for (k, snapshot) in snapshots.enumerate() {
        if k > 0 {
            let mut elapsed = 0.0;
            while elapsed < setup.interval {
                progress.check()?;
                let (dt, last) = next_step(setup.interval - elapsed, setup.cfl / state.signal_rate());
                // First order is positive under the same CFL condition; it is for steps that second order cannot take.
                if !state.try_step(team, dt, 1.0) && !state.try_step(team, dt, 0.0) {
                    let time = (k - 1) as f64 * setup.interval + elapsed;
                    return Err(Error::invalid(format!(
                        "trajectory {index} has density or pressure that is not positive and finite after time {time:.6} \
                         ({steps} steps): lower `cfl` or check its initial state"
                    )));
                }
                steps += 1;
                elapsed = if last { setup.interval } else { elapsed + dt };
            }
            progress.advance(1)?;
        }
        average_into(&state, &grid, setup.refinement, snapshot);
    }
    Ok(steps)
}

/// Step to take when `remaining` is left until the snapshot and `allowed` is stable, and whether it ends there; the
/// last two steps are equal, so that none is tiny.
fn next_step(remaining: f64, allowed: f64) -> (f64, bool) {
    if allowed >= remaining {
        (remaining, true)
    } else if 2.0 * allowed > remaining {
        (0.5 * remaining, false)
    } else {
        (allowed, false)
    }
}

/// Conserved means over blocks of `r × r` cells, as planes `(4, nx/r, ny/r)`.
fn average_into<T: Snapshot>(state: &State, grid: &Grid, r: usize, out: &mut [T]) {
    let (coarse_x, coarse_y) = (grid.nx / r, grid.ny / r);
    let share = 1.0 / (r * r) as f64;
    for c in 0..CHANNELS {
        for i in 0..coarse_x {
            for j in 0..coarse_y {
                let mut sum = 0.0;
                for fine in i * r..(i + 1) * r {
                    let start = fine * grid.conserved_row() + c * grid.ny + j * r;
                    sum += state.conserved()[start..start + r].iter().sum::<f64>();
                }
                out[(c * coarse_x + i) * coarse_y + j] = T::rounded(sum * share);
            }
        }
    }
}
