//! Reading the disk that a file in a foreign format holds, without a copy of either.
//!
//! ```text
//!   ReadAt ──> DiskMap: Runs in the order of the disk ──┐
//!     └──────────── many reads ahead <──────────────────┴──> unpacked on threads ──> Extents in order
//! ```
//!
//! A format has to know its tables only: [`extents`] does everything else, for all of them. A VMDK that is a stream
//! needs neither tables nor a file: [`vmdk::stream`] decodes it as it comes.

mod inflate;
mod qcow2;
mod read;
mod table;
mod vdi;
mod vhd;
mod vhdx;
pub mod vmdk;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::Format;
pub use read::extents;

/// Longest that a packed run may be, packed or unpacked, in bytes.
pub const PACKED_MAX_BYTES: u32 = 4 << 20;

/// Why a disk cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is broken, or says what is not accepted: a sentence for whoever sent it.
    #[error("{0}")]
    Refused(String),
    /// The bytes of the file could not be had.
    #[error("the file cannot be read: {0}")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The file is refused for that reason.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

/// A file that can be read anywhere, by many at once.
#[async_trait]
pub trait ReadAt: Send + Sync {
    /// Length of the file.
    fn size_bytes(&self) -> u64;

    /// Exactly `length` bytes from `offset`; never called for bytes past the end.
    ///
    /// # Errors
    /// [`Error::Source`].
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Error>;
}

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// A deflate stream without any header.
    Deflate,
    /// A deflate stream in the zlib format.
    Zlib,
    /// A Zstandard frame.
    Zstd,
    /// A grain of VMware's: a marker with its place on the disk and its length, then the zlib format.
    Grain {
        /// The sector of the disk with which it has to begin.
        sector: u64,
    },
}

/// A part of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Zeros that the file need not hold.
    Zero {
        /// Number of bytes.
        length: u64,
    },
    /// Bytes of the file as they are.
    Plain {
        /// Where they are in the file.
        at: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Bytes that have to be unpacked.
    Packed {
        /// Where they are in the file.
        at: u64,
        /// Number of bytes in the file, up to [`PACKED_MAX_BYTES`]; what follows the packed bytes there is ignored.
        length: u32,
        /// How they are packed.
        codec: Codec,
        /// Number of bytes of the disk, up to [`PACKED_MAX_BYTES`].
        unpacked: u32,
    },
}

/// The tables of a file that holds a disk, walked once from the beginning of the disk to its end.
#[async_trait]
pub trait DiskMap: Send {
    /// Size of the disk.
    fn virtual_size_bytes(&self) -> u64;

    /// The next runs, a few MiB of them at most; none at the end of the disk. One after the other they are the whole
    /// disk; only the last one may reach past its end, and is cut there. They lie within the file.
    ///
    /// # Errors
    /// [`Error::Refused`] for tables that make no sense, [`Error::Source`].
    async fn next(&mut self) -> Result<Vec<Run>, Error>;
}

/// What is acceptable.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest disk.
    pub virtual_size_bytes: u64,
}

impl Limits {
    /// Whether a disk of that size is acceptable.
    ///
    /// # Errors
    /// [`Error::Refused`] for a disk that is too large.
    pub fn check(self, virtual_size_bytes: u64) -> Result<(), Error> {
        if virtual_size_bytes > self.virtual_size_bytes {
            return Err(Error::Refused(format!(
                "The disk in the image has {virtual_size_bytes} bytes, more than the {} that are accepted (virtual_size_cap_bytes).",
                self.virtual_size_bytes
            )));
        }
        Ok(())
    }
}

/// The tables of the disk that a file of that format holds.
///
/// # Errors
/// [`Error::Refused`] for a file that is broken or unsafe, or whose format needs no reading or cannot be read.
pub async fn open(format: Format, source: Arc<dyn ReadAt>, limits: Limits) -> Result<Box<dyn DiskMap>, Error> {
    match format {
        Format::Qcow2 => Ok(Box::new(qcow2::Map::open(source, limits).await?)),
        Format::Vdi => Ok(Box::new(vdi::Map::open(source, limits).await?)),
        Format::Vhd => Ok(Box::new(vhd::Map::open(source, limits).await?)),
        Format::Vhdx => Ok(Box::new(vhdx::Map::open(source, limits).await?)),
        Format::Vmdk => Ok(Box::new(vmdk::Map::open(source, limits).await?)),
        other => Err(Error::Refused(format!("An image in the format {other} cannot be converted."))),
    }
}
