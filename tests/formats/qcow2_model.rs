//! qcow2 as the specification allows it, not only as `qemu-img` happens to write it: tables and clusters anywhere in
//! the file, every kind of cluster beside every other, disks that end in the middle of a sector.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use proptest::prelude::{ProptestConfig, any, proptest};
use rockpool::format::Format;
use rockpool::format::disk::Error;

use crate::harness::{LIMITS, Random, random_bytes, read_disk};

const COPIED: u64 = 1 << 63;
const PACKED: u64 = 1 << 62;
/// Disks have about so many bytes.
const DISK_BYTES: u64 = 1 << 20;

struct Model {
    file: Vec<u8>,
    disk: Vec<u8>,
}

/// What a file is made of.
#[derive(Debug, Clone, Copy)]
struct Shape {
    version: u32,
    cluster_bits: u32,
    extended_l2: bool,
    zstd: bool,
    /// Bytes that the disk lacks of whole clusters.
    short_bytes: u64,
}

fn shape(random: &mut Random) -> Shape {
    let version = 2 + random.below(2) as u32;
    let extended_l2 = version == 3 && random.below(2) == 0;
    let cluster_bits = if extended_l2 { 14 + random.below(4) } else { 9 + random.below(9) } as u32;
    let short_bytes = random.below(1 << cluster_bits);
    Shape { version, cluster_bits, extended_l2, zstd: version == 3 && random.below(2) == 0, short_bytes }
}

fn pack(zstd: bool, bytes: &[u8]) -> Vec<u8> {
    if zstd {
        let mut packed = vec![0; zstd_safe::compress_bound(bytes.len())];
        let length = zstd_safe::compress(&mut packed[..], bytes, 1).unwrap();
        packed.truncate(length);
        return packed;
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn build(seed: u64) -> Model {
    let mut random = Random::new(seed);
    let Shape { version, cluster_bits, extended_l2, zstd, short_bytes } = shape(&mut random);
    let cluster = 1usize << cluster_bits;
    let entry_bytes = if extended_l2 { 16 } else { 8 };
    let count = 1 + random.below((DISK_BYTES >> cluster_bits).max(3)) as usize;
    let per_table = cluster / entry_bytes;
    let tables = count.div_ceil(per_table);
    let l1_clusters = (tables * 8).div_ceil(cluster);

    // Places for L1, the L2 tables and the clusters, in any order after the header.
    let mut order: Vec<usize> = (0..1 + tables + count).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    let mut place = vec![0; order.len()];
    let mut end = cluster;
    for unit in order {
        place[unit] = end;
        end += if unit == 0 { l1_clusters * cluster } else { cluster };
    }
    let mut file = vec![0xee; end];
    file[place[0]..place[0] + tables * 8].fill(0);
    let mut disk = vec![0; count * cluster];
    for table in 0..tables {
        file[place[1 + table]..place[1 + table] + cluster].fill(0);
        // A stretch of the disk without a table.
        if random.below(5) > 0 {
            let entry = place[1 + table] as u64 | (random.below(2) * COPIED);
            file[place[0] + table * 8..][..8].copy_from_slice(&entry.to_be_bytes());
        }
    }
    for number in 0..count {
        let l1_entry = &file[place[0] + number / per_table * 8..][..8];
        if l1_entry.iter().all(|byte| *byte == 0) {
            continue;
        }
        let at = place[1 + tables + number];
        let mut bytes = random_bytes(random.next(), cluster);
        let on_disk = number * cluster..(number + 1) * cluster;
        let (mut entry, mut bitmap) = (0, 0);
        match random.below(5) {
            0 => {}
            1 if version == 3 && !extended_l2 => entry = 1 | (random.below(2) * at as u64),
            1 => {}
            2 => {
                let noise = random.below(1 << cluster_bits) as usize;
                bytes[noise..].fill(number as u8);
                let packed = pack(zstd, &bytes);
                let at_bits = 62 - (cluster_bits - 8);
                let sectors = (file.len() + packed.len() - 1) / 512 - file.len() / 512;
                // What packs badly is not stored packed.
                if (sectors as u64) < 1 << (cluster_bits - 8) {
                    entry = PACKED | (sectors as u64) << at_bits | file.len() as u64;
                    file.extend(packed);
                    disk[on_disk].copy_from_slice(&bytes);
                }
            }
            _ => {
                entry = at as u64 | COPIED;
                file[at..at + cluster].copy_from_slice(&bytes);
                if extended_l2 {
                    let there = random.next() >> 32;
                    bitmap = there | (random.next() >> 32 & !there) << 32;
                    for part in (0..32).filter(|part| there >> part & 1 == 0) {
                        bytes[part * cluster / 32..(part + 1) * cluster / 32].fill(0);
                    }
                }
                disk[on_disk].copy_from_slice(&bytes);
            }
        }
        let entry_at = place[1 + number / per_table] + number % per_table * entry_bytes;
        file[entry_at..entry_at + 8].copy_from_slice(&u64::to_be_bytes(entry));
        if extended_l2 {
            file[entry_at + 8..entry_at + 16].copy_from_slice(&u64::to_be_bytes(bitmap));
        }
    }
    disk.truncate(disk.len() - short_bytes as usize);

    let mut header = vec![0; cluster.min(512)];
    header[..4].copy_from_slice(b"QFI\xfb");
    header[4..8].copy_from_slice(&version.to_be_bytes());
    header[20..24].copy_from_slice(&cluster_bits.to_be_bytes());
    header[24..32].copy_from_slice(&(disk.len() as u64).to_be_bytes());
    header[36..40].copy_from_slice(&(tables as u32).to_be_bytes());
    header[40..48].copy_from_slice(&(place[0] as u64).to_be_bytes());
    if version == 3 {
        let incompatible = u64::from(zstd) << 3 | u64::from(extended_l2) << 4;
        header[72..80].copy_from_slice(&incompatible.to_be_bytes());
        header[100..104].copy_from_slice(&112u32.to_be_bytes());
        header[104] = u8::from(zstd);
    }
    file[..header.len()].copy_from_slice(&header);
    Model { file, disk }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_layout_is_read(seed in any::<u64>()) {
        let model = build(seed);
        let disk = read_disk(Format::Qcow2, model.file).unwrap();
        assert!(disk == model.disk);
    }

    /// Bytes are changed anywhere, and some are cut off.
    #[test]
    fn nothing_makes_it_stumble(seed in any::<u64>(), changes in 1..12u64) {
        let mut file = build(seed).file;
        let mut random = Random::new(seed ^ changes);
        for _ in 0..changes {
            let end = if random.below(2) == 0 { 112 } else { file.len() as u64 };
            file[random.below(end) as usize] ^= 1 << random.below(8);
        }
        if random.below(4) == 0 {
            file.truncate(random.below(file.len() as u64) as usize);
        }
        match read_disk(Format::Qcow2, file) {
            Ok(disk) => assert!(disk.len() as u64 <= LIMITS.virtual_size_bytes),
            Err(Error::Refused(why)) => assert!(why.ends_with('.'), "{why}"),
            Err(other) => panic!("{other}"),
        }
    }
}
