//! Rows that stay in a file: read in stretches (past the page cache, where they are not in it) or mapped. Row-major,
//! native byte order, no gaps: raw files and the contiguous datasets of HDF5.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::{Mmap, MmapOptions};
use rustix::fs::{Advice, fadvise};

use super::direct::{Direct, is_cached};
use super::element::Element;
use super::source::{Destination, ReadAhead, Rows};
use crate::error::{Error, Result};
use crate::isa::Isa;

/// Where a matrix lies in a file.
#[derive(Clone, Debug)]
pub struct FileMatrix {
    /// The file.
    pub path: PathBuf,
    /// Byte at which the first element starts.
    pub offset: u64,
    /// `"float32"`, `"float64"`, `"float16"` or `"bfloat16"`.
    pub dtype: String,
    /// Rows and columns.
    pub shape: (usize, usize),
    /// Map the file instead of reading it. A mapped file that shrinks during a call kills the process.
    pub mapped: bool,
}

impl FileMatrix {
    /// Open the file as a row source.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown dtype, a size beyond the address space, or a mapping that is not aligned;
    /// [`Error::Io`] when the file cannot be opened or is too short.
    pub fn open(&self) -> Result<Box<dyn Rows>> {
        match self.dtype.as_str() {
            "float32" => self.open_as::<f32>(),
            "float64" => self.open_as::<f64>(),
            "float16" => self.open_as::<f16>(),
            "bfloat16" => self.open_as::<bf16>(),
            other => Err(Error::invalid(format!(
                "`dtype` must be \"float32\", \"float64\", \"float16\" or \"bfloat16\"; got \"{other}\""
            ))),
        }
    }

    fn open_as<T: Element>(&self) -> Result<Box<dyn Rows>> {
        let (rows, columns) = self.shape;
        let bytes = rows.checked_mul(columns).and_then(|n| n.checked_mul(size_of::<T>()));
        let end = bytes.and_then(|n| self.offset.checked_add(u64::try_from(n).ok()?)).filter(|&e| e <= i64::MAX as u64);
        let (Some(bytes), Some(end)) = (bytes.filter(|&n| n <= isize::MAX as usize), end) else {
            return Err(Error::invalid(format!(
                "{}: a ({rows}, {columns}) {} matrix at byte {} is larger than any file",
                self.path.display(),
                T::NAME,
                self.offset
            )));
        };
        let file = File::open(&self.path).map_err(|e| named(&self.path, &e))?;
        let length = file.metadata().map_err(|e| named(&self.path, &e))?.len();
        if length < end {
            return Err(Error::Io(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{}: a ({rows}, {columns}) {} matrix at byte {} needs {end} bytes; the file has {length}",
                    self.path.display(),
                    T::NAME,
                    self.offset
                ),
            )));
        }
        let aligned = self.offset.is_multiple_of(size_of::<T>() as u64);
        if !self.mapped || bytes == 0 {
            let place = Place { offset: self.offset, shape: self.shape, stored: PhantomData };
            let direct = if aligned { Direct::open(&self.path, &file) } else { None };
            return Ok(Box::new(ReadRows::<T> { file, direct, path: self.path.clone(), place }));
        }
        if !aligned {
            return Err(Error::invalid(format!(
                "{}: a mapped {} matrix must start at a multiple of {} bytes; got {}: read it unmapped",
                self.path.display(),
                T::NAME,
                size_of::<T>(),
                self.offset
            )));
        }
        // SAFETY: the mapping is read-only; that the file keeps its size and content during the call is the documented
        // duty of whoever asks for a mapping.
        #[allow(unsafe_code)]
        let map = unsafe { MmapOptions::new().offset(self.offset).len(bytes).map(&file) };
        let map = map.map_err(|e| named(&self.path, &e))?;
        let place = Place { offset: 0, shape: self.shape, stored: PhantomData };
        Ok(Box::new(MappedRows::<T> { map, place }))
    }
}

fn named(path: &Path, error: &io::Error) -> Error {
    Error::Io(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Byte arithmetic of a matrix that was found to fit.
struct Place<T> {
    offset: u64,
    shape: (usize, usize),
    stored: PhantomData<fn() -> T>,
}

impl<T> Place<T> {
    fn byte(&self, row: usize, column: usize) -> u64 {
        self.offset + ((row * self.shape.1 + column) * size_of::<T>()) as u64
    }
}

/// What to fetch while `held` is worked on: the next stretch of the slab, else the start of the next slab.
fn after<T>(ahead: &ReadAhead, held: &Range<usize>, n_columns: usize) -> Range<usize> {
    let rest = next::<T>(ahead, held.end, 0);
    if !rest.is_empty() {
        return rest;
    }
    let start = ahead.soon.min(n_columns);
    start..(start + ahead.limit / size_of::<T>()).min(n_columns)
}

/// The stretch to take next: from `column` on, as much as `ahead` allows but at least `least`.
fn next<T>(ahead: &ReadAhead, column: usize, least: usize) -> Range<usize> {
    let most = (ahead.limit / size_of::<T>()).max(least);
    column..(column + most).min(ahead.end.max(column + least))
}

struct ReadRows<T> {
    file: File,
    /// None also where elements would not be aligned in memory as they lie in the file.
    direct: Option<Direct>,
    path: PathBuf,
    place: Place<T>,
}

impl<T: Element> ReadRows<T> {
    /// Hold the columns `take` of a row.
    fn read(&self, row: usize, take: Range<usize>, ahead: &mut ReadAhead) -> Result<()> {
        ahead.held = 0..0;
        let (at, n_bytes) = (self.place.byte(row, take.start), take.len() * size_of::<T>());
        let direct = self.direct.as_ref().filter(|_| !is_cached(&self.file, at, n_bytes));
        if let Some(start) = direct.and_then(|direct| direct.read(at, n_bytes, &mut ahead.words)) {
            (ahead.held, ahead.start) = (take, start);
            return Ok(());
        }
        ahead.words.resize(n_bytes.div_ceil(size_of::<u64>()), 0);
        let bytes = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut ahead.words)[..n_bytes];
        self.file.read_exact_at(bytes, at).map_err(|e| named(&self.path, &e))?;
        let after = after::<T>(ahead, &take, self.place.shape.1);
        if let Some(n) =
            std::num::NonZeroU64::new((after.len() * size_of::<T>()) as u64).filter(|_| self.direct.is_none())
        {
            // Advice: a system that does not take it reads later.
            let _ = fadvise(&self.file, self.place.byte(row, after.start), Some(n), Advice::WillNeed);
        }
        (ahead.held, ahead.start) = (take, 0);
        Ok(())
    }
}

impl<T: Element> Rows for ReadRows<T> {
    fn shape(&self) -> (usize, usize) {
        self.place.shape
    }

    fn stretch(&self, row: usize, column: usize, to: Destination<'_>, isa: Isa, ahead: &mut ReadAhead) -> Result<()> {
        let least = to.len();
        if column < ahead.held.start || column + least > ahead.held.end {
            self.read(row, next::<T>(ahead, column, least), ahead)?;
        }
        let from = ahead.start + (column - ahead.held.start) * size_of::<T>();
        let bytes = &bytemuck::cast_slice::<u64, u8>(&ahead.words)[from..from + least * size_of::<T>()];
        to.widen::<T>(bytemuck::cast_slice(bytes), isa);
        Ok(())
    }

    fn waits(&self) -> bool {
        true
    }
}

struct MappedRows<T> {
    map: Mmap,
    place: Place<T>,
}

/// Faulting in one page of a file maps its neighbours in an aligned window of this many bytes.
const WINDOW: usize = 64 << 10;

impl<T: Element> MappedRows<T> {
    fn data(&self) -> &[T] {
        bytemuck::cast_slice(&self.map)
    }

    fn bytes(&self, row: usize, columns: &Range<usize>) -> Range<usize> {
        let at = |column: usize| (row * self.place.shape.1 + column) * size_of::<T>();
        at(columns.start)..at(columns.end)
    }

    /// Give the pages of a stretch back, so that resident memory does not grow with the file.
    fn release(&self, row: usize, columns: &Range<usize>) {
        let bytes = self.bytes(row, columns);
        let start = bytes.start / WINDOW * WINDOW;
        let end = bytes.end.next_multiple_of(WINDOW).min(self.map.len());
        // SAFETY: the pages are a read-only view of the file: a later access maps them again with the same content.
        #[allow(unsafe_code)]
        let _ = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
    }
}

impl<T: Element> Rows for MappedRows<T> {
    fn shape(&self) -> (usize, usize) {
        self.place.shape
    }

    fn stretch(&self, row: usize, column: usize, to: Destination<'_>, isa: Isa, ahead: &mut ReadAhead) -> Result<()> {
        let least = to.len();
        if column < ahead.held.start || column + least > ahead.held.end {
            if !ahead.held.is_empty() {
                self.release(row, &ahead.held);
            }
            ahead.held = next::<T>(ahead, column, least);
            for soon in [ahead.held.clone(), after::<T>(ahead, &ahead.held, self.place.shape.1)] {
                let bytes = self.bytes(row, &soon);
                let _ = self.map.advise_range(memmap2::Advice::WillNeed, bytes.start, bytes.len());
            }
        }
        let start = row * self.place.shape.1 + column;
        to.widen::<T>(&self.data()[start..start + least], isa);
        if column + least >= ahead.end {
            self.release(row, &ahead.held);
            ahead.held = 0..0;
        }
        Ok(())
    }

    fn address(&self, row: usize, column: usize) -> Option<(*const u8, usize)> {
        let at = self.data().as_ptr().wrapping_add(row * self.place.shape.1 + column);
        Some((at.cast(), size_of::<T>()))
    }
}
