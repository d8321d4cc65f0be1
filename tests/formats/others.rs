//! What the formats beside qcow2 are tested for alike.

use proptest::prelude::{ProptestConfig, any, prop, proptest};
use rockpool::format::Format;

use crate::harness::{Random, Scratch, patchwork, read_disk, refusal, run, try_run};

/// Sizes of disks, all of whole sectors.
const SIZES: [usize; 3] = [512, (9 << 20) + 1536, 17 << 20];

/// The image that `qemu-img` makes of a disk.
pub(crate) fn image(scratch: &Scratch, name: &str, options: &str, disk: &[u8]) -> Vec<u8> {
    let (raw, path) = (scratch.write("disk.raw", disk), scratch.path("image"));
    run("qemu-img", &["convert", "-f", "raw", "-O", name, "-o", options, &raw, &path]);
    std::fs::read(path).unwrap()
}

/// The same bytes with others from `at` on.
pub(crate) fn patched(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// Each of the patches, alone, makes a file that is refused with that word.
#[track_caller]
pub(crate) fn assert_refusals(format: Format, good: &[u8], patches: &[(usize, &[u8], &str)]) {
    assert!(read_disk(format, good.to_vec()).is_ok());
    for (at, bytes, word) in patches {
        let why = refusal(format, patched(good, *at, bytes));
        assert!(why.contains(word) && why.ends_with('.'), "{bytes:x?} at {at:#x}: {why:?} without {word:?}");
    }
}

/// Everything that `qemu-img` writes with these options is read as it reads it itself.
#[track_caller]
pub(crate) fn assert_as_qemu_img(format: Format, name: &str, options: &[&str]) {
    let Some(scratch) = Scratch::new() else { return };
    for (number, options) in options.iter().enumerate() {
        for length in SIZES {
            let disk = patchwork(number as u64, length);
            let file = image(&scratch, name, options, &disk);
            let theirs = scratch.qemu_raw(name, &scratch.path("image")).unwrap();
            let ours = read_disk(format, file).unwrap();
            assert!(ours == theirs, "{name} {options}, {length} bytes: {} and {} bytes", ours.len(), theirs.len());
            assert!(ours.starts_with(&disk), "{name} {options}, {length} bytes");
        }
    }
}

/// Writes and zeros of all sizes and places, one over the other, so that blocks stand in any order.
#[track_caller]
pub(crate) fn assert_written_as_qemu_img(format: Format, name: &str, options: &[&str]) {
    const LENGTH: u64 = 24 << 20;
    let Some(scratch) = Scratch::new() else { return };
    for (number, options) in options.iter().enumerate() {
        let path = scratch.path("image");
        run("qemu-img", &["create", "-f", name, "-o", options, &path, &LENGTH.to_string()]);
        let mut random = Random::new(number as u64 + 7);
        let mut commands = vec!["-f".to_owned(), name.to_owned()];
        for _ in 0..60 {
            let at = random.below(LENGTH / 512 - 1) * 512;
            let length = ((1 + random.below(300)) * 512).min(LENGTH - at);
            let value = 1 + random.below(255);
            let command = match random.below(5) {
                0 => format!("write -z {at} {length}"),
                1 => format!("discard {at} {length}"),
                _ => format!("write -P {value} {at} {length}"),
            };
            commands.extend(["-c".to_owned(), command]);
        }
        commands.push(path.clone());
        // Some formats can neither zero nor discard, and say so.
        try_run("qemu-io", &commands.iter().map(String::as_str).collect::<Vec<_>>());
        let theirs = scratch.qemu_raw(name, &path).unwrap();
        let ours = read_disk(format, std::fs::read(&path).unwrap()).unwrap();
        assert!(ours == theirs, "{name} {options}");
        let full = ours.chunks(512).filter(|sector| sector.iter().any(|byte| *byte != 0)).count();
        assert!(full > 1000, "{name} {options}: hardly anything was written, {full} sectors");
    }
}

/// A small image in each format and layout.
fn small_images(scratch: &Scratch) -> Vec<(Format, &'static str, Vec<u8>)> {
    let disk = patchwork(3, 2 << 20);
    [
        (Format::Vdi, "vdi", "static=off"),
        (Format::Vdi, "vdi", "static=on"),
        (Format::Vhd, "vpc", "subformat=dynamic"),
        (Format::Vhd, "vpc", "subformat=fixed"),
        (Format::Vmdk, "vmdk", "subformat=monolithicSparse"),
        (Format::Vmdk, "vmdk", "subformat=streamOptimized"),
        (Format::Vhdx, "vhdx", "subformat=dynamic,block_size=1M,log_size=1M"),
    ]
    .into_iter()
    .map(|(format, name, options)| (format, name, image(scratch, name, options, &disk)))
    .collect()
}

/// Places of a file where something else than the disk stands.
fn tables(format: Format, file: &[u8]) -> Vec<std::ops::Range<usize>> {
    let length = file.len();
    match format {
        Format::Vdi => vec![0x40..0x1c8, 512..524],
        Format::Vhd => vec![0..72, 512..560, 1536..1552, length - 512..length - 440],
        Format::Vmdk => vec![0..80, 512..1024, 0x2a00..0x2a10, 0x3400..0x3440, 0x10000..0x10010],
        Format::Vhdx => vec![65536..65620, 196_608..196_700, 2 << 20..(2 << 20) + 256, 3 << 20..(3 << 20) + 32],
        other => panic!("{other}"),
    }
}

/// Where we read a spoilt file, `qemu-img` reads the same or nothing at all.
#[test]
fn spoilt_files_are_refused_or_read_as_qemu_img_reads_them() {
    let Some(scratch) = Scratch::new() else { return };
    let mut random = Random::new(99);
    for (format, name, good) in small_images(&scratch) {
        let places = tables(format, &good);
        let mut read = 0;
        for round in 0..40 {
            let mut file = good.clone();
            for _ in 0..1 + random.below(2) {
                let place = &places[random.below(places.len() as u64) as usize];
                let at = place.start + random.below(place.len() as u64) as usize;
                file[at] = match random.below(4) {
                    0 => 0,
                    1 => 0xff,
                    2 => file[at] ^ 1 << random.below(8),
                    _ => random.next() as u8,
                };
            }
            let path = scratch.write("spoilt", &file);
            if let Ok(ours) = read_disk(format, file) {
                read += 1;
                if let Some(theirs) = scratch.qemu_raw(name, &path) {
                    assert!(ours == theirs, "{name} in round {round}: another disk");
                }
            }
        }
        println!("{name}: {read} of 40 were read");
    }
}

#[test]
fn cut_files_are_refused_unless_the_disk_is_there() {
    let Some(scratch) = Scratch::new() else { return };
    let mut random = Random::new(5);
    for (format, name, good) in small_images(&scratch) {
        let whole = read_disk(format, good.clone()).unwrap();
        for _ in 0..40 {
            let file = good[..random.below(good.len() as u64) as usize].to_vec();
            let length = file.len();
            if let Ok(ours) = read_disk(format, file) {
                assert!(ours == whole, "{name} cut at {length} of {}", good.len());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Headers of each format over noise: whatever they say, there is an answer.
    #[test]
    fn no_header_does_harm(
        noise in prop::collection::vec(any::<u8>(), 0..6000),
        zeros in 0..200_000usize,
        kind in 0..5usize,
    ) {
        let (format, at, magic): (_, usize, &[u8]) = [
            (Format::Vdi, 0x40, &b"\x7f\x10\xda\xbe\x01\x00\x01\x00"[..]),
            (Format::Vhd, 0, b"conectix"),
            (Format::Vmdk, 0, b"KDMV\x01\x00\x00\x00"),
            (Format::Vhdx, 0, b"vhdxfile"),
            (Format::Vmdk, 512, b"# Disk DescriptorFile"),
        ][kind];
        let mut file = noise;
        file.resize(file.len() + zeros, 0);
        if let Some(place) = file.get_mut(at..at + magic.len()) {
            place.copy_from_slice(magic);
        }
        drop(read_disk(format, file));
    }
}
