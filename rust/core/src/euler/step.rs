//! One Runge–Kutta stage over the grid, and one time step.

use std::sync::{Mutex, PoisonError};

use super::limiter::reconstruct;
use super::riemann::fluxes;
use super::state::{
    Block, CHANNELS, GHOST, Grid, LANES, TILE, conserved_of, fill_ghosts, greater, primitive_of, primitives_into,
    signal_rate,
};
use crate::team::Team;

/// What one stage does: `u₁ ← u + Δt L(w)` first, `u₁ ← ½(u + u₁ + Δt L(w))` second.
#[derive(Clone, Copy)]
struct Stage {
    dt: f64,
    second: bool,
    slope: f64,
}

/// A band of whole rows that one task updates: conserved `base` and `out`, primitive `w_out`.
struct Band<'a> {
    first_row: usize,
    base: &'a [f64],
    out: &'a mut [f64],
    w_out: &'a mut [f64],
}

/// Update a band from the primitives `w` of the whole grid; returns the largest signal rate of the new state.
#[inline(always)]
fn advance_band(w: &[f64], band: Band<'_>, grid: &Grid, stage: Stage) -> f64 {
    let (ny, stride) = (grid.ny, grid.stride());
    let (row, w_row) = (grid.conserved_row(), grid.primitive_row());
    let n_rows = band.base.len() / row;
    let (kx, ky) = (stage.dt * grid.nx as f64, stage.dt * ny as f64);
    let mut fastest = [0.0; 8];
    let (mut lower_x, mut lower_y, mut upper_y) = (Block::new(), Block::new(), Block::new());
    let (upper_x, flux_x) = (&mut [Block::new(), Block::new()], &mut [Block::new(), Block::new()]);
    let (mut flux_y, mut new) = (Block::new(), Block::new());
    // Rolling along x: the upper face states of this row and the next, the fluxes below and above this row.
    let [mut upper, mut next_upper] = upper_x.each_mut();
    let [mut below, mut above] = flux_x.each_mut();
    for start in (0..ny).step_by(TILE) {
        let n = TILE.min(ny - start);
        // Cells, and cells with two more, up to whole vectors; what is computed beyond is not used.
        let (wide, wider) = (n.next_multiple_of(LANES), (n + 2).next_multiple_of(LANES));
        // Rows relative to the band; −1 and n_rows wrap around the grid.
        let primitive = |i: isize| {
            let i = (band.first_row as isize + i).rem_euclid(grid.nx as isize) as usize;
            &w[i * w_row + start..(i + 1) * w_row]
        };
        let along_x = |i: isize| [i - 1, i, i + 1].map(|k| &primitive(k)[GHOST..]);
        reconstruct(along_x(-1), (stride, wide), stage.slope, &mut lower_x, next_upper);
        for i in -1..n_rows as isize {
            std::mem::swap(&mut upper, &mut next_upper);
            std::mem::swap(&mut below, &mut above);
            reconstruct(along_x(i + 1), (stride, wide), stage.slope, &mut lower_x, next_upper);
            fluxes::<1>(upper, &lower_x, (0, wide), grid.gamma, above);
            let Ok(row_index) = usize::try_from(i) else { continue };

            let here = primitive(i);
            let along_y = [here, &here[1..], &here[2..]];
            reconstruct(along_y, (stride, wider), stage.slope, &mut lower_y, &mut upper_y);
            fluxes::<2>(&upper_y, &lower_y, (1, wider), grid.gamma, &mut flux_y);

            for c in 0..CHANNELS {
                let at = row_index * row + c * ny + start;
                let (base, out) = (&band.base[at..at + n], &mut band.out[at..at + n]);
                let new = &mut new.0[c][..n];
                let (below, above, along) = (&below.0[c][..n], &above.0[c][..n], &flux_y.0[c][..=n]);
                for j in 0..n {
                    let change = kx * (below[j] - above[j]) + ky * (along[j] - along[j + 1]);
                    new[j] = if stage.second { 0.5 * (base[j] + (out[j] + change)) } else { base[j] + change };
                }
                out.copy_from_slice(new);
            }
            let mut rates = [0.0; TILE];
            let [rho, vx, vy, p] = new.first_mut(wide);
            let padded = &mut rates[..wide];
            for j in 0..wide {
                let cell = primitive_of([rho[j], vx[j], vy[j], p[j]], grid.gamma);
                padded[j] = signal_rate(cell, grid);
                [rho[j], vx[j], vy[j], p[j]] = cell;
            }
            rates[n..].fill(0.0);
            for (c, channel) in new.0.iter().enumerate() {
                let at = row_index * w_row + c * stride + GHOST + start;
                band.w_out[at..at + n].copy_from_slice(&channel[..n]);
            }
            for eight in rates.chunks_exact(8) {
                for (largest, &rate) in fastest.iter_mut().zip(eight) {
                    *largest = greater(rate, *largest);
                }
            }
        }
    }
    fill_ghosts(band.w_out, grid);
    fastest.into_iter().fold(0.0, greater)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn advance_band_avx2(w: &[f64], band: Band<'_>, grid: &Grid, stage: Stage) -> f64 {
    advance_band(w, band, grid, stage)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn advance_band_avx512(w: &[f64], band: Band<'_>, grid: &Grid, stage: Stage) -> f64 {
    advance_band(w, band, grid, stage)
}

/// [`advance_band`] compiled for the widest vectors of this machine: same operations, same bits.
#[allow(unsafe_code)]
fn dispatch(w: &[f64], band: Band<'_>, grid: &Grid, stage: Stage) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512dq") && has!("avx512vl") {
            // SAFETY: the features that the callee is compiled for have just been detected.
            return unsafe { advance_band_avx512(w, band, grid, stage) };
        }
        if has!("avx2") {
            // SAFETY: as above.
            return unsafe { advance_band_avx2(w, band, grid, stage) };
        }
    }
    advance_band(w, band, grid, stage)
}

/// Gas on a grid at one time.
pub struct State {
    grid: Grid,
    conserved: Vec<f64>,
    stage: Vec<f64>,
    primitive: Vec<f64>,
    stage_primitive: Vec<f64>,
    rate: f64,
    rows_per_task: usize,
}

impl State {
    /// From primitives (ρ, vx, vy, p) as planes `(4, nx, ny)`; each step is cut into tasks of `rows_per_task` rows.
    pub fn new(grid: Grid, planes: &[f64], rows_per_task: usize) -> Self {
        let (nx, ny, cells) = (grid.nx, grid.ny, grid.cells());
        let mut conserved = vec![0.0; CHANNELS * cells];
        for (i, row) in conserved.chunks_exact_mut(grid.conserved_row()).enumerate() {
            for j in 0..ny {
                let cell = std::array::from_fn(|c| planes[c * cells + i * ny + j]);
                for (c, value) in conserved_of(cell, grid.gamma).into_iter().enumerate() {
                    row[c * ny + j] = value;
                }
            }
        }
        let mut primitive = vec![0.0; nx * grid.primitive_row()];
        let rate = primitives_into(&conserved, &mut primitive, &grid);
        let (stage, stage_primitive) = (conserved.clone(), primitive.clone());
        Self { grid, conserved, stage, primitive, stage_primitive, rate, rows_per_task: rows_per_task.clamp(1, nx) }
    }

    /// Largest `(|vx| + c)/Δx + (|vy| + c)/Δy` over the cells; infinite if some cell is not positive and finite.
    pub fn signal_rate(&self) -> f64 {
        self.rate
    }

    /// Conserved variables by row: `(nx, 4, ny)`.
    pub fn conserved(&self) -> &[f64] {
        &self.conserved
    }

    /// Advance by `dt`; false, with the state as it was, if a cell loses positivity or finiteness.
    ///
    /// `slope` is 1 for the second-order scheme and 0 for the first-order one.
    pub fn try_step(&mut self, team: &mut Team, dt: f64, slope: f64) -> bool {
        let (grid, rows) = (self.grid, self.rows_per_task);
        let first = Stage { dt, second: false, slope };
        let bands = cut(&self.conserved, &mut self.stage, &mut self.stage_primitive, &grid, rows);
        if !run_stage(team, &self.primitive, bands, &grid, first).is_finite() {
            return false;
        }
        let second = Stage { dt, second: true, slope };
        let bands = cut(&self.conserved, &mut self.stage, &mut self.primitive, &grid, rows);
        let rate = run_stage(team, &self.stage_primitive, bands, &grid, second);
        if !rate.is_finite() {
            self.rate = primitives_into(&self.conserved, &mut self.primitive, &self.grid);
            return false;
        }
        std::mem::swap(&mut self.conserved, &mut self.stage);
        self.rate = rate;
        true
    }
}

/// Bands of `rows` rows.
fn cut<'a>(base: &'a [f64], out: &'a mut [f64], w_out: &'a mut [f64], grid: &Grid, rows: usize) -> Vec<Band<'a>> {
    let (row, w_row) = (rows * grid.conserved_row(), rows * grid.primitive_row());
    let bands = base.chunks(row).zip(out.chunks_mut(row)).zip(w_out.chunks_mut(w_row)).enumerate();
    bands.map(|(k, ((base, out), w_out))| Band { first_row: k * rows, base, out, w_out }).collect()
}

/// Update all bands from the primitives `w` of the whole grid; returns the largest signal rate of the new state.
fn run_stage(team: &mut Team, w: &[f64], bands: Vec<Band<'_>>, grid: &Grid, stage: Stage) -> f64 {
    let slots: Vec<_> = bands.into_iter().map(|band| Mutex::new((Some(band), 0.0))).collect();
    team.run(slots.len(), |k| {
        let mut slot = slots[k].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(band) = slot.0.take() {
            slot.1 = dispatch(w, band, grid, stage);
        }
    });
    slots.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner).1).fold(0.0, greater)
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use std::arch::is_x86_feature_detected;

    use super::*;

    type Kernel<'a> = &'a dyn Fn(&[f64], Band<'_>, &Grid, Stage) -> f64;

    #[test]
    #[allow(unsafe_code)]
    fn vector_widths_agree_bitwise() {
        let grid = Grid { nx: 5, ny: TILE + 13, gamma: 1.4 };
        let planes: Vec<f64> = (0..CHANNELS * grid.cells())
            .map(|k| {
                let wiggle = 0.9 * (k as f64 * 0.7).sin();
                if [0, 3].contains(&(k / grid.cells())) { 1.0 + wiggle } else { wiggle }
            })
            .collect();
        let state = State::new(grid, &planes, 5);
        let run = |kernel: Kernel| {
            let (mut out, mut w_out) = (state.conserved.clone(), state.primitive.clone());
            let band = Band { first_row: 0, base: &state.conserved, out: &mut out, w_out: &mut w_out };
            let stage = Stage { dt: 0.4 / state.rate, second: true, slope: 1.0 };
            let rate = kernel(&state.primitive, band, &grid, stage);
            (rate, out, w_out)
        };
        let plain = run(&advance_band);
        assert!(plain.0.is_finite() && plain.1 != state.conserved);
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature has just been detected.
            assert!(plain == run(&|w, band, grid, stage| unsafe { advance_band_avx2(w, band, grid, stage) }));
        }
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the features have just been detected.
            assert!(plain == run(&|w, band, grid, stage| unsafe { advance_band_avx512(w, band, grid, stage) }));
        }
        assert!(plain == run(&dispatch));
    }
}
