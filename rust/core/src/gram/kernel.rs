//! The micro-kernel: all dot products of a few rows of one packed panel with four rows of another.
#![allow(unsafe_code)]

use std::ops::Range;

use super::lanes::Lanes;
use crate::isa::{Isa, Kind};

/// Bytes of a row of a packed panel: 1,024 `f32` or 512 `f64`, so that a strip of rows stays in the first-level cache.
pub(super) const PANEL_BYTES: usize = 4096;

/// Distance of the rows of a packed panel in bytes: a cache line more, so that rows do not share cache sets.
pub(super) const STRIDE_BYTES: usize = PANEL_BYTES + 64;

/// Columns of a register tile.
pub(super) const TILE_COLUMNS: usize = 4;

/// Largest number of rows of a register tile.
pub(super) const MAX_TILE_ROWS: usize = 6;

/// Memory to have in the second-level cache soon: `address + k·step` for each vector k of a row of the panel.
/// Prefetching reads nothing that the program sees, so any address will do.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) address: *const u8,
    pub(super) step: usize,
}

/// Steps of the inner loop taken at once; divides every chain and panel.
const UNROLLED: usize = 4;

/// Type in which products are taken.
pub(super) trait Product: bytemuck::Pod + Send + Sync {
    /// Elements of a row of a packed panel.
    const WIDTH: usize = PANEL_BYTES / size_of::<Self>();
    /// Distance of the rows of a packed panel in elements.
    const STRIDE: usize = STRIDE_BYTES / size_of::<Self>();

    /// The kernel for an instruction set.
    fn kernel(isa: Isa) -> Kernel<Self>;
}

/// A micro-kernel and the number of rows of its tile.
#[derive(Clone, Copy)]
pub(super) struct Kernel<P> {
    pub(super) rows: usize,
    run: unsafe fn(*const P, *const P, Ahead, *mut f64),
}

impl<P: Product> Kernel<P> {
    /// Add the dot products of the first `rows` rows of panel `a` with the first four of panel `b` to `out`, row-major.
    pub(super) fn run(&self, a: &[P], b: &[P], ahead: Ahead, out: &mut [f64]) {
        assert!(a.len() >= self.rows * P::STRIDE && b.len() >= TILE_COLUMNS * P::STRIDE);
        assert!(out.len() >= self.rows * TILE_COLUMNS);
        // SAFETY: lengths checked; `Isa` vouched for the instructions when the kernel was chosen.
        unsafe { (self.run)(a.as_ptr(), b.as_ptr(), ahead, out.as_mut_ptr()) }
    }
}

/// Ask for a line: in the nearest cache, or in the second.
#[inline(always)]
fn prefetch<const NEAREST: bool>(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch of any address is allowed.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        if NEAREST { _mm_prefetch::<_MM_HINT_T0>(address.cast()) } else { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Sums of the register tile over `steps`, by lanes.
///
/// # Safety
/// `a` and `b` hold `R` and four packed rows, and the machine has the instructions of `V`.
#[inline(always)]
unsafe fn chain<V: Lanes, const R: usize>(
    a: *const V::Scalar,
    b: *const V::Scalar,
    ahead: Ahead,
    steps: Range<usize>,
) -> [[V; TILE_COLUMNS]; R] {
    let stride = STRIDE_BYTES / size_of::<V::Scalar>();
    // SAFETY: the caller's promises; every column read lies below the width of a panel.
    unsafe {
        let mut sums = [[V::zero(); TILE_COLUMNS]; R];
        for first in steps.step_by(UNROLLED) {
            for step in first..first + UNROLLED {
                let k = step * V::N;
                prefetch::<false>(ahead.address.wrapping_add(step * ahead.step));
                let right: [V; TILE_COLUMNS] = std::array::from_fn(|j| V::load(b.add(j * stride + k)));
                for (i, row) in sums.iter_mut().enumerate() {
                    let left = V::load(a.add(i * stride + k));
                    for (sum, right) in row.iter_mut().zip(right) {
                        *sum = left.multiply_add(right, *sum);
                    }
                }
            }
        }
        sums
    }
}

/// # Safety
/// `a` and `b` hold `R` and four packed rows, `out` `4·R` elements, and the machine has the instructions of `V`.
#[inline(always)]
unsafe fn tile<V: Lanes, const R: usize>(a: *const V::Scalar, b: *const V::Scalar, ahead: Ahead, out: *mut f64) {
    let steps = PANEL_BYTES / size_of::<V::Scalar>() / V::N;
    const { assert!(V::CHAIN.is_multiple_of(UNROLLED)) };
    const { assert!((PANEL_BYTES / size_of::<V::Scalar>() / V::N).is_multiple_of(UNROLLED)) };
    // The partial tiles of many rows fill the second-level cache.
    for at in (0..R * TILE_COLUMNS).step_by(64 / size_of::<f64>()) {
        prefetch::<true>(out.wrapping_add(at).cast());
    }
    // SAFETY: the caller's promises.
    unsafe {
        let mut sums = chain::<V, R>(a, b, ahead, 0..steps.min(V::CHAIN));
        for start in (V::CHAIN..steps).step_by(V::CHAIN) {
            let more = chain::<V, R>(a, b, ahead, start..steps.min(start + V::CHAIN));
            for (row, more) in sums.iter_mut().zip(more) {
                for (sum, more) in row.iter_mut().zip(more) {
                    *sum = sum.add(more);
                }
            }
        }
        for (i, row) in sums.into_iter().enumerate() {
            V::add_sums(row, out.add(i * TILE_COLUMNS));
        }
    }
}

macro_rules! product {
    ($scalar:ty, $avx512:ident, $avx2:ident, $portable:literal) => {
        impl Product for $scalar {
            fn kernel(isa: Isa) -> Kernel<Self> {
                #[cfg(target_arch = "x86_64")]
                {
                    use std::arch::x86_64::{$avx2, $avx512};
                    #[target_feature(enable = "avx512f,avx2,fma")]
                    unsafe fn avx512(a: *const $scalar, b: *const $scalar, ahead: Ahead, out: *mut f64) {
                        // SAFETY: as this function.
                        unsafe { tile::<$avx512, 6>(a, b, ahead, out) }
                    }
                    #[target_feature(enable = "avx2,fma")]
                    unsafe fn avx2(a: *const $scalar, b: *const $scalar, ahead: Ahead, out: *mut f64) {
                        // SAFETY: as this function.
                        unsafe { tile::<$avx2, 3>(a, b, ahead, out) }
                    }
                    match isa.kind() {
                        Kind::Avx512 => return Kernel { rows: 6, run: avx512 },
                        Kind::Avx2 => return Kernel { rows: 3, run: avx2 },
                        Kind::Portable => {}
                    }
                }
                let _ = isa;
                Kernel { rows: 2, run: tile::<[$scalar; $portable], 2> }
            }
        }
    };
}
product!(f32, __m512, __m256, 4);
product!(f64, __m512d, __m256d, 2);
