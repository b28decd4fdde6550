//! Consecutive rows of a periodic plane, side by side and padded with what lies beyond the seam.
#![allow(unsafe_code)]

use super::vector::{LINE, Real, Vector};

/// Farthest reach of a stencil.
const MAX_REACH: usize = 3;

/// Which rows and how much beyond the seam a window keeps, each at most [`MAX_REACH`].
#[derive(Clone, Copy)]
pub(super) struct Reach {
    /// Rows before and after the current one.
    pub(super) rows: usize,
    /// Elements before and after each row.
    pub(super) columns: usize,
}

/// The rows around a current one. Each starts on a cache line.
pub(super) struct Window<'a, T> {
    plane: &'a [T],
    shape: (usize, usize),
    reach: Reach,
    /// Whether the plane comes from beyond the caches.
    far: bool,
    /// Row of the plane to load next.
    next: usize,
    memory: &'a mut [T],
    /// Where the rows start in the memory, topmost first.
    starts: [usize; 2 * MAX_REACH + 1],
}

impl<'a, T: Real> Window<'a, T> {
    /// The window around row `current`, in `memory`, which grows as needed.
    ///
    /// # Safety
    /// The machine has the instructions of `V`.
    #[inline(always)]
    pub(super) unsafe fn new<V: Vector<T>>(
        plane: &'a [T],
        shape: (usize, usize),
        reach: Reach,
        far: bool,
        current: usize,
        memory: &'a mut Vec<T>,
    ) -> Self {
        let n_rows = 2 * reach.rows + 1;
        let stride = LINE + shape.1.next_multiple_of(LINE) + LINE;
        if memory.len() < n_rows * stride + LINE {
            memory.resize(n_rows * stride + LINE, T::default());
        }
        let first = memory.as_ptr().align_offset(64).min(LINE);
        let starts = std::array::from_fn(|k| k * stride + LINE);
        let next = (current + shape.0 - reach.rows) % shape.0;
        let mut window = Self { plane, shape, reach, far, next, memory: &mut memory[first..], starts };
        for start in starts.into_iter().take(n_rows) {
            // SAFETY: as this function.
            unsafe { window.load::<V>(start) };
        }
        window
    }

    /// Go to the next row.
    ///
    /// # Safety
    /// The machine has the instructions of `V`.
    #[inline(always)]
    pub(super) unsafe fn advance<V: Vector<T>>(&mut self) {
        let last = 2 * self.reach.rows;
        for k in 0..last {
            self.starts.swap(k, k + 1);
        }
        // SAFETY: as this function.
        unsafe { self.load::<V>(self.starts[last]) };
    }

    /// Load the next row of the plane.
    ///
    /// # Safety
    /// The machine has the instructions of `V`.
    #[inline(always)]
    unsafe fn load<V: Vector<T>>(&mut self, start: usize) {
        let (n, pad) = (self.shape.1, self.reach.columns);
        let row = &self.plane[self.next * n..][..n];
        self.next = if self.next + 1 == self.shape.0 { 0 } else { self.next + 1 };
        let to = &mut self.memory[start - pad..][..n + 2 * pad];
        let (lines, rest) = row.as_chunks();
        let (to_lines, to_rest) = to[pad..pad + n].as_chunks_mut();
        for (to, from) in to_lines.iter_mut().zip(lines) {
            // SAFETY: as this function.
            unsafe {
                if self.far {
                    V::prefetch(from);
                }
                V::load(from).store(to);
            }
        }
        to_rest.copy_from_slice(rest);
        for k in 0..pad {
            to[k] = row[n - pad + k];
            to[pad + n + k] = row[k];
        }
    }

    /// The row `down` below the current one; what its last line has beyond the plane means nothing.
    #[inline(always)]
    pub(super) fn row(&self, down: isize) -> &[[T; LINE]] {
        let start = self.starts[self.reach.rows.wrapping_add_signed(down)];
        self.memory[start..][..self.shape.1.next_multiple_of(LINE)].as_chunks().0
    }

    /// The current row, between a line that ends with what lies before it and one that starts with what lies after it.
    #[inline(always)]
    pub(super) fn padded_row(&self) -> &[[T; LINE]] {
        let start = self.starts[self.reach.rows] - LINE;
        self.memory[start..][..self.shape.1.next_multiple_of(LINE) + 2 * LINE].as_chunks().0
    }
}
