//! One thread that closes what others drop.
//!
//! The last user of an image may be a completion callback, where `rbd_close` deadlocks (measured), or a
//! runtime worker, which must not block. So a drop only hands the handle over to this thread. It starts
//! `rbd_aio_close`, which runs inside librbd, any number at a time; and gives every `rados_shutdown`, which
//! blocks and must not run on a thread of librados, a thread of its own.

use std::ffi::c_void;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::cluster::RawCluster;
use crate::error::{Error, check};
use crate::image::RawImage;
use crate::pool::Pool;
use crate::sys;

/// How a close ended; `None` until then.
pub(crate) type CloseResult = Option<Result<(), Error>>;

/// An image to close. Holds its pool, so that the connection outlives the close.
pub(crate) struct ClosingImage {
    pub(crate) raw: RawImage,
    pub(crate) pool: Pool,
    pub(crate) object: String,
    pub(crate) closed: watch::Sender<CloseResult>,
}

enum Job {
    Close(Box<ClosingImage>),
    Shutdown(RawCluster),
}

static JOBS: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// Closes and shutdowns that have not ended.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// How long the end of the process waits for them. Enough for a cluster that answers.
const EXIT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Starts the thread, once per process. Called before the first connection is made, so that there is a
/// closer whenever there is something to close.
pub(crate) fn start() -> Result<(), Error> {
    let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
    if jobs.is_none() {
        let (sender, receiver) = channel();
        thread::Builder::new().name("ceph-closer".into()).spawn(move || serve(&receiver)).map_err(|error| {
            Error::new("pthread_create", "ceph-closer", error.raw_os_error().unwrap_or(libc::EAGAIN))
        })?;
        *jobs = Some(sender);
        // SAFETY: a function that may run at the end of the process; it only sleeps. If there is no room for
        // it (ENOMEM), the end is as it would have been without.
        unsafe { libc::atexit(await_running) };
    }
    Ok(())
}

/// Runs when the process exits normally, before the C++ destructors of the libraries, which crash under
/// threads that still close something.
extern "C" fn await_running() {
    let start = Instant::now();
    while RUNNING.load(Ordering::Acquire) > 0 && start.elapsed() < EXIT_WAIT_MAX {
        thread::sleep(Duration::from_millis(2));
    }
}

/// Ends the process, after waiting (some seconds at most) for handles that are being closed, and without
/// running the destructors of the C++ libraries: threads of librados that still run crash in them.
///
/// Everything that holds a handle should have been dropped before.
pub fn exit(code: u8) -> ! {
    await_running();
    let _ = std::io::stdout().flush();
    // SAFETY: ends the process at once; nothing of it is used afterwards.
    unsafe { libc::_exit(libc::c_int::from(code)) }
}

/// Closes an image in the background; the result goes to `closed`.
pub(crate) fn close(image: ClosingImage) {
    send(Job::Close(Box::new(image)));
}

/// Disconnects from a cluster in the background.
pub(crate) fn shut_down(cluster: RawCluster) {
    send(Job::Shutdown(cluster));
}

fn send(job: Job) {
    RUNNING.fetch_add(1, Ordering::AcqRel);
    let jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
    // The thread ends only when this sender goes, that is never; nothing can be lost here.
    if jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
        RUNNING.fetch_sub(1, Ordering::AcqRel);
        tracing::error!("the thread that closes Ceph handles is gone; a handle leaks");
    }
}

fn serve(jobs: &Receiver<Job>) {
    for job in jobs {
        match job {
            Job::Close(image) => begin_close(image),
            Job::Shutdown(cluster) => begin_shutdown(cluster),
        }
    }
}

fn begin_shutdown(cluster: RawCluster) {
    let started = thread::Builder::new().name("ceph-shutdown".into()).spawn(move || {
        cluster.shut_down();
        RUNNING.fetch_sub(1, Ordering::AcqRel);
    });
    if let Err(error) = started {
        RUNNING.fetch_sub(1, Ordering::AcqRel);
        tracing::error!(%error, "no thread to disconnect from Ceph; the connection leaks");
    }
}

fn begin_close(image: Box<ClosingImage>) {
    let raw = image.raw.pointer();
    let context = Box::into_raw(image);
    let mut completion = std::ptr::null_mut();
    // SAFETY: `context` lives until `on_closed` (or the error path below) takes it back.
    let created = unsafe { sys::rbd_aio_create_completion(context.cast(), Some(on_closed), &mut completion) };
    let started = check(created, "rbd_aio_create_completion", "").and_then(|_| {
        // SAFETY: the last user of `raw` gave it up by dropping it; this is its only close.
        let value = unsafe { sys::rbd_aio_close(raw, completion) };
        check(value, "rbd_aio_close", "").inspect_err(|_| {
            // SAFETY: librbd refused the call, so the completion is still ours.
            unsafe { sys::rbd_aio_release(completion) }
        })
    });
    if let Err(error) = started {
        // SAFETY: the callback will not run, so the context is still ours.
        let image = unsafe { Box::from_raw(context) };
        image.finish(Err(error));
    }
}

/// Runs on a thread of librbd: reads the value and hands it on, nothing else. Dropping the pool may drop the
/// connection, which only queues its shutdown.
unsafe extern "C" fn on_closed(completion: sys::rbd_completion_t, context: *mut c_void) {
    // SAFETY: `begin_close` passed a box it gave up, and librbd calls back once.
    let image = unsafe { Box::from_raw(context.cast::<ClosingImage>()) };
    // SAFETY: librbd lends a live completion; releasing it in the callback is allowed.
    let value = unsafe { sys::rbd_aio_get_return_value(completion) };
    // SAFETY: as above; it is not used afterwards.
    unsafe { sys::rbd_aio_release(completion) };
    let result = if value < 0 { Err(Error::from_return("rbd_aio_close", &image.object, value as i64)) } else { Ok(()) };
    image.finish(result);
}

impl ClosingImage {
    fn finish(self, result: Result<(), Error>) {
        if let Err(error) = &result {
            tracing::warn!(object = self.object, %error, "an RBD image did not close cleanly");
        }
        let ClosingImage { pool, closed, .. } = self;
        // The connection goes first: who sees the close done may then expect it released.
        drop(pool);
        closed.send_replace(Some(result));
        RUNNING.fetch_sub(1, Ordering::AcqRel);
    }
}
