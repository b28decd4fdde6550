//! Throughput of the contraction: multiply-adds a second of the triangle (`elements`), and of a plain loop beside it.
//! Also, in one run, its part of what the machine can do: multiply-adds that never leave the registers, and reading.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pdeinfl_core::gram::{Products, SliceRows, combine_into, cross_gram, gram};
use pdeinfl_core::pool;
use rayon::prelude::*;

/// Multiply-adds a second of all threads, in f32 and f64, and bytes read a second.
struct Limits {
    f32: f64,
    f64: f64,
    read: f64,
}

/// Independent chains: more than a multiply-add's latency times the number of units, fewer than the registers.
const CHAINS: usize = 12;

/// Steps of each chain in one call of a probe: tens of milliseconds, long after the system has given each thread a core.
const STEPS: usize = 1 << 23;

macro_rules! probe {
    ($name:ident, $features:literal, $set:path, $fused:path, $lanes:literal) => {
        /// `STEPS` multiply-adds in each of `CHAINS` registers; returns the lanes of a register.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name() -> usize {
            use std::arch::x86_64::*;
            let (factor, term) = ($set(black_box(0.999)), $set(black_box(0.001)));
            let mut sums = [$set(black_box(1.0)); CHAINS];
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = $fused(*sum, factor, term);
                }
            }
            black_box(sums);
            $lanes
        }
    };
}
probe!(avx512_f32, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps, 16);
probe!(avx512_f64, "avx512f", _mm512_set1_pd, _mm512_fmadd_pd, 8);
probe!(avx2_f32, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps, 8);
probe!(avx2_f64, "avx2,fma", _mm256_set1_pd, _mm256_fmadd_pd, 4);

/// Best of several: seconds of `work` on every thread of the pool at once.
fn best(threads: usize, work: impl Fn() + Sync) -> f64 {
    let pool = pool::pool(Some(threads)).expect("a pool");
    let seconds = (0..20).map(|_| {
        let start = Instant::now();
        pool.broadcast(|_| work());
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}

/// None where there is no probe for the processor.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn limits(threads: usize) -> Option<Limits> {
    let rate = |probe: unsafe fn() -> usize| {
        // SAFETY: chosen below for features that were found.
        let lanes = unsafe { probe() };
        let taken = best(threads, || {
            // SAFETY: as above.
            black_box(unsafe { probe() });
        });
        (threads * CHAINS * STEPS * lanes) as f64 / taken
    };
    let (f32, f64) = if is_x86_feature_detected!("avx512f") {
        (rate(avx512_f32), rate(avx512_f64))
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        (rate(avx2_f32), rate(avx2_f64))
    } else {
        return None;
    };
    let many = vec![1u64; 1 << 27];
    let pool = pool::pool(Some(threads)).expect("a pool");
    let read = (0..10).map(|_| {
        let start = Instant::now();
        let sum = |piece: &[u64]| piece.iter().fold(0u64, |sum, &word| sum.wrapping_add(word));
        black_box(pool.install(|| many.par_chunks(1 << 16).map(sum).reduce(|| 0, u64::wrapping_add)));
        8.0 * many.len() as f64 / start.elapsed().as_secs_f64()
    });
    Some(Limits { f32, f64, read: read.fold(0.0, f64::max) })
}

#[cfg(not(target_arch = "x86_64"))]
fn limits(_threads: usize) -> Option<Limits> {
    None
}

/// Print the parts of the limits that the contraction of rows in memory reaches, best of several calls.
fn roofline() {
    let threads = pool::resolve_num_threads(None).expect("a number of threads");
    let Some(limits) = limits(threads) else { return };
    let rates = (limits.f32 / 1e9, limits.f64 / 1e9, limits.read / 1e9);
    println!(
        "{threads} threads: {:.1} G multiply-adds/s in f32, {:.1} in f64; {:.1} GB/s read",
        rates.0, rates.1, rates.2
    );
    for (n, k) in [(48, 4_000_000), (192, 1_000_000), (816, 100_000)] {
        let a = values(n * k);
        let rows = SliceRows::new(&a, n, k, k).expect("fits");
        let mut out = vec![0.0; n * n];
        for (products, peak) in [(Products::Float32, limits.f32), (Products::Float64, limits.f64)] {
            let mut taken = f64::INFINITY;
            for _ in 0..5 {
                let start = Instant::now();
                pool::run(None, &mut |_| true, |p| gram(&rows, products, &mut out, p)).expect("runs");
                taken = taken.min(start.elapsed().as_secs_f64());
            }
            let multiplied = 100.0 * (n * (n + 1) / 2 * k) as f64 / taken / peak;
            let read = 100.0 * 4.0 * (n * k) as f64 / taken / limits.read;
            println!("gram {n} x {k} {products:?}: {multiplied:.0} % of multiply-adds, {read:.0} % of reading");
        }
    }
}

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

/// A coefficient times a source row after the other, added to each row: what the compiler makes of it.
fn plain_combination(coefficients: &[f64], q: &[f32], k: usize, rows: &mut [f64]) {
    let n = q.len() / k;
    for (row, coefficients) in rows.chunks_exact_mut(k).zip(coefficients.chunks_exact(n)) {
        for (source, &c) in q.chunks_exact(k).zip(coefficients) {
            row.iter_mut().zip(source).for_each(|(r, &x)| *r += c * f64::from(x));
        }
    }
}

/// Rows += coefficients · sources, as the solver orthogonalises: few rows, many sources.
fn combinations(c: &mut Criterion) {
    for (m, n, k) in [(12, 500, 20_836), (12, 100, 146_569), (6, 120, 20_836)] {
        let q = values(n * k);
        let sources = SliceRows::new(&q, n, k, k).expect("fits");
        let coefficients: Vec<f64> = values(m * n).into_iter().map(f64::from).collect();
        let mut rows = vec![0.0; m * k];
        let mut group = c.benchmark_group(format!("combine_into/{m}x{n}x{k}"));
        group.sample_size(10).throughput(Throughput::Elements((m * n * k) as u64));
        group.bench_function("groups of eight", |bencher| {
            bencher.iter(|| {
                let work = |p: &pool::Progress| combine_into(&coefficients, &sources, &mut rows, p);
                pool::run(None, &mut |_| true, work).expect("runs");
            });
        });
        group.bench_function("plain loop, one thread", |bencher| {
            bencher.iter(|| plain_combination(&coefficients, &q, k, &mut rows));
        });
        group.finish();
    }
}

fn bench(c: &mut Criterion) {
    roofline();
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
    combinations(c);
}

criterion_group!(benches, bench);
criterion_main!(benches);
