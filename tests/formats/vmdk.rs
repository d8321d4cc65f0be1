//! VMDK in one file.

use rockpool::format::Format;

use crate::harness::{LIMITS, Scratch, patchwork, random_bytes, read_disk, refusal, run};
use crate::others::{assert_as_qemu_img, assert_refusals, assert_written_as_qemu_img, image, patched};
use crate::vmware::stream;

const SECTOR: usize = 512;

#[test]
fn what_qemu_img_writes_is_read_as_it_reads_it() {
    assert_as_qemu_img(
        Format::Vmdk,
        "vmdk",
        &[
            "subformat=monolithicSparse",
            "subformat=streamOptimized",
            "subformat=monolithicSparse,zeroed_grain=on",
            "subformat=monolithicSparse,hwversion=21",
        ],
    );
}

#[test]
fn what_a_machine_has_written_is_read_as_qemu_img_reads_it() {
    assert_written_as_qemu_img(
        Format::Vmdk,
        "vmdk",
        &["subformat=monolithicSparse", "subformat=monolithicSparse,zeroed_grain=on"],
    );
}

/// The last grain of a disk may be cut, and tables are many.
#[test]
fn disks_of_many_tables_and_odd_sizes_are_read() {
    let Some(scratch) = Scratch::new() else { return };
    let mut disk = vec![0; (40 << 20) + 7 * SECTOR];
    for at in [0, 31 << 20, 33 << 20, disk.len() - 100_000] {
        disk[at..at + 100_000].copy_from_slice(&random_bytes(at as u64, 100_000));
    }
    for options in ["subformat=monolithicSparse", "subformat=streamOptimized"] {
        let file = image(&scratch, "vmdk", options, &disk);
        assert!(read_disk(Format::Vmdk, file).unwrap() == disk, "{options}");
    }
}

/// A disk for it, with tables that are empty, full and in between.
pub(crate) fn streamed_disk() -> Vec<u8> {
    let mut disk = patchwork(9, 3 << 20);
    disk.resize(33 << 20, 0);
    disk.extend(patchwork(10, (1 << 20) + 3 * SECTOR));
    disk
}

#[test]
fn a_directory_at_the_end_is_found_by_the_footer() {
    let Some(scratch) = Scratch::new() else { return };
    let disk = streamed_disk();
    let file = stream(&disk);
    let theirs = scratch.qemu_raw("vmdk", &scratch.write("stream", &file)).unwrap();
    assert!(theirs == disk, "qemu-img does not read what the test writes");
    assert!(read_disk(Format::Vmdk, file).unwrap() == disk);
}

#[test]
fn a_footer_that_contradicts_the_rest_is_refused() {
    let good = stream(&streamed_disk());
    let (marker, footer, end) = (good.len() - 1536, good.len() - 1024, good.len() - 512);
    assert_refusals(
        Format::Vmdk,
        &good,
        &[
            (marker + 12, &[2], "no footer"),
            (footer, b"X", "no footer"),
            (footer + 12, &[1], "differ"),
            (footer + 20, &[64], "differ"),
            (footer + 56, &[0xff; 8], "differ"),
            (footer + 56, &[0xff; 7], "cut off"),
            (footer + 56, &[0; 8], "share the place"),
            (end, &[1], "no footer"),
            (end + 12, &[3], "no footer"),
        ],
    );
    assert!(refusal(Format::Vmdk, good[..end].to_vec()).contains("no footer"));
    assert!(refusal(Format::Vmdk, [&good[..], &[0; 512]].concat()).contains("no footer"));
}

#[test]
fn packed_grains_say_where_they_belong() {
    let good = stream(&streamed_disk());
    let first = 128 * SECTOR;
    let length = u32::from_le_bytes(*good[first + 8..].first_chunk().unwrap());
    assert_refusals(
        Format::Vmdk,
        &good,
        &[
            (first, &[128], "belongs to sector 128, not 0"),
            (first + 8, &(length - 9).to_le_bytes(), "damaged"),
            (first + 8, &[0xff; 4], "do not fit"),
            (first + 12, &[0xff; 8], "damaged"),
            (first + 12 + length as usize / 2, &[0xa5; 64], "damaged"),
        ],
    );
    // An entry of the first table that names the grain of another.
    let table =
        good.windows(SECTOR).position(|bytes| bytes.starts_with(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])).unwrap();
    let entry = table + SECTOR;
    let other: [u8; 4] = *good[entry..].first_chunk().unwrap();
    let empty = (entry..).step_by(4).position(|at| good[at..at + 4] != other && good[at..at + 4] != [0; 4]).unwrap();
    let why = refusal(Format::Vmdk, patched(&good, entry + 4 * empty, &other));
    assert!(why.contains("belongs to sector"), "{why}");
}

#[test]
fn a_sparse_file_that_contradicts_itself_is_refused() {
    let Some(scratch) = Scratch::new() else { return };
    let good = image(&scratch, "vmdk", "subformat=monolithicSparse", &patchwork(1, 5 << 20));
    let directory = u64::from_le_bytes(*good[56..].first_chunk().unwrap()) as usize * SECTOR;
    let table_sector: [u8; 4] = *good[directory..].first_chunk().unwrap();
    let table = u32::from_le_bytes(table_sector) as usize * SECTOR;
    let used = (table..).step_by(4).find(|at| good[*at..at + 4] != [0; 4]).unwrap();
    let next = (used + 4..).step_by(4).find(|at| good[*at..at + 4] != [0; 4]).unwrap();
    let grain: [u8; 4] = *good[used..].first_chunk().unwrap();
    let sectors = |bytes: u64| (bytes / 512).to_le_bytes();
    assert_refusals(
        Format::Vmdk,
        &good,
        &[
            (0, b"COWD", "does not begin"),
            (4, &[4], "version 4"),
            (4, &[0], "version 0"),
            (8, &[0, 0, 3], "does not go with its flags"),
            (77, &[1], "does not go with its flags"),
            (77, &[2], "does not go with its flags"),
            (75, b"\n", "line ends"),
            (12, &[0xff; 8], "no disk has"),
            (12, &sectors(LIMITS.virtual_size_bytes + 512), "virtual_size_cap"),
            (12, &sectors(4 << 20), "tells of other data"),
            (20, &[0; 8], "grains of 0"),
            (20, &[127], "grains of 127"),
            (20, &[0, 0, 1], "grains of 65536"),
            (44, &[0; 4], "tables have 0"),
            (44, &[0xff; 4], "tables have"),
            (28, &[0; 8], "no descriptor"),
            (28, &[0xff; 8], "cut off"),
            (36, &[0xff; 8], "descriptor of"),
            (56, &[0xff, 0xff], "cut off"),
            (56, &[0; 8], "share the place"),
            (56, &[0xff; 8], "no footer"),
            (directory, &[0xff; 4], "cut off"),
            (used, &[0xff; 4], "cut off"),
            (used, &[1, 0, 0, 0], "where a table is"),
            (next, &grain, "share the place"),
        ],
    );
    for length in [0, 511, 600, directory, good.len() / 2, good.len() - 512] {
        let why = refusal(Format::Vmdk, good[..length].to_vec());
        assert!(why.contains("cut off"), "{length}: {why}");
    }
}

#[test]
fn a_descriptor_of_another_disk_is_refused() {
    let good = stream(&patchwork(1, 1 << 20));
    let text = |from: &str, to: &str| {
        let descriptor = String::from_utf8(good[SECTOR..21 * SECTOR].to_vec()).unwrap();
        assert!(descriptor.contains(from), "{from}");
        let mut other = descriptor.replacen(from, to, 1).into_bytes();
        other.resize(20 * SECTOR, 0);
        patched(&good, SECTOR, &other)
    };
    for (from, to, word) in [
        ("streamOptimized", "monolithicFlat", "type \"monolithicFlat\""),
        ("streamOptimized", "twoGbMaxExtentSparse", "type \"twoGb"),
        ("parentCID=ffffffff", "parentCID=12345678", "has a parent"),
        ("version=1", "parentFileNameHint=\"/etc/passwd\"", "has a parent"),
        ("RDONLY 2048 SPARSE", "RDONLY 4096 SPARSE", "other data"),
        ("RDONLY 2048 SPARSE \"generated-stream.vmdk\"", "RW 2048 FLAT \"/etc/passwd\" 0", "other data"),
        ("version=1", "RW 2048 SPARSE \"second.vmdk\"", "2 files"),
        ("RDONLY 2048", "", "0 files"),
    ] {
        let why = refusal(Format::Vmdk, text(from, to));
        assert!(why.contains(word), "{why:?} without {word:?}");
        assert!(!why.contains("passwd"), "{why}");
    }
    assert!(read_disk(Format::Vmdk, text("# Extent", "# extent")).is_ok());
}

#[test]
fn disks_of_several_files_are_refused() {
    let Some(scratch) = Scratch::new() else { return };
    let raw = scratch.write("disk.raw", &patchwork(1, 1 << 20));
    for kind in ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let path = scratch.path("several.vmdk");
        run("qemu-img", &["convert", "-O", "vmdk", "-o", &format!("subformat={kind}"), &raw, &path]);
        let mut text = std::fs::read(&path).unwrap();
        text.resize(4096, 0);
        let why = refusal(Format::Vmdk, text);
        assert!(why.contains("of a single file"), "{kind}: {why}");
    }
    let part = std::fs::read(scratch.path("several-s001.vmdk")).unwrap();
    assert!(refusal(Format::Vmdk, part).contains("0 files"));
}
