use std::io::Write;

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::pool;

/// Heavy-tailed, reproducible values: uniform draws with a wide range of exponents.
fn values(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / f64::from(1u32 << 24) - 0.5
    };
    (0..n).map(|_| draw() * (8.0 * draw()).exp2()).collect()
}

fn naive(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    a.chunks(k).flat_map(|x| b.chunks(k).map(move |y| dot(x, y))).collect()
}

/// Largest error relative to `‖a_i‖‖b_j‖`.
fn error(got: &[f64], a: &[f64], b: &[f64], k: usize) -> f64 {
    let norms = |m: &[f64]| m.chunks(k).map(|r| r.iter().map(|x| x * x).sum::<f64>().sqrt()).collect::<Vec<_>>();
    let (na, nb) = (norms(a), norms(b));
    let scale = na.iter().flat_map(|x| nb.iter().map(move |y| x * y));
    let wrong = got.iter().zip(naive(a, b, k)).zip(scale).filter(|(_, s)| *s > 0.0);
    wrong.map(|((g, w), s)| (g - w).abs() / s).fold(0.0, f64::max)
}

fn run(threads: usize, work: impl FnOnce(&pool::Progress) -> Result<()> + Send) -> Result<()> {
    pool::run(Some(threads), &mut |_| true, work)
}

fn combined(c: &[f64], q: &dyn Rows, rows: &[f64], isa: Isa, threads: usize) -> Vec<f64> {
    let mut out = rows.to_vec();
    run(threads, |p| combine::combine_with(c, q, &mut out, isa, p)).expect("runs");
    out
}

fn gram_of(a: &dyn Rows, products: Products, isa: Isa, threads: usize) -> Vec<f64> {
    let n = a.shape().0;
    let mut out = vec![f64::NAN; n * n];
    run(threads, |p| contract((a, a), true, products, isa, &mut out, p)).expect("runs");
    out
}

fn cross_of(a: &dyn Rows, b: &dyn Rows, products: Products, isa: Isa, threads: usize) -> Vec<f64> {
    let mut out = vec![f64::NAN; a.shape().0 * b.shape().0];
    run(threads, |p| contract((a, b), false, products, isa, &mut out, p)).expect("runs");
    out
}

/// Worst case of a sum of `length` terms: each product and each addition is within half an ulp.
fn bound(products: Products, k: usize) -> f64 {
    // The naive sum that serves as reference is itself within k half ulps of f64.
    let double = 2.0 * (k as f64 + 8.0) * f64::EPSILON;
    match products {
        Products::Float64 => double,
        // f64 storage rounds to f32 twice; the product; at most 32 additions in a lane, then 4 between lanes.
        Products::Float32 => double + 40.0 * f64::from(f32::EPSILON) / 2.0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 24 }))]

    #[test]
    fn combinations_match_naive_loops_with_the_same_bits_for_any_number_of_threads(
        n in 1usize..9, m in 1usize..11, k in prop_oneof![1usize..70, 500usize..530, 1020usize..1600],
        zeros in any::<bool>(), seed in any::<u64>(),
    ) {
        let q: Vec<f32> = values(m * k, seed).iter().map(|&x| x as f32).collect();
        let (mut c, rows) = (values(n * m, seed ^ 1), values(n * k, seed ^ 2));
        if zeros {
            c.iter_mut().enumerate().filter(|(i, _)| i % m < m / 2).for_each(|(_, c)| *c = 0.0);
        }
        let source = SliceRows::new(&q, m, k, k).expect("fits");
        for isa in Isa::available() {
            let got = combined(&c, &source, &rows, isa, 1);
            prop_assert_eq!(&got, &combined(&c, &source, &rows, isa, 3));
            for i in 0..n {
                for j in 0..k {
                    let terms = (0..m).map(|r| c[i * m + r] * f64::from(q[r * k + j]));
                    let (mut sum, mut size) = (rows[i * k + j], rows[i * k + j].abs());
                    terms.for_each(|term| (sum, size) = (sum + term, size + term.abs()));
                    prop_assert!((got[i * k + j] - sum).abs() <= 2.0 * (m + 1) as f64 * f64::EPSILON * size);
                }
            }
        }
    }

    #[test]
    fn every_kernel_matches_naive_loops(
        n in 1usize..20, m in 1usize..15, k in prop_oneof![1usize..70, 500usize..530, 1020usize..1030, 2000usize..3100],
        seed in any::<u64>(),
    ) {
        let (a, b) = (values(n * k, seed), values(m * k, !seed));
        let (left, right) = (SliceRows::new(&a, n, k, k).expect("a"), SliceRows::new(&b, m, k, k).expect("b"));
        for isa in Isa::available() {
            for products in [Products::Float64, Products::Float32] {
                let got = gram_of(&left, products, isa, 2);
                prop_assert!(error(&got, &a, &a, k) <= bound(products, k), "{isa:?} {products:?} gram");
                prop_assert!((0..n * n).all(|e| got[e] == got[e % n * n + e / n]), "symmetric");
                let got = cross_of(&left, &right, products, isa, 2);
                prop_assert!(error(&got, &a, &b, k) <= bound(products, k), "{isa:?} {products:?} cross_gram");
            }
        }
    }

    #[test]
    fn file_descriptions_fail_without_panic(
        offset in any::<u64>(), rows in any::<usize>(), columns in any::<usize>(), dtype in 0usize..5, mapped: bool,
        small: bool, length in 0usize..300,
    ) {
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        file.write_all(&vec![7; length]).expect("write");
        let dtype = ["float32", "float64", "float16", "bfloat16", "int32"][dtype].to_owned();
        let shape = if small { (rows % 5, columns % 20) } else { (rows, columns) };
        let offset = if small { offset % 64 } else { offset };
        let size = match dtype.as_str() { "float64" => 8, "float32" => 4, _ => 2 };
        let needed = (shape.0 as u128 * shape.1 as u128).saturating_mul(size).saturating_add(u128::from(offset));
        let opened = FileMatrix { path: file.path().to_owned(), offset, dtype: dtype.clone(), shape, mapped }.open();
        match opened {
            Ok(rows) => {
                prop_assert!(needed <= length as u128 && dtype != "int32");
                if small {
                    prop_assert_eq!(gram_of(&*rows, Products::Float64, Isa::best(), 1).len(), shape.0 * shape.0);
                }
            }
            Err(Error::Invalid(_)) => prop_assert!(
                dtype == "int32" || needed > i64::MAX as u128 || (mapped && u128::from(offset) % size != 0)
            ),
            Err(Error::Io(_)) => prop_assert!(needed > length as u128),
            Err(other) => prop_assert!(false, "unexpected {other:?}"),
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (n, k) = (50, 3 * 1024 * if cfg!(miri) { 1 } else { 67 } + 5);
    let a: Vec<f32> = values(n * k, 3).iter().map(|&x| x as f32).collect();
    let rows = SliceRows::new(&a, n, k, k).expect("a");
    for products in [Products::Float64, Products::Float32] {
        let one = gram_of(&rows, products, Isa::best(), 1);
        for threads in [2, 3, 8] {
            let more = gram_of(&rows, products, Isa::best(), threads);
            assert!(one.iter().zip(&more).all(|(x, y)| x.to_bits() == y.to_bits()), "{products:?}, {threads} threads");
        }
    }
}

#[test]
fn several_output_tiles() {
    let (n, m, k) = (1030, 130, 9);
    let (a, b) = (values(n * k, 1), values(m * k, 2));
    let (left, right) = (SliceRows::new(&a, n, k, k).expect("a"), SliceRows::new(&b, m, k, k).expect("b"));
    let limit = bound(Products::Float64, k);
    assert!(error(&gram_of(&left, Products::Float64, Isa::best(), 2), &a, &a, k) <= limit);
    assert!(error(&cross_of(&left, &right, Products::Float64, Isa::best(), 2), &a, &b, k) <= limit);
    assert!(error(&cross_of(&right, &left, Products::Float64, Isa::best(), 2), &b, &a, k) <= limit);
}

fn sources_agree<T: Element>(narrow: impl Fn(f64) -> T) {
    let (n, k) = (13, 40_000);
    let data: Vec<T> = values(n * k, 5).into_iter().map(narrow).collect();
    let mut file = tempfile::NamedTempFile::new().expect("temporary file");
    file.write_all(&[0; 24]).expect("write");
    file.write_all(bytemuck::cast_slice(&data)).expect("write");
    let whole = SliceRows::new(&data, n, k, k).expect("whole");
    let (head, tail) = data.split_at(5 * k);
    let stack = Stacked::new(vec![
        Box::new(SliceRows::new(head, 5, k, k).expect("head")),
        Box::new(SliceRows::new(tail, 0, k, k).expect("none")),
        Box::new(SliceRows::new(tail, n - 5, k, k).expect("tail")),
    ])
    .expect("stack");
    let open = |mapped| {
        let path = file.path().to_owned();
        FileMatrix { path, offset: 24, dtype: T::NAME.to_owned(), shape: (n, k), mapped }.open().expect("opens")
    };
    file.as_file().sync_all().expect("on the disk");
    for products in [Products::Float64, Products::Float32] {
        let expected = gram_of(&whole, products, Isa::best(), 2);
        assert_eq!(gram_of(&stack, products, Isa::best(), 2), expected);
        assert_eq!(gram_of(&*open(false), products, Isa::best(), 2), expected);
        // Then past the page cache, where the system lets go of what it holds.
        rustix::fs::fadvise(file.as_file(), 0, None, rustix::fs::Advice::DontNeed).expect("advice is taken");
        assert_eq!(gram_of(&*open(false), products, Isa::best(), 2), expected);
        assert_eq!(gram_of(&*open(true), products, Isa::best(), 2), expected);
    }
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "narrow storage on purpose")]
#[cfg_attr(miri, ignore = "Miri has no mmap of files")]
fn stacks_files_and_mappings_give_the_same_bits_as_memory() {
    sources_agree(|x| x);
    sources_agree(|x| x as f32);
    sources_agree(f16::from_f64);
    sources_agree(bf16::from_f64);
}

#[test]
fn a_file_that_shrank_is_an_error() {
    let mut file = tempfile::NamedTempFile::new().expect("temporary file");
    file.write_all(&[0; 4000]).expect("write");
    let path = file.path().to_owned();
    let rows = FileMatrix { path, offset: 0, dtype: "float32".to_owned(), shape: (10, 100), mapped: false };
    let rows = rows.open().expect("opens");
    file.as_file().set_len(1000).expect("truncate");
    let mut out = vec![0.0; 100];
    let result = run(2, |p| gram(&*rows, Products::Float64, &mut out, p));
    assert!(matches!(result, Err(Error::Io(_))));
}

#[test]
fn not_a_number_stays_in_its_row_and_column() {
    let (n, k) = (7, 600);
    let mut a = values(n * k, 9);
    a[3 * k + 599] = f64::NAN;
    let rows = SliceRows::new(&a, n, k, k).expect("a");
    for isa in Isa::available() {
        let got = gram_of(&rows, Products::Float32, isa, 2);
        assert!((0..n * n).all(|e| got[e].is_nan() == (e / n == 3 || e % n == 3)), "{isa:?}");
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let data = [1.0f32; 12];
    assert!(matches!(SliceRows::new(&data, 4, 4, 4), Err(Error::Invalid(_))));
    assert!(matches!(SliceRows::new(&data, 2, 4, usize::MAX), Err(Error::Invalid(_))));
    assert!(matches!(Stacked::new(Vec::new()), Err(Error::Invalid(_))));
    let (a, b) = (SliceRows::new(&data, 3, 4, 4).expect("a"), SliceRows::new(&data, 4, 3, 3).expect("b"));
    let mut out = vec![0.0; 12];
    assert!(matches!(run(1, |p| cross_gram(&a, &b, Products::Float64, &mut out, p)), Err(Error::Invalid(_))));
    assert!(matches!(run(1, |p| gram(&a, Products::Float64, &mut out, p)), Err(Error::Invalid(_))));
}

#[test]
fn a_stop_is_obeyed() {
    let data = vec![1.0f32; 64 * 4096];
    let rows = SliceRows::new(&data, 64, 4096, 4096).expect("a");
    let mut out = vec![0.0; 64 * 64];
    let stop = |progress: &pool::Progress| -> Result<()> {
        loop {
            gram(&rows, Products::Float64, &mut out, progress)?;
        }
    };
    assert!(matches!(pool::run(Some(2), &mut |_| false, stop), Err(Error::Interrupted)));
}

#[test]
fn combinations_of_the_wrong_shape_are_refused_and_of_nothing_change_nothing() {
    let q = [1.0f64; 6];
    let source = SliceRows::new(&q, 2, 3, 3).expect("fits");
    let mut rows = [2.0; 6];
    for (c, length) in [(3, 6), (4, 5), (2, 6)] {
        let coefficients = vec![1.0; c];
        let ended = run(1, |p| combine_into(&coefficients, &source, &mut rows[..length], p));
        assert!(matches!(ended, Err(Error::Invalid(_))), "{c} coefficients, {length} elements");
    }
    run(1, |p| combine_into(&[], &source, &mut [], p)).expect("no rows");
    let none: [f64; 0] = [];
    let empty = SliceRows::new(&none, 0, 3, 3).expect("fits");
    run(1, |p| combine_into(&[], &empty, &mut rows, p)).expect("no sources");
    assert_eq!(rows, [2.0; 6]);
}
