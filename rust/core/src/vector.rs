//! Lines of sixteen elements: the few operations that stencils and combinations of rows are written in.
#![allow(unsafe_code)]

use crate::isa::{Isa, Kind};

/// Elements of a line: what the widest register holds in `f32`, two of them in `f64`.
pub const LINE: usize = 16;

/// Bytes between a line that is loaded and the one to ask for: a page, where the processor's own prefetching stops.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4096;

/// A line in registers.
///
/// # Safety
/// Every method may use the instructions that the implementation is named after: call them only where the machine has
/// these, from functions that enable them.
pub trait Vector<T>: Copy {
    unsafe fn splat(value: T) -> Self;
    unsafe fn load(from: &[T; LINE]) -> Self;
    unsafe fn store(self, to: &mut [T; LINE]);
    /// Store past the caches where the instructions can, into memory aligned to 64 bytes: then [`Vector::fence`] before
    /// anyone reads it.
    #[inline(always)]
    unsafe fn stream(self, to: &mut [T; LINE]) {
        // SAFETY: as this function.
        unsafe { self.store(to) }
    }
    /// Order what was streamed before all that follows.
    #[inline(always)]
    unsafe fn fence() {}
    /// Ask for the line [`AHEAD`] bytes further on, which need not exist.
    #[inline(always)]
    unsafe fn prefetch(_from: &[T; LINE]) {}
    unsafe fn subtract(self, b: Self) -> Self;
    unsafe fn multiply(self, b: Self) -> Self;
    /// `self·b + c`.
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self;
    /// A line from `shift` elements past the start of the middle one on, −3 ≤ shift ≤ 3.
    #[inline(always)]
    unsafe fn shifted(lines: &[[T; LINE]; 3], shift: isize) -> Self {
        let (line, _) = lines.as_flattened()[LINE.wrapping_add_signed(shift)..].as_chunks();
        // SAFETY: as this function.
        unsafe { Self::load(&line[0]) }
    }
    /// Whether [`Vector::joined`] takes no longer than [`Vector::shifted`].
    const JOINS: bool = false;
    /// [`Vector::shifted`] of lines that lie apart.
    #[inline(always)]
    unsafe fn joined(before: &[T; LINE], line: &[T; LINE], after: &[T; LINE], shift: isize) -> Self
    where
        T: Copy,
    {
        // SAFETY: as this function.
        unsafe { Self::shifted(&[*before, *line, *after], shift) }
    }
}

/// Loops over lines, compiled once for each instruction set.
///
/// No closure in them touches a register: the compiler may leave one as a function of its own, without the instructions,
/// and then every operation in it is a call.
pub trait Kernel<T: Real>: Sized {
    /// # Safety
    /// The machine has the instructions of `V`.
    unsafe fn run<V: Vector<T>>(self);

    /// Run by the instructions of `isa`.
    fn dispatch(self, isa: Isa) {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx2,fma")]
            unsafe fn avx512<T: Real>(kernel: impl Kernel<T>) {
                // SAFETY: as this function.
                unsafe { kernel.run::<T::Avx512>() }
            }
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2<T: Real>(kernel: impl Kernel<T>) {
                // SAFETY: as this function.
                unsafe { kernel.run::<T::Avx2>() }
            }
            match isa.kind() {
                // SAFETY: `Isa::available` found the features before it made this `Isa`.
                Kind::Avx512 => return unsafe { avx512(self) },
                // SAFETY: as above.
                Kind::Avx2 => return unsafe { avx2(self) },
                Kind::Portable => {}
            }
        }
        let _ = isa;
        // SAFETY: plain arrays need no instructions.
        unsafe { self.run::<T::Portable>() }
    }
}

/// What fields are stored and computed in, `f32` or `f64`. A stencil takes differences first, so that its rounding is a few
/// eps of `Σ|c_k||u_{+k} − u_{−k}|`: no more than the rounding of the fields themselves leaves.
pub trait Real: Copy + Default + Send + Sync + 'static {
    /// A line by AVX-512F.
    #[cfg(target_arch = "x86_64")]
    type Avx512: Vector<Self>;
    /// A line by AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    type Avx2: Vector<Self>;
    /// A line by whatever the compiler makes of plain loops.
    type Portable: Vector<Self>;

    /// Rounded to this type.
    fn from_f64(value: f64) -> Self;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{AHEAD, LINE, Vector};

    /// A line of `$n` registers; `$joined` replaces the trait's own, and makes shifted lines too.
    macro_rules! line_of {
        ($register:ty, $n:literal, $element:ty, $set1:ident, $load:ident, $store:ident, $stream:ident, $sub:ident, $mul:ident, $fma:ident
         $(, $joined:item)?) => {
            impl Vector<$element> for [$register; $n] {
                #[inline(always)]
                unsafe fn splat(value: $element) -> Self {
                    // SAFETY: the caller vouches for the instructions, here and below; references to whole lines for the memory.
                    unsafe { [$set1(value); $n] }
                }
                #[inline(always)]
                unsafe fn load(from: &[$element; LINE]) -> Self {
                    // SAFETY: as in `splat`.
                    unsafe {
                        let mut line = Self::splat(0.0);
                        for k in 0..$n {
                            line[k] = $load(from[k * (LINE / $n)..].as_ptr());
                        }
                        line
                    }
                }
                #[inline(always)]
                unsafe fn store(self, to: &mut [$element; LINE]) {
                    for k in 0..$n {
                        // SAFETY: as in `splat`.
                        unsafe { $store(to[k * (LINE / $n)..].as_mut_ptr(), self[k]) };
                    }
                }
                #[inline(always)]
                unsafe fn stream(self, to: &mut [$element; LINE]) {
                    for k in 0..$n {
                        // SAFETY: as in `splat`; the caller vouches for the alignment.
                        unsafe { $stream(to[k * (LINE / $n)..].as_mut_ptr(), self[k]) };
                    }
                }
                #[inline(always)]
                unsafe fn fence() {
                    // SAFETY: every x86-64 machine has SSE.
                    unsafe { _mm_sfence() };
                }
                #[inline(always)]
                unsafe fn prefetch(from: &[$element; LINE]) {
                    for offset in (AHEAD..AHEAD + size_of::<[$element; LINE]>()).step_by(64) {
                        // SAFETY: a prefetch accesses no memory as far as the language is concerned.
                        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().cast::<i8>().wrapping_add(offset)) };
                    }
                }
                #[inline(always)]
                unsafe fn subtract(mut self, b: Self) -> Self {
                    for k in 0..$n {
                        // SAFETY: as in `splat`.
                        self[k] = unsafe { $sub(self[k], b[k]) };
                    }
                    self
                }
                #[inline(always)]
                unsafe fn multiply(mut self, b: Self) -> Self {
                    for k in 0..$n {
                        // SAFETY: as in `splat`.
                        self[k] = unsafe { $mul(self[k], b[k]) };
                    }
                    self
                }
                #[inline(always)]
                unsafe fn multiply_add(mut self, b: Self, c: Self) -> Self {
                    for k in 0..$n {
                        // SAFETY: as in `splat`.
                        self[k] = unsafe { $fma(self[k], b[k], c[k]) };
                    }
                    self
                }
                $(
                    const JOINS: bool = true;
                    $joined
                    #[inline(always)]
                    unsafe fn shifted(lines: &[[$element; LINE]; 3], shift: isize) -> Self {
                        // SAFETY: as this function.
                        unsafe { Self::joined(&lines[0], &lines[1], &lines[2], shift) }
                    }
                )?
            }
        };
    }

    /// `_mm512_alignr_…` by a shift that is a constant where it is inlined: elements of `$after:$before` from `$lanes`
    /// (backwards) or 0 (forwards) on.
    macro_rules! align {
        ($alignr:ident, $lanes:literal, $shift:expr, $before:expr, $line:expr, $after:expr) => {
            match $shift {
                -3 => $alignr::<{ $lanes - 3 }>($line, $before),
                -2 => $alignr::<{ $lanes - 2 }>($line, $before),
                -1 => $alignr::<{ $lanes - 1 }>($line, $before),
                1 => $alignr::<1>($after, $line),
                2 => $alignr::<2>($after, $line),
                3 => $alignr::<3>($after, $line),
                _ => $line,
            }
        };
    }

    line_of!(
        __m512,
        1,
        f32,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_stream_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        /// From whole lines: a load across two of them takes twice the time.
        #[inline(always)]
        unsafe fn joined(before: &[f32; LINE], line: &[f32; LINE], after: &[f32; LINE], shift: isize) -> Self {
            // SAFETY: as in `splat`.
            unsafe {
                let before = _mm512_loadu_si512(before.as_ptr().cast());
                let line = _mm512_loadu_si512(line.as_ptr().cast());
                let after = _mm512_loadu_si512(after.as_ptr().cast());
                [_mm512_castsi512_ps(align!(_mm512_alignr_epi32, 16, shift, before, line, after))]
            }
        }
    );
    line_of!(
        __m512d,
        2,
        f64,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_stream_pd,
        _mm512_sub_pd,
        _mm512_mul_pd,
        _mm512_fmadd_pd,
        /// As in `f32`.
        #[inline(always)]
        unsafe fn joined(before: &[f64; LINE], line: &[f64; LINE], after: &[f64; LINE], shift: isize) -> Self {
            // SAFETY: as in `splat`.
            unsafe {
                let before = _mm512_loadu_si512(before[LINE / 2..].as_ptr().cast());
                let low = _mm512_loadu_si512(line.as_ptr().cast());
                let high = _mm512_loadu_si512(line[LINE / 2..].as_ptr().cast());
                let after = _mm512_loadu_si512(after.as_ptr().cast());
                [
                    _mm512_castsi512_pd(align!(_mm512_alignr_epi64, 8, shift, before, low, high)),
                    _mm512_castsi512_pd(align!(_mm512_alignr_epi64, 8, shift, low, high, after)),
                ]
            }
        }
    );
    line_of!(
        __m256,
        2,
        f32,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_stream_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps
    );
    line_of!(
        __m256d,
        4,
        f64,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_stream_pd,
        _mm256_sub_pd,
        _mm256_mul_pd,
        _mm256_fmadd_pd
    );
}

macro_rules! real {
    ($element:ty, $avx512:ty, $avx2:ty) => {
        impl Real for $element {
            #[cfg(target_arch = "x86_64")]
            type Avx512 = $avx512;
            #[cfg(target_arch = "x86_64")]
            type Avx2 = $avx2;
            type Portable = [$element; LINE];

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $element
            }
        }

        impl Vector<$element> for [$element; LINE] {
            #[inline(always)]
            unsafe fn splat(value: $element) -> Self {
                [value; LINE]
            }
            #[inline(always)]
            unsafe fn load(from: &[$element; LINE]) -> Self {
                *from
            }
            #[inline(always)]
            unsafe fn store(self, to: &mut [$element; LINE]) {
                *to = self;
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
    };
}

real!(f32, [std::arch::x86_64::__m512; 1], [std::arch::x86_64::__m256; 2]);
real!(f64, [std::arch::x86_64::__m512d; 2], [std::arch::x86_64::__m256d; 4]);
