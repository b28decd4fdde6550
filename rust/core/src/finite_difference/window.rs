//! Consecutive rows of a periodic plane: where they lie, or side by side and padded with what lies beyond the seam.
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

/// The rows around a current one.
pub(super) trait Around<T: Real> {
    /// Go to the next row.
    ///
    /// # Safety
    /// The machine has the instructions of `V`.
    unsafe fn advance<V: Vector<T>>(&mut self);

    /// The row `down` below the current one; what its last line has beyond the plane means nothing.
    fn row(&self, down: isize) -> &[[T; LINE]];

    /// The current row, with what lies before and after it.
    fn centre(&self) -> impl Centre<T>;
}

/// A row and what lies beyond its ends.
pub(super) trait Centre<T: Real>: Copy {
    /// A line between its neighbours.
    type Lines: Copy;

    /// Line `v` of the row.
    ///
    /// # Safety
    /// `v` is less than the number of lines of [`Around::row`].
    unsafe fn lines(self, v: usize) -> Self::Lines;

    /// A line from `shift` elements past the start of the middle one on.
    ///
    /// # Safety
    /// The machine has the instructions of `V`.
    unsafe fn shifted<V: Vector<T>>(lines: Self::Lines, shift: isize) -> V;
}

/// The rows where they lie: each whole lines of the plane.
pub(super) struct InPlace<'a, T> {
    lines: &'a [[T; LINE]],
    n_rows: usize,
    lines_per_row: usize,
    reach: Reach,
    /// Whether the plane comes from beyond the caches.
    far: bool,
    current: usize,
}

impl<'a, T: Real> InPlace<'a, T> {
    /// The rows around row `current`; None where rows do not consist of whole lines that are cache lines.
    pub(super) fn new(plane: &'a [T], shape: (usize, usize), reach: Reach, far: bool, current: usize) -> Option<Self> {
        let whole = shape.1.is_multiple_of(LINE) && plane.as_ptr().addr().is_multiple_of(64);
        let (lines, lines_per_row) = (plane.as_chunks().0, shape.1 / LINE);
        whole.then_some(Self { lines, n_rows: shape.0, lines_per_row, reach, far, current })
    }
}

impl<T: Real> Around<T> for InPlace<'_, T> {
    #[inline(always)]
    unsafe fn advance<V: Vector<T>>(&mut self) {
        self.current += 1;
        if self.far {
            for line in self.row(self.reach.rows as isize) {
                // SAFETY: as this function.
                unsafe { V::prefetch(line) };
            }
        }
    }

    #[inline(always)]
    fn row(&self, down: isize) -> &[[T; LINE]] {
        let (n_rows, n_lines) = (self.n_rows, self.lines_per_row);
        let row = (self.current + n_rows).wrapping_add_signed(down);
        let row = if row < n_rows { row } else { row - n_rows };
        let row = if row < n_rows { row } else { row - n_rows };
        &self.lines[row * n_lines..][..n_lines]
    }

    #[inline(always)]
    fn centre(&self) -> impl Centre<T> {
        Ring(self.row(0))
    }
}

/// A row that begins again after its end.
#[derive(Clone, Copy)]
struct Ring<'a, T>(&'a [[T; LINE]]);

impl<'a, T: Real> Centre<T> for Ring<'a, T> {
    type Lines = [&'a [T; LINE]; 3];

    #[inline(always)]
    unsafe fn lines(self, v: usize) -> Self::Lines {
        let last = self.0.len() - 1;
        let (before, after) = (if v == 0 { last } else { v - 1 }, if v == last { 0 } else { v + 1 });
        // SAFETY: `v` is at most the last.
        unsafe { [self.0.get_unchecked(before), self.0.get_unchecked(v), self.0.get_unchecked(after)] }
    }

    #[inline(always)]
    unsafe fn shifted<V: Vector<T>>([before, line, after]: Self::Lines, shift: isize) -> V {
        // SAFETY: as this function.
        unsafe { V::joined(before, line, after, shift) }
    }
}

/// The rows in memory of their own. Each starts on a cache line.
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
}

impl<T: Real> Around<T> for Window<'_, T> {
    #[inline(always)]
    unsafe fn advance<V: Vector<T>>(&mut self) {
        let oldest = self.top;
        self.top = if self.top + 1 == self.reach.n_rows() { 0 } else { self.top + 1 };
        // SAFETY: as this function.
        unsafe { self.load::<V>(oldest) };
    }

    #[inline(always)]
    fn row(&self, down: isize) -> &[[T; LINE]] {
        self.memory[self.start(down)..][..self.shape.1.next_multiple_of(LINE)].as_chunks().0
    }

    #[inline(always)]
    fn centre(&self) -> impl Centre<T> {
        Padded(self.memory[self.start(0) - LINE..][..self.shape.1.next_multiple_of(LINE) + 2 * LINE].as_chunks().0)
    }
}

/// A row between a line that ends with what lies before it and one that starts with what lies after it.
#[derive(Clone, Copy)]
struct Padded<'a, T>(&'a [[T; LINE]]);

impl<'a, T: Real> Centre<T> for Padded<'a, T> {
    type Lines = &'a [[T; LINE]; 3];

    #[inline(always)]
    unsafe fn lines(self, v: usize) -> Self::Lines {
        // SAFETY: a padded row has a line on each side of those of the row.
        unsafe { self.0.get_unchecked(v..).first_chunk().unwrap_unchecked() }
    }

    #[inline(always)]
    unsafe fn shifted<V: Vector<T>>(lines: Self::Lines, shift: isize) -> V {
        // In place: of a copy, loads across two lines would wait for the stores that made it.
        // SAFETY: as this function.
        unsafe { V::shifted(lines, shift) }
    }
}
