//! Matrices in files: the input is a short description followed by the file's content.
//!
//!     cargo +nightly fuzz run file_matrix
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../rust/core/tests/file_bytes/check.rs"]
mod check;

fuzz_target!(|data: &[u8]| {
    let Some((head, content)) = data.split_at_checked(16) else { return };
    let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    // One bit widens the description to numbers beyond the address space.
    let scale = |value: u16| if head[0] & 1 == 1 { u64::from(value) << (head[15] % 64) } else { u64::from(value) };
    check::check(&check::Case {
        content: content.to_vec(),
        offset: scale(word(4)),
        dtype: head[1] % 5,
        shape: (scale(word(6)) as usize, scale(word(8)) as usize),
        mapped: head[0] & 2 == 2,
        cut: (head[0] & 4 == 4).then(|| u64::from(word(10))),
    });
});
