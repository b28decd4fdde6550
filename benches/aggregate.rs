//! Throughput of pooled lag quartiles and of their bootstrap, in entries and in entries times resamples.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pdeinfl_core::aggregate::{Binning, Block, Labels, Table, bootstrap_medians, multiplicities};
use pdeinfl_core::pool::{self, Progress};

const N_TIMES: usize = 16;
const N: usize = 3 * N_TIMES;

/// A reproducible spread of values: fractional parts of multiples of the golden ratio, decaying with lag.
fn values(n_blocks: usize) -> Vec<f64> {
    (0..n_blocks * N * N).map(|k| (k as f64 * 0.618_033_988_749_895).fract() - 0.3).collect()
}

fn lag_profile(c: &mut Criterion) {
    let (n_seeds, n_batches, n_resamples) = (10, 18, 1000);
    let n_blocks = n_seeds * n_batches;
    let values = values(n_blocks);
    let class: Vec<i64> = (0..N).map(|i| (i / N_TIMES) as i64).collect();
    let time: Vec<i64> = (0..N).map(|i| (i % N_TIMES) as i64).collect();
    let labels = Labels { group: &class, time: &time };
    let blocks: Vec<Block<'_>> = values
        .chunks_exact(N * N)
        .enumerate()
        .map(|(k, values)| Block { values, rows: labels, columns: labels, distance: None, cluster: k as u32 })
        .collect();
    let binning = Binning::Lag { max_lag: 11 };
    let counts = multiplicities(&vec![n_batches; n_seeds], n_resamples, 0, true).expect("a plan");
    let progress = Progress::default();
    for threads in [1, 2] {
        let pool = pool::pool(Some(threads)).expect("a pool of one or two threads");
        let mut group = c.benchmark_group("lag_profile");
        group.throughput(Throughput::Elements((n_blocks * N * N) as u64));
        group.bench_function(BenchmarkId::new("pool_and_sort", threads), |b| {
            pool.install(|| b.iter(|| black_box(Table::pooled(&blocks, &binning, &progress))));
        });
        let table = pool.install(|| Table::pooled(&blocks, &binning, &progress)).expect("a table");
        let n_entries: u64 = table.counts().iter().sum();
        group.throughput(Throughput::Elements(n_entries * n_resamples as u64));
        group.bench_function(BenchmarkId::new("bootstrap", threads), |b| {
            pool.install(|| b.iter(|| black_box(bootstrap_medians(&table, &counts, n_blocks, &progress))));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = lag_profile
}
criterion_main!(benches);
