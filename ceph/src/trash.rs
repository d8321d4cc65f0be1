//! The trash of a pool: images out of sight whose data is still there.

use std::time::{Duration, SystemTime};

use crate::error::{Error, check};
use crate::lock::Target;
use crate::pool::Pool;
use crate::sys;
use crate::text::{from_c, to_c};

/// An image in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashEntry {
    /// librbd's id, by which it is restored or removed.
    pub id: String,
    /// The name it had.
    pub name: String,
    /// When it was moved here.
    pub deleted_at: SystemTime,
    /// Until when only force removes it.
    pub deferment_end: SystemTime,
    /// Who moved it here.
    pub source: TrashSource,
}

/// Who moved an image to the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrashSource {
    /// A user, for instance by [`Pool::trash_move`].
    User,
    /// A removal, which begins by moving the image here; it stays if the removal is interrupted.
    Removing,
    /// Mirroring, migration, or whatever a later release adds.
    Other,
}

/// Makes the object that lists the trash. Every removal begins with an entry in it, and a full pool refuses
/// new objects but not that: so a pool that fills up before its first removal could never be emptied.
pub(crate) fn prepare(pool: &Pool) -> Result<(), Error> {
    // SAFETY: makes an empty operation, released below.
    let operation = unsafe { sys::rados_create_write_op() };
    // SAFETY: a live operation; 0 is "not exclusive", so an object that is there stays as it is.
    unsafe { sys::rados_write_op_create(operation, 0, std::ptr::null()) };
    // SAFETY: a live operation and io context, a C string, no time, no flags.
    let value =
        unsafe { sys::rados_write_op_operate(operation, pool.raw(), c"rbd_trash".as_ptr(), std::ptr::null_mut(), 0) };
    // SAFETY: the operation ended and is not used again.
    unsafe { sys::rados_release_write_op(operation) };
    check(value, "rados_write_op_operate", &pool.label("rbd_trash")).map(|_| ())
}

pub(crate) async fn put(pool: &Pool, name: &str, delay: Duration) -> Result<(), Error> {
    let image = to_c(name, "rbd_trash_move")?;
    pool.call_on_unused("rbd_trash_move", name, Target::Name, move |io, label| {
        // SAFETY: a live io context and a C string.
        let value = unsafe { sys::rbd_trash_move(io, image.as_ptr(), delay.as_secs()) };
        check(value, "rbd_trash_move", label).map(|_| ())
    })
    .await
}

pub(crate) async fn restore(pool: &Pool, id: &str, name: &str) -> Result<(), Error> {
    let (image, new) = (to_c(id, "rbd_trash_restore")?, to_c(name, "rbd_trash_restore")?);
    pool.call("rbd_trash_restore", id, move |io, label| {
        // SAFETY: a live io context and two C strings.
        let value = unsafe { sys::rbd_trash_restore(io, image.as_ptr(), new.as_ptr()) };
        check(value, "rbd_trash_restore", label).map(|_| ())
    })
    .await
}

pub(crate) async fn remove(pool: &Pool, id: &str, force: bool) -> Result<(), Error> {
    let image = to_c(id, "rbd_trash_remove")?;
    pool.call_on_unused("rbd_trash_remove", id, Target::Id, move |io, label| {
        // SAFETY: a live io context and a C string.
        let value = unsafe { sys::rbd_trash_remove(io, image.as_ptr(), force) };
        check(value, "rbd_trash_remove", label).map(|_| ())
    })
    .await
}

pub(crate) async fn list(pool: &Pool) -> Result<Vec<TrashEntry>, Error> {
    pool.call("rbd_trash_list", "", |io, label| {
        let mut room = 64;
        loop {
            let mut entries: Vec<sys::rbd_trash_image_info_t> = Vec::new();
            entries.resize_with(room, empty);
            let mut count = room;
            // SAFETY: a live io context; the array has the length given.
            let value = unsafe { sys::rbd_trash_list(io, entries.as_mut_ptr(), &mut count) };
            if value == -libc::ERANGE {
                room = count.max(room) + 64;
                continue;
            }
            check(value, "rbd_trash_list", label)?;
            let list = entries[..count].iter().map(describe).collect();
            // SAFETY: frees what librbd put into these entries, once.
            unsafe { sys::rbd_trash_list_cleanup(entries.as_mut_ptr(), count) };
            return Ok(list);
        }
    })
    .await
}

fn empty() -> sys::rbd_trash_image_info_t {
    sys::rbd_trash_image_info_t {
        id: std::ptr::null_mut(),
        name: std::ptr::null_mut(),
        source: sys::RBD_TRASH_IMAGE_SOURCE_USER,
        deletion_time: 0,
        deferment_end_time: 0,
    }
}

fn describe(entry: &sys::rbd_trash_image_info_t) -> TrashEntry {
    // SAFETY: librbd filled both with C strings.
    let (id, name) = unsafe { (from_c(entry.id), from_c(entry.name)) };
    TrashEntry {
        id,
        name,
        deleted_at: time(entry.deletion_time),
        deferment_end: time(entry.deferment_end_time),
        source: match entry.source {
            sys::RBD_TRASH_IMAGE_SOURCE_USER | sys::RBD_TRASH_IMAGE_SOURCE_USER_PARENT => TrashSource::User,
            sys::RBD_TRASH_IMAGE_SOURCE_REMOVING => TrashSource::Removing,
            _ => TrashSource::Other,
        },
    }
}

fn time(seconds: libc::time_t) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
