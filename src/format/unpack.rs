//! Unpacking what a whole image was packed with: gzip, xz, Zstandard, bzip2.
//!
//! ```text
//!   bytes as they come ──> gathered ──> a step on a thread: up to 1 MiB unpacked ──> bytes
//! ```
//!
//! Nothing is kept but a decoder's window and one piece on each side. Several members or frames after each other are
//! one stream, as the tools that made them see it; their names are not looked at. An archive is not unpacked, because
//! which of its files is the image would be a guess.

use bytes::{Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress};
use futures_util::{Stream, StreamExt as _, future, stream};
use xz4rust::{XzDecoder, XzError};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

/// So many bytes of a file, or all of a shorter one, are enough for [`Wrapping::of`].
pub const HEAD_BYTES: usize = 512;
/// Longest window (dictionary) of a decoder, in bytes: what `xz -9` and `zstd --long=26` need.
pub const WINDOW_MAX_BYTES: u32 = 1 << WINDOW_MAX_LOG;
const WINDOW_MAX_LOG: u32 = 26;
/// The window of an xz decoder before it knows what it needs.
const XZ_WINDOW_MIN_BYTES: usize = 4096;
/// Up to so many unpacked bytes the ratio says nothing: a small file may be all zeros.
const RATIO_FREE_BYTES: u64 = 64 << 20;
/// Unpacked at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Packed bytes gathered for a step, so that a client that sends single bytes does not cost a step each.
const GATHER_BYTES: usize = 64 * 1024;
/// Deflate's longest window.
const GZIP_WINDOW_LOG: u8 = 15;

/// What bytes are packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip, one member or several.
    Gzip,
    /// xz, one stream or several.
    Xz,
    /// Zstandard, one frame or several.
    Zstd,
    /// bzip2, one stream or several.
    Bzip2,
}

impl Packing {
    /// The name of the tool.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
        }
    }
}

/// What is around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// Something that is unpacked.
    Packed(Packing),
    /// Something that is not, by its name.
    Foreign(&'static str),
}

/// Where its magic is, what it is, and the name of what is not unpacked.
const FOREIGN: [(usize, &[u8], &str); 11] = [
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "a zip archive"),
    (0, b"PK\x07\x08", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a rar archive"),
    (0, b"070701", "a cpio archive"),
    (0, b"070702", "a cpio archive"),
    (0, b"!<arch>\n", "an ar archive"),
    (0, b"\x04\x22\x4d\x18", "lz4 data"),
    (0, b"LZIP\x01", "lzip data"),
    (0, b"\x89LZO\x00\x0d\x0a\x1a\x0a", "lzop data"),
];

impl Wrapping {
    /// What a file is packed or wrapped in, by its first [`HEAD_BYTES`]; none for one that is not.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, 0x08, ..] => return Some(Self::Packed(Packing::Gzip)),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Some(Self::Packed(Packing::Xz)),
            // The second is a frame to skip, with which parallel compressors begin.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                return Some(Self::Packed(Packing::Zstd));
            }
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => {
                return Some(Self::Packed(Packing::Bzip2));
            }
            [_, _, b'-', b'l', b'h' | b'z', method, b'-', ..] if method.is_ascii_alphanumeric() => {
                return Some(Self::Foreign("an lha archive"));
            }
            _ => {}
        }
        let foreign = FOREIGN
            .iter()
            .find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
            .map(|(_, _, name)| *name);
        foreign.or_else(|| is_tar(head).then_some("a tar archive")).map(Self::Foreign)
    }
}

/// Whether a tar archive begins here, of any age: its header holds a sum of its own bytes.
fn is_tar(head: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    let Some(header) = head.get(..512) else { return false };
    let digits = header[SUM].trim_ascii_start().split(|byte| !(b'0'..=b'7').contains(byte)).next().unwrap_or_default();
    let noted = digits.iter().fold(0u32, |sum, digit| sum * 8 + u32::from(digit - b'0'));
    let blanks = SUM.len() as u32 * u32::from(b' ');
    let outside = header[..SUM.start].iter().chain(&header[SUM.end..]);
    let sum = blanks + outside.map(|byte| u32::from(*byte)).sum::<u32>();
    header[0] != 0 && !digits.is_empty() && noted == sum
}

/// Why packed bytes are not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// They are broken, a bomb, or hold what is not accepted: a sentence for whoever sent them.
    #[error("{0}")]
    Refused(String),
    /// They did not come.
    #[error(transparent)]
    Source(E),
}

/// How much may come out.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes.
    pub size_bytes: u64,
    /// Most bytes for one packed byte, once it is worth a look.
    pub ratio: u64,
}

/// The bytes that `body` is the packed form of. Dropped at any time, it stops after the piece it is at.
///
/// # Errors
/// [`Error::Refused`] for bytes that are broken, end too early, are followed by others, hold an archive or something
/// packed once more, need a window of more than [`WINDOW_MAX_BYTES`], or exceed a limit; [`Error::Source`].
pub fn unpack<S, E>(body: S, packing: Packing, limits: Limits) -> impl Stream<Item = Result<Bytes, Error<E>>> + Send
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: Send,
{
    let inflow = Inflow { body, ahead: BytesMut::new(), ended: false };
    stream::try_unfold((Unpacker::new(packing, limits), inflow), |(mut unpacker, mut inflow)| async move {
        loop {
            inflow.gather().await.map_err(Error::Source)?;
            if unpacker.packed.is_empty() {
                unpacker.packed = inflow.ahead.split().freeze();
            }
            let last = inflow.ended && inflow.ahead.is_empty();
            let step = tokio::task::spawn_blocking(move || {
                let piece = unpacker.step(last);
                (unpacker, piece)
            });
            // The next bytes come in meanwhile.
            let (stepped, gathered) = future::join(step, inflow.gather()).await;
            let (worked, piece) =
                stepped.map_err(|panic| Error::Refused(format!("The packed data break their decoder: {panic}.")))?;
            let piece = piece.map_err(Error::Refused)?;
            gathered.map_err(Error::Source)?;
            unpacker = worked;
            if !piece.is_empty() {
                return Ok(Some((piece, (unpacker, inflow))));
            }
            if last {
                return Ok(None);
            }
        }
    })
}

/// The packed bytes on their way in.
struct Inflow<S> {
    body: S,
    /// What has come and is not being unpacked yet.
    ahead: BytesMut,
    ended: bool,
}

impl<S, E> Inflow<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// Waits until enough for a step is there, or all of it.
    async fn gather(&mut self) -> Result<(), E> {
        while !self.ended && self.ahead.len() < GATHER_BYTES {
            match self.body.next().await {
                Some(frame) => self.ahead.extend_from_slice(&frame?),
                None => self.ended = true,
            }
        }
        Ok(())
    }
}

/// Packed bytes in, their content out, without any input or output of its own.
struct Unpacker {
    packing: Packing,
    limits: Limits,
    /// Packed bytes that wait.
    packed: Bytes,
    /// That of the current member; none between two of them, where the packed bytes may end.
    decoder: Option<Decoder>,
    members: u64,
    /// Packed bytes of the current member.
    member_bytes: u64,
    taken_bytes: u64,
    given_bytes: u64,
    /// The beginning of what comes out, until there is enough to look at.
    head: Option<Vec<u8>>,
}

impl Unpacker {
    fn new(packing: Packing, limits: Limits) -> Self {
        Self {
            packing,
            limits,
            packed: Bytes::new(),
            decoder: None,
            members: 0,
            member_bytes: 0,
            taken_bytes: 0,
            given_bytes: 0,
            head: Some(Vec::new()),
        }
    }

    /// The next piece; empty when more packed bytes are needed, or at the end when they were the `last`.
    fn step(&mut self, last: bool) -> Result<Bytes, String> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut filled = 0;
        while filled < PIECE_BYTES {
            let decoder = match &mut self.decoder {
                None if self.packed.is_empty() => break,
                None => self.decoder.insert(Decoder::new(self.packing)?),
                Some(decoder) => decoder,
            };
            let step = match decoder.step(&self.packed, &mut piece[filled..]) {
                Ok(step) => step,
                Err(failure) => return Err(self.explain(failure)),
            };
            self.packed = self.packed.slice(step.taken..);
            self.member_bytes += step.taken as u64;
            self.taken_bytes += step.taken as u64;
            self.given_bytes += step.given as u64;
            filled += step.given;
            self.check_limits()?;
            if step.ended {
                self.decoder = None;
                self.members += 1;
                self.member_bytes = 0;
            } else if step.taken == 0 && step.given == 0 {
                if !self.packed.is_empty() {
                    return Err(self.explain(Failure::Damaged("nothing comes out of them".into())));
                }
                break;
            }
        }
        if last && filled == 0 && (self.decoder.is_some() || self.members == 0) {
            return Err(format!(
                "The {} data end too early, after {} bytes: the file is cut off.",
                self.packing.as_str(),
                self.taken_bytes
            ));
        }
        piece.truncate(filled);
        self.look_inside(piece, last)
    }

    fn explain(&self, failure: Failure) -> String {
        /// No header of a member is shorter or much longer.
        const HEADER_BYTES: u64 = 32;
        let (name, at) = (self.packing.as_str(), self.taken_bytes);
        match failure {
            Failure::Window => format!(
                "The {name} data need a window (dictionary) of more than {} MiB to be unpacked. Pack the image with a \
                 smaller one: xz -9 or zstd --long=26 at most.",
                WINDOW_MAX_BYTES >> 20
            ),
            Failure::Damaged(_) if self.members > 0 && self.member_bytes < HEADER_BYTES => {
                format!("Behind the {name} data, at byte {at}, come bytes that do not belong to them.")
            }
            Failure::Damaged(why) => format!("The {name} data are damaged or cut off, near byte {at}: {why}."),
        }
    }

    fn check_limits(&self) -> Result<(), String> {
        let Limits { size_bytes, ratio } = self.limits;
        let name = self.packing.as_str();
        if self.given_bytes > size_bytes {
            return Err(format!("The {name} data hold more than {size_bytes} bytes, the most that are accepted."));
        }
        if self.given_bytes > RATIO_FREE_BYTES && self.given_bytes / ratio.max(1) > self.taken_bytes {
            return Err(format!(
                "The {name} data grow to more than {ratio} times their size when they are unpacked, the most that is accepted."
            ));
        }
        Ok(())
    }

    /// Holds the first bytes back until they show what is inside, which is not to be wrapped once more.
    fn look_inside(&mut self, piece: Vec<u8>, last: bool) -> Result<Bytes, String> {
        let Some(mut head) = self.head.take() else { return Ok(piece.into()) };
        head.extend_from_slice(&piece);
        // At the end an empty piece says so: what was held back comes before it.
        if head.len() < HEAD_BYTES && !last {
            self.head = Some(head);
            return Ok(Bytes::new());
        }
        let name = self.packing.as_str();
        match Wrapping::of(&head) {
            None => Ok(head.into()),
            Some(Wrapping::Foreign(what)) => Err(format!(
                "The {name} data hold {what}, not a disk image. Send the image itself, packed with {name} or not."
            )),
            Some(Wrapping::Packed(inner)) => {
                Err(format!("The {name} data hold {} data: the image is packed twice. Pack it once.", inner.as_str()))
            }
        }
    }
}

/// What a step of a decoder did.
struct Step {
    /// Packed bytes used up.
    taken: usize,
    /// Unpacked bytes.
    given: usize,
    /// Whether a member is complete.
    ended: bool,
}

enum Failure {
    Window,
    Damaged(String),
}

enum Decoder {
    Gzip(Decompress),
    Xz(Box<XzDecoder<'static>>),
    Zstd(DCtx<'static>),
    Bzip2(bzip2::Decompress),
}

impl Decoder {
    fn new(packing: Packing) -> Result<Self, String> {
        Ok(match packing {
            Packing::Gzip => Self::Gzip(Decompress::new_gzip(GZIP_WINDOW_LOG)),
            // This one keeps a sum of the blocks for the index at the end; others keep a list, as long as a stream of
            // empty blocks wants it.
            Packing::Xz => {
                Self::Xz(XzDecoder::in_heap_with_alloc_dict_size(XZ_WINDOW_MIN_BYTES, WINDOW_MAX_BYTES as usize))
            }
            Packing::Zstd => {
                let mut decoder = DCtx::create();
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_MAX_LOG)).map_err(zstd_safe::get_error_name)?;
                Self::Zstd(decoder)
            }
            Packing::Bzip2 => Self::Bzip2(bzip2::Decompress::new(false)),
        })
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Failure> {
        match self {
            Self::Gzip(decoder) => {
                let (before_in, before_out) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, output, FlushDecompress::None).map_err(damaged)?;
                Ok(Step {
                    taken: (decoder.total_in() - before_in) as usize,
                    given: (decoder.total_out() - before_out) as usize,
                    ended: status == flate2::Status::StreamEnd,
                })
            }
            // It wants no call without input, and needs none: behind all data there is an index.
            Self::Xz(_) if input.is_empty() => Ok(Step { taken: 0, given: 0, ended: false }),
            Self::Xz(decoder) => {
                let done = decoder.decode(input, output).map_err(|failure| match failure {
                    XzError::DictionaryTooLarge(_) => Failure::Window,
                    other => damaged(other),
                })?;
                Ok(Step { taken: done.input_consumed(), given: done.output_produced(), ended: done.is_end_of_stream() })
            }
            Self::Zstd(decoder) => {
                let (mut from, mut into) = (InBuffer::around(input), OutBuffer::around(output));
                let wanted = decoder.decompress_stream(&mut into, &mut from).map_err(zstd_failure)?;
                Ok(Step { taken: from.pos(), given: into.pos(), ended: wanted == 0 })
            }
            Self::Bzip2(decoder) => {
                let (before_in, before_out) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, output).map_err(damaged)?;
                Ok(Step {
                    taken: (decoder.total_in() - before_in) as usize,
                    given: (decoder.total_out() - before_out) as usize,
                    ended: status == bzip2::Status::StreamEnd,
                })
            }
        }
    }
}

fn damaged(failure: impl std::fmt::Display) -> Failure {
    Failure::Damaged(failure.to_string())
}

fn zstd_failure(code: usize) -> Failure {
    let name = zstd_safe::get_error_name(code);
    if name.contains("memory") { Failure::Window } else { damaged(name) }
}
