//! What the targets share: inputs that are sparse files, and what must hold of every verdict.

pub mod disks;

use std::sync::Arc;

use rockpool::format::inspect::{Expected, Inspection, Rules};

/// Longest file: a VHDX has what matters 2 MiB behind its start.
const FILE_BYTES_MAX: usize = 4 << 20;
/// Head of a chunk: its offset in units of 8 bytes and its length, little-endian.
const CHUNK_HEAD_BYTES: usize = 6;

/// A file out of an input: chunks one after the other, each written over zeros. A fuzzer could not get far through
/// the megabytes of zeros between them. The file ends with the last byte that was written.
fn file(mut input: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    while let Some((head, rest)) = input.split_first_chunk::<CHUNK_HEAD_BYTES>() {
        let offset = 8 * u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let length = usize::from(u16::from_le_bytes([head[4], head[5]])).min(rest.len());
        let (chunk, rest) = rest.split_at(length);
        let offset = offset % FILE_BYTES_MAX;
        file.resize(file.len().max(offset + chunk.len()), 0);
        file[offset..offset + chunk.len()].copy_from_slice(chunk);
        input = rest;
    }
    file
}

/// Looks at a file that is called `format`: no panic, one verdict whatever the pieces, and nothing accepted that is
/// beyond the cap or has several formats.
pub fn inspect(format: &str, input: &[u8]) {
    let file = file(input);
    let rules = Rules::default();
    let cap = rules.virtual_size_cap_bytes;
    let expected =
        Expected { rules: Arc::new(rules), disk_format: Some(format.into()), container_format: Some("bare".into()) };
    let verdict = |piece: usize| {
        let mut inspection = Inspection::new(expected.clone());
        let mut refused = false;
        for bytes in file.chunks(piece) {
            inspection.feed(bytes);
            refused |= inspection.refusal().is_some();
        }
        let facts = inspection.finish().ok();
        assert!(!refused || facts.is_none(), "refused early and accepted in the end");
        (facts, inspection.found())
    };
    let (facts, found) = verdict(usize::MAX);
    assert_eq!(facts, verdict(65_537).0);
    if let Some(facts) = facts {
        assert!(facts.virtual_size_bytes.is_none_or(|size| size <= cap));
        assert!(found.len() <= 1 && facts.warning.is_none());
    }
    // Read here and there.
    let mut inspection = Inspection::new(expected.clone());
    while let Some(range) = inspection.wanted(file.len() as u64) {
        inspection.skip_to(range.start);
        inspection.feed(&file[range.start as usize..range.end as usize]);
    }
    assert_eq!(inspection.found(), found);
}
