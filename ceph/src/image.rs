//! An open image: `rbd_image_t`.

use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::blocking;
use crate::children::{self, Children};
use crate::closer::{self, CloseResult, ClosingImage};
use crate::error::{Error, check};
use crate::extents::{self, Extent};
use crate::lock;
use crate::pool::Pool;
use crate::sys;
use crate::text::{from_buffer, to_c};
use crate::watchers::{self, Watcher};

/// Answers that the longest operation waits for, one operation timeout each; three were measured for a close.
const ANSWERS_MAX: u32 = 4;

/// An open image, or an open snapshot of one. Clones share the handle.
///
/// It closes in the background when the last clone is dropped and the last operation on it, even one whose
/// future was dropped, has ended; [`Image::close`] waits for that.
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) inner: Arc<ImageInner>,
}

#[derive(Debug)]
pub(crate) struct ImageInner {
    raw: RawImage,
    pool: Pool,
    name: String,
    /// What errors call it: `pool/name` or `pool/name@snapshot`.
    label: String,
    /// The size when last asked for; see `Image::known_size`.
    size_bytes: AtomicU64,
    read_only: bool,
    /// An operation on it will never end: it cannot be closed any more.
    stuck: AtomicBool,
    closed: watch::Sender<CloseResult>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct RawImage(sys::rbd_image_t);

// SAFETY: librbd's image handle may be used from several threads at once: ImageCtx guards its state with its
// own locks (owner_lock, image_lock), and qemu and librbd's own Python binding rely on it. The one exception
// is switching the handle to another snapshot (rbd_snap_set), which this crate never calls.
unsafe impl Send for RawImage {}
// SAFETY: as above.
unsafe impl Sync for RawImage {}

impl RawImage {
    pub(crate) fn pointer(self) -> sys::rbd_image_t {
        self.0
    }
}

impl Drop for ImageInner {
    fn drop(&mut self) {
        closer::close(ClosingImage {
            raw: self.raw,
            pool: self.pool.clone(),
            object: std::mem::take(&mut self.label),
            closed: self.closed.clone(),
        });
    }
}

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageStat {
    /// The size of the image, or of the snapshot it is opened at.
    pub size_bytes: u64,
    /// log2 of the object size.
    pub order: u8,
    /// RBD feature bits.
    pub features: u64,
    /// How the names of its data objects begin, for instance `rbd_data.10226b8b4567`.
    pub object_prefix: String,
    /// Objects that the size spans, allocated or not.
    pub objects: u64,
    /// The pool that holds the data.
    pub data_pool_id: i64,
}

impl Image {
    pub(crate) async fn open(pool: &Pool, name: &str, snapshot: Option<&str>, read_only: bool) -> Result<Image, Error> {
        let call = if read_only { "rbd_open_read_only" } else { "rbd_open" };
        let object = match snapshot {
            Some(snapshot) => format!("{name}@{snapshot}"),
            None => name.to_owned(),
        };
        let image = to_c(name, call)?;
        let snap = snapshot.map(|snapshot| to_c(snapshot, call)).transpose()?;
        let (owner, name) = (pool.clone(), name.to_owned());
        pool.call(call, &object, move |io, label| {
            let snap = snap.as_ref().map_or(std::ptr::null(), |snap| snap.as_ptr());
            let mut raw = null_mut();
            // SAFETY: a live io context, C strings (or no snapshot), and an out pointer for the call.
            let value = unsafe {
                if read_only {
                    sys::rbd_open_read_only(io, image.as_ptr(), &mut raw, snap)
                } else {
                    sys::rbd_open(io, image.as_ptr(), &mut raw, snap)
                }
            };
            check(value, call, label)?;
            let image = Image::adopt(raw, owner, name, label, read_only)?;
            if !read_only {
                image.free_from_dead_writer();
            }
            Ok(image)
        })
        .await
    }

    pub(crate) async fn open_by_id(pool: &Pool, id: &str, read_only: bool) -> Result<Image, Error> {
        let call = if read_only { "rbd_open_by_id_read_only" } else { "rbd_open_by_id" };
        let image = to_c(id, call)?;
        let (owner, name) = (pool.clone(), id.to_owned());
        pool.call(call, id, move |io, label| {
            let mut raw = null_mut();
            // SAFETY: a live io context, a C string, and an out pointer for the call.
            let value = unsafe {
                if read_only {
                    sys::rbd_open_by_id_read_only(io, image.as_ptr(), &mut raw, std::ptr::null())
                } else {
                    sys::rbd_open_by_id(io, image.as_ptr(), &mut raw, std::ptr::null())
                }
            };
            check(value, call, label)?;
            let image = Image::adopt(raw, owner, name, label, read_only)?;
            if !read_only {
                image.free_from_dead_writer();
            }
            Ok(image)
        })
        .await
    }

    /// Breaks the lock of a dead client, so that the first write does not have to (and, with modest caps,
    /// cannot: see `lock`). If it does not work out, the first write says why. Blocks.
    fn free_from_dead_writer(&self) {
        if let Err(error) = lock::release_dead_of(self.pool(), self.raw(), self.label()) {
            tracing::warn!(image = self.label(), %error, "could not look for a lock of a dead client");
        }
    }

    /// Takes over a handle that librbd just opened; from here on its drop closes it. Blocks.
    fn adopt(raw: sys::rbd_image_t, pool: Pool, name: String, label: &str, read_only: bool) -> Result<Image, Error> {
        let image = Image {
            inner: Arc::new(ImageInner {
                raw: RawImage(raw),
                pool,
                name,
                label: label.to_owned(),
                size_bytes: AtomicU64::new(0),
                read_only,
                stuck: AtomicBool::new(false),
                closed: watch::Sender::new(None),
            }),
        };
        image.learn_size()?;
        Ok(image)
    }

    /// The name it was opened with (the id, for [`Pool::open_by_id`]); a rename does not change it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The pool it was opened in.
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// librbd's internal id, which a rename keeps.
    pub async fn id(&self) -> Result<String, Error> {
        self.call("rbd_get_id", read_id).await
    }

    /// Size, object size and features.
    pub async fn stat(&self) -> Result<ImageStat, Error> {
        self.call("rbd_stat", read_stat).await
    }

    /// When it was made, by the clock of the cluster.
    pub async fn created_at(&self) -> Result<SystemTime, Error> {
        self.call("rbd_get_create_timestamp", read_created_at).await
    }

    /// Grows or shrinks the image; shrinking frees the data beyond.
    pub async fn resize(&self, size_bytes: u64) -> Result<(), Error> {
        let image = self.clone();
        self.call("rbd_resize2", move |raw, label| {
            // SAFETY: a live image; the callback is a function and takes no data.
            let value = unsafe { sys::rbd_resize2(raw, size_bytes, true, Some(no_progress), null_mut()) };
            check(value, "rbd_resize2", label)?;
            image.learn_size().map(|_| ())
        })
        .await
    }

    /// The clones of a snapshot of this image; see [`Children`].
    pub async fn children(&self, snapshot: &str) -> Result<Children, Error> {
        children::of(self, snapshot).await
    }

    /// Who has this image open for writing, this handle included.
    pub async fn watchers(&self) -> Result<Vec<Watcher>, Error> {
        self.call("rbd_watchers_list", watchers::list).await
    }

    /// Which parts of a range hold data, merged and in order; the rest reads as zeros. Whole objects: with
    /// the fast-diff feature this reads no data and takes a fraction of a millisecond. A range beyond the
    /// end is cut.
    pub async fn allocated_extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, Error> {
        self.call("rbd_diff_iterate2", move |raw, label| extents::allocated(raw, label, offset, length, true)).await
    }

    /// The same without what a clone still has from its parent.
    pub async fn own_extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, Error> {
        self.call("rbd_diff_iterate2", move |raw, label| extents::allocated(raw, label, offset, length, false)).await
    }

    /// Closes the image, and waits until that is done: for the other clones to be dropped, for running
    /// operations, and for librbd (up to three operation timeouts on a stopped cluster).
    ///
    /// When the future is dropped the image still closes. An image on which an operation never ended (see
    /// [`Image::write`]) is given up: [`Kind::TimedOut`](crate::Kind::TimedOut) at once, and the handle leaks.
    pub async fn close(self) -> Result<(), Error> {
        let mut closed = self.inner.closed.subscribe();
        let label = self.inner.label.clone();
        let stuck = self.inner.stuck.load(Ordering::Relaxed);
        let limit = self.answer_limit();
        drop(self);
        let given_up = || Error::new("rbd_aio_close", label.clone(), libc::ETIMEDOUT);
        if stuck {
            return Err(given_up());
        }
        match tokio::time::timeout(limit, closed.wait_for(Option::is_some)).await {
            Ok(Ok(result)) => result.clone().unwrap_or(Ok(())),
            // The closer went away without a word.
            Ok(Err(_)) => Err(Error::new("rbd_aio_close", label.clone(), libc::ECANCELED)),
            Err(_) => Err(given_up()),
        }
    }

    /// Longer than librbd takes for anything, with the timeouts that the connection has: what takes longer
    /// will never end.
    pub(crate) fn answer_limit(&self) -> Duration {
        self.pool().cluster().op_timeout() * ANSWERS_MAX
    }

    /// Notes that an operation will never end.
    pub(crate) fn give_up(&self) {
        self.inner.stuck.store(true, Ordering::Relaxed);
    }

    /// Refuses a change of an image that was opened read-only.
    pub(crate) fn require_writable(&self, call: &'static str) -> Result<(), Error> {
        if self.inner.read_only { Err(Error::new(call, self.label(), libc::EROFS)) } else { Ok(()) }
    }

    /// Runs a blocking call on this image, which stays open meanwhile.
    pub(crate) async fn call<T, F>(&self, call: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(sys::rbd_image_t, &str) -> Result<T, Error> + Send + 'static,
    {
        let image = self.clone();
        let run = blocking::run(call, self.label(), move || work(image.raw(), image.label()));
        self.pool().cluster().observer().watch(call, run).await
    }

    /// The size when it was last asked for. Another client may have changed it since.
    pub(crate) fn known_size(&self) -> u64 {
        self.inner.size_bytes.load(Ordering::Relaxed)
    }

    /// Asks librbd for the size. Blocks.
    pub(crate) fn learn_size(&self) -> Result<u64, Error> {
        let mut size_bytes = 0;
        // SAFETY: a live image and an out pointer for the call.
        let value = unsafe { sys::rbd_get_size(self.raw(), &mut size_bytes) };
        check(value, "rbd_get_size", self.label())?;
        self.inner.size_bytes.store(size_bytes, Ordering::Relaxed);
        Ok(size_bytes)
    }

    pub(crate) fn label(&self) -> &str {
        &self.inner.label
    }

    pub(crate) fn raw(&self) -> sys::rbd_image_t {
        self.inner.raw.0
    }
}

/// librbd calls the progress callback of a shrinking resize without asking whether there is one (16.2.15).
pub(crate) unsafe extern "C" fn no_progress(_done: u64, _total: u64, _data: *mut std::ffi::c_void) -> libc::c_int {
    0
}

/// Longer than any id or prefix that librbd makes (its own limits are 64 bytes and fewer).
const SHORT_TEXT_MAX: usize = 256;

pub(crate) fn read_id(raw: sys::rbd_image_t, label: &str) -> Result<String, Error> {
    let mut id = [0_u8; SHORT_TEXT_MAX];
    // SAFETY: a live image and a buffer of the length given.
    let value = unsafe { sys::rbd_get_id(raw, id.as_mut_ptr().cast(), id.len()) };
    check(value, "rbd_get_id", label)?;
    Ok(from_buffer(&id))
}

fn read_stat(raw: sys::rbd_image_t, label: &str) -> Result<ImageStat, Error> {
    let mut info = sys::rbd_image_info_t {
        size: 0,
        obj_size: 0,
        num_objs: 0,
        order: 0,
        block_name_prefix: [0; 24],
        parent_pool: 0,
        parent_name: [0; 96],
    };
    // SAFETY: a live image; the size is that of the structure.
    let value = unsafe { sys::rbd_stat(raw, &mut info, size_of_val(&info)) };
    check(value, "rbd_stat", label)?;

    let mut features = 0;
    // SAFETY: a live image and an out pointer for the call.
    let value = unsafe { sys::rbd_get_features(raw, &mut features) };
    check(value, "rbd_get_features", label)?;

    // The prefix in `info` is cut at 24 bytes, too short for images with a data pool.
    let mut prefix = [0_u8; SHORT_TEXT_MAX];
    // SAFETY: a live image and a buffer of the length given.
    let value = unsafe { sys::rbd_get_block_name_prefix(raw, prefix.as_mut_ptr().cast(), prefix.len()) };
    check(value, "rbd_get_block_name_prefix", label)?;

    Ok(ImageStat {
        size_bytes: info.size,
        order: u8::try_from(info.order).unwrap_or(0),
        features,
        object_prefix: from_buffer(&prefix),
        objects: info.num_objs,
        // SAFETY: a live image.
        data_pool_id: unsafe { sys::rbd_get_data_pool_id(raw) },
    })
}

fn read_created_at(raw: sys::rbd_image_t, label: &str) -> Result<SystemTime, Error> {
    let mut moment = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live image and an out pointer for the call.
    let value = unsafe { sys::rbd_get_create_timestamp(raw, &mut moment) };
    check(value, "rbd_get_create_timestamp", label)?;
    let seconds = u64::try_from(moment.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(moment.tv_nsec).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds))
}
