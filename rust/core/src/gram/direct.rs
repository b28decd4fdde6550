//! Reads past the page cache: what is used once costs neither a copy nor the pages that others may need.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

/// Alignment of addresses, offsets and lengths that every common device takes.
const BLOCK: usize = 4096;

/// A second handle of a file, whose reads go from the device to memory; Linux only.
pub(super) struct Direct(File);

impl Direct {
    /// Open the file that `buffered` is; None where the system, or the file system, has no such reads.
    pub(super) fn open(path: &Path, buffered: &File) -> Option<Self> {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
            let flag = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
            let file = File::options().read(true).custom_flags(flag).open(path).ok()?;
            let (a, b) = (file.metadata().ok()?, buffered.metadata().ok()?);
            ((a.dev(), a.ino()) == (b.dev(), b.ino())).then_some(Self(file))
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        {
            let _ = (path, buffered);
            None
        }
    }

    /// Read `n_bytes` from byte `at` on into `words`, which grows as needed; where in it, in bytes, they start. None
    /// where the device wants another alignment or the file has ended: a buffered read works, or says why not.
    pub(super) fn read(&self, at: u64, n_bytes: usize, words: &mut Vec<u64>) -> Option<usize> {
        use std::os::unix::fs::FileExt;
        let before = (at % BLOCK as u64) as usize;
        let needed = before + n_bytes;
        let length = needed.next_multiple_of(BLOCK);
        words.resize((length + BLOCK) / size_of::<u64>(), 0);
        let bytes = bytemuck::cast_slice_mut::<u64, u8>(words);
        let start = bytes.as_ptr().align_offset(BLOCK);
        let to = bytes.get_mut(start..)?.get_mut(..length)?;
        let mut done = 0;
        while done < needed {
            match self.0.read_at(&mut to[done..], at - before as u64 + done as u64) {
                Ok(0) => return None,
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(start + before)
    }
}

/// Whether most of a stretch of a file lies in the page cache already; true where that cannot be told.
pub(super) fn is_cached(file: &File, at: u64, n_bytes: usize) -> bool {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        let page = rustix::param::page_size();
        // SAFETY: nothing reads the mapping: only its pages are asked about.
        let Ok(map) = (unsafe { memmap2::MmapOptions::new().offset(at).len(n_bytes).map(file) }) else { return true };
        let before = map.as_ptr().addr() % page;
        let length = before + n_bytes;
        let mut pages = vec![0u8; length.div_ceil(page)];
        let start = map.as_ptr().wrapping_sub(before).cast_mut().cast();
        // SAFETY: the range is that of the mapping, from the start of its first page, and there is a byte for each page.
        if unsafe { libc::mincore(start, length, pages.as_mut_ptr().cast()) } != 0 {
            return true;
        }
        2 * pages.iter().filter(|&&page| page & 1 == 1).count() >= pages.len()
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    {
        let _ = (file, at, n_bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn any_stretch_is_read_as_it_is() {
        let content: Vec<u8> = (0..3 * BLOCK + 100).map(|k| (k % 251) as u8).collect();
        let mut file = tempfile::NamedTempFile::new_in(".").expect("a file");
        file.write_all(&content).expect("written");
        file.as_file().sync_all().expect("on the disk");
        let Some(direct) = Direct::open(file.path(), file.as_file()) else { return };
        let mut words = Vec::new();
        for (at, n) in [(0, 1), (1, 7), (BLOCK, BLOCK), (BLOCK - 1, BLOCK + 2), (100, content.len() - 100)] {
            let Some(start) = direct.read(at as u64, n, &mut words) else { continue };
            assert_eq!(bytemuck::cast_slice::<u64, u8>(&words)[start..start + n], content[at..at + n], "{at} {n}");
        }
        assert!(direct.read(content.len() as u64 - 1, 2, &mut words).is_none());
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn written_pages_are_cached_and_dropped_ones_are_not() {
        let mut file = tempfile::NamedTempFile::new_in(".").expect("a file");
        file.write_all(&vec![1; 64 * BLOCK]).expect("written");
        assert!(is_cached(file.as_file(), 100, 60 * BLOCK));
        file.as_file().sync_all().expect("on the disk");
        rustix::fs::fadvise(file.as_file(), 0, None, rustix::fs::Advice::DontNeed).expect("advice is taken");
        // A file system in memory has nowhere to drop them to.
        let in_memory = rustix::fs::fstatfs(file.as_file()).expect("a file system").f_type == 0x0102_1994;
        assert!(in_memory || !is_cached(file.as_file(), 100, 60 * BLOCK));
    }
}
