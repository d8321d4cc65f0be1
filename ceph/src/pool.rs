//! A pool: `rados_ioctx_t`, and what librbd does with names of images in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::blocking;
use crate::cluster::Cluster;
use crate::directory;
use crate::error::{Error, Kind, check};
use crate::image::Image;
use crate::lock::{self, Target, Use};
use crate::options::{CloneOptions, CreateOptions, RawOptions};
use crate::sys;
use crate::text::{from_c, to_c};
use crate::trash::{self, TrashEntry};
use crate::usage::{self, PoolUsage};

/// A pool of a connection. Clones share one handle.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<PoolInner>,
}

#[derive(Debug)]
struct PoolInner {
    raw: RawPool,
    name: String,
    id: i64,
    trash_prepared: AtomicBool,
    cluster: Cluster,
}

#[derive(Debug)]
struct RawPool(sys::rados_ioctx_t);

// SAFETY: librados.h (rados_ioctx): "Changing any of these settings is not thread-safe"; using an io context
// from several threads is. The one setting (full_try) is made before anyone else has the handle.
unsafe impl Send for RawPool {}
// SAFETY: as above.
unsafe impl Sync for RawPool {}

impl Drop for PoolInner {
    fn drop(&mut self) {
        // SAFETY: made by rados_ioctx_create, destroyed once, when no call on it is running (each call holds
        // a clone). Only gives back a reference: it does not block, so any thread may do it. The cluster is
        // a field and goes afterwards.
        unsafe { sys::rados_ioctx_destroy(self.raw.0) }
    }
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageId {
    /// The name.
    pub name: String,
    /// librbd's internal id, which a rename keeps.
    pub id: String,
}

impl Pool {
    pub(crate) fn from_name(cluster: Cluster, name: String) -> Result<Pool, Error> {
        let pool = to_c(&name, "rados_ioctx_create")?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: a connected handle, a C string, and an out pointer for the call.
        let value = unsafe { sys::rados_ioctx_create(cluster.raw(), pool.as_ptr(), &mut raw) };
        check(value, "rados_ioctx_create", &name)?;
        // Without it a call on a full pool waits until there is room, beyond every timeout (measured); with
        // it, it fails with EDQUOT or ENOSPC at once, and removals work.
        // SAFETY: a live io context that only this thread knows.
        unsafe { sys::rados_set_pool_full_try(raw) };
        // SAFETY: as above.
        let id = unsafe { sys::rados_ioctx_get_id(raw) };
        Ok(Pool {
            inner: Arc::new(PoolInner { raw: RawPool(raw), name, id, trash_prepared: AtomicBool::new(false), cluster }),
        })
    }

    /// The pool's name when it was opened.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The pool's number in the cluster.
    pub fn id(&self) -> i64 {
        self.inner.id
    }

    /// The connection this pool was opened on.
    pub fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    /// How full the pool is; see [`PoolUsage`] for what an unprivileged user does not get.
    pub async fn usage(&self) -> Result<PoolUsage, Error> {
        usage::of(self).await
    }

    /// Asks the pool for one small object: whether an OSD answers. Errors: [`Kind::TimedOut`],
    /// [`Kind::Denied`], ...
    pub async fn ping(&self) -> Result<(), Error> {
        self.object_exists("rbd_directory").await.map(|_| ())
    }

    /// Whether the pool holds a RADOS object of this name.
    pub async fn object_exists(&self, object: &str) -> Result<bool, Error> {
        let name = to_c(object, "rados_stat")?;
        let found = self
            .call("rados_stat", object, move |pool, label| {
                let (mut size, mut time) = (0, 0);
                // SAFETY: a live io context, a C string, and out pointers for the call.
                check(unsafe { sys::rados_stat(pool, name.as_ptr(), &mut size, &mut time) }, "rados_stat", label)
            })
            .await;
        match found {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes an image. Errors: [`Kind::Exists`], [`Kind::NotFound`] for the data pool, [`Kind::NoSpace`].
    pub async fn create_image(&self, name: &str, options: &CreateOptions) -> Result<(), Error> {
        let image = to_c(name, "rbd_create4")?;
        let options = options.clone();
        let owner = self.clone();
        self.call("rbd_create4", name, move |pool, label| {
            owner.prepare_trash();
            let raw = RawOptions::for_create(&options)?;
            // SAFETY: a live io context, a C string and live options.
            let value = unsafe { sys::rbd_create4(pool, image.as_ptr(), options.size_bytes, raw.pointer()) };
            check(value, "rbd_create4", label).map(|_| ())
        })
        .await
    }

    /// Opens an image for reading and writing, and registers a watch on it.
    ///
    /// Opening does not take the exclusive lock; the first write does, and waits for a living holder.
    pub async fn open(&self, name: &str) -> Result<Image, Error> {
        Image::open(self, name, None, false).await
    }

    /// Opens an image, or a snapshot of it, for reading only. It sets no watch on the image.
    pub async fn open_read_only(&self, name: &str, snapshot: Option<&str>) -> Result<Image, Error> {
        Image::open(self, name, snapshot, true).await
    }

    /// Opens an image by librbd's id, also one in the trash.
    pub async fn open_by_id(&self, id: &str) -> Result<Image, Error> {
        Image::open_by_id(self, id, false).await
    }

    /// The same for reading only.
    pub async fn open_by_id_read_only(&self, id: &str) -> Result<Image, Error> {
        Image::open_by_id(self, id, true).await
    }

    /// Renames an image. Errors: [`Kind::NotFound`], [`Kind::Exists`].
    pub async fn rename_image(&self, from: &str, to: &str) -> Result<(), Error> {
        let (old, new) = (to_c(from, "rbd_rename")?, to_c(to, "rbd_rename")?);
        let (pool, from) = (self.clone(), from.to_owned());
        self.call("rbd_rename", &from.clone(), move |io, label| {
            let rename = || {
                // SAFETY: a live io context and two C strings.
                let value = unsafe { sys::rbd_rename(io, old.as_ptr(), new.as_ptr()) };
                check(value, "rbd_rename", label).map(|_| ())
            };
            // An image in use can be renamed, so a dead writer's lock is only looked for when it fails.
            let error = match rename() {
                Err(error) if matches!(error.kind(), Kind::Busy | Kind::Denied | Kind::ReadOnly) => error,
                result => return result,
            };
            match lock::release_dead(&pool, &from, Target::Name) {
                Ok(Use::Released) => rename(),
                Ok(Use::Watched | Use::Unused) | Err(_) => Err(error),
            }
        })
        .await
        .map_err(|error| error.with_detail(format!("to {to}")))
    }

    /// Removes an image and its data; takes time in proportion to its size.
    ///
    /// Errors: [`Kind::Busy`] while somebody has it open, or has died with it open less than some 30 seconds
    /// ago; [`Kind::HasSnapshots`]; [`Kind::NotFound`]. An interrupted removal leaves an entry in the trash.
    pub async fn remove_image(&self, name: &str) -> Result<(), Error> {
        let image = to_c(name, "rbd_remove")?;
        let removed = self
            .call_on_unused("rbd_remove", name, Target::Name, move |pool, label| {
                // SAFETY: a live io context and a C string.
                let value = unsafe { sys::rbd_remove(pool, image.as_ptr()) };
                check(value, "rbd_remove", label).map(|_| ())
            })
            .await;
        match removed {
            // Removing begins with a note in the trash. If that cannot be made because the pool is full,
            // librbd says that there is no such image.
            Err(error) if error.kind() == Kind::NotFound && self.has_image(name).await => {
                Err(Error::new("rbd_remove", self.label(name), libc::EDQUOT).with_detail("no room for the trash"))
            }
            removed => removed,
        }
    }

    /// Sees to it, once per handle, that the pool has its `rbd_trash` object: see `trash::prepare`. Blocks.
    fn prepare_trash(&self) {
        if self.inner.trash_prepared.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = trash::prepare(self) {
            tracing::debug!(%error, "could not prepare the trash of the pool");
        }
    }

    async fn has_image(&self, name: &str) -> bool {
        self.object_exists(&format!("rbd_id.{name}")).await.unwrap_or(false)
    }

    /// All images of the pool, without those in the trash, in no promised order.
    pub async fn list_images(&self) -> Result<Vec<ImageId>, Error> {
        self.call("rbd_list2", "", list_images).await
    }

    /// At most `limit` images of the pool, without those in the trash, whose names come after `after`, in the order of
    /// their names as bytes. Empty: there are no more.
    pub async fn list_images_after(&self, after: &str, limit: u32) -> Result<Vec<ImageId>, Error> {
        directory::page(self, after, limit).await
    }

    /// Makes a copy-on-write clone of `parent_image@snapshot`, which is in this pool, as `child` in
    /// `child_pool`.
    ///
    /// Errors: [`Kind::InvalidArgument`] for a v1 clone of an unprotected snapshot, [`Kind::Exists`],
    /// [`Kind::NotFound`], [`Kind::Denied`].
    pub async fn clone_image(
        &self,
        parent_image: &str,
        snapshot: &str,
        child_pool: &Pool,
        child: &str,
        options: &CloneOptions,
    ) -> Result<(), Error> {
        let call = "rbd_clone3";
        let (image, snap, new) = (to_c(parent_image, call)?, to_c(snapshot, call)?, to_c(child, call)?);
        let (child_pool, options) = (child_pool.clone(), options.clone());
        let object = format!("{parent_image}@{snapshot} to {}/{child}", child_pool.name());
        self.call(call, &object, move |pool, label| {
            let raw = RawOptions::for_clone(&options)?;
            // SAFETY: two live io contexts (each held by a clone of its pool), C strings, live options.
            let value = unsafe {
                sys::rbd_clone3(pool, image.as_ptr(), snap.as_ptr(), child_pool.raw(), new.as_ptr(), raw.pointer())
            };
            check(value, call, label).map(|_| ())
        })
        .await
    }

    /// Moves an image to the trash, with or without clones; `delay` from now on nobody purges it.
    pub async fn trash_move(&self, name: &str, delay: Duration) -> Result<(), Error> {
        trash::put(self, name, delay).await
    }

    /// What is in the trash, including what an interrupted removal left there.
    pub async fn trash_list(&self) -> Result<Vec<TrashEntry>, Error> {
        trash::list(self).await
    }

    /// Takes an image out of the trash, under this name.
    pub async fn trash_restore(&self, id: &str, name: &str) -> Result<(), Error> {
        trash::restore(self, id, name).await
    }

    /// Removes an image in the trash and its data. Errors: as [`Pool::remove_image`], and [`Kind::Denied`]
    /// before its deferment has ended, unless `force` is set.
    pub async fn trash_remove(&self, id: &str, force: bool) -> Result<(), Error> {
        trash::remove(self, id, force).await
    }

    /// Runs a blocking call on this pool; `work` gets the io context and what an error should call the object.
    pub(crate) async fn call<T, F>(&self, call: &'static str, object: &str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(sys::rados_ioctx_t, &str) -> Result<T, Error> + Send + 'static,
    {
        let label = self.label(object);
        let (pool, about) = (self.clone(), label.clone());
        let run = blocking::run(call, &about, move || work(pool.raw(), &label));
        self.cluster().observer().watch(call, run).await
    }

    /// Like [`Pool::call`] for something that takes the image (by name or id) away from whoever uses it:
    /// Busy at once if somebody does, and a lock of somebody dead is broken before. Left to itself librbd
    /// waits for the watch of a dead client to end, up to 30 seconds.
    pub(crate) async fn call_on_unused<F>(
        &self,
        call: &'static str,
        image: &str,
        target: Target,
        work: F,
    ) -> Result<(), Error>
    where
        F: FnOnce(sys::rados_ioctx_t, &str) -> Result<(), Error> + Send + 'static,
    {
        let (pool, image) = (self.clone(), image.to_owned());
        self.call(call, &image.clone(), move |io, label| {
            // Whatever else is wrong with the image, the call itself says it better.
            if let Ok(Use::Watched) = lock::release_dead(&pool, &image, target) {
                return Err(Error::new(call, label, libc::EBUSY).with_detail("the image still has watchers"));
            }
            work(io, label)
        })
        .await
    }

    /// What an error calls something in this pool.
    pub(crate) fn label(&self, object: &str) -> String {
        if object.is_empty() { self.name().to_owned() } else { format!("{}/{object}", self.name()) }
    }

    pub(crate) fn raw(&self) -> sys::rados_ioctx_t {
        self.inner.raw.0
    }
}

fn list_images(pool: sys::rados_ioctx_t, label: &str) -> Result<Vec<ImageId>, Error> {
    let empty = sys::rbd_image_spec_t { id: std::ptr::null_mut(), name: std::ptr::null_mut() };
    let mut specs = vec![empty; 1024];
    loop {
        let mut count = specs.len();
        // SAFETY: a live io context; the array has the length given.
        let value = unsafe { sys::rbd_list2(pool, specs.as_mut_ptr(), &mut count) };
        if value == -libc::ERANGE {
            // Room for those that appear meanwhile, so that this ends.
            specs.resize(count + 256, empty);
            continue;
        }
        check(value, "rbd_list2", label)?;
        let images = specs[..count]
            .iter()
            // SAFETY: librbd filled the first `count` entries with C strings.
            .map(|spec| unsafe { ImageId { name: from_c(spec.name), id: from_c(spec.id) } })
            .collect();
        // SAFETY: frees what librbd put into these entries, once.
        unsafe { sys::rbd_image_spec_list_cleanup(specs.as_mut_ptr(), count) };
        return Ok(images);
    }
}
