//! Consecutive rows of a periodic plane, side by side and padded with what lies beyond the seam.
#![allow(unsafe_code)]

use crate::vector::{LINE, Real, Vector};

/// Which rows and how much beyond the seam a window keeps.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    /// Rows before and after the current one.
    pub(super) rows: usize,
    /// Elements before and after each row.
    pub(super) columns: usize,
}

impl Reach {
    fn n_rows(self) -> usize {
        2 * self.rows + 1
    }
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
    /// Slots of the memory, a line before each row to a line after it; they are filled in turn.
    stride: usize,
    /// Slot of the topmost row.
    top: usize,
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
        let n_rows = reach.n_rows();
        let stride = LINE + shape.1.next_multiple_of(LINE) + LINE;
        if memory.len() < n_rows * stride + LINE {
            memory.resize(n_rows * stride + LINE, T::default());
        }
        let first = memory.as_ptr().align_offset(64).min(LINE);
        let next = (current + shape.0 - reach.rows) % shape.0;
        let mut window = Self { plane, shape, reach, far, next, memory: &mut memory[first..], stride, top: 0 };
        for slot in 0..n_rows {
            // SAFETY: as this function.
            unsafe { window.load::<V>(slot) };
        }
        window
    }

    /// Go to the next row.
    ///
    /// # Safety
    /// The machine has the instructions of `V`.
    #[inline(always)]
    pub(super) unsafe fn advance<V: Vector<T>>(&mut self) {
        let oldest = self.top;
        self.top = if self.top + 1 == self.reach.n_rows() { 0 } else { self.top + 1 };
        // SAFETY: as this function.
        unsafe { self.load::<V>(oldest) };
    }

    /// Load the next row of the plane.
    ///
    /// # Safety
    /// The machine has the instructions of `V`.
    #[inline(always)]
    unsafe fn load<V: Vector<T>>(&mut self, slot: usize) {
        let (n, pad) = (self.shape.1, self.reach.columns);
        let row = &self.plane[self.next * n..][..n];
        self.next = if self.next + 1 == self.shape.0 { 0 } else { self.next + 1 };
        let to = &mut self.memory[slot * self.stride + LINE - pad..][..n + 2 * pad];
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
        if !rest.is_empty() {
            to_rest.copy_from_slice(rest);
        }
        for k in 0..pad {
            to[k] = row[n - pad + k];
            to[pad + n + k] = row[k];
        }
    }

    /// Where the row `down` below the current one starts in the memory.
    #[inline(always)]
    fn start(&self, down: isize) -> usize {
        let slot = self.top + self.reach.rows.wrapping_add_signed(down);
        let n_rows = self.reach.n_rows();
        (if slot < n_rows { slot } else { slot - n_rows }) * self.stride + LINE
    }

    /// The row `down` below the current one; what its last line has beyond the plane means nothing.
    #[inline(always)]
    pub(super) fn row(&self, down: isize) -> &[[T; LINE]] {
        self.memory[self.start(down)..][..self.shape.1.next_multiple_of(LINE)].as_chunks().0
    }

    /// The current row, between a line that ends with what lies before it and one that starts with what lies after it.
    #[inline(always)]
    pub(super) fn padded_row(&self) -> &[[T; LINE]] {
        self.memory[self.start(0) - LINE..][..self.shape.1.next_multiple_of(LINE) + 2 * LINE].as_chunks().0
    }
}
