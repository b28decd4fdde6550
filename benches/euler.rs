//! Throughput of the Euler solver in cells times time steps.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pdeinfl_core::euler::state::Grid;
use pdeinfl_core::euler::step::State;
use pdeinfl_core::pool;
use pdeinfl_core::team::with_team;

/// Four quadrants of gas: shocks, contacts and fans in both directions.
fn quadrants(n: usize) -> Vec<f64> {
    let values = [[1.0, 1.3, 1.5, 1.1], [-0.3, 0.4, 0.2, -0.1], [0.2, -0.4, 0.1, 0.3], [0.1, 0.3, 0.2, 0.25]];
    let quadrant = |k: usize| 2 * (2 * (k / n) / n) + 2 * (k % n) / n;
    values.iter().flat_map(|channel| (0..n * n).map(move |k| channel[quadrant(k)])).collect()
}

fn time_steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("euler_step");
    for n in [64, 128, 512] {
        group.throughput(Throughput::Elements((n * n) as u64));
        for threads in [1, 2] {
            let grid = Grid { nx: n, ny: n, gamma: 1.4 };
            let rows = if threads == 1 { n } else { n.div_ceil(2 * threads) };
            let mut state = State::new(grid, &quadrants(n), rows);
            let pool = pool::pool(Some(threads)).expect("a pool of one or two threads");
            group.bench_function(BenchmarkId::new(format!("{threads}_threads"), n), |b| {
                pool.install(|| {
                    with_team(threads, |team| {
                        b.iter(|| black_box(state.try_step(team, 0.4 / state.signal_rate(), 1.0)))
                    });
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = time_steps
}
criterion_main!(benches);
