//! Exclusive locks of dead clients.
//!
//! Who writes to an image with the exclusive-lock feature holds a lock that is recorded in the image. A
//! process that is killed leaves it there, together with its watch, which the OSD drops after some 30
//! seconds. From then on librbd breaks the lock when another client needs it, but it insists on blocklisting
//! the dead one first. Caps of `mon 'allow r'`, as many sites still have them, do not allow that, and *every*
//! change of the image (write, snapshot, rename, metadata, removal) fails with EACCES, EBUSY or EROFS
//! for ever (measured with 16.2.15). A close that timed out can leave a lock of this very client, which must
//! not blocklist itself.
//!
//! So this crate does it, by the same rule (no watch, so dead): blocklist if allowed, then break the lock.
//! Without the blocklisting a client that was cut off rather than killed could still write to the image
//! when it comes back. `profile rbd` for the monitors allows it and is what a site should use.

use std::ptr::null_mut;

use crate::error::{Error, Kind, check};
use crate::image::read_id;
use crate::pool::Pool;
use crate::sys;
use crate::text::{split_list, to_c};
use crate::watchers::{self, Watcher};

/// librbd's name of the exclusive lock (RBD_LOCK_NAME); advisory locks of users share it.
const LOCK_NAME: &std::ffi::CStr = c"rbd_lock";

/// How librbd begins the cookie of its own locks; the handle's watch cookie follows. A user's lock looks
/// different and is not ours to break.
const COOKIE_PREFIX: &str = "auto ";

/// One holder of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Locker {
    client: String,
    cookie: String,
    addr: String,
}

/// How to find an image that is not open.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Name,
    Id,
}

/// Who uses an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Somebody has it open for writing, or had less than some 30 seconds ago.
    Watched,
    /// Nobody; a dead client held the lock until now.
    Released,
    /// Nobody.
    Unused,
}

/// Tells who uses an image, and breaks its lock if the holder is dead. Blocks.
pub(crate) fn release_dead(pool: &Pool, image: &str, target: Target) -> Result<Use, Error> {
    let call = "rbd_open_read_only";
    let name = to_c(image, call)?;
    let label = pool.label(image);
    let mut raw = null_mut();
    // Read-only, so that this sets no watch and takes no lock.
    // SAFETY: a live io context, a C string, and an out pointer for the call.
    let value = unsafe {
        match target {
            Target::Name => sys::rbd_open_read_only(pool.raw(), name.as_ptr(), &mut raw, std::ptr::null()),
            Target::Id => sys::rbd_open_by_id_read_only(pool.raw(), name.as_ptr(), &mut raw, std::ptr::null()),
        }
    };
    check(value, call, &label)?;
    let found = release_dead_of(pool, raw, &label).and_then(|released| {
        Ok(match watchers::list(raw, &label)?.is_empty() {
            false => Use::Watched,
            true if released => Use::Released,
            true => Use::Unused,
        })
    });
    // SAFETY: opened above, closed once; this is a blocking thread, not a callback.
    unsafe { sys::rbd_close(raw) };
    found
}

/// Breaks the lock of an open image, if its holder is dead. True if it did. Blocks.
pub(crate) fn release_dead_of(pool: &Pool, raw: sys::rbd_image_t, label: &str) -> Result<bool, Error> {
    let header = format!("rbd_header.{}", read_id(raw, label)?);
    let lockers = lockers(pool, &header, label)?;
    if lockers.is_empty() {
        return Ok(false);
    }
    // Asked for after the lock: whoever took it meanwhile had its watch before.
    let watchers = watchers::list(raw, label)?;
    let mut released = false;
    for locker in lockers.iter().filter(|locker| is_dead(locker, &watchers)) {
        fence(pool, locker, label)?;
        break_lock(pool, &header, locker, label)?;
        released = true;
    }
    Ok(released)
}

/// librbd's own rule: a handle that lives has a watch with the cookie that its lock names. Compared by the
/// client's number, not by its address, which the two lists write differently (`v1:` or not).
fn is_dead(locker: &Locker, watchers: &[Watcher]) -> bool {
    let Some(handle) = locker.cookie.strip_prefix(COOKIE_PREFIX) else {
        return false;
    };
    let lives =
        |watcher: &Watcher| locker.client == format!("client.{}", watcher.id) && handle == watcher.cookie.to_string();
    !watchers.iter().any(lives)
}

/// Makes the OSDs refuse what the dead client may still have on its way.
fn fence(pool: &Pool, locker: &Locker, label: &str) -> Result<(), Error> {
    let cluster = pool.cluster().raw();
    // SAFETY: a connected handle.
    let own = format!("client.{}", unsafe { sys::rados_get_instance_id(cluster) });
    if locker.client == own {
        tracing::warn!(image = label, "breaking a lock that this process left behind");
        return Ok(());
    }
    let addr = to_c(&locker.addr, "rados_blocklist_add")?;
    // SAFETY: a connected handle and a C string, which librados only reads.
    let value = unsafe { sys::rados_blocklist_add(cluster, addr.as_ptr().cast_mut(), 0) };
    match check(value, "rados_blocklist_add", &locker.addr) {
        Ok(_) => {
            tracing::warn!(image = label, client = locker.client, "blocklisted a dead client that held the lock");
            // The OSDs must know before the lock goes.
            // SAFETY: a connected handle.
            let value = unsafe { sys::rados_wait_for_latest_osdmap(cluster) };
            check(value, "rados_wait_for_latest_osdmap", label).map(|_| ())
        }
        Err(error) if error.kind() == Kind::Denied => {
            tracing::warn!(
                image = label,
                client = locker.client,
                "breaking the lock of a dead client that the caps do not allow to blocklist; give the user \
                 mon 'profile rbd'"
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn break_lock(pool: &Pool, header: &str, locker: &Locker, label: &str) -> Result<(), Error> {
    let call = "rados_break_lock";
    let (object, client, cookie) = (to_c(header, call)?, to_c(&locker.client, call)?, to_c(&locker.cookie, call)?);
    // SAFETY: a live io context and C strings.
    let value = unsafe {
        sys::rados_break_lock(pool.raw(), object.as_ptr(), LOCK_NAME.as_ptr(), client.as_ptr(), cookie.as_ptr())
    };
    match check(value, call, label) {
        Ok(_) => Ok(()),
        // Somebody else was faster.
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn lockers(pool: &Pool, header: &str, label: &str) -> Result<Vec<Locker>, Error> {
    let call = "rados_list_lockers";
    let object = to_c(header, call)?;
    // An exclusive lock has one holder; shared ones (of users) may have more, and are not ours to break.
    let (mut tag, mut clients, mut cookies, mut addrs) = ([0_u8; 256], [0_u8; 4096], [0_u8; 4096], [0_u8; 4096]);
    let (mut tag_length, mut clients_length) = (tag.len(), clients.len());
    let (mut cookies_length, mut addrs_length) = (cookies.len(), addrs.len());
    let mut exclusive = 0;
    // SAFETY: a live io context, C strings, and four buffers of the lengths given.
    let value = unsafe {
        sys::rados_list_lockers(
            pool.raw(),
            object.as_ptr(),
            LOCK_NAME.as_ptr(),
            &mut exclusive,
            tag.as_mut_ptr().cast(),
            &mut tag_length,
            clients.as_mut_ptr().cast(),
            &mut clients_length,
            cookies.as_mut_ptr().cast(),
            &mut cookies_length,
            addrs.as_mut_ptr().cast(),
            &mut addrs_length,
        )
    };
    if value < 0 {
        return Err(Error::from_return(call, label, value as i64));
    }
    if exclusive == 0 {
        return Ok(Vec::new());
    }
    let clients = split_list(&clients[..clients_length]);
    let cookies = split_list(&cookies[..cookies_length]);
    let addrs = split_list(&addrs[..addrs_length]);
    let lockers = clients.into_iter().zip(cookies).zip(addrs);
    Ok(lockers.map(|((client, cookie), addr)| Locker { client, cookie, addr }).collect())
}

#[cfg(test)]
mod tests {
    use super::{Locker, is_dead};
    use crate::watchers::Watcher;

    fn locker(cookie: &str) -> Locker {
        Locker { client: "client.7".into(), cookie: cookie.into(), addr: "v1:10.0.0.1:0/77".into() }
    }

    fn watcher(id: i64, cookie: u64) -> Watcher {
        Watcher { addr: "10.0.0.1:0/77".into(), id, cookie }
    }

    #[test]
    fn a_locker_with_its_watch_lives() {
        assert!(!is_dead(&locker("auto 99"), &[watcher(8, 5), watcher(7, 99)]));
    }

    #[test]
    fn a_locker_without_its_watch_is_dead() {
        // The same client may have it open again, with another handle.
        assert!(is_dead(&locker("auto 98"), &[watcher(7, 99)]));
        assert!(is_dead(&locker("auto 99"), &[watcher(77, 99)]));
        assert!(is_dead(&locker("auto 99"), &[]));
    }

    #[test]
    fn the_lock_of_a_user_is_not_ours_to_break() {
        assert!(!is_dead(&locker("my backup"), &[]));
    }
}
