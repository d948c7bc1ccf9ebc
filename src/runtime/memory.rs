//! The memory of the process.

/// Returns freed memory to the kernel. For use after a temporary peak: the allocator keeps freed memory, so the
/// resident memory would stay at its peak.
///
/// Takes some milliseconds. Does nothing unless the C library is glibc.
pub fn give_back() {
    // SAFETY: malloc_trim may be called at any time from any thread, and touches only free memory.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
