//! Lines of eight f64: the few operations that the stencils are written in.
#![allow(unsafe_code)]

/// Elements of a cache line and of the widest register.
pub const LINE: usize = 8;

/// Eight lanes.
///
/// # Safety
/// Every method may use the instructions that the implementation is named after: call them only where the machine has
/// these, from functions that enable them.
pub trait Vector: Copy {
    unsafe fn splat(value: f64) -> Self;
    unsafe fn load(from: &[f64; LINE]) -> Self;
    unsafe fn store(self, to: &mut [f64; LINE]);
    unsafe fn widen(from: &[f32; LINE]) -> Self;
    unsafe fn narrow(self, to: &mut [f32; LINE]);
    unsafe fn subtract(self, b: Self) -> Self;
    unsafe fn multiply(self, b: Self) -> Self;
    /// `self·b + c`.
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self;
    /// Eight elements from `shift` past the start of the middle line on, −3 ≤ shift ≤ 3.
    #[inline(always)]
    unsafe fn shifted(lines: &[[f64; LINE]; 3], shift: isize) -> Self {
        let (line, _) = lines.as_flattened()[LINE.wrapping_add_signed(shift)..].as_chunks();
        // SAFETY: as this function.
        unsafe { Self::load(&line[0]) }
    }
}

/// What a vector is loaded from and rounded to.
///
/// # Safety
/// The machine has the instructions of `V`.
pub trait Storage: Copy + Default + Send + Sync + 'static {
    fn to_f64(self) -> f64;
    unsafe fn load<V: Vector>(from: &[Self; LINE]) -> V;
    unsafe fn store<V: Vector>(value: V, to: &mut [Self; LINE]);
}

impl Storage for f32 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    unsafe fn load<V: Vector>(from: &[Self; LINE]) -> V {
        // SAFETY: as this function.
        unsafe { V::widen(from) }
    }
    #[inline(always)]
    unsafe fn store<V: Vector>(value: V, to: &mut [Self; LINE]) {
        // SAFETY: as this function.
        unsafe { value.narrow(to) }
    }
}

impl Storage for f64 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    unsafe fn load<V: Vector>(from: &[Self; LINE]) -> V {
        // SAFETY: as this function.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    unsafe fn store<V: Vector>(value: V, to: &mut [Self; LINE]) {
        // SAFETY: as this function.
        unsafe { value.store(to) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LINE, Vector};

    impl Vector for __m512d {
        #[inline(always)]
        unsafe fn splat(value: f64) -> Self {
            // SAFETY: the caller vouches for AVX-512F, here and below; references vouch for the memory.
            unsafe { _mm512_set1_pd(value) }
        }
        #[inline(always)]
        unsafe fn load(from: &[f64; LINE]) -> Self {
            // SAFETY: as in `splat`.
            unsafe { _mm512_loadu_pd(from.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn store(self, to: &mut [f64; LINE]) {
            // SAFETY: as in `splat`.
            unsafe { _mm512_storeu_pd(to.as_mut_ptr(), self) }
        }
        #[inline(always)]
        unsafe fn widen(from: &[f32; LINE]) -> Self {
            // SAFETY: as in `splat`.
            unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(from.as_ptr())) }
        }
        #[inline(always)]
        unsafe fn narrow(self, to: &mut [f32; LINE]) {
            // SAFETY: as in `splat`.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm512_cvtpd_ps(self)) }
        }
        #[inline(always)]
        unsafe fn subtract(self, b: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe { _mm512_sub_pd(self, b) }
        }
        #[inline(always)]
        unsafe fn multiply(self, b: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe { _mm512_mul_pd(self, b) }
        }
        #[inline(always)]
        unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe { _mm512_fmadd_pd(self, b, c) }
        }
        /// From whole lines: a load across two lines takes twice the time.
        #[inline(always)]
        unsafe fn shifted(lines: &[[f64; LINE]; 3], shift: isize) -> Self {
            // SAFETY: as in `splat`.
            unsafe {
                let [before, line, after] = [0, 1, 2].map(|k| _mm512_castpd_si512(Self::load(&lines[k])));
                _mm512_castsi512_pd(match shift {
                    -3 => _mm512_alignr_epi64::<5>(line, before),
                    -2 => _mm512_alignr_epi64::<6>(line, before),
                    -1 => _mm512_alignr_epi64::<7>(line, before),
                    1 => _mm512_alignr_epi64::<1>(after, line),
                    2 => _mm512_alignr_epi64::<2>(after, line),
                    3 => _mm512_alignr_epi64::<3>(after, line),
                    _ => line,
                })
            }
        }
    }

    /// AVX2 and FMA.
    impl Vector for [__m256d; 2] {
        #[inline(always)]
        unsafe fn splat(value: f64) -> Self {
            // SAFETY: the caller vouches for AVX2 and FMA, here and below; references vouch for the memory.
            unsafe { [_mm256_set1_pd(value); 2] }
        }
        #[inline(always)]
        unsafe fn load(from: &[f64; LINE]) -> Self {
            // SAFETY: as in `splat`.
            unsafe { [_mm256_loadu_pd(from.as_ptr()), _mm256_loadu_pd(from[4..].as_ptr())] }
        }
        #[inline(always)]
        unsafe fn store(self, to: &mut [f64; LINE]) {
            // SAFETY: as in `splat`.
            unsafe {
                _mm256_storeu_pd(to.as_mut_ptr(), self[0]);
                _mm256_storeu_pd(to[4..].as_mut_ptr(), self[1]);
            }
        }
        #[inline(always)]
        unsafe fn widen(from: &[f32; LINE]) -> Self {
            // SAFETY: as in `splat`.
            unsafe {
                let half = |from: &[f32]| _mm256_cvtps_pd(_mm_loadu_ps(from.as_ptr()));
                [half(&from[..4]), half(&from[4..])]
            }
        }
        #[inline(always)]
        unsafe fn narrow(self, to: &mut [f32; LINE]) {
            // SAFETY: as in `splat`.
            unsafe {
                _mm_storeu_ps(to.as_mut_ptr(), _mm256_cvtpd_ps(self[0]));
                _mm_storeu_ps(to[4..].as_mut_ptr(), _mm256_cvtpd_ps(self[1]));
            }
        }
        #[inline(always)]
        unsafe fn subtract(self, b: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe { [_mm256_sub_pd(self[0], b[0]), _mm256_sub_pd(self[1], b[1])] }
        }
        #[inline(always)]
        unsafe fn multiply(self, b: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe { [_mm256_mul_pd(self[0], b[0]), _mm256_mul_pd(self[1], b[1])] }
        }
        #[inline(always)]
        unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe { [_mm256_fmadd_pd(self[0], b[0], c[0]), _mm256_fmadd_pd(self[1], b[1], c[1])] }
        }
    }
}

/// Whatever the compiler makes of plain loops.
impl Vector for [f64; LINE] {
    #[inline(always)]
    unsafe fn splat(value: f64) -> Self {
        [value; LINE]
    }
    #[inline(always)]
    unsafe fn load(from: &[f64; LINE]) -> Self {
        *from
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [f64; LINE]) {
        *to = self;
    }
    #[inline(always)]
    unsafe fn widen(from: &[f32; LINE]) -> Self {
        from.map(f64::from)
    }
    #[inline(always)]
    unsafe fn narrow(self, to: &mut [f32; LINE]) {
        *to = self.map(|value| value as f32);
    }
    #[inline(always)]
    unsafe fn subtract(self, b: Self) -> Self {
        std::array::from_fn(|l| self[l] - b[l])
    }
    #[inline(always)]
    unsafe fn multiply(self, b: Self) -> Self {
        std::array::from_fn(|l| self[l] * b[l])
    }
    #[inline(always)]
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
        // A fused operation that the target lacks would be a library call per lane.
        const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
        std::array::from_fn(|l| if FUSED { self[l].mul_add(b[l], c[l]) } else { self[l] * b[l] + c[l] })
    }
}
