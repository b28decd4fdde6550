//! Grid, storage layout and equation of state.
//!
//! Fields are structures of arrays by row: row `i` (an x index) holds its four channels one after the other, each
//! contiguous in y. Conserved rows have `ny` columns; primitive rows carry [`GHOST`] periodic columns on either side, and
//! then unused ones, so that loops may run to the next multiple of [`LANES`].

/// Channels: density, two velocities or momenta, pressure or total energy.
pub const CHANNELS: usize = 4;
/// Ghost columns on either side of a primitive row: a face needs two cells on each side.
pub const GHOST: usize = 2;
/// Columns that a tile works on at once.
pub const TILE: usize = 128;
/// Loops over columns run to a multiple of this, the widest vector: one cell on its own takes as long as eight.
pub const LANES: usize = 8;
/// Columns of a [`Block`].
const WIDTH: usize = TILE + 2 * LANES;

/// Scratch for one row of a tile: four channels over up to [`TILE`] cells, one more face, ghosts and unused columns.
#[derive(Clone)]
#[repr(align(64))]
pub struct Block(pub [[f64; WIDTH]; CHANNELS]);

impl Block {
    /// All zeros.
    pub fn new() -> Self {
        Self([[0.0; WIDTH]; CHANNELS])
    }

    /// `n` columns from `start`. Loops go over such slices: with an array, each index would be checked.
    #[inline(always)]
    pub fn columns(&self, start: usize, n: usize) -> [&[f64]; CHANNELS] {
        let [a, b, c, d] = &self.0;
        [&a[start..start + n], &b[start..start + n], &c[start..start + n], &d[start..start + n]]
    }

    /// The first `n` columns.
    #[inline(always)]
    pub fn first_mut(&mut self, n: usize) -> [&mut [f64]; CHANNELS] {
        let [a, b, c, d] = &mut self.0;
        [&mut a[..n], &mut b[..n], &mut c[..n], &mut d[..n]]
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::new()
    }
}

/// Cells of the unit square and the gas in it.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Cells along x (rows).
    pub nx: usize,
    /// Cells along y (columns).
    pub ny: usize,
    /// Ratio of specific heats.
    pub gamma: f64,
}

impl Grid {
    /// Length of a conserved row, all channels.
    pub fn conserved_row(&self) -> usize {
        CHANNELS * self.ny
    }

    /// Length of one channel of a primitive row, with ghosts and unused columns.
    pub fn stride(&self) -> usize {
        (self.ny + 2 * GHOST).next_multiple_of(LANES) + LANES
    }

    /// Length of a primitive row, all channels.
    pub fn primitive_row(&self) -> usize {
        CHANNELS * self.stride()
    }

    /// Cells in all.
    pub fn cells(&self) -> usize {
        self.nx * self.ny
    }
}

/// Total energy of a primitive state, whichever velocity comes first.
#[inline(always)]
pub fn energy_of([rho, u, v, p]: [f64; CHANNELS], gamma: f64) -> f64 {
    let heat = 1.0 / (gamma - 1.0);
    p * heat + 0.5 * rho * (u * u + v * v)
}

/// Conserved (ρ, ρvx, ρvy, E) of primitive (ρ, vx, vy, p).
#[inline(always)]
pub fn conserved_of(w: [f64; CHANNELS], gamma: f64) -> [f64; CHANNELS] {
    let [rho, vx, vy, _] = w;
    [rho, rho * vx, rho * vy, energy_of(w, gamma)]
}

/// Primitive (ρ, vx, vy, p) of conserved (ρ, ρvx, ρvy, E).
#[inline(always)]
pub fn primitive_of(u: [f64; CHANNELS], gamma: f64) -> [f64; CHANNELS] {
    let [rho, mx, my, energy] = u;
    let volume = 1.0 / rho;
    let (vx, vy) = (mx * volume, my * volume);
    [rho, vx, vy, (gamma - 1.0) * (energy - 0.5 * (mx * vx + my * vy))]
}

/// `(|vx| + c)/Δx + (|vy| + c)/Δy` of a primitive state; infinite where the state is not positive and finite.
#[inline(always)]
pub fn signal_rate(w: [f64; CHANNELS], grid: &Grid) -> f64 {
    let [rho, vx, vy, p] = w;
    // As in `primitive_of`, so that a loop which calls both divides once.
    let volume = 1.0 / rho;
    let sound = (grid.gamma * p * volume).sqrt();
    let rate = (vx.abs() + sound) * grid.nx as f64 + (vy.abs() + sound) * grid.ny as f64;
    let fine = (rho > 0.0) & (p > 0.0) & (rate < f64::INFINITY);
    if fine { rate } else { f64::INFINITY }
}

/// The smaller, `b` when they do not compare: one instruction, where `f64::min` needs three.
#[inline(always)]
pub fn lesser(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// The larger, `b` when they do not compare.
#[inline(always)]
pub fn greater(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// Copy the periodic ghost columns of primitive rows.
pub fn fill_ghosts(rows: &mut [f64], grid: &Grid) {
    let ny = grid.ny;
    for channel in rows.chunks_exact_mut(grid.stride()) {
        for g in 0..GHOST {
            channel[GHOST + ny + g] = channel[GHOST + g % ny];
            // For ny = 1 both ghosts are the one cell.
            channel[g] = channel[GHOST + (ny * GHOST + g - GHOST) % ny];
        }
    }
}

/// Primitive rows, ghosts included, of conserved rows; returns the largest [`signal_rate`].
pub fn primitives_into(conserved: &[f64], primitive: &mut [f64], grid: &Grid) -> f64 {
    let (ny, stride) = (grid.ny, grid.stride());
    let mut fastest = 0.0;
    let rows = conserved.chunks_exact(grid.conserved_row()).zip(primitive.chunks_exact_mut(grid.primitive_row()));
    for (u, w) in rows {
        for j in 0..ny {
            let cell = primitive_of(std::array::from_fn(|c| u[c * ny + j]), grid.gamma);
            for (c, value) in cell.into_iter().enumerate() {
                w[c * stride + GHOST + j] = value;
            }
            fastest = greater(signal_rate(cell, grid), fastest);
        }
    }
    fill_ghosts(primitive, grid);
    fastest
}
