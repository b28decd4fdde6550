//! Storage types and their widening to the type in which products are taken.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::isa::{Isa, dispatch};

/// A floating-point storage type. Widening is exact except from `f64` to `f32`, which rounds to nearest.
pub trait Element: bytemuck::Pod + Send + Sync + 'static {
    /// Name of the type as NumPy and PyTorch spell it.
    const NAME: &'static str;

    /// The value as `f64`, exactly.
    fn widen(self) -> f64;

    /// `dst[i] = src[i]` as `f32`; both have the same length.
    fn copy_to_f32(src: &[Self], dst: &mut [f32], isa: Isa);

    /// `dst[i] = src[i]` as `f64`; both have the same length.
    fn copy_to_f64(src: &[Self], dst: &mut [f64], isa: Isa);
}

#[inline(always)]
fn each<S: Copy, D>(src: &[S], dst: &mut [D], convert: impl Fn(S) -> D) {
    for (d, &s) in dst.iter_mut().zip(src) {
        *d = convert(s);
    }
}

impl Element for f32 {
    const NAME: &'static str = "float32";

    #[inline]
    fn widen(self) -> f64 {
        f64::from(self)
    }

    fn copy_to_f32(src: &[Self], dst: &mut [f32], _isa: Isa) {
        dst.copy_from_slice(src);
    }

    fn copy_to_f64(src: &[Self], dst: &mut [f64], isa: Isa) {
        dispatch(isa, || each(src, dst, f64::from));
    }
}

impl Element for f64 {
    const NAME: &'static str = "float64";

    #[inline]
    fn widen(self) -> f64 {
        self
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounding to the requested product type")]
    fn copy_to_f32(src: &[Self], dst: &mut [f32], isa: Isa) {
        dispatch(isa, || each(src, dst, |x| x as f32));
    }

    fn copy_to_f64(src: &[Self], dst: &mut [f64], _isa: Isa) {
        dst.copy_from_slice(src);
    }
}

impl Element for bf16 {
    const NAME: &'static str = "bfloat16";

    #[inline]
    fn widen(self) -> f64 {
        f64::from(f32::from_bits(u32::from(self.to_bits()) << 16))
    }

    fn copy_to_f32(src: &[Self], dst: &mut [f32], isa: Isa) {
        dispatch(isa, || each(src, dst, |x| f32::from_bits(u32::from(x.to_bits()) << 16)));
    }

    fn copy_to_f64(src: &[Self], dst: &mut [f64], isa: Isa) {
        dispatch(isa, || each(src, dst, Self::widen));
    }
}

/// Elements converted at a time through a buffer on the stack.
const PIECE: usize = 256;

impl Element for f16 {
    const NAME: &'static str = "float16";

    #[inline]
    fn widen(self) -> f64 {
        self.to_f64()
    }

    fn copy_to_f32(src: &[Self], dst: &mut [f32], _isa: Isa) {
        src.convert_to_f32_slice(dst);
    }

    fn copy_to_f64(src: &[Self], dst: &mut [f64], isa: Isa) {
        let mut piece = [0.0f32; PIECE];
        for (s, d) in src.chunks(PIECE).zip(dst.chunks_mut(PIECE)) {
            let piece = &mut piece[..s.len()];
            s.convert_to_f32_slice(piece);
            f32::copy_to_f64(piece, d, isa);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_pattern_widens_as_the_half_crate_says() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let brains: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let (mut narrow, mut wide) = (vec![0.0f32; halves.len()], vec![0.0f64; halves.len()]);
        for isa in Isa::available() {
            f16::copy_to_f32(&halves, &mut narrow, isa);
            f16::copy_to_f64(&halves, &mut wide, isa);
            for (i, h) in halves.iter().enumerate().filter(|(_, h)| !h.is_nan()) {
                assert_eq!((narrow[i], wide[i]), (h.to_f32(), h.to_f64()));
            }
            bf16::copy_to_f32(&brains, &mut narrow, isa);
            bf16::copy_to_f64(&brains, &mut wide, isa);
            for (i, b) in brains.iter().enumerate().filter(|(_, b)| !b.is_nan()) {
                assert_eq!((narrow[i], wide[i]), (b.to_f32(), b.to_f64()));
            }
        }
    }
}
