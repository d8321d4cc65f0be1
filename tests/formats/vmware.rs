//! VMDKs as VMware writes them, which `qemu-img` does not.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;

const SECTOR: usize = 512;
const GRAIN: usize = 64 << 10;

/// How VMware itself writes a stream: grains and tables as they come, the directory and a footer at the end.
pub(crate) fn stream(disk: &[u8]) -> Vec<u8> {
    let capacity = (disk.len() / SECTOR) as u64;
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
         # Extent description\nRDONLY {capacity} SPARSE \"generated-stream.vmdk\"\n"
    );
    let header = |directory: u64| {
        let mut header = b"KDMV".to_vec();
        header.extend_from_slice(&3u32.to_le_bytes());
        header.extend_from_slice(&0x3_0001u32.to_le_bytes());
        for number in [capacity, 128, 1, 20] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header.extend_from_slice(&512u32.to_le_bytes());
        for number in [0, directory, 128] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header.extend_from_slice(b"\0\n \r\n\x01\0");
        header.resize(SECTOR, 0);
        header
    };
    let marker = |sectors: u64, kind: u32| {
        let mut marker = sectors.to_le_bytes().to_vec();
        marker.extend_from_slice(&[0; 4]);
        marker.extend_from_slice(&kind.to_le_bytes());
        marker.resize(SECTOR, 0);
        marker
    };
    let mut file = header(u64::MAX);
    file.extend_from_slice(descriptor.as_bytes());
    file.resize(128 * SECTOR, 0);
    let mut directory = Vec::new();
    for (number, part) in disk.chunks(512 * GRAIN).enumerate() {
        let mut table = Vec::new();
        for (index, grain) in part.chunks(GRAIN).enumerate() {
            if grain.iter().all(|byte| *byte == 0) {
                table.extend_from_slice(&[0; 4]);
                continue;
            }
            table.extend_from_slice(&((file.len() / SECTOR) as u32).to_le_bytes());
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(grain).unwrap();
            // Its writers fill the last grain.
            encoder.write_all(&vec![0; GRAIN - grain.len()]).unwrap();
            let packed = encoder.finish().unwrap();
            let sector = ((number * 512 + index) * GRAIN / SECTOR) as u64;
            file.extend_from_slice(&sector.to_le_bytes());
            file.extend_from_slice(&(packed.len() as u32).to_le_bytes());
            file.extend_from_slice(&packed);
            file.resize(file.len().next_multiple_of(SECTOR), 0);
        }
        if table.iter().all(|byte| *byte == 0) {
            directory.extend_from_slice(&[0; 4]);
            continue;
        }
        table.resize(2048, 0);
        file.extend_from_slice(&marker(4, 1));
        directory.extend_from_slice(&((file.len() / SECTOR) as u32).to_le_bytes());
        file.extend_from_slice(&table);
    }
    directory.resize(directory.len().next_multiple_of(SECTOR), 0);
    file.extend_from_slice(&marker((directory.len() / SECTOR) as u64, 2));
    let directory_at = (file.len() / SECTOR) as u64;
    file.extend_from_slice(&directory);
    file.extend_from_slice(&marker(1, 3));
    file.extend_from_slice(&header(directory_at));
    file.extend_from_slice(&marker(0, 0));
    file
}
