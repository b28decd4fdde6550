//! A file of arbitrary bytes, described arbitrarily, is contracted right or refused; the fuzz target runs the same.

use std::io::Write;

use half::{bf16, f16};
use pdeinfl_core::error::Error;
use pdeinfl_core::gram::{FileMatrix, Products, gram};
use pdeinfl_core::pool;

/// Content of a file, what is said about it, and what happens to it after it was opened.
#[derive(Clone, Debug)]
pub struct Case {
    pub content: Vec<u8>,
    pub offset: u64,
    /// 0 … 3: float32, float64, float16, bfloat16; others are unknown.
    pub dtype: u8,
    pub shape: (usize, usize),
    pub mapped: bool,
    /// Length that the file is cut to after opening. Not done to mapped files: that is their caller's duty.
    pub cut: Option<u64>,
}

fn decode(dtype: u8, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        0 => bytes.chunks_exact(4).map(|b| f64::from(f32::from_ne_bytes([b[0], b[1], b[2], b[3]]))).collect(),
        1 => bytes
            .chunks_exact(8)
            .map(|b| f64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
            .collect(),
        2 => bytes.chunks_exact(2).map(|b| f16::from_ne_bytes([b[0], b[1]]).to_f64()).collect(),
        _ => bytes.chunks_exact(2).map(|b| bf16::from_ne_bytes([b[0], b[1]]).to_f64()).collect(),
    }
}

/// Panics when the core is wrong about the case.
pub fn check(case: &Case) {
    let names = ["float32", "float64", "float16", "bfloat16"];
    let known = names.get(usize::from(case.dtype));
    let size = match case.dtype {
        0 => 4,
        1 => 8,
        _ => 2,
    };
    let (rows, columns) = case.shape;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&case.content).expect("written");
    let matrix = FileMatrix {
        path: file.path().to_owned(),
        offset: case.offset,
        dtype: known.copied().unwrap_or("int8").to_owned(),
        shape: case.shape,
        mapped: case.mapped,
    };
    let bytes = (rows as u128).checked_mul(columns as u128).and_then(|n| n.checked_mul(size));
    let end = bytes.and_then(|n| n.checked_add(u128::from(case.offset)));
    let fits = end.is_some_and(|end| end <= case.content.len() as u128);
    let aligned = !case.mapped || rows == 0 || columns == 0 || u128::from(case.offset).is_multiple_of(size);
    let opened = match matrix.open() {
        Ok(opened) => opened,
        Err(Error::Invalid(message)) => {
            assert!(!message.contains('\n'));
            let beyond = end.is_none_or(|end| end > i64::MAX as u128);
            assert!(known.is_none() || beyond || !aligned, "{message}");
            return;
        }
        Err(Error::Io(message)) => return assert!(!fits, "{message}"),
        Err(other) => panic!("{other}"),
    };
    assert!(known.is_some() && fits && aligned);
    if rows > 64 {
        return; // no columns, and an output of no interest
    }
    let cut = case.cut.filter(|_| !case.mapped);
    if let Some(length) = cut {
        file.as_file().set_len(length).expect("cut");
    }
    let mut out = vec![f64::NEG_INFINITY; rows * rows];
    match pool::run(Some(2), &mut |_| true, |p| gram(&*opened, Products::Float64, &mut out, p)) {
        Ok(()) => {}
        Err(Error::Io(_)) => {
            return assert!(cut.is_some_and(|length| u128::from(length) < end.unwrap_or(0)), "unreadable");
        }
        Err(other) => panic!("{other}"),
    }
    if cut.is_some() {
        return;
    }
    let start = case.offset as usize;
    let values = decode(case.dtype, &case.content[start.min(case.content.len())..][..bytes.unwrap_or(0) as usize]);
    let row = |i: usize| &values[i * columns..(i + 1) * columns];
    let norm = |i: usize| row(i).iter().map(|x| x * x).sum::<f64>().sqrt();
    for i in 0..rows {
        for j in 0..rows {
            let got = out[i * rows + j];
            if row(i).iter().chain(row(j)).any(|x| x.is_nan()) {
                assert!(got.is_nan(), "({i}, {j}): {got}");
            } else if (norm(i) * norm(j)).is_finite() {
                let expected: f64 = row(i).iter().zip(row(j)).map(|(x, y)| x * y).sum();
                let length = columns as f64 + 8.0;
                let most = 2.0 * length * (f64::EPSILON * norm(i) * norm(j) + f64::MIN_POSITIVE);
                assert!((got - expected).abs() <= most, "({i}, {j}): {got} for {expected}");
            }
        }
    }
}
