//! What the process holds of the machine's memory.

/// Returns to the kernel what was freed. For after a time of much more memory than later: the allocator keeps what it once
/// had, and a program's resident memory would stay at its peak.
///
/// Takes some milliseconds. Does nothing where the C library is not glibc.
pub fn give_back() {
    // SAFETY: malloc_trim may be called at any time, from any thread; it touches free memory alone.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
