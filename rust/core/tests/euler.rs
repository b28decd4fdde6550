//! The Euler solver: flux properties, symmetries of whole runs, reproducibility and refusals.

use pdeinfl_core::error::Error;
use pdeinfl_core::euler::limiter::{half_slope, reconstruct};
use pdeinfl_core::euler::riemann::hllc;
use pdeinfl_core::euler::state::{Block, CHANNELS, Grid, TILE, conserved_of, primitive_of};
use pdeinfl_core::euler::step::State;
use pdeinfl_core::euler::{MAX_CFL, Setup, solve_into};
use pdeinfl_core::pool::{self, Progress};
use pdeinfl_core::team::Team;
use proptest::prelude::*;

const GAMMA: f64 = 1.4;

type Cell = [f64; CHANNELS];

fn gas() -> impl Strategy<Value = Cell> {
    (1e-3..10.0, -10.0..10.0, -10.0..10.0, 1e-3..10.0).prop_map(|(rho, u, v, p)| [rho, u, v, p])
}

fn exact_flux(w: Cell) -> Cell {
    let [rho, u, v, p] = w;
    let energy = conserved_of(w, GAMMA)[3];
    [rho * u, rho * u * u + p, rho * u * v, u * (energy + p)]
}

/// A size that bounds the terms of a flux between two states.
fn scale(a: Cell, b: Cell) -> f64 {
    let one = |w: Cell| {
        let speed = w[1].abs() + w[2].abs() + (GAMMA * w[3] / w[0]).sqrt();
        (w[0] + conserved_of(w, GAMMA)[3] + w[3]) * (1.0 + speed) * (1.0 + speed)
    };
    one(a) + one(b)
}

proptest! {
    #[test]
    fn hllc_is_consistent(w in gas()) {
        let (got, want) = (hllc(w, w, GAMMA), exact_flux(w));
        for c in 0..CHANNELS {
            prop_assert!((got[c] - want[c]).abs() <= 32.0 * f64::EPSILON * scale(w, w), "{got:?} {want:?}");
        }
    }

    #[test]
    fn hllc_is_upwind_when_supersonic(l in gas(), r in gas()) {
        let fast = |w: Cell| [w[0], w[1] + 200.0, w[2], w[3]];
        let slow_enough = |w: Cell| (GAMMA * w[3] / w[0]).sqrt() < 90.0;
        prop_assume!(slow_enough(l) && slow_enough(r));
        prop_assert_eq!(hllc(fast(l), fast(r), GAMMA), exact_flux(fast(l)));
    }

    #[test]
    fn hllc_mirrors(l in gas(), r in gas()) {
        let mirror = |w: Cell| [w[0], -w[1], w[2], w[3]];
        let (there, back) = (hllc(l, r, GAMMA), hllc(mirror(r), mirror(l), GAMMA));
        let sign = [-1.0, 1.0, -1.0, -1.0];
        for c in 0..CHANNELS {
            prop_assert!((there[c] - sign[c] * back[c]).abs() <= 64.0 * f64::EPSILON * scale(l, r));
        }
    }

    #[test]
    fn hllc_keeps_a_contact(w in gas(), other in 1e-3..10.0_f64) {
        let at_rest = |rho: f64| [rho, 0.0, 0.0, w[3]];
        let flux = hllc(at_rest(w[0]), at_rest(other), GAMMA);
        let sound = (GAMMA * w[3] / w[0].min(other)).sqrt();
        for (got, want) in flux.into_iter().zip([0.0, w[3], 0.0, 0.0]) {
            prop_assert!((got - want).abs() <= 16.0 * f64::EPSILON * w[3] * (1.0 + sound));
        }
    }

    #[test]
    fn face_values_lie_between_neighbours(a in -5.0..5.0_f64, b in -5.0..5.0_f64, c in -5.0..5.0_f64) {
        let half = half_slope(a, b, c);
        let slack = 4.0 * f64::EPSILON * 5.0;
        for face in [b - half, b + half] {
            prop_assert!(face >= a.min(b).min(c) - slack && face <= a.max(b).max(c) + slack);
        }
        if (b - a) * (c - b) <= 0.0 {
            prop_assert_eq!(half, 0.0);
        }
        prop_assert_eq!(half_slope(c, b, a), -half);
    }

    #[test]
    fn primitives_come_back(w in gas()) {
        let back = primitive_of(conserved_of(w, GAMMA), GAMMA);
        let energy = conserved_of(w, GAMMA)[3];
        for c in 0..CHANNELS {
            prop_assert!((back[c] - w[c]).abs() <= 8.0 * f64::EPSILON * (w[c].abs() + energy));
        }
    }

    #[test]
    fn first_order_steps_stay_positive(cells in prop::collection::vec(gas(), 35), thin in 0.0..12.0_f64) {
        // Gas of density and pressure down to 1e-15 beside dense gas, at up to hundreds of times the speed of sound.
        let mut w = vec![0.0; CHANNELS * 35];
        for (k, cell) in cells.iter().enumerate() {
            for c in 0..CHANNELS {
                let factor = if k % 3 == 0 && c % 3 == 0 { 10.0_f64.powf(-thin) } else { 1.0 };
                w[c * 35 + k] = factor * cell[c];
            }
        }
        let mut state = State::new(Grid { nx: 7, ny: 5, gamma: GAMMA }, &w, 7);
        for _ in 0..10 {
            let rate = state.signal_rate();
            prop_assert!(state.try_step(&mut Team::alone(), MAX_CFL / rate, 0.0));
        }
    }

    #[test]
    fn mass_momentum_energy_stay(seed in any::<u64>(), nx in 1_usize..20, ny in 1_usize..90) {
        let w = random_states(seed, 1, nx, ny);
        let (out, steps) = run(&setup(1, nx, ny), &w, 1).expect("runs");
        let cells = nx * ny;
        for c in 0..CHANNELS {
            let at = |k: usize| &out[(k * CHANNELS + c) * cells..(k * CHANNELS + c + 1) * cells];
            let drift = at(0).iter().sum::<f64>() - at(2).iter().sum::<f64>();
            // Each stage rounds a cell's value a few times; momenta move within what density and energy allow.
            let size: f64 = out[..CHANNELS * cells].iter().map(|v| v.abs()).sum();
            prop_assert!(drift.abs() <= 16.0 * f64::EPSILON * (steps[0] + 1) as f64 * size, "{drift}");
        }
    }
}

#[test]
fn rounding_next_to_a_vacuum_falls_back_to_first_order() {
    // 1 − ¼(1 − 1e-20) … the lower difference is 1 to rounding, so the unlimited face would be 1 − 1 = 0.
    let row = |rho: f64, p: f64| [rho, 0.0, 0.0, p];
    let (mut lower, mut upper) = (Block::new(), Block::new());
    let cells = [row(1e-20, 1.0), row(1.0, 1.0), row(4.0, 1.0)];
    reconstruct([&cells[0], &cells[1], &cells[2]], (1, 1), 1.0, &mut lower, &mut upper);
    assert_eq!((lower.0[0][0], upper.0[0][0]), (1.0, 1.0));
    // A little away from it the slope is used.
    let cells = [row(1e-3, 1.0), row(1.0, 1.0), row(4.0, 1.0)];
    reconstruct([&cells[0], &cells[1], &cells[2]], (1, 1), 1.0, &mut lower, &mut upper);
    assert!(lower.0[0][0] > 0.0 && lower.0[0][0] < 1e-2 && upper.0[0][0] > 1.99);
}

fn setup(n: usize, nx: usize, ny: usize) -> Setup {
    Setup { n, nx, ny, n_snapshots: 3, interval: 0.02, gamma: GAMMA, cfl: MAX_CFL, refinement: 1 }
}

/// Rough states: every cell its own draw.
fn random_states(seed: u64, n: usize, nx: usize, ny: usize) -> Vec<f64> {
    let mut word = seed | 1;
    let mut uniform = move |low: f64, high: f64| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        low + (high - low) * (word >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut w = Vec::new();
    for _ in 0..n {
        for (low, high) in [(0.1, 1.0), (-1.0, 1.0), (-1.0, 1.0), (0.1, 1.0)] {
            w.extend((0..nx * ny).map(|_| uniform(low, high)));
        }
    }
    w
}

fn run(setup: &Setup, w: &[f64], threads: usize) -> Result<(Vec<f64>, Vec<u64>), Error> {
    let r = setup.refinement.max(1);
    let mut out = vec![0.0; setup.n * setup.n_snapshots * CHANNELS * (setup.nx / r) * (setup.ny / r)];
    let mut steps = vec![0; setup.n];
    pool::run(Some(threads), &mut |_| true, |progress| solve_into(setup, w, &mut out, &mut steps, progress))?;
    Ok((out, steps))
}

#[test]
fn bits_do_not_depend_on_threads() {
    for (n, nx, ny) in [(1, 67, 131), (3, 64, 64), (5, 9, 3)] {
        let w = random_states(3, n, nx, ny);
        let one = run(&setup(n, nx, ny), &w, 1).expect("runs");
        for threads in [2, 3, 5] {
            assert_eq!(one, run(&setup(n, nx, ny), &w, threads).expect("runs"), "{threads} threads, {n} x {nx} x {ny}");
        }
    }
}

#[test]
fn bits_do_not_depend_on_rows_per_task() {
    let grid = Grid { nx: 13, ny: TILE + 3, gamma: GAMMA };
    let w = random_states(5, 1, grid.nx, grid.ny);
    let after = |rows: usize| {
        let mut state = State::new(grid, &w, rows);
        for _ in 0..4 {
            assert!(state.try_step(&mut Team::alone(), 0.4 / state.signal_rate(), 1.0));
        }
        state.conserved().to_vec()
    };
    let whole = after(13);
    for rows in [1, 4, 7, 100] {
        assert_eq!(whole, after(rows));
    }
}

#[test]
fn swapping_axes_swaps_the_result() {
    let (nx, ny) = (70, 37);
    let w = random_states(11, 1, nx, ny);
    let turned: Vec<f64> = [0, 2, 1, 3]
        .iter()
        .flat_map(|&c| (0..nx * ny).map(move |k| c * nx * ny + (k % nx) * ny + k / nx))
        .map(|k| w[k])
        .collect();
    let (a, steps_a) = run(&setup(1, nx, ny), &w, 2).expect("runs");
    let (b, steps_b) = run(&setup(1, ny, nx), &turned, 2).expect("runs");
    assert_eq!(steps_a, steps_b);
    for snapshot in 0..3 {
        for (c, d) in [(0, 0), (1, 2), (2, 1), (3, 3)] {
            for i in 0..nx {
                for j in 0..ny {
                    let at = |c: usize, k: usize| (snapshot * CHANNELS + c) * nx * ny + k;
                    assert_eq!(a[at(c, i * ny + j)], b[at(d, j * nx + i)]);
                }
            }
        }
    }
}

#[test]
fn snapshots_are_block_means() {
    let fine = setup(1, 12, 6);
    let w = random_states(17, 1, 12, 6);
    let (all, _) = run(&fine, &w, 1).expect("runs");
    let (coarse, _) = run(&Setup { refinement: 3, ..fine }, &w, 1).expect("runs");
    for (k, &mean) in coarse.iter().enumerate() {
        let (plane, i, j) = (k / 8, k % 8 / 2, k % 2);
        let block = (0..9).map(|b| all[plane * 72 + (3 * i + b / 3) * 6 + 3 * j + b % 3]);
        let (sum, size) = block.fold((0.0, 0.0), |(s, a), v| (s + v, a + v.abs()));
        assert!((mean - sum / 9.0).abs() <= 16.0 * f64::EPSILON * size);
    }
}

#[test]
fn a_step_that_fails_leaves_the_state() {
    let grid = Grid { nx: 6, ny: 5, gamma: GAMMA };
    let mut state = State::new(grid, &random_states(19, 1, 6, 5), 2);
    let (before, rate) = (state.conserved().to_vec(), state.signal_rate());
    assert!(!state.try_step(&mut Team::alone(), 1e3 / rate, 1.0));
    assert_eq!((state.conserved(), state.signal_rate()), (&before[..], rate));
    let mut fresh = State::new(grid, &random_states(19, 1, 6, 5), 2);
    assert!(state.try_step(&mut Team::alone(), 0.4 / rate, 1.0) && fresh.try_step(&mut Team::alone(), 0.4 / rate, 1.0));
    assert_eq!(state.conserved(), fresh.conserved());
}

#[test]
fn bad_arguments_are_refused() {
    let w = random_states(1, 1, 4, 4);
    let good = setup(1, 4, 4);
    let cases = [
        (Setup { cfl: 0.5, ..good }, "cfl"),
        (Setup { cfl: f64::NAN, ..good }, "cfl"),
        (Setup { gamma: 1.0, ..good }, "gamma"),
        (Setup { interval: 0.0, ..good }, "interval"),
        (Setup { refinement: 3, ..good }, "refinement"),
        (Setup { refinement: 0, ..good }, "refinement"),
        (Setup { nx: 5, ..good }, "lengths"),
    ];
    for (bad, word) in cases {
        let message = run(&bad, &w, 1).expect_err("refused").to_string();
        assert!(message.contains(word), "{message}");
    }
    for (k, value) in [(0, -1.0), (1, 1e-101), (20, f64::NAN), (48, 0.0), (50, 1e101), (63, f64::INFINITY)] {
        let mut unphysical = w.clone();
        unphysical[k] = value;
        let message = run(&good, &unphysical, 1).expect_err("refused").to_string();
        assert!(message.contains("initial state 0"), "{message}");
    }
}

#[test]
fn cancellation_stops_the_run() {
    let long = Setup { n_snapshots: 2, interval: 1e6, ..setup(1, 64, 64) };
    let (w, mut out, mut steps) = (random_states(1, 1, 64, 64), vec![0.0_f32; 2 * 4 * 64 * 64], [0]);
    let work = |progress: &Progress| solve_into(&long, &w, &mut out, &mut steps, progress);
    assert!(matches!(pool::run(Some(2), &mut |_| false, work), Err(Error::Interrupted)));
}
