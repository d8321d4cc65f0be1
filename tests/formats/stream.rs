//! streamOptimized VMDK as its bytes come.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rockpool::domain::content::Extent;
use rockpool::format::Format;
use rockpool::format::disk::vmdk::stream::{extents, is_stream};
use rockpool::format::unpack::Error;

use crate::harness::{LIMITS, Random, Scratch, patchwork, read_disk};
use crate::others::{image, patched};
use crate::vmdk::streamed_disk;
use crate::vmware::stream as vmware_stream;

const SECTOR: usize = 512;

/// The disk in bytes that come in frames of that length.
fn decoded(file: &[u8], frame_bytes: usize) -> Result<Vec<u8>, String> {
    let frames: Vec<_> =
        file.chunks(frame_bytes).map(|frame| Ok::<_, Infallible>(Bytes::copy_from_slice(frame))).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let mut stream = std::pin::pin!(extents(stream::iter(frames), LIMITS));
        let mut disk = Vec::new();
        while let Some(extent) = stream.next().await {
            match extent {
                Ok(Extent::Data(data)) => disk.extend_from_slice(&data),
                Ok(Extent::Zero(length)) => disk.resize(disk.len() + length as usize, 0),
                Err(Error::Refused(why)) => return Err(why),
                Err(Error::Source(never)) => match never {},
            }
        }
        Ok(disk)
    })
}

#[test]
fn a_stream_is_decoded_in_frames_of_any_length() {
    let disk = streamed_disk();
    let file = vmware_stream(&disk);
    assert!(is_stream(&file[..SECTOR]));
    for frame_bytes in [999, 64 << 10, file.len()] {
        let came_out = decoded(&file, frame_bytes);
        assert!(came_out.as_ref() == Ok(&disk), "in frames of {frame_bytes}: {:?}", came_out.err());
    }
    for length in [SECTOR, 65 << 10, (33 << 20) + SECTOR] {
        for disk in [patchwork(1, length), vec![0; length]] {
            assert!(decoded(&vmware_stream(&disk), 100_000) == Ok(disk), "{length}");
        }
    }
}

#[test]
fn a_directory_at_the_beginning_is_no_stream() {
    let Some(scratch) = Scratch::new() else { return };
    for kind in ["streamOptimized", "monolithicSparse"] {
        let file = image(&scratch, "vmdk", &format!("subformat={kind}"), &patchwork(1, 1 << 20));
        assert!(!is_stream(&file[..SECTOR]), "{kind}");
        assert!(decoded(&file, 4096).unwrap_err().contains("no stream"), "{kind}");
    }
}

/// Where the marker of that kind is, the last of several.
fn marker(file: &[u8], kind: u8) -> usize {
    let is_marker =
        |sector: &[u8]| sector[8..16] == [0, 0, 0, 0, kind, 0, 0, 0] && sector[16..].iter().all(|b| *b == 0);
    file.chunks(SECTOR).rposition(is_marker).unwrap() * SECTOR
}

#[test]
fn a_stream_that_contradicts_itself_is_refused() {
    let good = vmware_stream(&streamed_disk());
    let (table, directory, footer) = (marker(&good, 1), marker(&good, 2), marker(&good, 3));
    let grain = 128 * SECTOR;
    let entry = (table + SECTOR..).step_by(4).find(|at| good[*at..at + 4] != [0; 4]).unwrap();
    let cases: [(usize, &[u8], &str); 23] = [
        (12, &[0xff; 8], "no disk has"),
        (12, &(LIMITS.virtual_size_bytes / 512 + 1).to_le_bytes(), "virtual_size_cap"),
        (64, &[0xff; 8], "does not fit into"),
        (64, &[20], "does not fit into"),
        (28, &[0x80], "does not fit into"),
        (grain, &[1], "where none can be"),
        (grain, &[0xff; 8], "where none can be"),
        (grain, &[0, 0, 1], "too late"),
        (grain + 8, &[0xff; 4], "packed bytes"),
        (grain + 12, &[0xff; 4], "damaged"),
        (table, &[0xff; 8], "announces"),
        (table, &[0], "announces"),
        (table + 12, &[9], "kind 9"),
        (entry, &[1], "other grains"),
        (entry, &[0; 4], "other grains"),
        (directory, &[0xff; 4], "announces"),
        (directory + SECTOR, &[1, 0], "other tables"),
        (directory + SECTOR + 4, &[0; 4], "other tables"),
        (footer + SECTOR, b"X", "does not begin"),
        (footer + SECTOR + 12, &[8], "two disks"),
        (footer + SECTOR + 56, &[1, 0, 0, 0], "two disks"),
        (footer + 12, &[0], "announces"),
        (footer + 2 * SECTOR, &[1], "announces"),
    ];
    for (at, bytes, word) in cases {
        let Err(why) = decoded(&patched(&good, at, bytes), 4096) else { panic!("{bytes:x?} at {at:#x} was decoded") };
        assert!(why.contains(word) && why.ends_with('.'), "{bytes:x?} at {at:#x}: {why:?} without {word:?}");
    }
    for cut in [0, 511, 512, 4096, grain + 100, table, directory, footer, good.len() - SECTOR, good.len() - 1] {
        let why = decoded(&good[..cut], 4096).unwrap_err();
        assert!(why.contains("cut off"), "{cut}: {why}");
    }
    assert!(decoded(&[&good[..], &[0]].concat(), 4096).unwrap_err().contains("behind its end marker"));
    let again = [&good[..footer], &good[directory..]].concat();
    assert!(decoded(&again, 4096).unwrap_err().contains("other tables"));
    let late = [&good[..directory], &good[grain..table], &good[directory..]].concat();
    assert!(decoded(&late, 4096).unwrap_err().contains("too late"));
}

/// Who reads by the tables and who reads the grains as they come see one disk, or neither of them does.
#[test]
fn spoilt_streams_are_one_disk_or_none() {
    let mut disk = patchwork(4, 2 << 20);
    disk.resize(33 << 20, 0);
    disk.extend(patchwork(10, SECTOR));
    let good = vmware_stream(&disk);
    let mut random = Random::new(3);
    let places: Vec<usize> =
        (0..good.len()).step_by(SECTOR).filter(|at| !good[*at + 100..*at + 400].contains(&7)).collect();
    let mut read = 0;
    for round in 0..60 {
        let mut file = good.clone();
        let at = places[random.below(places.len() as u64) as usize] + random.below(80) as usize;
        file[at] ^= 1 << random.below(8);
        if let Ok(ours) = decoded(&file, 64 << 10) {
            read += 1;
            let by_tables = read_disk(Format::Vmdk, file).unwrap();
            assert!(ours == by_tables, "round {round}, byte {at:#x}");
        }
    }
    println!("{read} of 60 were read");
}
