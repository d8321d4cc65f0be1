//! From clone to image of its own.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Kind, check};
use crate::image::Image;
use crate::sys;
use crate::text::from_c;

/// How far a flattening has come, for whoever else wants to know.
#[derive(Debug, Default)]
pub struct Flattening {
    objects_done: AtomicU64,
    objects: AtomicU64,
    cancelled: AtomicBool,
}

impl Flattening {
    /// Objects that need no parent any more, and objects that the image spans; zeros before it begins.
    pub fn objects(&self) -> (u64, u64) {
        (self.objects_done.load(Ordering::Relaxed), self.objects.load(Ordering::Relaxed))
    }

    /// Ends it with [`Kind::Interrupted`] after the objects that are under way.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Whom a clone depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The parent's pool.
    pub pool: String,
    /// Its name.
    pub image: String,
    /// Its snapshot.
    pub snapshot: String,
    /// Whether it is in the trash.
    pub trash: bool,
}

impl Image {
    /// Copies everything that a clone still has from its parent, and ends the dependence on it. Holes stay holes.
    ///
    /// Takes time in proportion to the data. When the future is dropped the work ends soon, as if cancelled. What is
    /// done is kept: flattening again goes on with the rest.
    ///
    /// Errors: [`Kind::InvalidArgument`] for an image without parent, [`Kind::Interrupted`] after
    /// [`Flattening::cancel`], [`Kind::NoSpace`], [`Kind::ReadOnly`].
    pub async fn flatten(&self, state: &Arc<Flattening>) -> Result<(), Error> {
        let call = "rbd_flatten_with_progress";
        self.require_writable(call)?;
        let _dropped = CancelOnDrop(Arc::clone(state));
        let state = Arc::clone(state);
        self.call(call, move |raw, label| {
            // SAFETY: a live image; the callback gets a reference that outlives the call.
            let value = unsafe {
                sys::rbd_flatten_with_progress(raw, Some(note_progress), Arc::as_ptr(&state).cast_mut().cast())
            };
            check(value, call, label).map(|_| ())
        })
        .await
    }

    /// Whom this image is a clone of, `None` if of nobody.
    pub async fn parent(&self) -> Result<Option<Parent>, Error> {
        self.call("rbd_get_parent", parent).await
    }
}

struct CancelOnDrop(Arc<Flattening>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

unsafe extern "C" fn note_progress(done: u64, total: u64, state: *mut c_void) -> libc::c_int {
    // SAFETY: `flatten` lends a state that lives for the call, and all its fields are atomic.
    let state = unsafe { &*state.cast::<Flattening>() };
    state.objects_done.store(done, Ordering::Relaxed);
    state.objects.store(total, Ordering::Relaxed);
    if state.cancelled.load(Ordering::Relaxed) { -libc::ECANCELED } else { 0 }
}

fn parent(raw: sys::rbd_image_t, label: &str) -> Result<Option<Parent>, Error> {
    let mut image = sys::rbd_linked_image_spec_t {
        pool_id: 0,
        pool_name: null_mut(),
        pool_namespace: null_mut(),
        image_id: null_mut(),
        image_name: null_mut(),
        trash: false,
    };
    let mut snapshot = sys::rbd_snap_spec_t { id: 0, namespace_type: 0, name: null_mut() };
    // SAFETY: a live image and two out pointers for the call.
    match check(unsafe { sys::rbd_get_parent(raw, &mut image, &mut snapshot) }, "rbd_get_parent", label) {
        Ok(_) => {}
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    // SAFETY: librbd filled both with C strings.
    let parent = unsafe {
        Parent {
            pool: from_c(image.pool_name),
            image: from_c(image.image_name),
            snapshot: from_c(snapshot.name),
            trash: image.trash,
        }
    };
    // SAFETY: frees what librbd put into them, once.
    unsafe {
        sys::rbd_linked_image_spec_cleanup(&mut image);
        sys::rbd_snap_spec_cleanup(&mut snapshot);
    }
    Ok(Some(parent))
}
