//! VDI.

use rockpool::format::Format;

use crate::harness::{LIMITS, Scratch, patchwork, read_disk, refusal};
use crate::others::{assert_as_qemu_img, assert_refusals, assert_written_as_qemu_img, image, patched};

const OPTIONS: [&str; 2] = ["static=off", "static=on"];

#[test]
fn what_qemu_img_writes_is_read_as_it_reads_it() {
    assert_as_qemu_img(Format::Vdi, "vdi", &OPTIONS);
}

#[test]
fn what_a_machine_has_written_is_read_as_qemu_img_reads_it() {
    assert_written_as_qemu_img(Format::Vdi, "vdi", &OPTIONS);
}

/// A file that VirtualBox makes when it is told another size of blocks; QEMU cannot read it.
#[test]
fn blocks_may_have_another_size() {
    const BLOCK: usize = 64 << 10;
    let mut file = vec![0; 1024];
    for (at, number) in [
        (0x40, 0xbeda_107f),
        (0x44, 0x0001_0001),
        (0x4c, 1),
        (0x154, 512),
        (0x158, 1024),
        (0x168, 512),
        (0x170, 3 * BLOCK as u32 - 512),
        (0x178, BLOCK as u32),
        (0x180, 3),
        (512, 1),
        (516, u32::MAX),
        (520, 0),
    ] {
        file[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
    }
    file.extend_from_slice(&[7; BLOCK]);
    file.extend_from_slice(&[9; BLOCK]);
    let disk = [&[9; BLOCK][..], &[0; BLOCK], &[7; BLOCK - 512]].concat();
    assert!(read_disk(Format::Vdi, file).unwrap() == disk);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let Some(scratch) = Scratch::new() else { return };
    let good = image(&scratch, "vdi", "static=off", &patchwork(1, 5 << 20));
    assert_refusals(
        Format::Vdi,
        &good,
        &[
            (0x40, &[0; 4], "does not begin"),
            (0x44, &[2], "version 1.2"),
            (0x4c, &[4], "snapshot"),
            (0x4c, &[3], "snapshot"),
            (0x1a8, &[1], "snapshot"),
            (0x1b8 + 15, &[1], "snapshot"),
            (0x168, &4096u32.to_le_bytes(), "sectors of 4096"),
            (0x17c, &[1], "1 more bytes"),
            (0x178, &[1], "blocks have"),
            (0x178, &[0; 4], "blocks have 0"),
            (0x170, &u64::MAX.to_le_bytes(), "no disk has"),
            (0x170, &(LIMITS.virtual_size_bytes + 1).to_le_bytes(), "virtual_size_cap"),
            (0x170, &(6 << 20 | 1u64).to_le_bytes(), "its disk needs 7"),
            (0x154, &[1], "do not begin with a sector"),
            (0x158, &u32::MAX.to_le_bytes(), "do not begin with a sector"),
            (0x158, &512u32.to_le_bytes(), "before its map ends"),
            (0x154, &0xffff_fe00u32.to_le_bytes(), "cut off"),
            (0x154, &[0; 4], "share the place"),
            (0x200, &0x00ff_ffffu32.to_le_bytes(), "cut off"),
            (0x200, &[1, 0, 0, 0, 1, 0, 0, 0], "share the place"),
        ],
    );
    for length in [0, 511, 512, 600, good.len() - 1, good.len() / 2] {
        let why = refusal(Format::Vdi, good[..length].to_vec());
        assert!(why.contains("cut off"), "{length}: {why}");
    }
    // A disk without any bytes is one.
    let empty = patched(&good, 0x170, &[0; 8]);
    assert_eq!(read_disk(Format::Vdi, empty).unwrap().len(), 0);
}
