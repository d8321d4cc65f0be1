"""An Image API service as its clients see it: the gateway or the reference."""

import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

API_TIMEOUT_SECONDS = 60
TRANSFER_LIMIT_SECONDS = 1800
SENT_POLL_SECONDS = 0.01
STATUS_POLL_SECONDS = 0.05


class Failed(Exception):
    """A request or a transfer did not do what it should."""


@dataclass
class Transfer:
    """What one curl took, by the clock on the wall: from its start to its exit."""

    seconds: float
    # Until curl had read the last byte of the file that it uploaded; the answer comes later.
    sent_seconds: float | None
    # By curl's own clock: without the start of its process.
    curl_seconds: float


class Service:
    """A base URL, a token, and the processes that serve it."""

    def __init__(self, url, token):
        self.url = url
        self.token = token

    def pids(self):
        """The processes whose CPU time is the service's."""
        raise NotImplementedError

    def request(self, method, path, body=None):
        """One small request; returns the JSON of the answer."""
        headers = {"X-Auth-Token": self.token, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=API_TIMEOUT_SECONDS) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {self.url}{path}: {error.code} {error.read()[:300]!r}") from error
        except OSError as error:
            raise Failed(f"{method} {self.url}{path}: {error}") from error
        return json.loads(text) if text.startswith((b"{", b"[")) else None

    def create(self, disk_format="raw"):
        """A new image record; returns its id."""
        record = {"name": "bench", "disk_format": disk_format, "container_format": "bare"}
        return self.request("POST", "/v2/images", record)["id"]

    def show(self, image):
        """The record of an image."""
        return self.request("GET", f"/v2/images/{image}")

    def delete(self, image):
        """Deletes an image."""
        self.request("DELETE", f"/v2/images/{image}")

    def upload(self, image, file, chunked=False):
        """Uploads a file with one curl; `chunked` without saying its length."""
        command = ["-T", str(file.path), "-X", "PUT", "-H", "Content-Type: application/octet-stream", "-H", "Expect:"]
        if chunked:
            command += ["-H", "Transfer-Encoding: chunked"]
        return self._curl(image, command, expected=(204, file.size, 0), source=file)

    def stage(self, image, file):
        """Uploads a file with one curl to be imported; returns the seconds."""
        command = ["-T", str(file.path), "-X", "PUT", "-H", "Content-Type: application/octet-stream", "-H", "Expect:"]
        return self._curl(image, command, expected=(204, file.size, 0), source=file, to="stage").seconds

    def import_staged(self, image):
        """Imports what was staged; returns the seconds until the image is active."""
        start = time.monotonic()
        self.request("POST", f"/v2/images/{image}/import", {"method": {"name": "glance-direct"}})
        while (record := self.show(image))["status"] != "active":
            if record["status"] != "importing" or time.monotonic() - start > TRANSFER_LIMIT_SECONDS:
                raise Failed(f"the import ended with {record}")
            time.sleep(STATUS_POLL_SECONDS)
        return time.monotonic() - start

    def download(self, image, size, start=None):
        """Downloads the image with one curl to /dev/null; with `start`, only `size` bytes from there."""
        command, status = [], 200
        if start is not None:
            command, status = ["-r", f"{start}-{start + size - 1}"], 206
        return self._curl(image, command, expected=(status, 0, size))

    def read(self, image, size, start=None):
        """The bytes of a download, chunk by chunk, for a look at them: not measured."""
        request = urllib.request.Request(f"{self.url}/v2/images/{image}/file", headers={"X-Auth-Token": self.token})
        if start is not None:
            request.add_header("Range", f"bytes={start}-{start + size - 1}")
        with urllib.request.urlopen(request, timeout=API_TIMEOUT_SECONDS) as answer:
            while chunk := answer.read(2**20):
                yield chunk

    def _curl(self, image, options, expected, source=None, to="file"):
        command = ["curl", "-sS", "--max-time", str(TRANSFER_LIMIT_SECONDS), "-o", "/dev/null"]
        command += ["-w", "%{http_code} %{size_upload} %{size_download} %{time_total}"]
        command += ["-H", f"X-Auth-Token: {self.token}", *options, f"{self.url}/v2/images/{image}/{to}"]
        start = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as curl:
            sent = Sent(curl.pid, source, start) if source else None
            output, errors = curl.communicate()
            seconds = time.monotonic() - start
        if curl.returncode != 0:
            raise Failed(f"curl {self.url}: exit code {curl.returncode}: {errors.strip()}")
        status, up, down, curl_seconds = output.split()
        # What curl counts of a chunked upload includes the framing; the image's record tells its size.
        up = min(int(up), source.size) if source else int(up)
        got = (int(status), up, int(down))
        if got != expected:
            raise Failed(f"curl {self.url}: expected status, bytes up, bytes down {expected}, got {got}")
        return Transfer(seconds, sent.seconds() if sent else None, float(curl_seconds))


class Sent(threading.Thread):
    """Watches how far another process has got in reading a file."""

    def __init__(self, pid, file, start):
        super().__init__(daemon=True)
        self._pid, self._file, self._start = pid, file, start
        self._seconds = None
        self.start()

    def run(self):
        try:
            while self._position() < self._file.size:
                time.sleep(SENT_POLL_SECONDS)
            self._seconds = time.monotonic() - self._start
        except OSError:
            # The process has ended: it was faster than we looked.
            pass

    def seconds(self):
        """When the last byte was read; `None` if that was missed."""
        self.join()
        return self._seconds

    def _position(self):
        folder = f"/proc/{self._pid}"
        for number in os.listdir(f"{folder}/fd"):
            try:
                if os.readlink(f"{folder}/fd/{number}") == str(self._file.path):
                    with open(f"{folder}/fdinfo/{number}", encoding="ascii") as info:
                        return int(info.readline().split()[1])
            except FileNotFoundError:
                # Closed between the listing and the look.
                continue
        # Not opened yet, or closed again; a process that is gone has no folder.
        return 0


def check_record(service, image, file):
    """Compares the digests and the size in the image's record with the file; says whether there were any digests."""
    record = service.show(image)
    if record["status"] != "active" or record["size"] != file.size:
        raise Failed(f"{service.url}: the image is {record['status']} with {record['size']} bytes, not {file.size}")
    known = {"md5": record.get("checksum"), record.get("os_hash_algo"): record.get("os_hash_value")}
    known = {algorithm: value for algorithm, value in known.items() if algorithm and value}
    for algorithm, value in known.items():
        if value != file.digest(algorithm):
            raise Failed(f"{service.url}: the {algorithm} of the image is not that of the file")
    return bool(known)
