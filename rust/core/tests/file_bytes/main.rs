//! Arbitrary bytes, shapes and truncations of files, as the fuzz target `file_matrix` has them but drawn by proptest.

mod check;

use check::{Case, check};
use proptest::prelude::*;

fn content() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = prop::collection::vec(any::<u8>(), 0..600);
    // Exponents all ones: NaN and infinity in every dtype.
    let odd_bytes = prop::collection::vec(prop::sample::select(vec![0u8, 0x7f, 0x80, 0xff, 0xf0, 0x7c]), 0..600);
    prop_oneof![any_bytes, odd_bytes]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 400 }))]

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no mmap of files")]
    fn files_of_any_bytes_are_contracted_right_or_refused(
        content in content(), offset in prop_oneof![0u64..40, any::<u64>()], dtype in 0u8..5,
        shape in prop_oneof![(0usize..6, 0usize..40), (any::<usize>(), any::<usize>())], mapped: bool,
        cut in prop::option::of(0u64..700),
    ) {
        check(&Case { content, offset, dtype, shape, mapped, cut });
    }
}
