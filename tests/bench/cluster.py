"""A Ceph cluster as its administrator sees it."""

import hashlib
import json
import subprocess
import time

from service import Failed

POOL = "images"
LIMIT_IMAGE = "bench-limit"
REMOVAL_LIMIT_SECONDS = 120
# The monitor learns of a pool's use with a delay: this long without a change, and it has.
USAGE_STILL_SECONDS = 12
USAGE_LIMIT_SECONDS = 90


class Cluster:
    """The pool that the images are in."""

    def __init__(self, conf, user, keyring):
        self.conf = conf
        self.user = user
        self.keyring = keyring
        self._left_behind = set()

    def ignore_what_is_there(self):
        """For after a failure: what it has left must not stop the next bench."""
        self._left_behind = set(self._names())

    def rbd_import(self, file, name=LIMIT_IMAGE):
        """Imports a file with one `rbd import`, as an image like the gateway's; returns the seconds."""
        return self._timed("import", "--object-size", "8M", str(file.path), f"{POOL}/{name}")

    def qemu_convert(self, file, size, name=LIMIT_IMAGE):
        """Converts a qcow2 file with one `qemu-img` to an image like the gateway's; returns the seconds of `qemu-img`."""
        self._timed("create", "--object-size", "8M", "--size", f"{size}B", f"{POOL}/{name}")
        target = f"rbd:{POOL}/{name}:id=admin:conf={self.conf}"
        return run_timed(["qemu-img", "convert", "-n", "-m", "8", "-W", "-f", "qcow2", "-O", "raw", file.path, target])

    def rbd_export(self, image):
        """Exports an image to /dev/null with one `rbd export -`; returns the seconds."""
        return self._timed("export", f"{POOL}/{image}", "-")

    def rbd_remove(self, name=LIMIT_IMAGE):
        """Removes an imported image."""
        self._timed("rm", f"{POOL}/{name}")

    def digest(self, image, algorithm):
        """Digest of an image as `rbd` reads it, in hex."""
        command = self._rbd("export", "--no-progress", f"{POOL}/{image}", "-")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as export:
            value = hashlib.file_digest(export.stdout, algorithm).hexdigest()
        if export.returncode != 0:
            raise Failed(f"rbd export {image}: exit code {export.returncode}")
        return value

    def await_images(self, names):
        """Waits until the pool holds these images and no other, not even in the trash."""
        end = time.monotonic() + REMOVAL_LIMIT_SECONDS
        while True:
            there = set(self._names()) - self._left_behind
            if there == set(names):
                return
            if time.monotonic() > end:
                raise Failed(f"the pool should hold {sorted(names)}, but holds {sorted(there)}")
            time.sleep(0.2)

    def stored_bytes(self):
        """What the pool stores by `ceph df`, as soon as that stands still."""
        end = time.monotonic() + USAGE_LIMIT_SECONDS
        last, since = None, time.monotonic()
        while True:
            now = self._stored_bytes()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= USAGE_STILL_SECONDS:
                return now
            if time.monotonic() > end:
                raise Failed("the use of the pool does not stop changing")
            time.sleep(1)

    def _names(self):
        trash = self._json("trash", "ls", "--all", POOL)
        return self._json("ls", POOL) + [f"{entry['name']} in the trash" for entry in trash]

    def _stored_bytes(self):
        command = ["ceph", "-c", str(self.conf), "--id", "admin", "df", "--format", "json"]
        df = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return next(pool["stats"]["stored"] for pool in df["pools"] if pool["name"] == POOL)

    def _timed(self, verb, *arguments):
        return run_timed(self._rbd(verb, "--no-progress", *arguments))

    def _json(self, *arguments):
        done = subprocess.run(self._rbd(*arguments, "--format", "json"), check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def _rbd(self, *arguments):
        return ["rbd", "-c", str(self.conf), "--id", "admin", *arguments]


def run_timed(command):
    """Runs a command, which has to succeed; returns the seconds."""
    start = time.monotonic()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise Failed(f"{command[0]} {command[1]}: {done.stderr.strip()}")
    return seconds
