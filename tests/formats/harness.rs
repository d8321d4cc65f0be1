//! Makes files with `qemu-img` and reads disks with the library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use rockpool::domain::content::Extent;
use rockpool::format::Format;
use rockpool::format::disk::{self, Error, Limits, ReadAt};

/// Largest disk that the tests accept.
pub(crate) const LIMITS: Limits = Limits { virtual_size_bytes: 64 << 20 };
/// What the engine may hold: little, so that batches wait for each other.
const MEMORY_BYTES: usize = 2 << 20;

/// A file in memory.
pub(crate) struct Memory(pub(crate) Bytes);

#[async_trait]
impl ReadAt for Memory {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
        assert!(length <= 8 << 20, "a single read of {length} bytes");
        Ok(self.0.slice(offset as usize..offset as usize + length))
    }
}

/// The disk that a file holds.
pub(crate) fn read_disk(format: Format, file: Vec<u8>) -> Result<Vec<u8>, Error> {
    let source = Arc::new(Memory(file.into()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let map = disk::open(format, Arc::<Memory>::clone(&source), LIMITS).await?;
        let size_bytes = map.virtual_size_bytes();
        let mut stream = std::pin::pin!(disk::extents(map, source, MEMORY_BYTES));
        let mut bytes = Vec::new();
        while let Some(extent) = stream.next().await {
            match extent? {
                Extent::Data(data) => bytes.extend_from_slice(&data),
                Extent::Zero(length) => bytes.resize(bytes.len() + length as usize, 0),
            }
        }
        assert_eq!(bytes.len() as u64, size_bytes, "the disk has another length than its header says");
        Ok(bytes)
    })
}

/// The reason why a file is refused.
#[track_caller]
pub(crate) fn refusal(format: Format, file: Vec<u8>) -> String {
    match read_disk(format, file) {
        Err(Error::Refused(why)) => why,
        Err(other) => panic!("not a refusal: {other}"),
        Ok(bytes) => panic!("{} bytes were read", bytes.len()),
    }
}

/// A folder for a test, gone with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder; `None` where there is no `qemu-img`, after that has been noted.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let Ok(version) = Command::new("qemu-img").arg("--version").output() else {
            skip("no qemu-img");
            return None;
        };
        println!("{}", String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("rockpool-formats-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Some(Self(folder))
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// What `qemu-img` makes of a file; `None` when it refuses it.
    pub(crate) fn qemu_raw(&self, format: &str, path: &str) -> Option<Vec<u8>> {
        let raw = self.path("qemu.raw");
        try_run("qemu-img", &["convert", "-f", format, "-O", "raw", path, &raw])?;
        let bytes = std::fs::read(&raw).unwrap();
        std::fs::remove_file(Path::new(&raw)).unwrap();
        Some(bytes)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Runs a program, which must succeed.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a program, which may fail.
pub(crate) fn try_run(program: &str, arguments: &[&str]) -> Option<()> {
    Command::new(program).args(arguments).output().unwrap().status.success().then_some(())
}

/// Bytes that do not compress and are the same every time: a xorshift stream from `seed`.
pub(crate) fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// The same numbers for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A disk with stretches of zeros, of noise and of what compresses, of all lengths.
pub(crate) fn patchwork(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut disk = Vec::with_capacity(length);
    while disk.len() < length {
        let stretch = 1usize << (9 + random.below(10));
        let stretch = stretch.min(length - disk.len());
        match random.below(3) {
            0 => disk.resize(disk.len() + stretch, 0),
            1 => disk.extend(random_bytes(random.next(), stretch)),
            _ => disk.extend(b"All work and no play makes Jack a dull boy. ".iter().cycle().take(stretch)),
        }
    }
    disk
}

/// Says that this test cannot run here, and why: it then counts as skipped.
pub(crate) fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{test}: {reason}\n");
    if let Some(list) = std::env::var_os("ROCKPOOL_TEST_SKIPPED") {
        use std::io::Write as _;
        std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap().write_all(line.as_bytes()).unwrap();
    }
    eprint!("skipped {line}");
}
