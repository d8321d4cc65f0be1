"""Gateways under measurement."""

import hashlib
import socket
import subprocess
import time
import urllib.request

from service import Failed, Service

START_LIMIT_SECONDS = 30
STOP_LIMIT_SECONDS = 30
TOKEN = "bench-token-41d7"

# What differs from the default configuration in [images].
HASHES = {
    "MD5 + SHA-512": "",
    "SHA-512": "checksum = false\n",
    "no hashes": 'checksum = false\nhashing_algorithm = "none"\n',
    "MD5 + SHA-256": 'hashing_algorithm = "sha256"\n',
}
DEFAULT = "MD5 + SHA-512"
NO_HASHES = "no hashes"


class Gateway(Service):
    """A running gateway; `with` stops it."""

    def __init__(self, run, cluster, database_url, hashes=DEFAULT, identity=None):
        identity, token = identity or (_local_identity(), TOKEN)
        with socket.socket() as probe:
            # A port that was free a moment ago.
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        super().__init__(f"http://{address}", token)
        folder = run.state / f"gateway-{address.rpartition(':')[2]}"
        folder.mkdir()
        self._log = folder / "log"
        config = folder / "rockpool.toml"
        config.write_text(_config(address, cluster, database_url, HASHES[hashes], identity))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(run.binary), "serve", "--config", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self):
        """Its process id."""
        return self._process.pid

    def pids(self):
        return [self.pid]

    def log_end(self, lines=15):
        """The last it had to say."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self):
        """Stops it as an administrator would."""
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _await_ready(self):
        end = time.monotonic() + START_LIMIT_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                    answer.read()
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise Failed(f"the gateway is not ready: {error}\n{self.log_end()}") from error
                time.sleep(0.05)


def _config(address, cluster, database_url, images, identity):
    return f"""\
[server]
listen = "{address}"
[catalog]
url = "{database_url}"
[stores.ceph]
ceph_conf = "{cluster.conf}"
user = "{cluster.user}"
keyring = "{cluster.keyring}"
[images]
{images}
{identity}"""


def _local_identity():
    token = hashlib.sha256(TOKEN.encode()).hexdigest()
    return f"""\
[identity]
mode = "local"
[[identity.users]]
id = "u-bench"
name = "bench"
[[identity.projects]]
id = "p-bench"
name = "bench"
[[identity.tokens]]
sha256 = "{token}"
user = "bench"
project = "bench"
roles = ["member"]
"""
