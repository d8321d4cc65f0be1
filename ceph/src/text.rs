//! Strings to and from C.

use std::ffi::{CStr, CString};
use std::path::Path;

use libc::c_char;

use crate::error::Error;

/// A C string; a NUL inside is refused as EINVAL.
pub(crate) fn to_c(text: &str, call: &'static str) -> Result<CString, Error> {
    CString::new(text)
        .map_err(|_| Error::new(call, text.escape_default().to_string(), libc::EINVAL).with_detail("a NUL in a name"))
}

/// A path as a C string.
pub(crate) fn path_to_c(path: &Path, call: &'static str) -> Result<CString, Error> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(call, path.display().to_string(), libc::EINVAL).with_detail("a NUL in a path"))
}

/// Copies a C string that the library owns; a null pointer is the empty string. Ceph's names are UTF-8
/// whenever this program made them; foreign bytes become U+FFFD rather than an error.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string that stays valid during the call.
pub(crate) unsafe fn from_c(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller promises a NUL-terminated string.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The text up to the first NUL of a buffer that C filled.
pub(crate) fn from_buffer(buffer: &[u8]) -> String {
    let text = buffer.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// The strings of a buffer of NUL-terminated strings.
pub(crate) fn split_list(buffer: &[u8]) -> Vec<String> {
    let Some(text) = buffer.strip_suffix(&[0]) else {
        return Vec::new();
    };
    text.split(|byte| *byte == 0).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::{from_buffer, split_list, to_c};
    use crate::error::Kind;

    #[test]
    fn refuses_nul() {
        assert_eq!(to_c("a\0b", "rbd_open").unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(to_c("a", "rbd_open").unwrap().as_bytes(), b"a");
    }

    #[test]
    fn reads_buffers() {
        assert_eq!(from_buffer(b"abc\0\0\0"), "abc");
        assert_eq!(from_buffer(b""), "");
        assert_eq!(split_list(b"a\0\0c\0"), ["a", "", "c"]);
        assert!(split_list(b"").is_empty());
    }
}
