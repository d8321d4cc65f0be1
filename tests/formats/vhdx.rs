//! VHDX.

use rockpool::format::Format;

use crate::harness::{LIMITS, Scratch, patchwork, read_disk, refusal};
use crate::others::{assert_as_qemu_img, assert_written_as_qemu_img, image, patched};

const OPTIONS: [&str; 4] = [
    "subformat=dynamic",
    "subformat=fixed,log_size=2M",
    "subformat=dynamic,block_size=1M,log_size=1M",
    "subformat=dynamic,block_size=4M,block_state_zero=off",
];
const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
const REGIONS: [usize; 2] = [192 << 10, 256 << 10];

#[test]
fn what_qemu_img_writes_is_read_as_it_reads_it() {
    assert_as_qemu_img(Format::Vhdx, "vhdx", &OPTIONS);
}

#[test]
fn what_a_machine_has_written_is_read_as_qemu_img_reads_it() {
    assert_written_as_qemu_img(Format::Vhdx, "vhdx", &OPTIONS);
}

/// The file with its CRC-32C for `length` bytes from `at` on made right.
fn summed(mut file: Vec<u8>, at: usize, length: usize) -> Vec<u8> {
    file[at + 4..at + 8].fill(0);
    let mut sum = u32::MAX;
    for byte in &file[at..at + length] {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    file[at + 4..at + 8].copy_from_slice(&(!sum).to_le_bytes());
    file
}

fn with_headers(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    HEADERS.into_iter().fold(file.to_vec(), |file, header| summed(patched(&file, header + at, bytes), header, 4096))
}

fn with_regions(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    REGIONS.into_iter().fold(file.to_vec(), |file, table| summed(patched(&file, table + at, bytes), table, 64 << 10))
}

/// Where a region is, by the first bytes of its id.
fn region(file: &[u8], id: &[u8]) -> (usize, usize) {
    let entry = (16..).step_by(32).find(|entry| file[REGIONS[0] + entry..].starts_with(id)).unwrap();
    let at = u64::from_le_bytes(*file[REGIONS[0] + entry + 16..].first_chunk().unwrap());
    (entry, at as usize)
}

const BAT: &[u8] = b"\x66\x77\xc2\x2d";
const METADATA: &[u8] = b"\x06\xa2\x7c\x8b";

/// Where in the file an entry of the metadata is, and its item.
fn item(file: &[u8], id: &[u8]) -> (usize, usize) {
    let (_, at) = region(file, METADATA);
    let entry = (at + 32..).step_by(32).find(|entry| file[*entry..].starts_with(id)).unwrap();
    (entry, at + u32::from_le_bytes(*file[entry + 16..].first_chunk().unwrap()) as usize)
}

fn small(scratch: &Scratch) -> Vec<u8> {
    image(scratch, "vhdx", "subformat=dynamic,block_size=1M,log_size=1M", &patchwork(4, 5 << 20))
}

#[test]
fn one_of_two_headers_and_tables_is_enough() {
    let Some(scratch) = Scratch::new() else { return };
    let good = small(&scratch);
    let disk = read_disk(Format::Vhdx, good.clone()).unwrap();
    for at in HEADERS.into_iter().chain(REGIONS) {
        assert!(read_disk(Format::Vhdx, patched(&good, at + 5, &[0xa5])).unwrap() == disk, "{at}");
    }
    for (pair, word) in [(HEADERS, "headers"), (REGIONS, "region tables")] {
        let broken = pair.into_iter().fold(good.clone(), |file, at| patched(&file, at + 70, &[0xa5; 4]));
        let why = refusal(Format::Vhdx, broken);
        assert!(why.contains(word), "{why}");
    }
}

#[test]
fn a_log_in_use_is_refused_and_the_newer_header_decides() {
    let Some(scratch) = Scratch::new() else { return };
    let good = small(&scratch);
    let in_use = |header: usize| summed(patched(&good, header + 48, &[7; 16]), header, 4096);
    let sequence = |header: usize| u64::from_le_bytes(*good[header + 8..].first_chunk().unwrap());
    let (older, newer) = if sequence(HEADERS[0]) < sequence(HEADERS[1]) { (0, 1) } else { (1, 0) };
    let why = refusal(Format::Vhdx, in_use(HEADERS[newer]));
    assert!(why.contains("was not closed") && why.contains("qemu-img check -r all"), "{why}");
    assert!(read_disk(Format::Vhdx, in_use(HEADERS[older])).is_ok());
}

#[test]
fn states_of_blocks_are_what_qemu_img_takes_them_for() {
    let Some(scratch) = Scratch::new() else { return };
    let good = small(&scratch);
    let (_, bat) = region(&good, BAT);
    for state in 0..8u8 {
        let file = patched(&good, bat, &[good[bat] & !7 | state]);
        let path = scratch.write("state", &file);
        match (read_disk(Format::Vhdx, file), scratch.qemu_raw("vhdx", &path)) {
            (Ok(ours), Some(theirs)) => assert!(ours == theirs, "state {state}"),
            (Ok(_), None) => panic!("state {state} was read, by us only"),
            (Err(_), theirs) => assert!(matches!(state, 4 | 7), "state {state}: {}", theirs.is_some()),
        }
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let Some(scratch) = Scratch::new() else { return };
    let good = small(&scratch);
    let (bat_entry, bat) = region(&good, BAT);
    let (metadata_entry, metadata) = region(&good, METADATA);
    let (parameters_entry, parameters) = item(&good, b"\x37\x67\xa1\xca");
    let (_, size) = item(&good, b"\x24\x42\xa5\x2f");
    let (_, sector) = item(&good, b"\x1d\xbf\x41\x81");
    let cap = (LIMITS.virtual_size_bytes + 512).to_le_bytes();
    let first_block = [good[bat], good[bat + 1], good[bat + 2], good[bat + 3], 0, 0, 0, 0];
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (patched(&good, 0, b"VHDXFILE"), "does not begin"),
        (with_headers(&good, 66, &[2, 0]), "version 2"),
        (with_headers(&good, 72, &[0xff; 8]), "cut off"),
        (with_headers(&good, 72, &(bat as u64).to_le_bytes()), "share the place"),
        (with_regions(&good, 8, &[0xff; 4]), "entries"),
        (with_regions(&good, 8, &[1, 0, 0, 0]), "no block table or no metadata"),
        (with_regions(&with_regions(&good, bat_entry, &[1]), bat_entry + 28, &[1]), "region that is not known"),
        (with_regions(&good, bat_entry + 16, &(metadata as u64).to_le_bytes()), "share the place"),
        (with_regions(&good, bat_entry + 16, &[1]), "a region is at"),
        (with_regions(&good, bat_entry + 16, &[0, 0, 0, 0, 0, 0, 0, 1]), "cut off"),
        (with_regions(&good, bat_entry + 24, &[0; 4]), "with 0 bytes"),
        (with_regions(&good, metadata_entry, &good[REGIONS[0] + bat_entry..][..16]), "twice"),
        (patched(&good, metadata, b"METADATA"), "no table"),
        (patched(&good, metadata + 10, &[0xff; 2]), "no table"),
        (patched(&good, metadata + 10, &[1, 0]), "does not tell"),
        (patched(&good, parameters_entry, &[9]), "metadata that are not known"),
        (patched(&good, parameters_entry + 16, &[0xff; 4]), "the size of its blocks with"),
        (patched(&good, parameters_entry + 20, &[4]), "the size of its blocks with 4"),
        (patched(&good, parameters + 4, &[2]), "differencing"),
        (patched(&good, parameters, &[0, 0, 0x11, 0]), "blocks have"),
        (patched(&good, parameters, &[0, 0, 8, 0]), "blocks have"),
        (patched(&good, sector, &[1, 2, 0, 0]), "sectors have 513"),
        (patched(&good, sector, &4096u32.to_le_bytes()), ""),
        (patched(&good, size, &[1]), "within a sector"),
        (patched(&good, size, &[0xff; 8]), "no disk has"),
        (patched(&good, size, &cap), "virtual_size_cap"),
        (patched(&good, bat + 5, &[0xff]), "cut off"),
        (patched(&good, bat + 8, &first_block), "share the place"),
        (patched(&good, bat, &[6, 0, 0, 0, 0, 0, 0, 0]), "where a table is"),
    ];
    for (number, (file, word)) in cases.into_iter().enumerate() {
        if word.is_empty() {
            assert!(read_disk(Format::Vhdx, file).is_ok(), "case {number}");
            continue;
        }
        let why = refusal(Format::Vhdx, file);
        assert!(why.contains(word) && why.ends_with('.'), "case {number}: {why:?} without {word:?}");
    }
    for length in [0, 7, 65536, 300_000, 1 << 20, 3 << 20, good.len() - (2 << 20)] {
        let why = refusal(Format::Vhdx, good[..length].to_vec());
        assert!(why.contains("cut off"), "{length}: {why}");
    }
}
