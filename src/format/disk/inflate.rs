//! Unpacking what a disk image holds in packed pieces.

use flate2::{Decompress, FlushDecompress};
use zstd_safe::DCtx;

use super::Codec;

/// Unpacks one piece after the other, with the memory of the one before.
#[derive(Default)]
pub(super) struct Inflater {
    deflate: Option<Decompress>,
    zlib: Option<Decompress>,
    zstd: Option<DCtx<'static>>,
}

impl Inflater {
    /// Fills `unpacked` from the beginning of `packed`; what follows there is ignored.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn inflate(&mut self, codec: Codec, packed: &[u8], unpacked: &mut [u8]) -> Result<(), String> {
        match codec {
            Codec::Deflate => {
                inflate(self.deflate.get_or_insert_with(|| Decompress::new(false)), false, packed, unpacked)
            }
            Codec::Zlib => inflate(self.zlib.get_or_insert_with(|| Decompress::new(true)), true, packed, unpacked),
            Codec::Grain { sector } => self.inflate(Codec::Zlib, grain(sector, packed)?, unpacked),
            Codec::Zstd => zstd(self.zstd.get_or_insert_with(DCtx::create), packed, unpacked),
        }
    }
}

fn inflate(stream: &mut Decompress, has_header: bool, packed: &[u8], unpacked: &mut [u8]) -> Result<(), String> {
    stream.reset(has_header);
    stream.decompress(packed, unpacked, FlushDecompress::Finish).map_err(|e| e.to_string())?;
    whole(stream.total_out() as usize, unpacked.len())
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

/// One frame, straight into its place: the window that a frame may ask for is never allocated.
fn zstd(context: &mut DCtx<'_>, packed: &[u8], unpacked: &mut [u8]) -> Result<(), String> {
    let failed = |code| zstd_safe::get_error_name(code).to_owned();
    let length = zstd_safe::find_frame_compressed_size(packed).map_err(failed)?;
    let frame = packed.get(..length).ok_or("a frame is longer than its place")?;
    whole(context.decompress(unpacked, frame).map_err(failed)?, unpacked.len())
}

fn whole(length: usize, wanted: usize) -> Result<(), String> {
    if length != wanted {
        return Err(format!("it gives {length} bytes instead of {wanted}"));
    }
    Ok(())
}
