"""The images that are moved about: the same bytes in every run."""

import hashlib
import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

MIB = 2**20
SEED = 9292
SPARSE_FACTOR = 10
SPARSE_DATA_SHARE = 0.05
WORDY_FACTOR = 4


@dataclass
class TestFile:
    """A raw image in a file."""

    path: Path
    size: int
    data_bytes: int
    digests: dict = field(default_factory=dict)

    def digest(self, algorithm):
        """Digest of the whole file, in hex."""
        if algorithm not in self.digests:
            with self.path.open("rb") as file:
                self.digests[algorithm] = hashlib.file_digest(file, algorithm).hexdigest()
        return self.digests[algorithm]

    def read(self, offset, length):
        """A part of it."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def warm(self):
        """Brings it into the page cache, if it is not there any more."""
        with self.path.open("rb") as file:
            while file.read(16 * MIB):
                pass


def dense(folder, size_mib):
    """Random bytes, every one."""
    return _make(folder / "dense.raw", size_mib, range(size_mib))


def scattered(folder, size_mib):
    """One MiB of random bytes here and there, a twentieth in all; the rest is a hole."""
    total = size_mib * SPARSE_FACTOR
    places = random.Random(SEED).sample(range(total), round(total * SPARSE_DATA_SHARE))
    return _make(folder / "scattered.raw", total, sorted(places))


def centred(folder, size_mib):
    """Random bytes in the middle, a quarter of the dense image long; the rest is a hole."""
    total, data = size_mib * SPARSE_FACTOR, size_mib // 4
    start = (total - data) // 2
    return _make(folder / "centred.raw", total, range(start, start + data))


def wordy(folder, size_mib):
    """Words in random order, which compress like files of a system do; three quarters of the disk are holes."""
    chance = random.Random(f"{SEED} words")
    words = [bytes(chance.choices(range(32, 96), k=chance.randint(2, 9))) for _ in range(2000)]
    text = b" ".join(chance.choices(words, k=4_000_000))
    path, total = folder / "wordy.raw", size_mib * WORDY_FACTOR
    with path.open("wb") as file:
        file.truncate(total * MIB)
        # In stretches of 16 MiB, as file systems grow.
        for place in (place for place in range(total) if place // 16 % WORDY_FACTOR == 0):
            start = chance.randrange(len(text) - MIB)
            file.seek(place * MIB)
            file.write(text[start : start + MIB])
    return TestFile(path, total * MIB, size_mib * MIB)


def qcow2(disk, name, *options):
    """The same disk in a qcow2 file."""
    path = disk.path.with_name(f"{name}.qcow2")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, disk.path, path], check=True)
    return TestFile(path, path.stat().st_size, disk.data_bytes)


def _make(path, size_mib, data_mib):
    noise = random.Random(f"{SEED} {path.name}")
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
        for place in data_mib:
            file.seek(place * MIB)
            file.write(noise.randbytes(MIB))
    return TestFile(path, size_mib * MIB, len(data_mib) * MIB)
