//! Throughput of the contraction: multiply-adds a second of the triangle (`elements`), and of a plain loop beside it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pdeinfl_core::gram::{Products, SliceRows, cross_gram, gram};
use pdeinfl_core::pool;

fn values(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

/// What the compiler makes of dot products of rows, one triangle.
fn plain(a: &[f32], n: usize, k: usize, out: &mut [f64]) {
    for i in 0..n {
        for j in 0..=i {
            let (x, y) = (&a[i * k..][..k], &a[j * k..][..k]);
            let mut lanes = [0.0f32; 16];
            for (x, y) in x.chunks_exact(16).zip(y.chunks_exact(16)) {
                lanes.iter_mut().zip(x).zip(y).for_each(|((s, x), y)| *s += x * y);
            }
            out[i * n + j] = lanes.iter().map(|&x| f64::from(x)).sum();
        }
    }
}

fn bench(c: &mut Criterion) {
    for (n, k) in [(48, 400_000), (192, 100_000), (816, 25_000)] {
        let a = values(n * k);
        let rows = SliceRows::new(&a, n, k, k).expect("fits");
        let mut out = vec![0.0; n * n];
        let mut group = c.benchmark_group(format!("gram/{n}x{k}"));
        group.sample_size(10).throughput(Throughput::Elements((n * (n + 1) / 2 * k) as u64));
        for products in [Products::Float32, Products::Float64] {
            group.bench_function(BenchmarkId::from_parameter(format!("{products:?}")), |bencher| {
                bencher.iter(|| pool::run(None, &mut |_| true, |p| gram(&rows, products, &mut out, p)).expect("runs"));
            });
        }
        group.bench_function("plain loop, one thread", |bencher| bencher.iter(|| plain(&a, n, k, &mut out)));
        group.finish();
    }
    let (n, m, k) = (192, 48, 100_000);
    let a = values(n * k);
    let (left, right) = (SliceRows::new(&a, n, k, k).expect("fits"), SliceRows::new(&a, m, k, k).expect("fits"));
    let mut out = vec![0.0; n * m];
    let mut group = c.benchmark_group(format!("cross_gram/{n}x{m}x{k}"));
    group.sample_size(10).throughput(Throughput::Elements((n * m * k) as u64));
    group.bench_function("Float64", |bencher| {
        bencher.iter(|| {
            let work = |p: &pool::Progress| cross_gram(&left, &right, Products::Float64, &mut out, p);
            pool::run(None, &mut |_| true, work).expect("runs");
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
