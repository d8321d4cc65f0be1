//! glibc's allocator keeps freed megabytes per thread arena. With librados' dozen threads and 8 MiB buffers
//! that is most of the memory of a gateway; these two calls give it back.

/// Limits the arenas of glibc's malloc (`M_ARENA_MAX`). Call it first in `main`, before threads exist.
/// Does nothing with another C library.
pub fn limit_malloc_arenas(count: usize) {
    #[cfg(target_env = "gnu")]
    {
        let count = libc::c_int::try_from(count).unwrap_or(libc::c_int::MAX);
        // SAFETY: mallopt takes two integers and may be called at any time.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, count) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

/// Returns free memory of all arenas to the system (`malloc_trim(0)`). Takes milliseconds and locks the
/// arenas: for after a transfer, not inside one. Does nothing with another C library.
pub fn trim_malloc() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim is thread-safe and has no precondition.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn can_be_called() {
        super::limit_malloc_arenas(2);
        super::trim_malloc();
    }
}
