//! Snapshots of an image.

use std::ptr::null_mut;

use crate::error::{Error, Kind, check};
use crate::image::{Image, no_progress};
use crate::sys;
use crate::text::{from_c, to_c};

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The size of the image when it was taken.
    pub size_bytes: u64,
    /// Whether it is protected from removal, which v1 clones need.
    pub protected: bool,
}

impl Image {
    /// Takes a snapshot of what has been written. Waits for a round of the monitors: 0.2 to 1 s, whatever
    /// the size. Errors: [`Kind::Exists`].
    pub async fn snapshot_create(&self, name: &str) -> Result<(), Error> {
        let snapshot = to_c(name, "rbd_snap_create2")?;
        self.call("rbd_snap_create2", move |raw, label| {
            // Nobody else has the image open, so there are no guests to quiesce.
            let flags = sys::RBD_SNAP_CREATE_SKIP_QUIESCE;
            // SAFETY: a live image, a C string, a callback that takes no data.
            let value = unsafe { sys::rbd_snap_create2(raw, snapshot.as_ptr(), flags, Some(no_progress), null_mut()) };
            check(value, "rbd_snap_create2", label).map(|_| ())
        })
        .await
    }

    /// Protects a snapshot. Errors: [`Kind::Busy`] if it is protected already.
    pub async fn snapshot_protect(&self, name: &str) -> Result<(), Error> {
        let snapshot = to_c(name, "rbd_snap_protect")?;
        self.call("rbd_snap_protect", move |raw, label| {
            // SAFETY: a live image and a C string.
            let value = unsafe { sys::rbd_snap_protect(raw, snapshot.as_ptr()) };
            check(value, "rbd_snap_protect", label).map(|_| ())
        })
        .await
    }

    /// Ends the protection. Errors: [`Kind::HasChildren`] while v1 clones (or v2 clones that do not count as
    /// such) exist, in whatever pool; [`Kind::InvalidArgument`] if it is not protected.
    pub async fn snapshot_unprotect(&self, name: &str) -> Result<(), Error> {
        let snapshot = to_c(name, "rbd_snap_unprotect")?;
        self.call("rbd_snap_unprotect", move |raw, label| {
            // SAFETY: a live image and a C string.
            let value = unsafe { sys::rbd_snap_unprotect(raw, snapshot.as_ptr()) };
            check(value, "rbd_snap_unprotect", label).map(|_| ()).map_err(|error| match error.kind() {
                Kind::Busy => error.with_kind(Kind::HasChildren),
                _ => error,
            })
        })
        .await
    }

    /// Removes a snapshot; as slow as taking one. One with v2 clones moves out of sight and stays until they
    /// are gone. Errors: [`Kind::Busy`] while it is protected, [`Kind::NotFound`].
    pub async fn snapshot_remove(&self, name: &str) -> Result<(), Error> {
        let snapshot = to_c(name, "rbd_snap_remove")?;
        self.call("rbd_snap_remove", move |raw, label| {
            // SAFETY: a live image and a C string.
            check(unsafe { sys::rbd_snap_remove(raw, snapshot.as_ptr()) }, "rbd_snap_remove", label).map(|_| ())
        })
        .await
    }

    /// The snapshots that users made, oldest first. Those of groups and mirroring, and removed ones that
    /// clones still use, are not listed.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        self.call("rbd_snap_list", list).await
    }
}

fn list(raw: sys::rbd_image_t, label: &str) -> Result<Vec<Snapshot>, Error> {
    let empty = sys::rbd_snap_info_t { id: 0, size: 0, name: std::ptr::null() };
    let mut infos = vec![empty; 16];
    let count = loop {
        let mut room = libc::c_int::try_from(infos.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: a live image; the array has the length given.
        let value = unsafe { sys::rbd_snap_list(raw, infos.as_mut_ptr(), &mut room) };
        if value == -libc::ERANGE {
            infos.resize(usize::try_from(room).unwrap_or(0) + 16, empty);
            continue;
        }
        break check(value, "rbd_snap_list", label)?;
    };
    let snapshots = infos[..count].iter().filter_map(|info| describe(raw, label, info).transpose()).collect();
    if count > 0 {
        // SAFETY: frees what librbd put into the array, up to its own end mark, once.
        unsafe { sys::rbd_snap_list_end(infos.as_mut_ptr()) };
    }
    snapshots
}

/// `None` for a snapshot that no user made, or that went meanwhile.
fn describe(raw: sys::rbd_image_t, label: &str, info: &sys::rbd_snap_info_t) -> Result<Option<Snapshot>, Error> {
    let (mut namespace, mut protected) = (0, 0);
    // SAFETY: a live image and an out pointer for the call.
    let value = unsafe { sys::rbd_snap_get_namespace_type(raw, info.id, &mut namespace) };
    if value == -libc::ENOENT {
        return Ok(None);
    }
    check(value, "rbd_snap_get_namespace_type", label)?;
    if namespace != sys::RBD_SNAP_NAMESPACE_TYPE_USER {
        return Ok(None);
    }
    // SAFETY: a live image, a C string that librbd filled in, an out pointer for the call.
    let value = unsafe { sys::rbd_snap_is_protected(raw, info.name, &mut protected) };
    if value == -libc::ENOENT {
        return Ok(None);
    }
    check(value, "rbd_snap_is_protected", label)?;
    // SAFETY: librbd filled in a C string.
    let name = unsafe { from_c(info.name) };
    Ok(Some(Snapshot { id: info.id, name, size_bytes: info.size, protected: protected != 0 }))
}
