//! qcow2.

use rockpool::format::Format;
use rockpool::format::disk::Error;

use crate::harness::{LIMITS, Random, Scratch, patchwork, random_bytes, read_disk, refusal, run, try_run};

/// Options of `qemu-img`, and whether its clusters are compressed.
const VARIANTS: [(&str, bool); 30] = [
    ("compat=0.10", false),
    ("compat=0.10,cluster_size=512", false),
    ("compat=0.10,cluster_size=4k", true),
    ("compat=0.10", true),
    ("compat=0.10,cluster_size=2M", true),
    ("compat=1.1", false),
    ("compat=1.1,cluster_size=512", false),
    ("compat=1.1,cluster_size=1k", true),
    ("compat=1.1,cluster_size=512", true),
    ("compat=1.1,cluster_size=16k", false),
    ("compat=1.1,cluster_size=256k", false),
    ("compat=1.1,cluster_size=1M", true),
    ("compat=1.1,cluster_size=2M", false),
    ("compat=1.1,cluster_size=2M", true),
    ("compat=1.1", true),
    ("compat=1.1,lazy_refcounts=on,refcount_bits=1", false),
    ("compression_type=zstd", true),
    ("compression_type=zstd,cluster_size=512", true),
    ("compression_type=zstd,cluster_size=2M", true),
    ("compression_type=zstd", false),
    ("extended_l2=on", false),
    ("extended_l2=on", true),
    ("extended_l2=on,cluster_size=16k", false),
    ("extended_l2=on,cluster_size=2M,compression_type=zstd", true),
    ("preallocation=metadata", false),
    ("preallocation=metadata,extended_l2=on,cluster_size=16k", false),
    ("preallocation=falloc", false),
    ("preallocation=full,cluster_size=4k", false),
    ("preallocation=metadata,cluster_size=512", false),
    ("preallocation=full,extended_l2=on", false),
];

/// Sizes of disks; `qemu-img` rounds them up to sectors.
const SIZES: [usize; 4] = [0, 512, (3 << 16) + 1536, (9 << 20) + 512];

#[test]
fn what_qemu_img_writes_is_read_as_it_reads_it() {
    let Some(scratch) = Scratch::new() else { return };
    for (number, (options, compressed)) in VARIANTS.into_iter().enumerate() {
        for length in SIZES {
            let disk = patchwork(number as u64, length);
            let raw = scratch.write("disk.raw", &disk);
            let image = scratch.path("disk.qcow2");
            let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
            arguments.extend(compressed.then_some("-c"));
            arguments.extend([&*raw, &*image]);
            run("qemu-img", &arguments);
            let ours = read_disk(Format::Qcow2, std::fs::read(&image).unwrap()).unwrap();
            assert!(ours == disk, "{options}, compressed: {compressed}, {length} bytes");
        }
    }
}

/// Writes, zeros and discards of all sizes and places, one over the other, some of them before a snapshot.
#[test]
fn what_a_machine_has_written_is_read_as_qemu_img_reads_it() {
    let Some(scratch) = Scratch::new() else { return };
    const LENGTH: u64 = 4 << 20;
    let variants = [
        "compat=0.10,cluster_size=512",
        "compat=0.10",
        "compat=1.1",
        "compat=1.1,cluster_size=4k,preallocation=metadata",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,cluster_size=128k,preallocation=falloc",
        "compression_type=zstd,cluster_size=32k",
        "compression_type=zstd,extended_l2=on",
    ];
    for (number, options) in variants.into_iter().enumerate() {
        let image = scratch.path("disk.qcow2");
        run("qemu-img", &["create", "-f", "qcow2", "-o", options, &image, &LENGTH.to_string()]);
        let mut random = Random::new(number as u64 + 100);
        let cluster = if options.contains("128k") { 128 << 10 } else { 64 << 10 };
        for round in 0..3 {
            let mut commands = vec!["-f".to_owned(), "qcow2".to_owned()];
            for _ in 0..24 {
                let at = random.below(LENGTH / 512 - 1) * 512;
                let length = ((1 + random.below(40)) * 512).min(LENGTH - at);
                let whole = at / cluster * cluster;
                let value = 1 + random.below(255);
                let command = match random.below(7) {
                    0 => format!("write -z {at} {length}"),
                    1 => format!("write -z -u {at} {length}"),
                    2 => format!("discard {at} {length}"),
                    3 => format!("discard {whole} {cluster}"),
                    4 => format!("write -c -P {value} {whole} {cluster}"),
                    _ => format!("write -P {value} {at} {length}"),
                };
                commands.extend(["-c".to_owned(), command]);
            }
            commands.push(image.clone());
            // Compressed writes fail where something is already, and nothing is lost by that.
            try_run("qemu-io", &commands.iter().map(String::as_str).collect::<Vec<_>>());
            if round < 2 {
                run("qemu-img", &["snapshot", "-c", &format!("round{round}"), &image]);
            }
        }
        let theirs = scratch.qemu_raw("qcow2", &image).unwrap();
        let ours = read_disk(Format::Qcow2, std::fs::read(&image).unwrap()).unwrap();
        assert!(ours == theirs, "{options}");
        let full = ours.chunks(512).filter(|sector| sector.iter().any(|byte| *byte != 0)).count();
        assert!(full > 300, "{options}: hardly anything was written, {full} sectors");
    }
}

/// A small image of every kind, to be spoilt.
fn small_images(scratch: &Scratch) -> Vec<(&'static str, Vec<u8>)> {
    let raw = scratch.write("small.raw", &patchwork(5, 600_064));
    let variants = [
        ("compat=0.10,cluster_size=4k", "-W"),
        ("compat=1.1,cluster_size=512", "-W"),
        ("compat=1.1,cluster_size=4k", "-c"),
        ("compression_type=zstd,cluster_size=4k", "-c"),
        ("extended_l2=on,cluster_size=16k", "-W"),
    ];
    let make = |options: &'static str, flag| {
        let image = scratch.path("small.qcow2");
        run("qemu-img", &["convert", flag, "-f", "raw", "-O", "qcow2", "-o", options, &raw, &image]);
        (options, std::fs::read(&image).unwrap())
    };
    variants.into_iter().map(|(options, flag)| make(options, flag)).collect()
}

fn long(file: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(file[at..at + 8].try_into().unwrap())
}

fn set_long(file: &mut [u8], at: usize, value: u64) {
    file[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

fn set_number(file: &mut [u8], at: usize, value: u32) {
    file[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// Where its first L1 entry is, where the L2 table that this names, and where the cluster that the first entry in
/// use of that names.
fn tables(file: &[u8]) -> (usize, usize, usize) {
    const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    let l1 = long(file, 40) as usize;
    let l2 = (long(file, l1) & OFFSET) as usize;
    let used = (l2..).step_by(8).find(|at| long(file, *at) & OFFSET != 0).unwrap();
    (l1, l2, used)
}

#[test]
fn what_is_not_a_whole_disk_is_refused() {
    let Some(scratch) = Scratch::new() else { return };
    for (name, image) in small_images(&scratch) {
        let spoilt = |change: &dyn Fn(&mut [u8]), reason: &str| {
            let mut file = image.clone();
            change(&mut file);
            let why = refusal(Format::Qcow2, file);
            assert!(why.contains(reason), "{name}: {why:?} does not say {reason:?}");
            assert!(why.ends_with('.'), "{why}");
        };
        let (l1, l2, used) = tables(&image);
        let is_packed = long(&image, used) >> 62 & 1 == 1;
        spoilt(&|file| file[0] = b'q', "no qcow2");
        spoilt(&|file| set_number(file, 4, 1), "version 1");
        spoilt(&|file| set_number(file, 4, 4), "version 4");
        spoilt(&|file| set_long(file, 8, 0x200), "backing file");
        spoilt(&|file| set_long(file, 8, u64::MAX), "backing file");
        spoilt(&|file| set_number(file, 20, 8), "clusters");
        spoilt(&|file| set_number(file, 20, 22), "clusters");
        spoilt(&|file| set_number(file, 20, u32::MAX), "clusters");
        spoilt(&|file| set_long(file, 24, LIMITS.virtual_size_bytes + 1), "virtual_size_cap");
        spoilt(&|file| set_long(file, 24, u64::MAX), "virtual_size_cap");
        spoilt(&|file| set_number(file, 32, 1), "encrypted");
        spoilt(&|file| set_number(file, 32, 2), "encrypted");
        spoilt(&|file| set_number(file, 36, 0), "L1 table");
        spoilt(&|file| set_number(file, 36, (4 << 20) + 1), "L1 table");
        spoilt(&|file| set_long(file, 40, 0), "header");
        spoilt(&|file| set_long(file, 40, long(file, 40) + 8), "middle of a cluster");
        spoilt(&|file| set_long(file, 40, 1 << 50), "cut off");
        spoilt(&|file| set_long(file, l1, 1 << 50), "cut off");
        spoilt(&|file| set_long(file, l1, l2 as u64 | 1), "reserved");
        spoilt(&|file| set_long(file, l1, l1 as u64), "where the L1 table is");
        if !is_packed {
            spoilt(&|file| set_long(file, used, l1 as u64), "where the L1 table is");
            spoilt(&|file| set_long(file, used, 1 << 50), "cut off");
            spoilt(&|file| set_long(file, used, long(file, used) | 2), "reserved");
        }
        if image[7] == 3 {
            for bit in [2, 5, 6, 63] {
                let reason = if bit == 2 { "another file" } else { "not known" };
                spoilt(&|file| set_long(file, 72, long(file, 72) | 1 << bit), reason);
            }
            spoilt(&|file| set_long(file, 72, long(file, 72) | 2), "corrupt");
            spoilt(&|file| set_long(file, 72, long(file, 72) ^ 8), "compression type");
            spoilt(&|file| file[104] ^= 3, "compression type");
            spoilt(&|file| set_number(file, 100, 72), "header");
            spoilt(&|file| set_number(file, 100, 1 << 30), "header");
        }
    }
}

/// Every cluster of the disk is the same one: a small file that would fill a pool.
#[test]
fn a_file_that_uses_its_clusters_over_and_over_is_refused() {
    let Some(scratch) = Scratch::new() else { return };
    for options in ["compat=1.1,cluster_size=4k", "compat=1.1,cluster_size=512"] {
        let image = scratch.path("bomb.qcow2");
        run("qemu-img", &["create", "-f", "qcow2", "-o", options, &image, "16M"]);
        run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 0 64k", &image]);
        let mut file = std::fs::read(&image).unwrap();
        let (l1, l2, used) = tables(&file);
        let cluster = 1 << file[23];
        let entry = long(&file, used);
        for at in (l2..l2 + cluster).step_by(8) {
            set_long(&mut file, at, entry);
        }
        let table = long(&file, l1);
        let entries = u32::from_be_bytes(file[36..40].try_into().unwrap()) as usize;
        for at in (l1..l1 + entries * 8).step_by(8) {
            set_long(&mut file, at, table);
        }
        assert!(refusal(Format::Qcow2, file).contains("overlap"), "{options}");
    }
}

#[test]
fn a_file_that_was_cut_off_is_refused_or_whole() {
    let Some(scratch) = Scratch::new() else { return };
    let disk = patchwork(5, 600_064);
    for (name, image) in small_images(&scratch) {
        let (l1, l2, _) = tables(&image);
        let cluster = 1 << image[23];
        let mut points: Vec<usize> = [0, 4, 71, 72, 103, 104, 105, 112, l1, l1 + 8, l2, l2 + 8].to_vec();
        points.extend((0..image.len()).step_by(cluster).flat_map(|at| [at, at + 1, at + cluster / 2]).step_by(7));
        points.extend([image.len() - 1, image.len() - 511, image.len() - 512, image.len() - 513]);
        for point in points.into_iter().filter(|point| *point < image.len()) {
            match read_disk(Format::Qcow2, image[..point].to_vec()) {
                // What was cut off was of no use.
                Ok(bytes) => assert!(bytes == disk, "{name} cut off at {point}"),
                Err(Error::Refused(why)) => assert!(!why.is_empty()),
                Err(other) => panic!("{name} cut off at {point}: {other}"),
            }
        }
        assert!(read_disk(Format::Qcow2, image[..l1].to_vec()).is_err(), "{name} without its tables");
    }
}

/// Numbers where mistakes live are put into the header and both tables: what is not refused is read as `qemu-img`
/// reads it.
#[test]
fn a_spoilt_file_is_refused_or_read_as_qemu_img_reads_it() {
    let Some(scratch) = Scratch::new() else { return };
    const ROUNDS: u64 = 600;
    /// `qemu-img` is asked about so many: it is slow to start.
    const ASKED: usize = 60;
    let images = small_images(&scratch);
    let mut random = Random::new(1);
    let (mut asked, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let (name, image) = &images[(round % images.len() as u64) as usize];
        let mut file = image.clone();
        let (l1, l2, _) = tables(&file);
        for _ in 0..=random.below(3) {
            let at = match random.below(4) {
                0 => random.below(112) as usize,
                1 => l1 + random.below(4) as usize * 8,
                _ => l2 + random.below(64) as usize * 8,
            };
            let value = match random.below(6) {
                0 => 0,
                1 => u64::MAX >> random.below(64),
                2 => random.next(),
                3 => 1 << random.below(64),
                4 => long(&file, l2 + random.below(64) as usize * 8),
                _ => long(&file, at) ^ 1 << random.below(64),
            };
            set_long(&mut file, at, value);
        }
        match read_disk(Format::Qcow2, file.clone()) {
            Err(Error::Refused(why)) => {
                assert!(!why.is_empty());
                refused += 1;
            }
            Err(other) => panic!("round {round}, {name}: {other}"),
            Ok(ours) if asked < ASKED => {
                asked += 1;
                let path = scratch.write("spoilt.qcow2", &file);
                if let Some(theirs) = scratch.qemu_raw("qcow2", &path) {
                    let common = ours.len().min(theirs.len());
                    assert!(ours.len() - common < 512 && ours[..common] == theirs[..common], "round {round}, {name}");
                }
            }
            Ok(_) => {}
        }
    }
    assert!(refused > ROUNDS / 4 && asked == ASKED, "{refused} refused, {asked} asked");
}

#[test]
fn noise_is_no_image() {
    for length in [0, 1, 71, 72, 512, 65536] {
        assert!(refusal(Format::Qcow2, random_bytes(3, length)).contains("no qcow2"));
    }
}
