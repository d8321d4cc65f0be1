//! The clones of a snapshot.

use std::ptr::null_mut;

use crate::error::{Error, Kind, check};
use crate::image::{Image, read_id};
use crate::sys;
use crate::text::{from_c, to_c};

/// What is known of the clones of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Children {
    /// All of them; empty if there are none.
    Known(Vec<Child>),
    /// There are some, and at least one lives in a pool that this user cannot read (librbd opens each child
    /// and answers EPERM for the whole list).
    Hidden,
}

impl Children {
    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        match self {
            Children::Known(children) => children.is_empty(),
            Children::Hidden => false,
        }
    }
}

/// A clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its pool.
    pub pool: String,
    /// Its namespace in the pool, empty for the usual one.
    pub namespace: String,
    /// Its name.
    pub image: String,
    /// librbd's id of it.
    pub image_id: String,
    /// Whether it is in the trash.
    pub trash: bool,
}

pub(crate) async fn of(image: &Image, snapshot: &str) -> Result<Children, Error> {
    let snap = to_c(snapshot, "rbd_list_children3")?;
    let pool = image.pool().clone();
    image
        .call("rbd_list_children3", move |raw, label| {
            // librbd lists the children of the snapshot that a handle is opened at. Switching the caller's
            // handle would make its writes fail meanwhile, so open another one.
            let id = to_c(&read_id(raw, label)?, "rbd_open_by_id_read_only")?;
            let mut at_snapshot = null_mut();
            // SAFETY: a live io context, C strings, and an out pointer for the call.
            let value =
                unsafe { sys::rbd_open_by_id_read_only(pool.raw(), id.as_ptr(), &mut at_snapshot, snap.as_ptr()) };
            check(value, "rbd_open_by_id_read_only", label)?;
            let children = list(at_snapshot, label);
            // SAFETY: opened above, closed once; this is a blocking thread, not a callback.
            unsafe { sys::rbd_close(at_snapshot) };
            match children {
                Ok(children) => Ok(Children::Known(children)),
                Err(error) if error.kind() == Kind::Denied => Ok(Children::Hidden),
                Err(error) => Err(error),
            }
        })
        .await
}

fn list(raw: sys::rbd_image_t, label: &str) -> Result<Vec<Child>, Error> {
    let empty = sys::rbd_linked_image_spec_t {
        pool_id: 0,
        pool_name: null_mut(),
        pool_namespace: null_mut(),
        image_id: null_mut(),
        image_name: null_mut(),
        trash: false,
    };
    let mut specs = vec![empty; 64];
    loop {
        let mut count = specs.len();
        // SAFETY: a live image; the array has the length given.
        let value = unsafe { sys::rbd_list_children3(raw, specs.as_mut_ptr(), &mut count) };
        if value == -libc::ERANGE {
            specs.resize(count + 64, empty);
            continue;
        }
        check(value, "rbd_list_children3", label)?;
        let children = specs[..count]
            .iter()
            // SAFETY: librbd filled the first `count` entries with C strings.
            .map(|spec| unsafe {
                Child {
                    pool: from_c(spec.pool_name),
                    namespace: from_c(spec.pool_namespace),
                    image: from_c(spec.image_name),
                    image_id: from_c(spec.image_id),
                    trash: spec.trash,
                }
            })
            .collect();
        // SAFETY: frees what librbd put into these entries, once.
        unsafe { sys::rbd_linked_image_spec_list_cleanup(specs.as_mut_ptr(), count) };
        return Ok(children);
    }
}
