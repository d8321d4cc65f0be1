//! Reading and writing bytes, with librbd's asynchronous calls.
//!
//! An operation owns its buffers and a reference to the image. librbd's callback takes the operation back,
//! reads the return value and sends it on; it does nothing else, because it runs on a thread of librbd.

use std::ffi::c_void;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libc::iovec;
use tokio::sync::oneshot;

use crate::error::{Error, check};
use crate::image::Image;
use crate::sys;

/// Pieces that one write hands over as they are. librbd takes more, but it wraps each in a few hundred bytes
/// of its own. Above this, which for an 8 MiB write means pieces under 8 KiB, one copy is cheaper.
const PIECES_MAX: usize = 1024;

/// How long to wait for librbd before asking whether the connection still works.
const DOUBT_INTERVAL: Duration = Duration::from_secs(3);

/// What librbd works on, from submission to callback.
struct Operation {
    /// Keeps the image open. Dropped last: it may be the last reference.
    image: Image,
    call: &'static str,
    data: Vec<Bytes>,
    buffer: Vec<u8>,
    done: oneshot::Sender<Outcome>,
}

/// The return value (not negative), and the buffer of a read.
type Outcome = Result<(usize, Vec<u8>), Error>;

impl Image {
    /// Writes the pieces one after another from `offset` on, without copying them. They are held until librbd
    /// is done, also when the future is dropped, which does not stop the write.
    ///
    /// Waits while another client has the exclusive lock and does not answer, up to some 30 seconds.
    ///
    /// Errors: [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) beyond the end of the image (librbd
    /// itself would cut the write silently), `NoSpace`, `ReadOnly`, `TimedOut`, `Blocklisted`. After the last
    /// two librbd may never be done: then the pieces and the handle of the image leak (see `cluster`).
    /// Check every write: no later call reports the failure of an earlier one.
    pub async fn write(&self, offset: u64, data: Vec<Bytes>) -> Result<(), Error> {
        self.require_writable("rbd_aio_writev")?;
        let data = pieces(data);
        let length: u64 = data.iter().map(|piece| piece.len() as u64).sum();
        if length == 0 {
            return Ok(());
        }
        self.require_inside("rbd_aio_writev", offset, length).await?;
        self.start_write(offset, data)?.finish().await.map(|_| ())
    }

    /// Reads `buffer.len()` bytes from `offset` on into `buffer` and returns it; at the end of the image it
    /// comes back shorter, beyond it empty. Dropping the future drops the buffer once librbd is done.
    pub async fn read(&self, offset: u64, buffer: Vec<u8>) -> Result<Vec<u8>, Error> {
        let mut buffer = buffer;
        buffer.truncate(usize::try_from(self.size_after(offset).await?).unwrap_or(usize::MAX).min(buffer.len()));
        if buffer.is_empty() {
            return Ok(buffer);
        }
        let (length, mut buffer) = self.start_read(offset, buffer)?.finish().await?;
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Gives the range back to the pool; it reads as zeros afterwards. Parts of objects smaller than
    /// `rbd_discard_granularity_bytes` (64 KiB by default) are left as they are: use
    /// [`Image::write_zeroes`] where zeros matter.
    pub async fn discard(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.start_range("rbd_aio_discard", offset, length, |raw, completion| {
            // SAFETY: the operation keeps the image open; the completion is live and unused.
            unsafe { sys::rbd_aio_discard(raw, offset, length, completion) }
        })
        .await
    }

    /// Makes the range read as zeros, and gives whole objects back to the pool.
    pub async fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), Error> {
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        self.start_range("rbd_aio_write_zeroes", offset, length, move |raw, completion| {
            // SAFETY: the operation keeps the image open; the completion is live and unused.
            unsafe { sys::rbd_aio_write_zeroes(raw, offset, bytes, completion, 0, 0) }
        })
        .await
    }

    /// Waits for the writes that completed before it to be on disk. It does *not* report writes that failed
    /// (librbd returns 0 after them): check each write.
    pub async fn flush(&self) -> Result<(), Error> {
        let (operation, pending) = Operation::new(self, "rbd_aio_flush", Vec::new(), Vec::new());
        let started = start(operation, pending, |raw, completion| {
            // SAFETY: the operation keeps the image open; the completion is live and unused.
            unsafe { sys::rbd_aio_flush(raw, completion) }
        });
        started?.finish().await.map(|_| ())
    }

    // The functions that handle raw pointers are not async: a future that holds one is not Send.

    fn start_write(&self, offset: u64, data: Vec<Bytes>) -> Result<Pending, Error> {
        let pieces: Vec<iovec> = data
            .iter()
            .map(|piece| iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() })
            .collect();
        let count = libc::c_int::try_from(pieces.len()).unwrap_or(libc::c_int::MAX);
        let (operation, pending) = Operation::new(self, "rbd_aio_writev", data, Vec::new());
        start(operation, pending, |raw, completion| {
            // SAFETY: `pieces` lives for the call, which copies it; the bytes that it points to belong to the
            // operation, are never written to, and stay until the callback. librbd only reads from them.
            unsafe { sys::rbd_aio_writev(raw, pieces.as_ptr(), count, offset, completion) }
        })
    }

    fn start_read(&self, offset: u64, buffer: Vec<u8>) -> Result<Pending, Error> {
        let (mut operation, pending) = Operation::new(self, "rbd_aio_read", Vec::new(), buffer);
        let (bytes, length) = (operation.buffer.as_mut_ptr(), operation.buffer.len());
        start(operation, pending, |raw, completion| {
            // SAFETY: the buffer belongs to the operation, has this length, and nobody touches it until the
            // callback gives it back.
            unsafe { sys::rbd_aio_read(raw, offset, length, bytes.cast(), completion) }
        })
    }

    async fn start_range<F>(&self, call: &'static str, offset: u64, length: u64, submit: F) -> Result<(), Error>
    where
        F: FnOnce(sys::rbd_image_t, sys::rbd_completion_t) -> libc::c_int,
    {
        self.require_writable(call)?;
        if length == 0 {
            return Ok(());
        }
        self.require_inside(call, offset, length).await?;
        let (operation, pending) = Operation::new(self, call, Vec::new(), Vec::new());
        start(operation, pending, submit)?.finish().await.map(|_| ())
    }

    /// Refuses what would end beyond the image.
    async fn require_inside(&self, call: &'static str, offset: u64, length: u64) -> Result<(), Error> {
        let end = offset.checked_add(length);
        if end.is_some_and(|end| end <= self.known_size()) {
            return Ok(());
        }
        // Another client may have grown it.
        let image = self.clone();
        let size_bytes = self.call("rbd_get_size", move |_, _| image.learn_size()).await?;
        if end.is_some_and(|end| end <= size_bytes) {
            return Ok(());
        }
        let detail = format!("{length} bytes at {offset} reach beyond the size of {size_bytes}");
        Err(Error::new(call, self.label(), libc::EINVAL).with_detail(detail))
    }

    /// How much there is from `offset` on.
    async fn size_after(&self, offset: u64) -> Result<u64, Error> {
        if offset < self.known_size() {
            return Ok(self.known_size() - offset);
        }
        let image = self.clone();
        let size_bytes = self.call("rbd_get_size", move |_, _| image.learn_size()).await?;
        Ok(size_bytes.saturating_sub(offset))
    }
}

/// The pieces as librbd gets them: without empty ones, and not too many.
fn pieces(mut data: Vec<Bytes>) -> Vec<Bytes> {
    data.retain(|piece| !piece.is_empty());
    if data.len() > PIECES_MAX {
        return vec![Bytes::from(data.concat())];
    }
    data
}

impl Operation {
    fn new(image: &Image, call: &'static str, data: Vec<Bytes>, buffer: Vec<u8>) -> (Box<Operation>, Pending) {
        let (done, outcome) = oneshot::channel();
        let operation = Operation { image: image.clone(), call, data, buffer, done };
        (Box::new(operation), Pending { outcome, call, image: image.clone() })
    }
}

/// Gives an operation to librbd: `submit` makes the one call, with pointers taken before.
fn start<F>(operation: Box<Operation>, pending: Pending, submit: F) -> Result<Pending, Error>
where
    F: FnOnce(sys::rbd_image_t, sys::rbd_completion_t) -> libc::c_int,
{
    let (image, call) = (&pending.image, pending.call);
    let context = Box::into_raw(operation);
    let mut completion = std::ptr::null_mut();
    // SAFETY: `context` lives until the callback, or the error path below, takes it back.
    let created = unsafe { sys::rbd_aio_create_completion(context.cast(), Some(on_complete), &mut completion) };
    let started = check(created, "rbd_aio_create_completion", image.label()).and_then(|_| {
        // From here on the callback may run at any time, on another thread, and free the operation.
        check(submit(image.raw(), completion), call, image.label()).inspect_err(|_| {
            // SAFETY: librbd refused the call, so no callback comes and the completion is still ours.
            unsafe { sys::rbd_aio_release(completion) }
        })
    });
    match started {
        Ok(_) => Ok(pending),
        Err(error) => {
            // SAFETY: no callback comes, so the operation is still ours.
            drop(unsafe { Box::from_raw(context) });
            Err(error)
        }
    }
}

/// A submitted operation, to wait for or to forget.
struct Pending {
    outcome: oneshot::Receiver<Outcome>,
    call: &'static str,
    image: Image,
}

impl Pending {
    async fn finish(self) -> Outcome {
        let (call, cluster) = (self.call, self.image.pool().cluster().clone());
        cluster.observer().watch(call, self.end()).await
    }

    /// Waits for the end. Where there is none (zero-copy writes, see `cluster`), says so: at once if the
    /// connection turns out to be bad, else after the longest time that anything can take.
    async fn end(mut self) -> Outcome {
        let limit = self.image.answer_limit();
        let start = Instant::now();
        loop {
            match tokio::time::timeout(DOUBT_INTERVAL.min(limit), &mut self.outcome).await {
                Ok(Ok(outcome)) => return outcome,
                // The callback always sends; this is for a librbd that lost an operation.
                Ok(Err(_)) => return Err(Error::new(self.call, self.image.label(), libc::ECANCELED)),
                Err(_) => {}
            }
            let errno = match self.image.pool().ping().await {
                Err(error) if error.is_connection_fault() => error.errno(),
                Ok(()) | Err(_) if start.elapsed() < limit => continue,
                Ok(()) | Err(_) => libc::ETIMEDOUT,
            };
            self.image.give_up();
            tracing::warn!(
                image = self.image.label(),
                call = self.call,
                "librbd did not end an operation; the image is given up"
            );
            return Err(Error::new(self.call, self.image.label(), errno));
        }
    }
}

unsafe extern "C" fn on_complete(completion: sys::rbd_completion_t, context: *mut c_void) {
    // SAFETY: `start` passed a box it gave up, and librbd calls back once per accepted operation.
    let operation = unsafe { Box::from_raw(context.cast::<Operation>()) };
    // SAFETY: librbd lends a live completion.
    let value = unsafe { sys::rbd_aio_get_return_value(completion) };
    // SAFETY: releasing the completion in its callback is allowed; it is not used afterwards.
    unsafe { sys::rbd_aio_release(completion) };
    let Operation { image, call, data, buffer, done } = *operation;
    // The memory is free before anyone hears of the end, so that a budget held by the pieces is, too.
    drop(data);
    let outcome = match usize::try_from(value) {
        Ok(length) => Ok((length, buffer)),
        Err(_) => Err(Error::from_return(call, image.label(), value as i64)),
    };
    // Nobody listens when the future was dropped. Dropping the image may queue its close; it never blocks.
    drop(image);
    let _ = done.send(outcome);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{PIECES_MAX, pieces};

    #[test]
    fn keeps_few_pieces_and_joins_many() {
        let few = vec![Bytes::from_static(b"a"), Bytes::new(), Bytes::from_static(b"b")];
        assert_eq!(pieces(few), [Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
        let exact = vec![Bytes::from_static(b"xy"); PIECES_MAX];
        assert_eq!(pieces(exact).len(), PIECES_MAX);
        let many = vec![Bytes::from_static(b"xy"); PIECES_MAX + 1];
        assert_eq!(pieces(many), [Bytes::from("xy".repeat(PIECES_MAX + 1))]);
        assert!(pieces(vec![Bytes::new()]).is_empty());
    }
}
