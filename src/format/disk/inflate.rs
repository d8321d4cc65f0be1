//! Unpacking what a disk image holds in packed pieces.
//!
//! A piece is whole and its unpacked length known, and no more memory is used than that: libdeflate takes two thirds
//! of the processor time that a streaming decoder takes, and Zstandard needs no window.

use flate2::{Decompress, FlushDecompress};
use libdeflater::{DecompressionError, Decompressor};
use zstd_safe::DCtx;

use super::Codec;

/// Unpacks one piece after the other, with the memory of the one before.
#[derive(Default)]
pub(super) struct Inflater {
    deflate: Option<Decompressor>,
    zstd: Option<DCtx<'static>>,
}

impl Inflater {
    /// Fills `unpacked` from the beginning of `packed`; what follows there is ignored.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn inflate(&mut self, codec: Codec, packed: &[u8], unpacked: &mut [u8]) -> Result<(), String> {
        let wanted = unpacked.len();
        let deflate = self.deflate.get_or_insert_default();
        let length = match codec {
            Codec::Deflate => inflated(deflate.deflate_decompress(packed, unpacked), false, packed, unpacked),
            Codec::Zlib => inflated(deflate.zlib_decompress(packed, unpacked), true, packed, unpacked),
            Codec::Grain { sector } => return self.inflate(Codec::Zlib, grain(sector, packed)?, unpacked),
            Codec::Zstd => zstd(self.zstd.get_or_insert_with(DCtx::create), packed, unpacked),
        }?;
        if length != wanted {
            return Err(format!("it gives {length} bytes instead of {wanted}"));
        }
        Ok(())
    }
}

/// What came of a deflate stream. The rest of one that gives more than is wanted is of no use: the last piece of a
/// disk may be so. Only a streaming decoder can stop there.
fn inflated(
    length: Result<usize, DecompressionError>,
    has_header: bool,
    packed: &[u8],
    unpacked: &mut [u8],
) -> Result<usize, String> {
    match length {
        Ok(length) => Ok(length),
        Err(DecompressionError::BadData) => Err("it is no deflate stream".to_owned()),
        Err(DecompressionError::InsufficientSpace) => {
            let mut stream = Decompress::new(has_header);
            stream.decompress(packed, unpacked, FlushDecompress::Finish).map_err(|e| e.to_string())?;
            Ok(stream.total_out() as usize)
        }
    }
}

/// The packed bytes behind a marker.
fn grain(sector: u64, packed: &[u8]) -> Result<&[u8], String> {
    let marker = packed.split_first_chunk().and_then(|(begins, rest)| Some((begins, rest.split_first_chunk()?)));
    let Some((begins, (length, bytes))) = marker else { return Err("it ends in its marker".into()) };
    if u64::from_le_bytes(*begins) != sector {
        return Err(format!("it belongs to sector {}, not {sector}", u64::from_le_bytes(*begins)));
    }
    let length = u32::from_le_bytes(*length) as usize;
    bytes.get(..length).ok_or_else(|| format!("its {length} bytes do not fit into its place"))
}

/// One frame, straight into its place.
fn zstd(context: &mut DCtx<'_>, packed: &[u8], unpacked: &mut [u8]) -> Result<usize, String> {
    let failed = |code| zstd_safe::get_error_name(code).to_owned();
    let length = zstd_safe::find_frame_compressed_size(packed).map_err(failed)?;
    let frame = packed.get(..length).ok_or("a frame is longer than its place")?;
    context.decompress(unpacked, frame).map_err(failed)
}
