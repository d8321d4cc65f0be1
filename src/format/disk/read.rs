//! From the tables of a disk to its bytes: the one engine for all formats.
//!
//! Runs are gathered into batches of about a MiB. A batch is a task of its own: it reads what lies close
//! together in one go, then unpacks on a blocking thread. Batches come out in the order of the disk, however they
//! end, and as many are under way as the memory allows.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use futures_util::{Stream, stream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::inflate::Inflater;
use super::{DiskMap, Error, PACKED_MAX_BYTES, ReadAt, Run};
use crate::domain::content::Extent;

/// Bytes of the disk after which a batch is full.
const BATCH_BYTES: u64 = 1 << 20;
/// Packed bytes after which it is full: what claims to be longer packed than unpacked must not fill the memory.
const BATCH_PACKED_BYTES: u64 = 4 << 20;
/// Runs after which it is full even so.
const BATCH_RUNS: usize = 1024;
/// Bytes of a file between two runs that are read along, because one longer read is cheaper than two.
const GAP_MAX_BYTES: u64 = 4096;

/// The bytes of a disk from its beginning to its end. About `memory_bytes` are held for what is read ahead; the
/// stream ends after the first error. Needs a Tokio runtime; dropped, it stops reading.
///
/// # Errors
/// [`Error::Refused`] for a file that is broken, [`Error::Source`].
pub fn extents(
    map: Box<dyn DiskMap>,
    source: Arc<dyn ReadAt>,
    memory_bytes: usize,
) -> impl Stream<Item = Result<Extent, Error>> + Send + 'static {
    let left = map.virtual_size_bytes();
    let reader = Reader {
        map,
        source,
        memory_bytes: memory_bytes as u64,
        held_bytes: 0,
        unpackers: Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))),
        left,
        runs: VecDeque::new(),
        under_way: VecDeque::new(),
        ready: VecDeque::new(),
    };
    stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(extent)) => Some((Ok(extent), Some(reader))),
            Ok(None) => None,
            Err(e) => Some((Err(e), None)),
        }
    })
}

struct Reader {
    map: Box<dyn DiskMap>,
    source: Arc<dyn ReadAt>,
    memory_bytes: u64,
    /// What the batches under way need.
    held_bytes: u64,
    /// A permit for each processor.
    unpackers: Arc<Semaphore>,
    /// Bytes of the disk that no batch has yet.
    left: u64,
    /// What the map has said of them.
    runs: VecDeque<Run>,
    under_way: VecDeque<UnderWay>,
    /// What the last batch has brought.
    ready: VecDeque<Extent>,
}

struct UnderWay {
    task: AbortOnDropHandle<Result<VecDeque<Extent>, Error>>,
    held_bytes: u64,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Extent>, Error> {
        loop {
            if let Some(extent) = self.ready.pop_front() {
                return Ok(Some(extent));
            }
            // 1. Work ahead, as far as the memory goes.
            while self.left > 0 && (self.under_way.is_empty() || self.held_bytes < self.memory_bytes) {
                let batch = self.gather().await?;
                self.start(batch);
            }
            // 2. The oldest batch.
            let Some(batch) = self.under_way.pop_front() else { return Ok(None) };
            self.held_bytes -= batch.held_bytes;
            self.ready = batch.task.await.map_err(|panic| Error::Source(Box::new(panic)))??;
        }
    }

    /// The next batch; not empty.
    async fn gather(&mut self) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        while self.left > 0 && !batch.is_full() {
            let Some(run) = self.runs.pop_front() else {
                self.runs = self.map.next().await?.into();
                if self.runs.is_empty() {
                    return Err(Error::refused(format!(
                        "The tables of the image end {} bytes before the disk does.",
                        self.left
                    )));
                }
                continue;
            };
            let (now, later) = self.cut(run, BATCH_BYTES - batch.data_bytes);
            if let Some(later) = later {
                self.runs.push_front(later);
            }
            self.left -= batch.add(now, self.left)?;
        }
        Ok(batch)
    }

    /// As much of a run as the disk and a batch with `room_bytes` can take, and the rest of it.
    fn cut(&self, run: Run, room_bytes: u64) -> (Run, Option<Run>) {
        match run {
            Run::Zero { length } => (Run::Zero { length: length.min(self.left) }, None),
            Run::Plain { at, length } => {
                let length = length.min(self.left);
                let now = length.min(room_bytes);
                let later = (now < length).then(|| Run::Plain { at: at + now, length: length - now });
                (Run::Plain { at, length: now }, later)
            }
            packed @ Run::Packed { .. } => (packed, None),
        }
    }

    fn start(&mut self, batch: Batch) {
        let reads = batch.reads();
        let held_bytes = reads.iter().map(|read| read.end - read.start).sum::<u64>() + batch.unpacked_bytes;
        let (source, unpackers) = (Arc::clone(&self.source), Arc::clone(&self.unpackers));
        let task = tokio::spawn(async move {
            let buffers = try_join_all(reads.iter().map(|read| fetch(&*source, read.clone()))).await?;
            let parts = Parts { reads, buffers };
            if batch.unpacked_bytes == 0 {
                return batch.extents(&parts);
            }
            let _permit = unpackers.acquire_owned().await.map_err(|e| Error::Source(Box::new(e)))?;
            let unpacked = tokio::task::spawn_blocking(move || batch.extents(&parts));
            unpacked.await.map_err(|panic| Error::Source(Box::new(panic)))?
        });
        self.held_bytes += held_bytes;
        self.under_way.push_back(UnderWay { task: AbortOnDropHandle::new(task), held_bytes });
    }
}

/// Bytes of the file, all of them or an error.
pub(super) async fn fetch(source: &dyn ReadAt, range: Range<u64>) -> Result<Bytes, Error> {
    let length = (range.end - range.start) as usize;
    let bytes = source.read_at(range.start, length).await?;
    if bytes.len() != length {
        let why = format!("{} bytes came from {} instead of {length}", bytes.len(), range.start);
        return Err(Error::Source(why.into()));
    }
    Ok(bytes)
}

/// Runs that are read together.
#[derive(Default)]
struct Batch {
    runs: Vec<Run>,
    /// Bytes of the disk that they fill with anything but zeros.
    data_bytes: u64,
    /// How many of those have to be unpacked, and from how many bytes of the file.
    unpacked_bytes: u64,
    packed_bytes: u64,
    /// Bytes at the end of the last run that lie beyond the disk.
    beyond_bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.data_bytes >= BATCH_BYTES || self.packed_bytes >= BATCH_PACKED_BYTES || self.runs.len() >= BATCH_RUNS
    }

    /// Adds a run, and returns how many of the `left` bytes of the disk it fills.
    fn add(&mut self, run: Run, left: u64) -> Result<u64, Error> {
        let length = match run {
            Run::Zero { length } => length,
            Run::Plain { length, .. } => {
                self.data_bytes += length;
                length
            }
            Run::Packed { length, unpacked, .. } => {
                if length > PACKED_MAX_BYTES || unpacked > PACKED_MAX_BYTES {
                    return Err(Error::refused(format!(
                        "The image has a compressed cluster of {unpacked} bytes, packed {length}, more than the {PACKED_MAX_BYTES} that are accepted."
                    )));
                }
                self.data_bytes += u64::from(unpacked);
                self.unpacked_bytes += u64::from(unpacked);
                self.packed_bytes += u64::from(length);
                self.beyond_bytes = u64::from(unpacked).saturating_sub(left) as usize;
                u64::from(unpacked)
            }
        };
        match (self.runs.last_mut(), run) {
            _ if length == 0 => {}
            (Some(Run::Zero { length: before }), Run::Zero { length }) => *before += length,
            (Some(Run::Plain { at: start, length: before }), Run::Plain { at, length }) if *start + *before == at => {
                *before += length
            }
            _ => self.runs.push(run),
        }
        Ok(length.min(left))
    }

    /// What to read of the file, in its order and apart from each other.
    fn reads(&self) -> Vec<Range<u64>> {
        let mut wanted: Vec<Range<u64>> = self
            .runs
            .iter()
            .filter_map(|run| match *run {
                Run::Zero { .. } => None,
                Run::Plain { at, length } => Some(at..at + length),
                Run::Packed { at, length, .. } => Some(at..at + u64::from(length)),
            })
            .collect();
        wanted.sort_by_key(|range| range.start);
        let mut reads: Vec<Range<u64>> = Vec::new();
        for range in wanted {
            match reads.last_mut() {
                Some(last) if range.start <= last.end + GAP_MAX_BYTES => last.end = last.end.max(range.end),
                Some(_) | None => reads.push(range),
            }
        }
        reads
    }

    /// The bytes of the disk.
    fn extents(&self, parts: &Parts) -> Result<VecDeque<Extent>, Error> {
        let mut extents = VecDeque::new();
        let mut inflater = Inflater::default();
        // Neighbours that have to be unpacked share a buffer.
        let mut buffer = BytesMut::with_capacity(self.unpacked_bytes as usize);
        for (index, run) in self.runs.iter().enumerate() {
            match *run {
                Run::Zero { length } => extents.push_back(Extent::Zero(length)),
                Run::Plain { at, length } => extents.push_back(Extent::Data(parts.slice(at, length as usize)?)),
                Run::Packed { at, length, codec, unpacked } => {
                    let start = buffer.len();
                    buffer.resize(start + unpacked as usize, 0);
                    inflater.inflate(codec, &parts.slice(at, length as usize)?, &mut buffer[start..]).map_err(
                        |why| {
                            Error::refused(format!("The compressed data at byte {at} of the image is damaged: {why}."))
                        },
                    )?;
                    if !matches!(self.runs.get(index + 1), Some(Run::Packed { .. })) {
                        extents.push_back(Extent::Data(buffer.split().freeze()));
                    }
                }
            }
        }
        if let Some(Extent::Data(last)) = extents.back_mut() {
            last.truncate(last.len() - self.beyond_bytes);
        }
        Ok(extents)
    }
}

/// What was read of the file for a batch.
struct Parts {
    reads: Vec<Range<u64>>,
    buffers: Vec<Bytes>,
}

impl Parts {
    /// Bytes of the file.
    fn slice(&self, at: u64, length: usize) -> Result<Bytes, Error> {
        let index = self.reads.partition_point(|read| read.end <= at);
        let slice = self.reads.get(index).zip(self.buffers.get(index)).and_then(|(read, buffer)| {
            let start = usize::try_from(at.checked_sub(read.start)?).ok()?;
            (start + length <= buffer.len()).then(|| buffer.slice(start..start + length))
        });
        slice.ok_or_else(|| Error::Source(format!("{length} bytes at {at} were not read").into()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::Write as _;
    use std::sync::Arc;

    use async_trait::async_trait;
    use bytes::Bytes;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, ZlibEncoder};
    use futures_util::StreamExt as _;
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};

    use super::extents;
    use crate::domain::content::Extent;
    use crate::format::disk::{Codec, DiskMap, Error, ReadAt, Run};

    struct File(Vec<u8>);

    #[async_trait]
    impl ReadAt for File {
        fn size_bytes(&self) -> u64 {
            self.0.len() as u64
        }

        async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
            tokio::task::yield_now().await;
            Ok(Bytes::copy_from_slice(&self.0[offset as usize..offset as usize + length]))
        }
    }

    struct Runs(u64, VecDeque<Vec<Run>>);

    #[async_trait]
    impl DiskMap for Runs {
        fn virtual_size_bytes(&self) -> u64 {
            self.0
        }

        async fn next(&mut self) -> Result<Vec<Run>, Error> {
            Ok(self.1.pop_front().unwrap_or_default())
        }
    }

    async fn read(size_bytes: u64, runs: Vec<Vec<Run>>, file: Vec<u8>, memory_bytes: usize) -> Result<Vec<u8>, Error> {
        let mut disk = Vec::new();
        let stream = extents(Box::new(Runs(size_bytes, runs.into())), Arc::new(File(file)), memory_bytes);
        let mut stream = std::pin::pin!(stream);
        while let Some(extent) = stream.next().await {
            match extent? {
                Extent::Data(bytes) => disk.extend_from_slice(&bytes),
                Extent::Zero(length) => disk.resize(disk.len() + length as usize, 0),
            }
        }
        Ok(disk)
    }

    fn pack(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        match codec {
            Codec::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Grain { sector } => {
                let zlib = pack(Codec::Zlib, bytes);
                [&sector.to_le_bytes()[..], &(zlib.len() as u32).to_le_bytes(), &zlib].concat()
            }
            Codec::Zstd => {
                let mut packed = vec![0; zstd_safe::compress_bound(bytes.len())];
                let length = zstd_safe::compress(&mut packed[..], bytes, 1).unwrap();
                packed.truncate(length);
                packed
            }
        }
    }

    /// A part of a disk: how it is kept, its bytes, and how far from the part before it lies in the file.
    fn part() -> impl Strategy<Value = (Option<Option<Codec>>, Vec<u8>, usize)> {
        let grain = any::<u64>().prop_map(|sector| Codec::Grain { sector });
        let codec = prop_oneof![Just(Codec::Deflate), Just(Codec::Zlib), Just(Codec::Zstd), grain];
        let kind = prop_oneof![Just(None), Just(Some(None)), codec.prop_map(|codec| Some(Some(codec)))];
        let bytes = (any::<u8>(), any::<u8>(), 1..150_000usize)
            .prop_map(|(seed, step, length)| (0..length).map(|n| ((n >> 9) as u8).wrapping_mul(step) ^ seed).collect());
        (kind, bytes, prop_oneof![Just(0), 0..9000usize])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_comes_out_is_the_disk(
            parts in prop::collection::vec(part(), 0..24),
            beyond in 0..100usize,
            memory_bytes in prop_oneof![Just(0), 0..4_000_000usize],
            at_once in 1..5usize,
        ) {
            let (mut disk, mut file, mut runs) = (Vec::new(), Vec::new(), Vec::new());
            for (kind, bytes, gap) in parts {
                file.resize(file.len() + gap, 0xff);
                let at = file.len() as u64;
                runs.push(match kind {
                    None => Run::Zero { length: bytes.len() as u64 },
                    Some(None) => {
                        file.extend_from_slice(&bytes);
                        Run::Plain { at, length: bytes.len() as u64 }
                    }
                    Some(Some(codec)) => {
                        file.extend(pack(codec, &bytes));
                        let length = (file.len() as u64 - at) as u32;
                        Run::Packed { at, length, codec, unpacked: bytes.len() as u32 }
                    }
                });
                match kind {
                    None => disk.resize(disk.len() + bytes.len(), 0),
                    Some(_) => disk.extend_from_slice(&bytes),
                }
            }
            let last = match runs.last() {
                None => 0,
                Some(Run::Zero { length } | Run::Plain { length, .. }) => *length as usize,
                Some(Run::Packed { unpacked, .. }) => *unpacked as usize,
            };
            disk.truncate(disk.len() - beyond.min(last.saturating_sub(1)));
            let runs = runs.chunks(at_once).map(<[Run]>::to_vec).collect();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
            let out = runtime.block_on(read(disk.len() as u64, runs, file, memory_bytes)).unwrap();
            assert!(out == disk, "{} bytes came out of {}", out.len(), disk.len());
        }
    }

    #[tokio::test]
    async fn damaged_pieces_and_short_tables_are_refused() {
        let packed = |codec, bytes: &[u8], unpacked| {
            let runs = vec![vec![Run::Packed { at: 0, length: bytes.len() as u32, codec, unpacked }]];
            read(u64::from(unpacked), runs, bytes.to_vec(), 1 << 20)
        };
        for codec in [Codec::Deflate, Codec::Zlib, Codec::Zstd, Codec::Grain { sector: 77 }] {
            let good = pack(codec, &[7; 65536]);
            assert_eq!(packed(codec, &good, 65536).await.unwrap(), [7; 65536]);
            let mut followed = good.clone();
            followed.extend_from_slice(&[0xa5; 300]);
            assert_eq!(packed(codec, &followed, 65536).await.unwrap(), [7; 65536], "{codec:?}");
            if codec != Codec::Zstd {
                assert_eq!(packed(codec, &good, 700).await.unwrap(), [7; 700], "{codec:?}");
            }
            for (bytes, unpacked) in [(&good[..good.len() / 2], 65536), (&good[..], 65537), (&[0xff; 100], 65536)] {
                let refused = packed(codec, bytes, unpacked).await.unwrap_err();
                assert!(matches!(&refused, Error::Refused(why) if why.contains("damaged")), "{codec:?} {refused}");
            }
        }
        let refused = read(100, vec![vec![Run::Zero { length: 10 }]], Vec::new(), 0).await.unwrap_err();
        assert!(refused.to_string().contains("90 bytes before"), "{refused}");
    }
}
