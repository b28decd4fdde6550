//! Vector registers: the few operations that the micro-kernel is written in.
#![allow(unsafe_code)]

/// A large product early in a chain costs every later addition up to half its ulp: with 32 of them, seen errors stay
/// below 3e-7 of the norms where few products dominate.
const F32_CHAIN: usize = 32;

/// Accuracy asks for no limit: a whole panel in any register.
const F64_CHAIN: usize = 256;

/// One register of lanes.
///
/// # Safety
/// Every method may use the instructions that the implementation is named after: call them only where the machine has
/// these, from functions that enable them. Pointers must be valid for `N` elements (`add_sums`: four `f64`).
pub(super) trait Lanes: Copy {
    /// Type of a lane.
    type Scalar: Copy;
    /// Number of lanes.
    const N: usize;
    /// Products that a lane adds before it starts anew.
    const CHAIN: usize;

    unsafe fn zero() -> Self;
    unsafe fn load(from: *const Self::Scalar) -> Self;
    /// `self·b + c`.
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self;
    /// Lane by lane.
    unsafe fn add(self, b: Self) -> Self;
    /// Add the sum of the lanes of each of four registers to `out[0..4]`.
    unsafe fn add_sums(four: [Self; 4], out: *mut f64);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{F32_CHAIN, F64_CHAIN, Lanes};

    /// Sum each of four 8-lane registers: pairs of pairs within the halves, then the halves, widened.
    #[inline(always)]
    unsafe fn add_sums_f32(four: [__m256; 4], out: *mut f64) {
        // SAFETY: the caller vouches for AVX2 and for `out`.
        unsafe {
            let pairs = [_mm256_hadd_ps(four[0], four[1]), _mm256_hadd_ps(four[2], four[3])];
            let halves = _mm256_hadd_ps(pairs[0], pairs[1]);
            add_halves(halves, out);
        }
    }

    /// Add both halves, four sums each, to `out`.
    #[inline(always)]
    unsafe fn add_halves(halves: __m256, out: *mut f64) {
        // SAFETY: the caller vouches for AVX2 and for `out`.
        unsafe {
            let low = _mm256_cvtps_pd(_mm256_castps256_ps128(halves));
            let high = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(halves));
            _mm256_storeu_pd(out, _mm256_add_pd(_mm256_loadu_pd(out), _mm256_add_pd(low, high)));
        }
    }

    /// In each block of four lanes: two partial sums of `a` and two of `b`, alternating.
    #[inline(always)]
    unsafe fn pair(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller vouches for AVX-512F.
        unsafe { _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)) }
    }

    /// Sum each of four 4-lane registers.
    #[inline(always)]
    unsafe fn add_sums_f64(four: [__m256d; 4], out: *mut f64) {
        // SAFETY: the caller vouches for AVX2 and for `out`.
        unsafe {
            let (p, q) = (_mm256_hadd_pd(four[0], four[1]), _mm256_hadd_pd(four[2], four[3]));
            let crossed = _mm256_permute2f128_pd::<0x21>(p, q);
            let sums = _mm256_add_pd(_mm256_blend_pd::<0b1100>(p, q), crossed);
            _mm256_storeu_pd(out, _mm256_add_pd(_mm256_loadu_pd(out), sums));
        }
    }

    impl Lanes for __m256 {
        type Scalar = f32;
        const N: usize = 8;
        const CHAIN: usize = F32_CHAIN;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller vouches for AVX2.
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller vouches for AVX2 and for `from`.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
            // SAFETY: the caller vouches for FMA.
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: the caller vouches for AVX2.
            unsafe { _mm256_add_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn add_sums(four: [Self; 4], out: *mut f64) {
            // SAFETY: as this function.
            unsafe { add_sums_f32(four, out) }
        }
    }

    impl Lanes for __m256d {
        type Scalar = f64;
        const N: usize = 4;
        const CHAIN: usize = F64_CHAIN;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller vouches for AVX2.
            unsafe { _mm256_setzero_pd() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f64) -> Self {
            // SAFETY: the caller vouches for AVX2 and for `from`.
            unsafe { _mm256_loadu_pd(from) }
        }
        #[inline(always)]
        unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
            // SAFETY: the caller vouches for FMA.
            unsafe { _mm256_fmadd_pd(self, b, c) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: the caller vouches for AVX2.
            unsafe { _mm256_add_pd(self, b) }
        }
        #[inline(always)]
        unsafe fn add_sums(four: [Self; 4], out: *mut f64) {
            // SAFETY: as this function.
            unsafe { add_sums_f64(four, out) }
        }
    }

    // Only instructions that reach all 32 registers: one that reaches 16 (`hadd`, `blend`) in `add_sums` makes the compiler
    // spill sums inside the loop, at 0.6 of the speed.
    impl Lanes for __m512 {
        type Scalar = f32;
        const N: usize = 16;
        const CHAIN: usize = F32_CHAIN;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller vouches for AVX-512F.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller vouches for AVX-512F and for `from`.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
            // SAFETY: the caller vouches for AVX-512F.
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: the caller vouches for AVX-512F.
            unsafe { _mm512_add_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn add_sums(four: [Self; 4], out: *mut f64) {
            // SAFETY: as this function.
            unsafe {
                let (p, q) = (pair(four[0], four[1]), pair(four[2], four[3]));
                // Four blocks of four lanes, each a part of the four sums.
                let low = _mm512_unpacklo_pd(_mm512_castps_pd(p), _mm512_castps_pd(q));
                let high = _mm512_unpackhi_pd(_mm512_castps_pd(p), _mm512_castps_pd(q));
                let blocks = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
                let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(blocks)));
                let halves = _mm256_add_ps(_mm512_castps512_ps256(blocks), high);
                add_halves(halves, out);
            }
        }
    }

    impl Lanes for __m512d {
        type Scalar = f64;
        const N: usize = 8;
        const CHAIN: usize = F64_CHAIN;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller vouches for AVX-512F.
            unsafe { _mm512_setzero_pd() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f64) -> Self {
            // SAFETY: the caller vouches for AVX-512F and for `from`.
            unsafe { _mm512_loadu_pd(from) }
        }
        #[inline(always)]
        unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
            // SAFETY: the caller vouches for AVX-512F.
            unsafe { _mm512_fmadd_pd(self, b, c) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: the caller vouches for AVX-512F.
            unsafe { _mm512_add_pd(self, b) }
        }
        #[inline(always)]
        unsafe fn add_sums(four: [Self; 4], out: *mut f64) {
            // SAFETY: as this function.
            unsafe {
                let pair = |a, b| _mm512_add_pd(_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                let halve =
                    |p, q| _mm512_add_pd(_mm512_shuffle_f64x2::<0x88>(p, q), _mm512_shuffle_f64x2::<0xDD>(p, q));
                let quarters = halve(pair(four[0], four[1]), pair(four[2], four[3]));
                let sums = _mm512_castpd512_pd256(halve(quarters, quarters));
                _mm256_storeu_pd(out, _mm256_add_pd(_mm256_loadu_pd(out), sums));
            }
        }
    }
}

macro_rules! portable {
    ($scalar:ty, $n:literal, $chain:expr) => {
        impl Lanes for [$scalar; $n] {
            type Scalar = $scalar;
            const N: usize = $n;
            const CHAIN: usize = $chain;

            #[inline(always)]
            unsafe fn zero() -> Self {
                [0.0; $n]
            }
            #[inline(always)]
            unsafe fn load(from: *const $scalar) -> Self {
                // SAFETY: the caller vouches for `from`; an array has the alignment of its element.
                unsafe { *from.cast::<Self>() }
            }
            #[inline(always)]
            unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
                // A fused operation that the target lacks would be a library call per lane.
                const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
                std::array::from_fn(|i| if FUSED { self[i].mul_add(b[i], c[i]) } else { self[i] * b[i] + c[i] })
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                std::array::from_fn(|i| self[i] + b[i])
            }
            #[inline(always)]
            unsafe fn add_sums(four: [Self; 4], out: *mut f64) {
                for (j, lanes) in four.iter().enumerate() {
                    let sum: f64 = lanes.iter().map(|&x| f64::from(x)).sum();
                    // SAFETY: the caller vouches for four elements at `out`.
                    unsafe { *out.add(j) += sum };
                }
            }
        }
    };
}
portable!(f32, 4, F32_CHAIN);
portable!(f64, 2, F64_CHAIN);
