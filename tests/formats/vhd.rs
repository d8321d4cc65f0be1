//! VHD.

use rockpool::format::Format;

use crate::harness::{LIMITS, Scratch, patchwork, read_disk, refusal};
use crate::others::{assert_as_qemu_img, assert_refusals, assert_written_as_qemu_img, image, patched};

const OPTIONS: [&str; 4] =
    ["subformat=dynamic", "subformat=fixed", "subformat=dynamic,force_size=on", "subformat=fixed,force_size=on"];

#[test]
fn what_qemu_img_writes_is_read_as_it_reads_it() {
    assert_as_qemu_img(Format::Vhd, "vpc", &OPTIONS);
}

#[test]
fn what_a_machine_has_written_is_read_as_qemu_img_reads_it() {
    assert_written_as_qemu_img(Format::Vhd, "vpc", &OPTIONS);
}

/// The checksum of a footer or a header, with which the file is whole again.
fn summed(mut file: Vec<u8>, at: usize, length: usize, sum_at: usize) -> Vec<u8> {
    file[at + sum_at..at + sum_at + 4].fill(0);
    let sum = !file[at..at + length].iter().map(|byte| u32::from(*byte)).sum::<u32>();
    file[at + sum_at..at + sum_at + 4].copy_from_slice(&sum.to_be_bytes());
    file
}

/// The file with other bytes in its footers.
fn with_footer(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let last = file.len() - 512;
    for footer in [0, last] {
        if file[footer..].starts_with(b"conectix") {
            file = summed(patched(&file, footer + at, bytes), footer, 512, 64);
        }
    }
    file
}

fn with_header(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    summed(patched(file, 512 + at, bytes), 512, 1024, 36)
}

#[test]
fn the_size_is_that_of_the_geometry_or_of_the_footer_as_qemu_img_decides_by_the_maker() {
    let Some(scratch) = Scratch::new() else { return };
    let disk = patchwork(2, (3 << 20) + 512);
    for options in OPTIONS {
        let good = image(&scratch, "vpc", options, &disk);
        for maker in [b"vpc ", b"qemu", b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS", b"vbox", b"\0\0\0\0"] {
            // A geometry that is smaller than the size, as Hyper-V's and Azure's are.
            let file = with_footer(&with_footer(&good, 28, maker), 56, &[0, 40, 4, 17]);
            let path = scratch.write("made", &file);
            let theirs = scratch.qemu_raw("vpc", &path).unwrap();
            let ours = read_disk(Format::Vhd, file).unwrap();
            assert!(ours == theirs, "{options}, {maker:?}: {} and {} bytes", ours.len(), theirs.len());
        }
        // QEMU has learnt of Azure only since; a geometry would cut off the end of its disks.
        let azure = with_footer(&with_footer(&good, 28, b"wa\0\0"), 56, &[0, 40, 4, 17]);
        assert!(read_disk(Format::Vhd, azure).unwrap().starts_with(&disk), "{options}");
    }
}

#[test]
fn a_dynamic_disk_that_contradicts_itself_is_refused() {
    let Some(scratch) = Scratch::new() else { return };
    let good = image(&scratch, "vpc", "subformat=dynamic,force_size=on", &patchwork(1, 5 << 20));
    let footers: [(usize, &[u8], &str); 8] = [
        (60, &[0, 0, 0, 4], "differencing"),
        (60, &[0, 0, 0, 2], "type 2"),
        (60, &[0, 0, 0, 9], "type 9"),
        (16, &[0xff; 8], "cut off"),
        (16, &[0, 0, 0, 0, 0, 0, 4, 0], "no header"),
        (48, &[0xff; 8], "no disk has"),
        (48, &(LIMITS.virtual_size_bytes + 512).to_be_bytes(), "virtual_size_cap"),
        (48, &(32u64 << 20).to_be_bytes(), "its disk needs 16"),
    ];
    for (at, bytes, word) in footers {
        let why = refusal(Format::Vhd, with_footer(&good, at, bytes));
        assert!(why.contains(word), "{at}: {why:?} without {word:?}");
    }
    let headers: [(usize, &[u8], &str); 7] = [
        (32, &[0; 4], "blocks of 0"),
        (32, &[0, 0, 2, 0], "blocks of 512"),
        (32, &[0, 0x20, 0, 1], "blocks of 2097153"),
        (28, &[0, 0, 0, 2], "its table has 2 entries"),
        (16, &[0xff; 8], "cut off"),
        (16, &[0; 8], "share the place"),
        (0, b"cxspars_", "no header"),
    ];
    for (at, bytes, word) in headers {
        let why = refusal(Format::Vhd, with_header(&good, at, bytes));
        assert!(why.contains(word), "{at}: {why:?} without {word:?}");
    }
    assert_refusals(
        Format::Vhd,
        &good,
        &[
            (9, &[1], "checksum of its footer"),
            (512 + 9, &[1], "checksum of its header"),
            (1536, &[0, 0, 0, 1], "where a table is"),
            (1536, &[0xff, 0xff, 0xff, 0], "cut off"),
            (1536, &[0, 0, 0, 4, 0, 0, 0, 4], "share the place"),
        ],
    );
    // Another disk behind the one: which of the two it is, depends on who reads it.
    let other = summed(patched(&good, good.len() - 512 + 60, &[0, 0, 0, 2]), good.len() - 512, 512, 64);
    assert!(refusal(Format::Vhd, other).contains("two disks"));
    for length in [0, 511, 600, 1535, good.len() / 2] {
        let why = refusal(Format::Vhd, good[..length].to_vec());
        assert!(why.contains("cut off"), "{length}: {why}");
    }
}

#[test]
fn a_fixed_disk_that_contradicts_itself_is_refused() {
    let Some(scratch) = Scratch::new() else { return };
    let good = image(&scratch, "vpc", "subformat=fixed,force_size=on", &patchwork(1, 1 << 20));
    for (at, bytes, word) in [
        (60, &[0, 0, 0, 3][..], "type 3"),
        (60, &[0, 0, 0, 4], "differencing"),
        (48, &(2u64 << 20).to_be_bytes(), "cut off"),
        (48, &[0xff; 8], "no disk has"),
    ] {
        let why = refusal(Format::Vhd, with_footer(&good, at, bytes));
        assert!(why.contains(word), "{at}: {why:?} without {word:?}");
    }
    assert!(refusal(Format::Vhd, good[..good.len() - 1].to_vec()).contains("no footer"));
    assert!(refusal(Format::Vhd, good[512..].to_vec()).contains("cut off"));
}
