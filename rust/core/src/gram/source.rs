//! Where rows come from: one trait, memory, and a stack of sources.

use std::ops::Range;

use super::element::Element;
use crate::error::{Error, Result};
use crate::isa::Isa;

/// Where to put a widened stretch of a row.
#[derive(Debug)]
pub enum Destination<'a> {
    /// Widen (or round) to `f32`.
    F32(&'a mut [f32]),
    /// Widen to `f64`.
    F64(&'a mut [f64]),
}

impl Destination<'_> {
    /// Number of elements wanted.
    #[expect(clippy::len_without_is_empty, reason = "a stretch is never empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(to) => to.len(),
            Self::F64(to) => to.len(),
        }
    }

    pub(super) fn widen<T: Element>(self, from: &[T], isa: Isa) {
        match self {
            Self::F32(to) => T::copy_to_f32(from, to, isa),
            Self::F64(to) => T::copy_to_f64(from, to, isa),
        }
    }
}

/// What a worker keeps for one row of a file between two panels: the stretch that was read last.
#[derive(Debug, Default)]
pub struct ReadAhead {
    /// Most bytes to hold or read at once.
    pub limit: usize,
    /// Column where this worker's slab ends.
    pub end: usize,
    /// Column where the slab that it takes next is likely to start.
    pub soon: usize,
    pub(super) held: Range<usize>,
    /// What is held, from byte `start` on.
    pub(super) words: Vec<u64>,
    pub(super) start: usize,
}

impl ReadAhead {
    /// Start a slab: forget what is held.
    pub(super) fn restart(&mut self, limit: usize, end: usize, soon: usize) {
        (self.limit, self.end, self.soon, self.held) = (limit, end, soon, 0..0);
    }
}

/// A matrix whose rows are read in stretches.
pub trait Rows: Sync {
    /// Rows and columns.
    fn shape(&self) -> (usize, usize);

    /// Copy a row from `column` on into `to`.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read.
    fn stretch(&self, row: usize, column: usize, to: Destination<'_>, isa: Isa, ahead: &mut ReadAhead) -> Result<()>;

    /// Whether a stretch may have to come from a device: then more workers than cores take turns to wait for it.
    fn waits(&self) -> bool {
        false
    }

    /// Where an element lies and its size in bytes, if it is in memory: only used to prefetch.
    fn address(&self, _row: usize, _column: usize) -> Option<(*const u8, usize)> {
        None
    }
}

/// A row-major matrix in memory.
#[derive(Clone, Copy, Debug)]
pub struct SliceRows<'a, T> {
    data: &'a [T],
    shape: (usize, usize),
    stride: usize,
}

impl<'a, T: Element> SliceRows<'a, T> {
    /// A view of `data` as `n_rows` rows of `n_columns` elements, the starts of which are `stride` elements apart.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the last row does not fit in `data`.
    pub fn new(data: &'a [T], n_rows: usize, n_columns: usize, stride: usize) -> Result<Self> {
        let end = n_rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(n_columns));
        if end.is_none_or(|end| end > data.len()) {
            return Err(Error::invalid(format!(
                "a ({n_rows}, {n_columns}) matrix with row stride {stride} does not fit in {} elements",
                data.len()
            )));
        }
        Ok(Self { data, shape: (n_rows, n_columns), stride })
    }
}

impl<T: Element> Rows for SliceRows<'_, T> {
    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn stretch(&self, row: usize, column: usize, to: Destination<'_>, isa: Isa, _: &mut ReadAhead) -> Result<()> {
        let start = row * self.stride + column;
        let end = start + to.len();
        to.widen(&self.data[start..end], isa);
        Ok(())
    }

    fn address(&self, row: usize, column: usize) -> Option<(*const u8, usize)> {
        let at = self.data.as_ptr().wrapping_add(row * self.stride + column);
        Some((at.cast(), size_of::<T>()))
    }
}

/// Sources one above the other, seen as one matrix; nothing is copied.
pub struct Stacked<'a> {
    parts: Vec<Box<dyn Rows + 'a>>,
    starts: Vec<usize>,
    shape: (usize, usize),
}

impl<'a> Stacked<'a> {
    /// Stack sources that have the same number of columns.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none or their columns differ.
    pub fn new(parts: Vec<Box<dyn Rows + 'a>>) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::invalid("a stack needs at least one matrix; got none"));
        };
        let n_columns = first.shape().1;
        let (mut starts, mut n_rows) = (Vec::with_capacity(parts.len()), 0);
        for (k, part) in parts.iter().enumerate() {
            let (rows, columns) = part.shape();
            if columns != n_columns {
                return Err(Error::invalid(format!(
                    "stacked matrices must have the same number of columns; matrix 0 has {n_columns}, matrix {k} {columns}"
                )));
            }
            starts.push(n_rows);
            n_rows += rows;
        }
        Ok(Self { parts, starts, shape: (n_rows, n_columns) })
    }

    fn locate(&self, row: usize) -> (&dyn Rows, usize) {
        let part = self.starts.partition_point(|&start| start <= row) - 1;
        (&*self.parts[part], row - self.starts[part])
    }
}

impl Rows for Stacked<'_> {
    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn stretch(&self, row: usize, column: usize, to: Destination<'_>, isa: Isa, ahead: &mut ReadAhead) -> Result<()> {
        let (part, row) = self.locate(row);
        part.stretch(row, column, to, isa, ahead)
    }

    fn waits(&self) -> bool {
        self.parts.iter().any(|part| part.waits())
    }

    fn address(&self, row: usize, column: usize) -> Option<(*const u8, usize)> {
        let (part, row) = self.locate(row);
        part.address(row, column)
    }
}
