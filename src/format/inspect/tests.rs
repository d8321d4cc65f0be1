//! Small files of every format, good and hostile, in pieces of every length.

use std::sync::Arc;

use proptest::prelude::{any, prop, proptest};

use super::{Expected, Facts, HEAD_BYTES, Inspection, Rules};
use crate::domain::Refusal;
use crate::format::Format;

const MIB: usize = 1 << 20;

/// Zeros with something in them.
struct File(Vec<u8>);

impl File {
    fn of(length: usize) -> Self {
        Self(vec![0; length])
    }

    fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }
}

fn qcow2() -> File {
    File::of(4 * 65536)
        .with(0, b"QFI\xfb")
        .with(4, &3u32.to_be_bytes())
        .with(20, &16u32.to_be_bytes())
        .with(24, &(1u64 << 30).to_be_bytes())
        .with(36, &2u32.to_be_bytes())
        .with(40, &0x30000u64.to_be_bytes())
        .with(48, &0x10000u64.to_be_bytes())
        .with(56, &1u32.to_be_bytes())
        .with(96, &4u32.to_be_bytes())
        .with(100, &112u32.to_be_bytes())
}

fn vmdk_of(kind: &str, extent: &str) -> File {
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n{extent}\n\n#DDB\nddb.adapterType = \"ide\"\n"
    );
    File::of(256 * 1024)
        .with(0, b"KDMV")
        .with(4, &1u32.to_le_bytes())
        .with(12, &2048u64.to_le_bytes())
        .with(28, &1u64.to_le_bytes())
        .with(36, &20u64.to_le_bytes())
        .with(56, &30u64.to_le_bytes())
        .with(512, text.as_bytes())
}

fn vmdk() -> File {
    vmdk_of("monolithicSparse", "RW 2048 SPARSE \"disk.vmdk\"")
}

fn streamed_vmdk() -> File {
    let file = vmdk_of("streamOptimized", "RW 2048 SPARSE \"disk.vmdk\"").with(56, &u64::MAX.to_le_bytes());
    let footer = file.0[..512].to_vec();
    let at = file.0.len() - 1536;
    file.with(at, &1u64.to_le_bytes())
        .with(at + 12, &3u32.to_le_bytes())
        .with(at + 512, &footer)
        .with(at + 512 + 56, &7u64.to_le_bytes())
}

fn vhd_footer(kind: u32, size: u64) -> [u8; 512] {
    let footer = File::of(512)
        .with(0, b"conectix")
        .with(16, &512u64.to_be_bytes())
        .with(28, b"win ")
        .with(48, &size.to_be_bytes())
        .with(60, &kind.to_be_bytes());
    let sum: u32 = footer.0.iter().map(|byte| u32::from(*byte)).sum();
    footer.with(64, &(!sum).to_be_bytes()).0.try_into().unwrap()
}

fn vhd() -> File {
    let footer = vhd_footer(3, 8 << 20);
    File::of(MIB)
        .with(0, &footer)
        .with(512, b"cxsparse")
        .with(528, &1536u64.to_be_bytes())
        .with(540, &4u32.to_be_bytes())
        .with(544, &(2u32 << 20).to_be_bytes())
        .with(MIB - 512, &footer)
}

fn fixed_vhd(disk: File) -> File {
    let footer = vhd_footer(2, disk.0.len() as u64);
    let mut bytes = disk.0;
    bytes.extend(footer);
    File(bytes)
}

fn vhdx() -> File {
    let id = |text: &str| uuid::Uuid::parse_str(text).unwrap().to_bytes_le();
    let meta = 2 * MIB;
    File::of(3 * MIB)
        .with(0, b"vhdxfile")
        .with(192 * 1024, b"regi")
        .with(192 * 1024 + 8, &1u32.to_le_bytes())
        .with(192 * 1024 + 16, &id("8b7ca206-4790-4b9a-b8fe-575f050f886e"))
        .with(192 * 1024 + 32, &(meta as u64).to_le_bytes())
        .with(meta, b"metadata")
        .with(meta + 10, &2u16.to_le_bytes())
        .with(meta + 32, &id("2fa54224-cd1b-4876-b211-5dbed83bf4b8"))
        .with(meta + 48, &(65536u32 + 8).to_le_bytes())
        .with(meta + 64, &id("caa16737-fa36-4d43-b3b6-33f0aa44e76b"))
        .with(meta + 80, &65536u32.to_le_bytes())
        .with(meta + 65536 + 8, &(5u64 << 30).to_le_bytes())
}

fn vdi() -> File {
    File::of(MIB)
        .with(0x40, &0xbeda_107f_u32.to_le_bytes())
        .with(0x44, &0x1_0001u32.to_le_bytes())
        .with(0x4c, &1u32.to_le_bytes())
        .with(0x154, &512u32.to_le_bytes())
        .with(0x158, &4096u32.to_le_bytes())
        .with(0x170, &(3u64 << 20).to_le_bytes())
        .with(0x178, &(1u32 << 20).to_le_bytes())
        .with(0x180, &3u32.to_le_bytes())
}

fn iso() -> File {
    File::of(MIB)
        .with(32768, b"\x01CD001\x01")
        .with(32768 + 80, &400u32.to_le_bytes())
        .with(32768 + 128, &2048u16.to_le_bytes())
}

fn mbr(file: File) -> File {
    file.with(510, &[0x55, 0xaa]).with(446, &[0x80, 0, 1, 0, 0x83]).with(446 + 8, &2048u32.to_le_bytes())
}

fn gpt(file: File) -> File {
    file.with(510, &[0x55, 0xaa]).with(446, &[0, 0, 2, 0, 0xee]).with(446 + 8, &1u32.to_le_bytes())
}

fn luks() -> File {
    File::of(3 * MIB).with(0, b"LUKS\xba\xbe").with(6, &1u16.to_be_bytes()).with(104, &4096u32.to_be_bytes())
}

fn qed() -> File {
    File::of(MIB).with(0, b"QED\0").with(48, &(1u64 << 30).to_le_bytes())
}

fn expected(disk_format: Option<&str>, rules: Rules) -> Expected {
    Expected {
        rules: Arc::new(rules),
        disk_format: disk_format.map(str::to_owned),
        container_format: Some("bare".into()),
    }
}

fn verdict_of(bytes: &[u8], expected: &Expected, piece: usize) -> Result<Facts, Refusal> {
    let mut inspection = Inspection::new(expected.clone());
    for piece in bytes.chunks(piece) {
        inspection.feed(piece);
        // What is refused early is refused in the end.
        if let Some(early) = inspection.refusal() {
            return Err(early);
        }
    }
    inspection.finish()
}

/// The verdict on bytes that are called `declared`; the same whatever they come in.
#[track_caller]
fn verdict_under(file: &File, declared: Option<&str>, rules: Rules) -> Result<Facts, Refusal> {
    let expected = expected(declared, rules);
    let verdict = verdict_of(&file.0, &expected, usize::MAX);
    for piece in [511, 65536, 1_000_003] {
        let other = verdict_of(&file.0, &expected, piece);
        assert_eq!(verdict.is_ok(), other.is_ok(), "pieces of {piece}: {verdict:?}, {other:?}");
        if verdict.is_ok() {
            assert_eq!(verdict, other);
        }
    }
    // Read here and there, as a file is.
    let mut inspection = Inspection::new(expected);
    let size = file.0.len() as u64;
    let mut read = 0;
    while let Some(range) = inspection.wanted(size) {
        inspection.skip_to(range.start);
        inspection.feed(&file.0[range.start as usize..range.end as usize]);
        read += range.end - range.start;
    }
    inspection.skip_to(size);
    let read_here_and_there = inspection.finish();
    assert_eq!(read_here_and_there.is_ok(), verdict.is_ok());
    assert!(verdict.is_err() || verdict == read_here_and_there);
    assert!(read <= 256 * 1024, "{read} bytes were read");
    verdict
}

#[track_caller]
fn verdict(file: &File, declared: &str) -> Result<Facts, Refusal> {
    verdict_under(file, Some(declared), Rules::default())
}

#[track_caller]
fn accepted(file: &File, declared: &str, format: Format, virtual_size_bytes: u64) {
    let facts = Facts { format, virtual_size_bytes: Some(virtual_size_bytes), warning: None };
    assert_eq!(verdict(file, declared), Ok(facts));
}

#[track_caller]
fn refused(file: &File, declared: &str, why: &str) {
    match verdict(file, declared) {
        Err(Refusal::Unsupported(text)) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_format_is_known_and_its_disk_measured() {
    accepted(&qcow2(), "qcow2", Format::Qcow2, 1 << 30);
    accepted(&vmdk(), "vmdk", Format::Vmdk, 2048 * 512);
    accepted(&streamed_vmdk(), "vmdk", Format::Vmdk, 2048 * 512);
    accepted(&vhd(), "vhd", Format::Vhd, 8 << 20);
    accepted(&fixed_vhd(File::of(70_000)), "vhd", Format::Vhd, 70_000 / 512 * 512);
    accepted(&fixed_vhd(gpt(File::of(MIB))), "vhd", Format::Vhd, MIB as u64);
    accepted(&vhdx(), "vhdx", Format::Vhdx, 5 << 30);
    accepted(&vdi(), "vdi", Format::Vdi, 3 << 20);
    accepted(&iso(), "iso", Format::Iso, 400 * 2048);
    accepted(&mbr(iso()), "iso", Format::Iso, 400 * 2048);
    accepted(&luks(), "luks", Format::Luks, 1 << 20);
    accepted(&mbr(File::of(MIB)), "gpt", Format::Gpt, MIB as u64);
    for file in [File::of(1), File::of(1000), File::of(MIB + 1)] {
        accepted(&file, "raw", Format::Raw, file.0.len() as u64);
    }
    accepted(&mbr(File::of(MIB)), "raw", Format::Gpt, MIB as u64);
    accepted(&gpt(File::of(MIB)), "raw", Format::Gpt, MIB as u64);
    accepted(&iso(), "raw", Format::Iso, MIB as u64);
    accepted(&luks(), "raw", Format::Luks, 3 << 20);
}

#[test]
fn the_content_decides_and_not_the_label() {
    let files = [
        ("qcow2", qcow2()),
        ("vmdk", vmdk()),
        ("vhd", vhd()),
        ("vhd", fixed_vhd(File::of(MIB))),
        ("vhdx", vhdx()),
        ("vdi", vdi()),
        ("iso", iso()),
        ("luks", luks()),
        ("gpt", mbr(File::of(MIB))),
        ("raw", File::of(MIB)),
    ];
    for (format, file) in &files {
        for declared in ["qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "luks", "gpt", "raw", "ami", "ploop"] {
            let fits = match declared {
                "raw" => ["iso", "luks", "gpt"].contains(format),
                "ami" | "ploop" => ["gpt", "raw"].contains(format),
                _ => false,
            };
            if fits || declared == *format {
                verdict(file, declared).unwrap_or_else(|e| panic!("{format} as {declared}: {e}"));
            } else {
                // Some show what they are at their end only.
                refused(file, declared, &format!("disk_format is {declared}, but the data is "));
            }
        }
        // Without a byte it is no image, and goes by any name.
        assert_eq!(
            verdict(&File::of(0), format),
            Ok(Facts { format: Format::Raw, virtual_size_bytes: None, warning: None })
        );
    }
}

#[test]
fn rules_can_be_loosened_and_danger_stays() {
    let loose = || Rules { require_image_format_match: false, ..Rules::default() };
    let facts = verdict_under(&qcow2(), Some("vmdk"), loose()).unwrap();
    assert!(facts.warning.unwrap().contains("disk_format is vmdk"));
    assert_eq!((facts.format, facts.virtual_size_bytes), (Format::Qcow2, None));
    assert!(verdict_under(&qcow2().with(8, &[1; 8]), Some("vmdk"), loose()).is_err());

    let foreign = || Rules { accept_foreign_as_raw: true, ..Rules::default() };
    let facts = verdict_under(&qcow2(), Some("raw"), foreign()).unwrap();
    assert_eq!((facts.virtual_size_bytes, facts.warning), (Some(4 * 65536), None));
    assert!(verdict_under(&qcow2().with(8, &[1; 8]), Some("raw"), foreign()).is_err());

    let bad = mbr(File::of(MIB)).with(446, &[7]);
    refused(&bad, "raw", "boot flag of entry 0 is 0x07");
    assert!(verdict(&bad, "aki").is_ok());
    let nonfatal = Rules { gpt_safety_checks_nonfatal: vec!["mbr".into()], ..Rules::default() };
    assert!(verdict_under(&bad, Some("raw"), nonfatal).is_ok());

    let kinds = Rules { vmdk_allowed_types: vec!["streamOptimized".into()], ..Rules::default() };
    assert!(verdict_under(&vmdk(), Some("vmdk"), kinds).is_err());

    let small = || Rules { virtual_size_cap_bytes: (1 << 30) - 1, ..Rules::default() };
    let refusal = verdict_under(&qcow2(), Some("qcow2"), small()).unwrap_err();
    assert!(matches!(&refusal, Refusal::TooLarge(text) if text.contains("virtual_size_cap_bytes")), "{refusal:?}");
    assert!(verdict_under(&vdi(), Some("vdi"), small()).is_ok());
}

#[test]
fn what_wraps_an_image_hides_it() {
    for (container, disk, ok) in
        [("ova", "vmdk", true), ("compressed", "qcow2", true), ("bare", "qcow2", false), ("ami", "qcow2", false)]
    {
        let expected = Expected { container_format: Some(container.into()), ..expected(Some(disk), Rules::default()) };
        let verdict = verdict_of(&File::of(MIB).0, &expected, usize::MAX);
        assert_eq!(verdict.is_ok(), ok, "{container} {disk}: {verdict:?}");
        assert!(verdict.is_err() || verdict.is_ok_and(|facts| facts.virtual_size_bytes.is_none()));
        // And does not make it any less dangerous.
        assert!(verdict_of(&qcow2().with(8, &[1; 8]).0, &expected, usize::MAX).is_err());
    }
}

#[test]
fn a_qcow2_that_needs_another_file_is_refused_under_any_name() {
    let hostile = [
        (qcow2().with(8, &0x70u64.to_be_bytes()), "backing_file"),
        (qcow2().with(4, &2u32.to_be_bytes()).with(8, &0x70u64.to_be_bytes()), "backing_file"),
        (qcow2().with(72, &0b100u64.to_be_bytes()), "data_file"),
        (qcow2().with(112, &0x4441_5441_u32.to_be_bytes()), "data_file"),
        (qcow2().with(4, &1u32.to_be_bytes()), "version"),
        (qcow2().with(4, &4u32.to_be_bytes()), "version"),
        (qcow2().with(32, &1u32.to_be_bytes()), "encryption"),
        (qcow2().with(20, &40u32.to_be_bytes()), "structure"),
        (qcow2().with(24, &u64::MAX.to_be_bytes()), "structure"),
        (qcow2().with(40, &0x3000_0000_u64.to_be_bytes()), "structure"),
        (qcow2().with(40, &1u64.to_be_bytes()), "structure"),
        (qcow2().with(36, &u32::MAX.to_be_bytes()), "structure"),
        (qcow2().with(56, &u32::MAX.to_be_bytes()), "structure"),
    ];
    for (file, check) in &hostile {
        refused(file, "qcow2", &format!("(check {check})"));
        // That it is not what it is called may be known before.
        refused(file, "raw", "qcow2");
        refused(file, "ami", "qcow2");
    }
    for bit in 5..64 {
        refused(&qcow2().with(72, &(1u64 << bit).to_be_bytes()), "qcow2", "unknown_features");
    }
    for known in [0b1u64, 0b10, 0b1000, 0b1011] {
        assert!(verdict(&qcow2().with(72, &known.to_be_bytes()), "qcow2").is_ok(), "{known:b}");
    }
    // Extended L2: half as many entries in a table, so that the first one must be longer.
    let extended = qcow2().with(72, &0b1_0000u64.to_be_bytes());
    refused(&extended, "qcow2", "first table is too small");
    assert!(verdict(&extended.with(36, &4u32.to_be_bytes()), "qcow2").is_ok());
    // 511 bytes are no qcow2.
    accepted(&File(qcow2().0[..511].to_vec()), "raw", Format::Raw, 511);
}

#[test]
fn a_vmdk_that_needs_another_file_is_refused_under_any_name() {
    let hostile = [
        vmdk_of("monolithicFlat", "RW 2048 FLAT \"disk-flat.vmdk\" 0"),
        vmdk_of("monolithicSparse", "RW 2048 FLAT \"disk.vmdk\" 0"),
        vmdk_of("monolithicSparse", "RW 2048 SPARSE \"/etc/passwd\""),
        vmdk_of("monolithicSparse", "RW 2048 SPARSE \"a.vmdk\"\nRW 2048 SPARSE \"b.vmdk\""),
        vmdk_of("monolithicSparse", ""),
        vmdk_of("monolithicSparse", "RW 2048 SPARSE \"a.vmdk\"\nparentFileNameHint=\"/etc/passwd\""),
        vmdk_of("monolithicSparse", "RW 2048 SPARSE \"a.vmdk\"\nsome words"),
        vmdk_of("monolithicSparse", "RW 2048 SPARSE \"a.vmdk\"\ncreateType=\"monolithicFlat\""),
        vmdk_of("monolithicSparse", "RW 2048 SPARSE \"\u{1}.vmdk\""),
        vmdk().with(512 + 50, b"parentCID=01234567\n"),
        vmdk().with(28, &2u64.to_le_bytes()),
        vmdk().with(28, &u64::MAX.to_le_bytes()),
        vmdk().with(4, &9u32.to_le_bytes()),
        vmdk().with(12, &0u64.to_le_bytes()),
        vmdk().with(512, &[b'#'; 64 * 1024]).with(36, &u64::MAX.to_le_bytes()),
        File::of(MIB).with(0, b"COWD"),
        File(b"# Disk DescriptorFile\nversion=1\nRW 1 FLAT \"/etc/passwd\" 0\n".to_vec()),
        File(b"hello\ncreateType=\"monolithicFlat\"\nRW 1 FLAT \"/etc/passwd\" 0\n".to_vec()),
    ];
    for (n, file) in hostile.iter().enumerate() {
        for declared in ["vmdk", "raw"] {
            match verdict(file, declared) {
                Err(Refusal::Unsupported(text)) => assert!(text.contains("vmdk"), "{n}: {text}"),
                other => panic!("{n}: {other:?}"),
            }
        }
    }
    let at = streamed_vmdk().0.len() - 1536;
    for (offset, bytes) in
        [(12, 9), (512, b'X'), (512 + 4, 2), (512 + 12, 9), (512 + 28, 2), (1024 + 12, 1), (1024, 1), (20, 1)]
    {
        refused(&streamed_vmdk().with(at + offset, &[bytes]), "vmdk", "(check footer)");
    }
    refused(&streamed_vmdk().with(at + 512 + 56, &u64::MAX.to_le_bytes()), "vmdk", "further footer");
}

#[test]
fn other_formats_that_lie_are_refused() {
    refused(&qed(), "qed", "(check banned)");
    refused(&qed(), "raw", "(check banned)");
    refused(&luks().with(6, &2u16.to_be_bytes()), "raw", "(check version)");
    refused(&luks().with(104, &u32::MAX.to_be_bytes()), "raw", "cut off");
    // VHD: parents, tables, ends.
    refused(&vhd().with(60, &4u32.to_be_bytes()), "vhd", "(check parent)");
    refused(&vhd().with(512, b"X"), "vhd", "header is not where it says");
    refused(&vhd().with(16, &u64::MAX.to_be_bytes()), "vhd", "header is not where it says");
    refused(&vhd().with(540, &1u32.to_be_bytes()), "vhd", "too small");
    refused(&vhd().with(528, &u64::MAX.to_be_bytes()), "vhd", "beyond its end");
    refused(&File(vhd().0[..MIB - 512].to_vec()), "vhd", "no footer");
    // A footer that is not right makes no VHD.
    for (offset, byte) in [(511, 1), (60, 9), (50, 9), (0, b'X')] {
        let at = MIB + offset;
        refused(&fixed_vhd(File::of(MIB)).with(at, &[byte]), "vhd", "the data is raw");
        accepted(&fixed_vhd(File::of(MIB)).with(at, &[byte]), "raw", Format::Raw, (MIB + 512) as u64);
    }
    // VHDX: tables that lead nowhere.
    let (regions, meta) = (192 * 1024, 2 * MIB);
    let parent = vhdx().with(meta + 65536 + 4, &2u32.to_le_bytes());
    refused(&parent, "vhdx", "(check parent)");
    for file in [
        vhdx().with(regions, b"X"),
        vhdx().with(regions + 8, &[255; 4]),
        vhdx().with(regions + 16, &[0; 16]),
        vhdx().with(regions + 32, &4096u64.to_le_bytes()),
        vhdx().with(regions + 32, &u64::MAX.to_le_bytes()),
        vhdx().with(meta, b"X"),
        vhdx().with(meta + 10, &[255; 2]),
        vhdx().with(meta + 32, &[0; 16]),
        vhdx().with(meta + 48, &0u32.to_le_bytes()),
        vhdx().with(meta + 48, &u32::MAX.to_le_bytes()),
        File(vhdx().0[..meta + 100].to_vec()),
        File(vhdx().0[..100].to_vec()),
    ] {
        refused(&file, "vhdx", "(check structure)");
        refused(&file, "raw", "vhdx");
    }
    // VDI.
    refused(&vdi().with(0x4c, &4u32.to_le_bytes()), "vdi", "(check parent)");
    refused(&vdi().with(0x1b8, &[1]), "vdi", "(check parent)");
    for (offset, value) in [(0x44, 0), (0x154, 0), (0x154, u32::MAX), (0x180, 1)] {
        refused(&vdi().with(offset, &value.to_le_bytes()), "vdi", "(check structure)");
    }
    // Partition tables.
    refused(&gpt(File::of(MIB)).with(446 + 1, &[9]), "raw", "(check mbr)");
    refused(&gpt(File::of(MIB)).with(446 + 8, &[9]), "raw", "(check mbr)");
    refused(&gpt(File::of(MIB)).with(446 + 16 + 4, &[0x83]), "raw", "there are others");
    refused(&File::of(MIB).with(510, &[0x55, 0xaa]), "raw", "no partition");
    let fat = File::of(MIB).with(510, &[0x55, 0xaa]).with(16, &[2]).with(21, &[0xf8]);
    accepted(&fat, "raw", Format::Raw, MIB as u64);
}

#[test]
fn two_formats_at_once_are_refused() {
    let iso_in = |file: File| file.with(32768, b"\x01CD001\x01");
    let several = [
        iso_in(qcow2()),
        iso_in(vmdk()),
        iso_in(vdi()),
        mbr(qcow2()),
        mbr(vdi()),
        qcow2().with(0x40, &0xbeda_107f_u32.to_le_bytes()),
        fixed_vhd(qcow2()),
        fixed_vhd(iso()),
    ];
    for (n, file) in several.iter().enumerate() {
        for declared in ["qcow2", "raw", "vhd", "iso"] {
            assert!(matches!(verdict(file, declared), Err(Refusal::Unsupported(_))), "{n} as {declared}");
        }
        let whatever = verdict_under(file, None, Rules::default());
        assert!(
            matches!(&whatever, Err(Refusal::Unsupported(text)) if text.contains("several formats")),
            "{whatever:?}"
        );
    }
}

#[test]
fn most_is_known_early() {
    for (file, format) in [(qcow2(), Format::Qcow2), (vhdx(), Format::Vhdx), (vdi(), Format::Vdi), (iso(), Format::Iso)]
    {
        let mut inspection = Inspection::new(expected(None, Rules::default()));
        inspection.feed(&file.0[..HEAD_BYTES - 1]);
        assert_eq!(inspection.early(), None);
        inspection.feed(&file.0[HEAD_BYTES - 1..HEAD_BYTES]);
        assert_eq!(inspection.early(), Some(format));
    }
    // Refused before the rest has come.
    let mut inspection = Inspection::new(expected(Some("qcow2"), Rules::default()));
    inspection.feed(&qcow2().with(8, &[1; 8]).0[..HEAD_BYTES]);
    assert!(inspection.refusal().is_some());
    // Not before its end is a fixed VHD any.
    let mut inspection = Inspection::new(expected(Some("vhd"), Rules::default()));
    inspection.feed(&[0; 2 * HEAD_BYTES]);
    assert_eq!((inspection.refusal(), inspection.early()), (None, Some(Format::Raw)));
}

proptest! {
    /// Good files with noise in them, in odd pieces, under any name: there is a verdict, it is the same in one piece,
    /// and what is accepted is within the cap.
    #[test]
    fn any_bytes_get_one_verdict(
        n in 0..10usize,
        noise in prop::collection::vec((0..3 * MIB, prop::collection::vec(any::<u8>(), 1..64)), 0..6),
        near in prop::collection::vec((0..1024usize, any::<u8>()), 0..4),
        cut in prop::option::of(0..3 * MIB),
        piece in 1..200_000usize,
        declared in 0..6usize,
    ) {
        let files = [qcow2, vmdk, streamed_vmdk, vhd, vhdx, vdi, iso, luks, qed, || mbr(File::of(MIB))];
        let mut bytes = files[n]().0;
        for (offset, noise) in noise {
            let length = bytes.len();
            for (at, byte) in noise.into_iter().enumerate() {
                bytes[(offset + at) % length] = byte;
            }
        }
        for (offset, byte) in near {
            bytes[offset] = byte;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        let declared = [None, Some("raw"), Some("qcow2"), Some("vmdk"), Some("vhd"), Some("ami")][declared];
        let expected = expected(declared, Rules::default());
        let whole = verdict_of(&bytes, &expected, usize::MAX);
        let pieces = verdict_of(&bytes, &expected, piece);
        assert_eq!(whole.is_ok(), pieces.is_ok());
        if let Ok(facts) = &whole {
            assert_eq!(whole, pieces);
            assert!(facts.virtual_size_bytes.is_none_or(|size| size <= expected.rules.virtual_size_cap_bytes));
        }
    }
}
