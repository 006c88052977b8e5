//! How much stands in the ring between the kernel programs and the daemon.

use std::{
    io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering::Acquire},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// The ring's two positions, as the kernel shows them: the reader's in its first page, the writers' in its second.
#[derive(Debug)]
pub(crate) struct Level {
    pages: NonNull<u8>,
    page: usize,
    /// The most that stood in it since that was last asked.
    most: u64,
}

impl Level {
    /// Of the ring behind a descriptor.
    ///
    /// # Errors
    /// The kernel does not show it.
    pub(crate) fn open(ring: impl AsFd) -> io::Result<Self> {
        let page = page_size();
        // SAFETY: a fresh mapping, read-only, wherever the kernel likes; nothing else points there.
        let pages = unsafe { mmap(ptr::null_mut(), 2 * page, ProtFlags::READ, MapFlags::SHARED, ring, 0) }?;
        let pages = NonNull::new(pages.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { pages, page, most: 0 })
    }

    /// Looks how much there is, in bytes.
    pub(crate) fn look(&mut self) -> u64 {
        let [read, written] = [0, self.page].map(|at| {
            // SAFETY: both pages are mapped as long as this lives, each begins with a position of 8 bytes (64-bit kernels),
            // and whoever writes there does so at once.
            unsafe { self.pages.add(at).cast::<AtomicU64>().as_ref() }.load(Acquire)
        });
        let now = written.saturating_sub(read);
        self.most = self.most.max(now);
        now
    }

    /// The most that there was since this was last asked, in bytes.
    pub(crate) fn most(&mut self) -> u64 {
        std::mem::take(&mut self.most)
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        // SAFETY: mapped above with this length; nobody else knows of it.
        let _ = unsafe { munmap(self.pages.as_ptr().cast(), 2 * self.page) };
    }
}
