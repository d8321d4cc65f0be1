"""The images that are moved about: the same bytes in every run."""

import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path

MIB = 2**20
SEED = 9292
SPARSE_FACTOR = 10
SPARSE_DATA_SHARE = 0.05


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


def _make(path, size_mib, data_mib):
    noise = random.Random(f"{SEED} {path.name}")
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
        for place in data_mib:
            file.seek(place * MIB)
            file.write(noise.randbytes(MIB))
    return TestFile(path, size_mib * MIB, len(data_mib) * MIB)
