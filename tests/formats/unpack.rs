//! Packed images, made by the tools that users have.

use std::convert::Infallible;
use std::io::Write as _;
use std::process::{Command, Stdio};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rockpool::format::unpack::{Error, HEAD_BYTES, Limits, Packing, WINDOW_MAX_BYTES, Wrapping, unpack};

use crate::harness::{random_bytes, skip};

const PACKINGS: [Packing; 4] = [Packing::Gzip, Packing::Xz, Packing::Zstd, Packing::Bzip2];
const LIMITS: Limits = Limits { size_bytes: 1 << 30, ratio: 1000 };

/// What the program makes of `input`; none where it is not installed.
fn through(program: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        skip(&format!("{} is not installed", program[0]));
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // It may end before it has read everything.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program:?}");
    Some(output.stdout)
}

fn pack(packing: Packing, input: &[u8]) -> Option<Vec<u8>> {
    through(&[packing.as_str(), "-c"], input)
}

/// What comes out of bytes that come in frames of that length, or why not.
fn unpacked_with(packed: &[u8], packing: Packing, limits: Limits, frame_bytes: usize) -> Result<Vec<u8>, String> {
    let frames: Vec<_> =
        packed.chunks(frame_bytes).map(|frame| Ok::<_, Infallible>(Bytes::copy_from_slice(frame))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut pieces = std::pin::pin!(unpack(stream::iter(frames), packing, limits));
        let mut whole = Vec::new();
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => whole.extend_from_slice(&piece),
                Err(Error::Refused(why)) => return Err(why),
                Err(Error::Source(never)) => match never {},
            }
        }
        Ok(whole)
    })
}

fn unpacked(packed: &[u8], packing: Packing) -> Result<Vec<u8>, String> {
    unpacked_with(packed, packing, LIMITS, 100_000)
}

#[track_caller]
fn assert_refused(result: Result<Vec<u8>, String>, word: &str) {
    match result {
        Ok(bytes) => panic!("{} bytes were unpacked, expected a refusal with {word:?}", bytes.len()),
        Err(why) => assert!(why.contains(word) && why.ends_with('.'), "{why:?} without {word:?}"),
    }
}

/// A disk with data, text, zeros.
fn disk() -> Vec<u8> {
    let mut disk = random_bytes(11, 700_000);
    disk.resize(3_000_000, 0);
    disk.extend_from_slice("a line of text\n".repeat(50_000).as_bytes());
    disk
}

#[test]
fn what_the_usual_tools_pack_comes_out_as_it_was() {
    let disk = disk();
    let tools: [&[&str]; 14] = [
        &["gzip", "-1"],
        &["gzip", "-9"],
        &["xz", "-0"],
        &["xz", "-9e"],
        &["xz", "--check=sha256", "--block-size=300000"],
        &["xz", "--check=crc32", "--x86", "--lzma2=preset=3"],
        &["xz", "--check=none", "--delta=dist=4", "--lzma2=preset=1"],
        &["zstd", "-c", "-1"],
        &["zstd", "-c", "-19", "-T2"],
        &["zstd", "-c", "--no-check", "--long=26"],
        &["zstd", "-c", "--ultra", "-21"],
        &["bzip2", "-1"],
        &["bzip2", "-9"],
        &["bzip2", "-5"],
    ];
    for tool in tools {
        let Some(packed) = through(tool, &disk) else { return };
        let packing = match Wrapping::of(&packed[..HEAD_BYTES]) {
            Some(Wrapping::Packed(packing)) => packing,
            other => panic!("{tool:?}: {other:?}"),
        };
        assert_eq!(packing.as_str(), tool[0]);
        for frame_bytes in [997, 65_536, packed.len()] {
            let came_out = unpacked_with(&packed, packing, LIMITS, frame_bytes);
            assert!(came_out.as_ref() == Ok(&disk), "{tool:?} in frames of {frame_bytes}: {:?}", came_out.err());
        }
    }
}

#[test]
fn several_members_are_one_stream() {
    let disk = disk();
    for packing in PACKINGS {
        let mut packed = Vec::new();
        for part in [&disk[..1], &disk[1..1_000_000], &[], &disk[1_000_000..]] {
            let Some(member) = pack(packing, part) else { return };
            packed.extend_from_slice(&member);
        }
        for frame_bytes in [1013, packed.len()] {
            let came_out = unpacked_with(&packed, packing, LIMITS, frame_bytes);
            assert!(came_out.as_ref() == Ok(&disk), "{packing:?} in frames of {frame_bytes}: {:?}", came_out.err());
        }
    }
}

#[test]
fn nothing_is_an_image_too() {
    for packing in PACKINGS {
        let Some(packed) = pack(packing, b"") else { return };
        assert_eq!(unpacked(&packed, packing), Ok(Vec::new()), "{packing:?}");
        assert_refused(unpacked(b"", packing), "too early");
    }
}

#[test]
fn what_is_cut_off_is_refused_wherever_it_is_cut() {
    let disk = &disk()[600_000..900_000];
    for packing in PACKINGS {
        let Some(packed) = pack(packing, disk) else { return };
        let cuts = (1..20).chain((20..packed.len()).step_by(9973)).chain(packed.len() - 20..packed.len());
        for cut in cuts {
            assert_refused(unpacked(&packed[..cut], packing), packing.as_str());
        }
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    for packing in PACKINGS {
        let Some(packed) = pack(packing, b"an image") else { return };
        for garbage in [&b"\0"[..], b"x", b"garbage of some length", &[0; 515], &packed[..9]] {
            for frame_bytes in [1, 100_000] {
                let with = [&packed[..], garbage].concat();
                assert_refused(unpacked_with(&with, packing, LIMITS, frame_bytes), packing.as_str());
            }
        }
    }
}

#[test]
fn a_flipped_bit_never_passes_for_the_image() {
    let disk = random_bytes(5, 20_000);
    for packing in PACKINGS {
        let Some(packed) = pack(packing, &disk) else { return };
        for at in (0..packed.len()).step_by(131).chain(packed.len() - 12..packed.len()) {
            let mut broken = packed.clone();
            broken[at] ^= 0x10;
            // Some bits say nothing about the content (a time, a name, an operating system).
            if let Ok(came_out) = unpacked(&broken, packing) {
                assert!(came_out == disk, "{packing:?}: bit of byte {at}");
            }
        }
    }
}

#[test]
fn bombs_are_stopped_by_their_ratio_and_by_their_size() {
    let zeros = vec![0; 80 << 20];
    for packing in PACKINGS {
        let Some(packed) = pack(packing, &zeros) else { return };
        assert_refused(unpacked_with(&packed, packing, Limits { ratio: 100, ..LIMITS }, 4096), "100 times");
        let small = Limits { size_bytes: 10 << 20, ratio: u64::MAX };
        assert_refused(unpacked_with(&packed, packing, small, 4096), "10485760 bytes");
    }
}

#[test]
fn a_window_that_takes_too_much_memory_is_refused() {
    let data = random_bytes(3, 100_000);
    let dictionary = format!("--lzma2=dict={}", u64::from(WINDOW_MAX_BYTES) * 2);
    let Some(packed) = through(&["xz", &dictionary], &data) else { return };
    assert_refused(unpacked(&packed, Packing::Xz), "64 MiB");
    let Some(packed) = through(&["zstd", "-c", "--ultra", "--long=27"], &data) else { return };
    assert_refused(unpacked(&packed, Packing::Zstd), "64 MiB");
}

#[test]
fn empty_members_are_nothing() {
    for packing in PACKINGS {
        let Some(empty) = pack(packing, b"") else { return };
        assert_eq!(unpacked(&empty.repeat(3000), packing), Ok(Vec::new()), "{packing:?}");
    }
}

/// Tiny blocks, which a decoder must not remember one by one for the index that never comes. The memory is that of a
/// process, so that this test has one for itself.
#[test]
fn a_million_blocks_take_no_memory() {
    const ALONE: &str = "ROCKPOOL_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        alone.env(ALONE, "1").args(["--exact", "unpack::a_million_blocks_take_no_memory", "--nocapture"]);
        let output = alone.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let Some(one) = through(&["xz", "-c", "-0", "--check=none"], b"0") else { return };
    // Behind the header of the stream (12 bytes): the header of the block, a chunk of one byte as it is, its end.
    let block_bytes = (usize::from(one[12]) + 1) * 4 + (3 + 1 + 1usize).next_multiple_of(4);
    let blocks = Bytes::from(one[12..12 + block_bytes].repeat(1000));
    let frames = std::iter::once(Bytes::copy_from_slice(&one[..12])).chain(std::iter::repeat_n(blocks, 1000));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut given, mut most, before) = (0, 0, resident_bytes());
    let end = runtime.block_on(async {
        let frames = stream::iter(frames.map(Ok::<_, Infallible>));
        let mut pieces = std::pin::pin!(unpack(frames, Packing::Xz, LIMITS));
        loop {
            most = most.max(resident_bytes());
            match pieces.next().await {
                Some(Ok(piece)) => given += piece.len(),
                end => break end,
            }
        }
    });
    assert!(matches!(end, Some(Err(Error::Refused(why))) if why.contains("too early")));
    assert_eq!(given, 1_000_000);
    assert!(most - before < 12 << 20, "{} bytes more", most - before);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A name in the header of gzip is none of our business.
#[test]
fn names_inside_are_not_looked_at() {
    let Some(packed) = pack(Packing::Gzip, b"an image") else { return };
    let mut named = packed[..10].to_vec();
    named[3] |= 0x08 | 0x10;
    named.extend_from_slice(b"../../../etc/passwd\0");
    named.extend(std::iter::repeat_n(b'c', 300_000).chain([0]));
    named.extend_from_slice(&packed[10..]);
    assert_eq!(unpacked(&named, Packing::Gzip), Ok(b"an image".to_vec()));
}

#[test]
fn archives_are_named_and_refused() {
    let folder = std::env::temp_dir().join(format!("rockpool-unpack-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["disk.raw", "second.raw"] {
        std::fs::write(folder.join(name), random_bytes(1, 5000)).unwrap();
    }
    let path = folder.to_str().unwrap();
    for tar in ["--format=gnu", "--format=ustar", "--format=v7", "--format=pax"] {
        let archive = through(&["tar", "-c", tar, "-C", path, "disk.raw", "second.raw"], b"").unwrap();
        assert_eq!(Wrapping::of(&archive[..HEAD_BYTES]), Some(Wrapping::Foreign("a tar archive")), "{tar}");
        for packing in PACKINGS {
            let Some(packed) = pack(packing, &archive) else { return };
            assert_refused(unpacked(&packed, packing), "a tar archive");
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    for (head, name) in [
        (&b"PK\x03\x04\x14\x00"[..], "a zip archive"),
        (b"PK\x05\x06", "a zip archive"),
        (b"\x24\xd2-lh5-", "a lha archive"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive"),
        (b"Rar!\x1a\x07\x01\x00", "a rar archive"),
        (b"070701000", "a cpio archive"),
    ] {
        let name = name.replace("a lha", "an lha");
        assert!(matches!(Wrapping::of(head), Some(Wrapping::Foreign(found)) if found == name), "{name}");
        let Some(packed) = pack(Packing::Gzip, head) else { return };
        assert_refused(unpacked(&packed, Packing::Gzip), &name);
    }
}

#[test]
fn an_image_that_is_packed_twice_is_refused() {
    for (outer, inner) in [(Packing::Gzip, Packing::Xz), (Packing::Zstd, Packing::Gzip), (Packing::Xz, Packing::Xz)] {
        let Some(packed) = pack(inner, &random_bytes(1, 2000)).and_then(|packed| pack(outer, &packed)) else { return };
        assert_refused(unpacked(&packed, outer), "packed twice");
    }
}

#[test]
fn disks_are_not_taken_for_packed() {
    let mut boot = random_bytes(8, 512);
    boot[510..].copy_from_slice(&[0x55, 0xaa]);
    for head in
        [&[0; 512][..], &boot, b"QFI\xfb\0\0\0\x03", b"KDMV", b"conectix", b"vhdxfile", b"", b"\x1f\x8b", b"BZh9 or so"]
    {
        assert_eq!(Wrapping::of(head), None, "{head:?}");
    }
}
