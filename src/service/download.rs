//! `GET /v2/images/{id}/file`: bytes out of a blob, whole or in part.
//!
//! A few reads are under way ahead of the client, in order, each into a buffer that comes back when its
//! bytes have been sent. Holes are not read: one page of zeros serves them all.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::zeros::{ZEROS_BYTES, zeros};
use super::{Error, Services};
use crate::domain::image::{Image, Location};
use crate::domain::range::{self, Requested};
use crate::domain::status::Status;
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};
use crate::store::{self, BlobReader};
use crate::telemetry::Direction;

/// Bytes of one read.
const READ_BYTES: u64 = 2 * 1024 * 1024;
/// Reads under way ahead of the client. Both were chosen by timing whole downloads of 1 GiB on two cores: larger
/// or more reads took more memory and were no faster. librbd holds as much memory again as we do.
const READS_AHEAD: usize = 7;
/// Bytes handed to the connection at once: the idle timeout runs from one such frame to the next, so this is
/// what a slow client must manage to take in that time.
const FRAME_BYTES: usize = ZEROS_BYTES;

/// The answer to a request for data.
pub enum Fetched {
    /// The image has no data yet.
    Nothing,
    /// The range asked for is not within the image of this many bytes.
    OutOfRange(u64),
    /// Data.
    Data(Download),
}

/// Bytes on their way out.
pub struct Download {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Whether only a part was asked for.
    pub partial: bool,
    /// The bytes. An error in the middle means that the client must not take what it has for the image.
    pub bytes: BoxStream<'static, Result<Bytes, store::Error>>,
}

impl Services {
    /// The image that a download is about; the API needs its ETag before it decides what to send.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] for one who may see but not download it.
    pub async fn downloadable(&self, caller: &Caller, id: &str) -> Result<Image, Error> {
        let image = self.permitted(Action::DownloadImage, caller, id).await?;
        if image.status == Status::Deactivated && !caller.is_admin() {
            return Err(Error::Forbidden(
                "The requested image has been deactivated. Image data download is forbidden.".into(),
            ));
        }
        Ok(image)
    }

    /// The stores that a caller would rather have `image` from, of a comma list.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for one who may not choose, [`Error::Invalid`] naming an unknown store.
    pub async fn preferred_stores(&self, caller: &Caller, image: &Image, list: &str) -> Result<Vec<String>, Error> {
        let names: Vec<String> =
            list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if names.is_empty() {
            return Ok(names);
        }
        self.authorize(Action::DownloadFromStore, caller, Target::from(image)).await?;
        match names.iter().find(|name| self.stores.get(Some(name)).is_err()) {
            Some(unknown) => Err(Error::Invalid(format!(
                "prefer: store '{unknown}' is not configured; GET /v2/info/stores lists those that are."
            ))),
            None => Ok(names),
        }
    }

    /// Opens the data of an image, or the part of it that `range` (a `Range` header) names. Copies in `preferred`
    /// stores are tried first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no copy can be read.
    pub async fn download(&self, image: &Image, preferred: &[String], range: Option<&str>) -> Result<Fetched, Error> {
        // 1. Is there anything that has been found good?
        let complete = matches!(image.status, Status::Active | Status::Deactivated) && !image.locations.is_empty();
        let Some(content) = image.content.as_ref().filter(|_| complete) else {
            return Ok(Fetched::Nothing);
        };
        let size = content.size_bytes;
        // 2. Which part of it?
        let (start, end, partial) = match range.map_or(Requested::Whole, |header| range::parse(header, size)) {
            Requested::Whole => (0, size, false),
            Requested::Part { start, end } => (start, end, true),
            Requested::Several => {
                return Err(Error::Invalid("Requests for multiple byte ranges are not supported; ask for one.".into()));
            }
            Requested::Unsatisfiable => return Ok(Fetched::OutOfRange(size)),
        };
        let transfer = self.transfers.begin(Direction::Out)?;
        // 3. The first copy whose first bytes can be read.
        let reading = self.first_readable(image, preferred, (start, end)).await?;
        // 4. Reads ahead of the client, as long as it keeps taking.
        let (sender, receiver) = mpsc::channel(1);
        let idle = self.settings.client_idle_timeout;
        let id = image.id;
        let produce = async move {
            if let Err(error) = reading.run(&sender, idle).await {
                tracing::warn!(image = %id, %error, "a download was cut off");
                let _ = sender.send(Err(error)).await;
            }
            drop(transfer);
        };
        self.tasks.spawn(produce.in_current_span());
        let bytes =
            stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) })
                .boxed();
        Ok(Fetched::Data(Download { start, end, partial, bytes }))
    }

    /// Reads the first bytes of a range from one copy after the other, until it succeeds.
    async fn first_readable(&self, image: &Image, preferred: &[String], range: (u64, u64)) -> Result<Reading, Error> {
        let mut last = Error::Internal(format!("image {} has no location", image.id));
        let size_bytes = image.content.as_ref().map_or(0, |content| content.size_bytes);
        let copies = self.stores.in_order(&image.locations, preferred);
        let count = copies.len();
        for location in copies {
            let failure = match self.begin_reading(location, size_bytes, range).await {
                Ok(reading) => return Ok(reading),
                Err(failure) => failure,
            };
            if count > 1 {
                tracing::warn!(image = %image.id, store = location.store, error = %failure, "a copy could not be read");
            }
            last = match failure {
                // Deleted between the look into the catalog and now, or lost.
                store::Error::NotFound(why) => Error::Gone(format!("The data of image {} is gone: {why}.", image.id)),
                other => other.into(),
            };
        }
        Err(last)
    }

    async fn begin_reading(
        &self,
        location: &Location,
        size_bytes: u64,
        (start, end): (u64, u64),
    ) -> Result<Reading, store::Error> {
        let reader = self.stores.get(Some(&location.store))?.open(&location.url).await?;
        if reader.size_bytes() != size_bytes {
            let found = reader.size_bytes();
            let why = format!("{} holds {found} bytes, the catalog says {size_bytes}", location.url);
            return Err(store::Error::Other(why));
        }
        let data = if start < end { reader.data(start, end).await? } else { Vec::new() };
        let buffers = Buffers::default();
        let mut reading = Reading { reader, data: data.into(), ahead: VecDeque::new(), at: start, end, buffers };
        reading.read_ahead();
        if let Some(Ahead::Data(read)) = reading.ahead.front_mut() {
            let first = read.bytes().await?;
            reading.ahead[0] = Ahead::Read(first);
        }
        Ok(reading)
    }
}

/// Buffers that have been sent and can be filled again.
#[derive(Clone, Default)]
struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn take(&self, length: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }
}

/// A filled buffer; goes back when its last byte has been sent.
struct Filled {
    buffer: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// What comes next for the client.
enum Ahead {
    Hole(u64),
    Data(AbortOnDrop<Result<Bytes, store::Error>>),
    /// Data that is there already.
    Read(Bytes),
}

/// A read that nobody waits for any more need not be finished.
struct AbortOnDrop<T>(JoinHandle<T>);

impl AbortOnDrop<Result<Bytes, store::Error>> {
    async fn bytes(&mut self) -> Result<Bytes, store::Error> {
        (&mut self.0).await.map_err(|panic| store::Error::Other(panic.to_string()))?
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The state of a download.
struct Reading {
    reader: Arc<dyn BlobReader>,
    /// Runs of data not yet read, in order.
    data: VecDeque<(u64, u64)>,
    /// Pieces that are being read, in order.
    ahead: VecDeque<Ahead>,
    /// Where the next piece begins.
    at: u64,
    end: u64,
    buffers: Buffers,
}

impl Reading {
    async fn run(
        mut self,
        sender: &mpsc::Sender<Result<Bytes, store::Error>>,
        idle: std::time::Duration,
    ) -> Result<(), store::Error> {
        let stalled = || store::Error::Other(format!("the client took no data for {} s", idle.as_secs()));
        loop {
            self.read_ahead();
            let Some(next) = self.ahead.pop_front() else { return Ok(()) };
            let pieces = match next {
                Ahead::Hole(length) => Box::new(zeros(length)),
                Ahead::Data(mut read) => frames(read.bytes().await?),
                Ahead::Read(bytes) => frames(bytes),
            };
            for piece in pieces {
                match tokio::time::timeout(idle, sender.send(Ok(piece))).await {
                    Ok(Ok(())) => {}
                    // The client is gone.
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => return Err(stalled()),
                }
            }
        }
    }

    /// Keeps reads under way.
    fn read_ahead(&mut self) {
        // One more than the reads that go on while the first one's bytes are sent.
        while self.ahead.len() <= READS_AHEAD
            && let Some(next) = self.next()
        {
            self.ahead.push_back(next);
        }
    }

    /// Starts on the next piece; `None` at the end.
    fn next(&mut self) -> Option<Ahead> {
        if self.at >= self.end {
            return None;
        }
        let Some((offset, length)) = self.data.front().copied() else {
            let hole = self.end - self.at;
            self.at = self.end;
            return Some(Ahead::Hole(hole));
        };
        if self.at < offset {
            let hole = offset - self.at;
            self.at = offset;
            return Some(Ahead::Hole(hole));
        }
        // Aligned reads after the first one: no read touches two objects for no reason.
        let piece = (READ_BYTES - offset % READ_BYTES).min(length);
        if piece == length {
            self.data.pop_front();
        } else if let Some(front) = self.data.front_mut() {
            *front = (offset + piece, length - piece);
        }
        self.at = offset + piece;
        let (reader, home) = (Arc::clone(&self.reader), self.buffers.clone());
        let read = tokio::spawn(async move {
            let buffer = home.take(usize::try_from(piece).unwrap_or(0));
            let buffer = reader.read(offset, buffer).await?;
            Ok(Bytes::from_owner(Filled { buffer, home }))
        });
        Some(Ahead::Data(AbortOnDrop(read)))
    }
}

type Frames = Box<dyn Iterator<Item = Bytes> + Send>;

/// Frames that make up `bytes`.
fn frames(mut bytes: Bytes) -> Frames {
    Box::new(std::iter::from_fn(move || (!bytes.is_empty()).then(|| bytes.split_to(bytes.len().min(FRAME_BYTES)))))
}
