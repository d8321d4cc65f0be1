//! Disks in files, and packed bytes.

use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use rockpool::domain::content::Extent;
use rockpool::format::Format;
use rockpool::format::disk::{self, Error, Limits, ReadAt, vmdk};
use rockpool::format::unpack::{self, Wrapping};

/// Larger disks are refused, so that a run does not take long.
const LIMITS: Limits = Limits { virtual_size_bytes: 64 << 20 };
const UNPACK_LIMITS: unpack::Limits = unpack::Limits { size_bytes: 16 << 20, ratio: 1000 };
/// What may be read ahead.
const MEMORY_BYTES: usize = 2 << 20;

struct Memory(Bytes);

#[async_trait]
impl ReadAt for Memory {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
        Ok(self.0.slice(offset as usize..offset as usize + length))
    }
}

/// The disk in the file that an input stands for: no panic, no read past the end, and as many bytes as it says.
pub fn disk(format: Format, input: &[u8]) {
    let source = Arc::new(Memory(super::file(input).into()));
    run(async {
        let map = disk::open(format, Arc::<Memory>::clone(&source), LIMITS).await?;
        let size_bytes = map.virtual_size_bytes();
        assert_eq!(length(disk::extents(map, source, MEMORY_BYTES)).await?, size_bytes);
        Ok::<_, Error>(())
    });
}

/// The disk in a VMDK as it comes; if there is one, reading it by its tables gives as many bytes.
pub fn vmdk_stream(input: &[u8]) {
    let file: Bytes = super::file(input).into();
    run(async {
        let frames = stream::iter([Ok::<_, Infallible>(file.clone())]);
        let came = length(vmdk::stream::extents(frames, LIMITS)).await?;
        let map = disk::open(Format::Vmdk, Arc::new(Memory(file)), LIMITS).await;
        assert_eq!(map.map(|map| map.virtual_size_bytes()).ok(), Some(came));
        Ok::<_, unpack::Error<Infallible>>(())
    });
}

/// Packed bytes, by what they begin with.
pub fn unpack(input: &[u8]) {
    let Some(Wrapping::Packed(packing)) = Wrapping::of(input) else { return };
    run(async {
        let frames = stream::iter([Ok::<_, Infallible>(Bytes::copy_from_slice(input))]);
        let pieces = unpack::unpack(frames, packing, UNPACK_LIMITS);
        let given = length(pieces.map(|piece| piece.map(Extent::Data))).await?;
        assert!(given <= UNPACK_LIMITS.size_bytes);
        Ok::<_, unpack::Error<Infallible>>(())
    });
}

/// How many bytes come.
async fn length<E>(extents: impl Stream<Item = Result<Extent, E>>) -> Result<u64, E> {
    let mut extents = std::pin::pin!(extents);
    let mut bytes = 0;
    while let Some(extent) = extents.next().await {
        bytes += match extent? {
            Extent::Data(data) => data.len() as u64,
            Extent::Zero(length) => length,
        };
    }
    Ok(bytes)
}

/// A refusal is an answer.
fn run<E>(work: impl Future<Output = Result<(), E>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    drop(runtime.block_on(work));
}
