//! Throughput of the stencils in bytes read and written, beside a copy of the same fields.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pdeinfl_core::finite_difference::{Axis, Generator, Kind, Stack, derivative, lie_derivative};
use pdeinfl_core::pool::{self, Progress};
use rayon::prelude::*;

const N: usize = 128;

fn stencils(c: &mut Criterion) {
    let n_planes = 48 * 4;
    let fields: Vec<f32> = (0..n_planes * N * N).map(|k| (k as f32 * 0.618_034).fract()).collect();
    let stack = Stack::new(&fields, N, N).expect("planes");
    let mut out = vec![0f32; fields.len()];
    let kinds = [Kind::Scalar, Kind::X(2), Kind::Y(1), Kind::Scalar];
    let progress = Progress::default();
    let mut group = c.benchmark_group("fields_f32");
    group.throughput(Throughput::Bytes(8 * fields.len() as u64));
    for threads in [1, 2] {
        let pool = pool::pool(Some(threads)).expect("a pool of one or two threads");
        group.bench_function(BenchmarkId::new("copy", threads), |b| {
            let copy = |out: &mut [f32]| {
                let planes = out.par_chunks_exact_mut(N * N).zip(fields.par_chunks_exact(N * N));
                planes.for_each(|(o, u)| o.copy_from_slice(u));
            };
            pool.install(|| b.iter(|| copy(black_box(&mut out))));
        });
        for (name, axis) in [("d_x", Axis::X), ("d_y", Axis::Y)] {
            for order in [2, 6] {
                group.bench_function(BenchmarkId::new(format!("{name}_{order}"), threads), |b| {
                    pool.install(|| {
                        b.iter(|| derivative(black_box(&mut out), &stack, axis, order, 1.0, &progress).expect("runs"));
                    });
                });
            }
        }
        group.bench_function(BenchmarkId::new("rotation_6", threads), |b| {
            let spacing = (1.0, 1.0);
            pool.install(|| {
                b.iter(|| {
                    lie_derivative(black_box(&mut out), &stack, &kinds, Generator::Rotation, 6, spacing, &progress)
                        .expect("runs");
                });
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = stencils
}
criterion_main!(benches);
