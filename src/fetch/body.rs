//! The data of a URL, in order, as several connections bring it.
//!
//! ```text
//!   bytes=0-8M    ──> segment ─┐
//!   bytes=8M-16M  ──> segment ─┼─ in order ──> pace ──> stream
//!   bytes=16M-24M ──> segment ─┘
//! ```
//!
//! A segment holds at most its own length, and a new one begins only when the first has been passed on: memory is
//! bounded by their number, and a slow reader slows the servers down. A segment that breaks goes on where it was.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use hyper::StatusCode;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::answer::ContentRange;
use super::connect::Connection;
use super::exchange::{Answer, Client, Question};
use super::target::Target;
use super::{Config, Error};

/// The data, in order.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Frames shorter than this are gathered: a server that sends single bytes must not cost a reference each.
const PIECE_MIN_BYTES: usize = 64 * 1024;
/// A try that brought at least so much does not count as one that failed.
const PROGRESS_MIN_BYTES: u64 = 1 << 20;
/// First pause before another try; each further one is twice as long.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Tries that failed in a row, and how many may.
pub(super) struct Tries {
    left: u32,
    max: u32,
    pause: Duration,
}

impl Tries {
    pub(super) fn new(max: u32) -> Self {
        Self { left: max, max, pause: RETRY_PAUSE }
    }

    /// There was progress: everything is as at the start.
    fn reset(&mut self) {
        *self = Self::new(self.max);
    }

    /// Waits until another try may help.
    ///
    /// # Errors
    /// The failure itself, when it will not pass, or there were enough tries.
    pub(super) async fn after(&mut self, failure: Error) -> Result<(), Error> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || !failure.is_passing() {
            return Err(failure);
        }
        let asked = if let Error::Busy(_, pause) = &failure { *pause } else { Duration::ZERO };
        tracing::debug!(%failure, "another try follows");
        tokio::time::sleep(self.pause.max(asked)).await;
        self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
        Ok(())
    }
}

/// How long it may take: all in all, and at what rate, counted while the server is waited for.
pub(super) struct Pace {
    deadline: Instant,
    deadline_s: u64,
    window: Duration,
    rate_min_bytes_s: u64,
    /// Bytes that have come from the network.
    received: Arc<AtomicU64>,
    /// The count when the window began, and how long was waited in it.
    before: u64,
    waited: Duration,
}

impl Pace {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            deadline: Instant::now() + Duration::from_secs(config.deadline_s),
            deadline_s: config.deadline_s,
            window: Duration::from_secs(config.rate_window_s),
            rate_min_bytes_s: config.rate_min_kib_s * 1024,
            received: Arc::default(),
            before: 0,
            waited: Duration::ZERO,
        }
    }

    /// Waits for `work`, while the pace is kept.
    ///
    /// # Errors
    /// [`Error::TooSlow`].
    pub(super) async fn keep<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::pin!(work);
        loop {
            let started = Instant::now();
            let look = (started + self.window.saturating_sub(self.waited)).min(self.deadline);
            let done = tokio::select! {
                biased;
                done = &mut work => Some(done),
                () = tokio::time::sleep_until(look) => None,
            };
            self.waited += started.elapsed();
            self.check()?;
            if let Some(done) = done {
                return Ok(done);
            }
        }
    }

    fn check(&mut self) -> Result<(), Error> {
        if Instant::now() >= self.deadline {
            return Err(Error::TooSlow(format!("The download took longer than {} s.", self.deadline_s)));
        }
        if self.waited >= self.window {
            let received = self.received.load(Ordering::Relaxed);
            let wanted = self.rate_min_bytes_s as f64 * self.waited.as_secs_f64();
            if ((received - self.before) as f64) < wanted {
                return Err(Error::TooSlow(format!(
                    "The download is slower than {} KiB/s.",
                    self.rate_min_bytes_s / 1024
                )));
            }
            (self.before, self.waited) = (received, Duration::ZERO);
        }
        Ok(())
    }
}

/// The data of an answer without ranges, as it comes. It cannot be resumed.
pub(super) fn whole(answer: Answer, pace: Pace, size_bytes: Option<u64>, cap_bytes: u64) -> Body {
    let state = Some((answer, pace, 0_u64));
    Box::pin(stream::unfold(state, move |state| async move {
        let (mut answer, mut pace, mut at) = state?;
        let piece = match pace.keep(answer.next()).await {
            Ok(Ok(Some(piece))) => piece,
            // The length was promised, and hyper holds the server to it; without one, the end of the connection is the end.
            Ok(Ok(None)) if size_bytes.is_none_or(|size| size == at) => return None,
            Ok(Ok(None)) => {
                let host = &answer.target.host;
                return Some((
                    Err(Error::Unusable(format!("The server {host} sent less than it had announced."))),
                    None,
                ));
            }
            Ok(Err(failure)) | Err(failure) => return Some((Err(failure), None)),
        };
        at += piece.len() as u64;
        pace.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
        match super::fits(at, cap_bytes) {
            Ok(()) => Some((Ok(piece), Some((answer, pace, at)))),
            Err(failure) => Some((Err(failure), None)),
        }
    }))
}

/// What the segments of one download share.
pub(super) struct Ranges {
    pub(super) client: Arc<Client>,
    /// Where the user pointed to.
    pub(super) origin: Target,
    /// Where the redirects from there lead; [`Ranges::origin`] again after a failure.
    pub(super) current: Mutex<Target>,
    /// What is asked for, but for the range.
    pub(super) question: Question,
    pub(super) size_bytes: u64,
    /// Open connections that nobody uses, and whose they are.
    pub(super) idle: Mutex<Vec<(Target, Connection)>>,
    pub(super) received: Arc<AtomicU64>,
    pub(super) tries_max: u32,
}

impl Ranges {
    fn current(&self) -> Target {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_current(&self, target: &Target) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone_from(target);
    }

    /// An open connection to the server of `target`, if there is one. All others are of no use any more.
    fn idle(&self, target: &Target) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(server, _)| server == target);
        idle.pop().map(|(_, connection)| connection)
    }

    /// Brings one segment, whatever breaks on the way.
    async fn segment(
        self: Arc<Self>,
        range: Range<u64>,
        mut first: Option<Answer>,
        out: mpsc::UnboundedSender<Result<Bytes, Error>>,
    ) {
        let mut tries = Tries::new(self.tries_max);
        let mut at = range.start;
        while at < range.end && !out.is_closed() {
            let before = at;
            let done = self.part(&mut at, range.end, first.take(), &out).await;
            if at - before >= PROGRESS_MIN_BYTES {
                tries.reset();
            }
            if let Err(failure) = done {
                self.set_current(&self.origin);
                if let Err(failure) = tries.after(failure).await {
                    // Nobody may be left to hear it.
                    let _ = out.send(Err(failure));
                    return;
                }
            }
        }
    }

    /// Asks for the bytes from `at` to `end`, and passes on those that come; `at` moves along.
    async fn part(
        &self,
        at: &mut u64,
        end: u64,
        first: Option<Answer>,
        out: &mpsc::UnboundedSender<Result<Bytes, Error>>,
    ) -> Result<(), Error> {
        // 1. An answer for this range of the same data.
        let mut answer = match first {
            Some(answer) => answer,
            None => {
                let target = self.current();
                let question = Question { range: Some(*at..end), ..self.question.clone() };
                let answer = self.client.ask(&target, &question, self.idle(&target)).await?;
                self.set_current(&answer.target);
                answer
            }
        };
        let range = self.accept(&answer, *at, end)?;
        // 2. Its bytes, and no more than it announced.
        let last = range.last + 1;
        let mut small = BytesMut::new();
        let outcome = loop {
            match answer.next().await {
                Err(failure) => break Err(failure),
                Ok(None) if *at == last => break Ok(()),
                Ok(None) => {
                    break Err(Error::Unavailable(format!(
                        "The server {} sent less than it had announced.",
                        answer.target.host
                    )));
                }
                Ok(Some(piece)) => {
                    if piece.len() as u64 > last - *at {
                        break Err(Error::Unusable(format!(
                            "The server {} sent more than it had announced.",
                            answer.target.host
                        )));
                    }
                    *at += piece.len() as u64;
                    self.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    small.extend_from_slice(&piece);
                    if small.len() >= PIECE_MIN_BYTES {
                        let _ = out.send(Ok(small.split().freeze()));
                    }
                }
            }
        };
        if !small.is_empty() {
            let _ = out.send(Ok(small.freeze()));
        }
        outcome?;
        // 3. The connection, for another segment.
        let target = answer.target.clone();
        if let Some(connection) = answer.into_connection().await {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((target, connection));
        }
        Ok(())
    }

    /// The range that an answer has, if it is of what was asked for.
    fn accept(&self, answer: &Answer, at: u64, end: u64) -> Result<ContentRange, Error> {
        let host = &answer.target.host;
        let validator = self.question.validator.as_ref();
        match answer.status {
            StatusCode::PARTIAL_CONTENT => {
                let range = ContentRange::read(&answer.headers)
                    .filter(|range| range.first == at && range.last < end)
                    .ok_or_else(|| {
                    Error::Unusable(format!("The server {host} sends other bytes than it was asked for."))
                })?;
                if range.total != self.size_bytes || !validator.is_none_or(|known| known.agrees(&answer.headers)) {
                    return Err(changed(host));
                }
                Ok(range)
            }
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PRECONDITION_FAILED => Err(changed(host)),
            // A signed URL behind a redirect ends before long; the way from the start leads to another.
            _ if answer.status.is_client_error() && answer.target != self.origin => {
                Err(Error::Unavailable(format!("The server {host} answers {}.", answer.status)))
            }
            _ => Err(answer.failure()),
        }
    }
}

fn changed(host: &super::Host) -> Error {
    Error::Unusable(format!("The data on the server {host} changed while it was fetched."))
}

/// A segment on its way.
struct Segment {
    pieces: mpsc::UnboundedReceiver<Result<Bytes, Error>>,
    _task: AbortOnDropHandle<()>,
}

/// The data of `ranges`, of which `first` has the first `first_bytes`, in segments of `range_bytes`, `segments_max` at once.
pub(super) fn in_ranges(
    ranges: Ranges,
    first: Answer,
    first_bytes: u64,
    pace: Pace,
    range_bytes: u64,
    segments_max: usize,
) -> Body {
    let ranges = Arc::new(ranges);
    let begin = |ranges: &Arc<Ranges>, range: Range<u64>, first: Option<Answer>| {
        // Unbounded in form only: no segment sends more than its length.
        let (out, pieces) = mpsc::unbounded_channel();
        let task = tokio::spawn(Arc::clone(ranges).segment(range, first, out));
        Segment { pieces, _task: AbortOnDropHandle::new(task) }
    };
    let mut segments = VecDeque::with_capacity(segments_max);
    segments.push_back(begin(&ranges, 0..first_bytes, Some(first)));
    let state = Some((segments, first_bytes, 0_u64, pace));
    Box::pin(stream::unfold(state, move |state| {
        let ranges = Arc::clone(&ranges);
        async move {
            let (mut segments, mut next, mut at, mut pace) = state?;
            loop {
                while segments.len() < segments_max && next < ranges.size_bytes {
                    let end = (next + range_bytes).min(ranges.size_bytes);
                    segments.push_back(begin(&ranges, next..end, None));
                    next = end;
                }
                let Some(segment) = segments.front_mut() else {
                    return (at != ranges.size_bytes)
                        .then(|| (Err(Error::Unavailable("The download ended before its end.".into())), None));
                };
                match pace.keep(segment.pieces.recv()).await {
                    Ok(Some(Ok(piece))) => {
                        at += piece.len() as u64;
                        return Some((Ok(piece), Some((segments, next, at, pace))));
                    }
                    Ok(Some(Err(failure))) | Err(failure) => return Some((Err(failure), None)),
                    Ok(None) => drop(segments.pop_front()),
                }
            }
        }
    }))
}

impl Pace {
    /// The count of bytes that the rate is measured by.
    pub(super) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }
}
