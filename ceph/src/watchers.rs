//! Who has an image open.

use crate::error::{Error, check};
use crate::sys;
use crate::text::from_c;

/// A client that has an image open for writing, or had until it died less than some 30 seconds ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watcher {
    /// Its address, as [`Cluster::addrs`](crate::Cluster::addrs) gives it for this process.
    pub addr: String,
    /// Its number in the cluster (`client.N`).
    pub id: i64,
    /// Which of its open handles.
    pub cookie: u64,
}

pub(crate) fn list(raw: sys::rbd_image_t, label: &str) -> Result<Vec<Watcher>, Error> {
    let empty = sys::rbd_image_watcher_t { addr: std::ptr::null_mut(), id: 0, cookie: 0 };
    let mut entries = vec![empty; 16];
    loop {
        let mut count = entries.len();
        // SAFETY: a live image; the array has the length given.
        let value = unsafe { sys::rbd_watchers_list(raw, entries.as_mut_ptr(), &mut count) };
        if value == -libc::ERANGE {
            entries.resize(count + 16, empty);
            continue;
        }
        check(value, "rbd_watchers_list", label)?;
        let watchers = entries[..count]
            .iter()
            // SAFETY: librbd filled the first `count` entries with C strings.
            .map(|entry| unsafe { Watcher { addr: from_c(entry.addr), id: entry.id, cookie: entry.cookie } })
            .collect();
        // SAFETY: frees what librbd put into these entries, once.
        unsafe { sys::rbd_watchers_list_cleanup(entries.as_mut_ptr(), count) };
        return Ok(watchers);
    }
}
