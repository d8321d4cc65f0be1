//! Zeros: found in a block, so that they are never written, and made from nothing where they are read.

use std::ops::Range;

use bytes::Bytes;

/// Zeros are looked for in pieces of this size: the smallest unit that BlueStore allocates.
const GRANULE_BYTES: usize = 4096;
/// A hole shorter than this is written like data: one longer write is cheaper than two short ones.
const HOLE_MIN_BYTES: usize = 32 * 1024;

/// Bytes compared at a time; a size for which the compiler uses vector instructions.
const STRIDE_BYTES: usize = 128;

/// Most zeros that come in one piece.
pub(super) const ZEROS_BYTES: usize = 1024 * 1024;

static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// `length` zeros or [`ZEROS_BYTES`], whichever is less. They take no memory.
pub(super) fn zero_piece(length: u64) -> Bytes {
    let length = usize::try_from(length).unwrap_or(ZEROS_BYTES).min(ZEROS_BYTES);
    Bytes::from_static(&ZEROS[..length])
}

/// Pieces that make up `length` zeros.
pub(super) fn zeros(length: u64) -> impl Iterator<Item = Bytes> + Send {
    let mut left = length;
    std::iter::from_fn(move || {
        let piece = zero_piece(left);
        left -= piece.len() as u64;
        (!piece.is_empty()).then_some(piece)
    })
}

fn is_zero(bytes: &[u8]) -> bool {
    let strides = bytes.chunks_exact(STRIDE_BYTES);
    let rest = strides.remainder().iter().all(|byte| *byte == 0);
    rest && strides.into_iter().all(|stride| stride.iter().fold(0, |acc, byte| acc | byte) == 0)
}

/// The parts of a block that must be written: ranges in it, in order, apart from each other by holes.
/// `pieces` one after the other are the block; it starts at a multiple of the granule.
pub(super) fn data_ranges(pieces: &[Bytes]) -> Vec<Range<usize>> {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let mut has_data = vec![false; length.div_ceil(GRANULE_BYTES)];
    let mut offset = 0;
    for piece in pieces {
        if ZEROS.as_ptr_range().contains(&piece.as_ptr()) {
            offset += piece.len();
            continue;
        }
        let mut rest: &[u8] = piece;
        while !rest.is_empty() {
            let granule = offset / GRANULE_BYTES;
            let (part, next) = rest.split_at(rest.len().min(GRANULE_BYTES - offset % GRANULE_BYTES));
            if !has_data[granule] && !is_zero(part) {
                has_data[granule] = true;
            }
            offset += part.len();
            rest = next;
        }
    }
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for granule in has_data.iter().enumerate().filter(|(_, data)| **data).map(|(granule, _)| granule) {
        let (start, end) = (granule * GRANULE_BYTES, ((granule + 1) * GRANULE_BYTES).min(length));
        match ranges.last_mut() {
            Some(last) if start - last.end < HOLE_MIN_BYTES => last.end = end,
            Some(_) | None => ranges.push(start..end),
        }
    }
    ranges
}

/// The pieces of a block that make up `range`, without copying.
pub(super) fn slice(pieces: &[Bytes], range: &Range<usize>) -> Vec<Bytes> {
    let mut slices = Vec::new();
    let mut offset = 0;
    for piece in pieces {
        let (start, end) = (range.start.max(offset), range.end.min(offset + piece.len()));
        if start < end {
            slices.push(piece.slice(start - offset..end - offset));
        }
        offset += piece.len();
    }
    slices
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{Just, Strategy as _, any, prop, prop_oneof, proptest};

    use super::{GRANULE_BYTES, HOLE_MIN_BYTES, ZEROS_BYTES, data_ranges, slice, zero_piece, zeros};

    #[test]
    fn a_single_byte_makes_one_granule() {
        let mut block = vec![0; 1 << 20];
        block[300_000] = 1;
        let start = 300_000 / GRANULE_BYTES * GRANULE_BYTES;
        assert!(data_ranges(&[Bytes::from(block)]).iter().eq([&(start..start + GRANULE_BYTES)]));
        assert!(data_ranges(&[Bytes::from(vec![0; 1 << 20])]).is_empty());
        assert!(data_ranges(&[]).is_empty());
    }

    #[test]
    fn zeros_made_from_nothing_are_zeros_and_never_written() {
        let length = 2 * ZEROS_BYTES as u64 + 5;
        assert_eq!(zeros(length).map(|piece| piece.len() as u64).sum::<u64>(), length);
        assert!(zeros(length).all(|piece| piece.iter().all(|byte| *byte == 0)));
        let block = [Bytes::from_static(&[1; GRANULE_BYTES]), zero_piece(50_000), Bytes::from_static(&[1; 9])];
        let last = (GRANULE_BYTES + 50_000) / GRANULE_BYTES * GRANULE_BYTES;
        assert_eq!(data_ranges(&block), [0..GRANULE_BYTES, last..GRANULE_BYTES + 50_009]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_the_block(
            runs in prop::collection::vec((prop_oneof![Just(0u8), any::<u8>()], 1..40_000usize), 0..12),
            cut in 1..9000usize,
        ) {
            let block: Vec<u8> = runs.iter().flat_map(|(byte, length)| std::iter::repeat_n(*byte, *length)).collect();
            let pieces: Vec<Bytes> = block.chunks(cut).map(Bytes::copy_from_slice).collect();
            let mut written = vec![0; block.len()];
            let mut last_end = None;
            for range in data_ranges(&pieces) {
                if let Some(end) = last_end {
                    assert!(range.start - end >= HOLE_MIN_BYTES);
                }
                last_end = Some(range.end);
                let bytes: Vec<u8> = slice(&pieces, &range).concat();
                assert_eq!(bytes.len(), range.len());
                written[range].copy_from_slice(&bytes);
            }
            assert_eq!(written, block);
        }

        #[test]
        fn slices_are_the_bytes(block in prop::collection::vec(any::<u8>(), 1..2000), cut in 1..300usize, (a, b) in (0..2000usize, 0..2000usize).prop_map(|(a, b)| (a.min(b), a.max(b)))) {
            let pieces: Vec<Bytes> = block.chunks(cut).map(Bytes::copy_from_slice).collect();
            let range = a.min(block.len())..b.min(block.len());
            assert_eq!(slice(&pieces, &range).concat(), &block[range]);
        }
    }
}
