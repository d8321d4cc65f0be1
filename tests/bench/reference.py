"""The gateway beside the reference Glance of the lab: both on the lab's Ceph, in turn."""

import os
import subprocess
from pathlib import Path

import machine
import metadata
from benches import AT_ONCE, GIB, upload_at_once
from cluster import Cluster
from gateway import Gateway
from report import at_least
from run import guarded, in_turn, mb_per_s, measured, ratios, say_round
from service import Service, check_record

PARALLEL_RATIO = at_least(1.35)
SPARSE_RATIO = at_least(2.5)
# The lab's names for the reference's configurations.
LEAN, THIN = "bench", "thin"
USER = "demo"
# What the lab calls its own, as its README says.
SERVICE_USER, PASSWORD = "glance", "lab-secret"
GATEWAY, REFERENCE = "gateway", "reference"


class Glance(Service):
    """The reference."""

    def __init__(self, lab):
        super().__init__(f"http://127.0.0.1:{os.environ['LAB_GL_PORT']}", lab.output("token", USER))
        self._pid_file = lab.state / "run" / "glance1.pid"

    def pids(self):
        return machine.with_descendants(int(self._pid_file.read_text()))


class Lab:
    """The lab; its state folder and ports are in the environment."""

    def __init__(self, folder, state):
        self.state = state
        self._program = folder / "lab"
        ceph = state / "ceph"
        self.cluster = Cluster(ceph / "ceph.conf", "glance", ceph / "client.glance.keyring")

    def command(self, *arguments):
        """Runs one of the lab's commands; what it says goes where our own progress goes."""
        subprocess.run([str(self._program), *arguments], check=True, stdout=2, stdin=subprocess.DEVNULL)

    def identity(self):
        """The configuration of a gateway that asks the lab's Keystone, and a token."""
        section = f'''\
[identity]
mode = "keystone"
[identity.keystone]
auth_url = "http://127.0.0.1:{os.environ['LAB_KS_PORT']}/v3"
username = "{SERVICE_USER}"
password = "{PASSWORD}"
project_name = "service"
'''
        return section, self.output("token", USER)

    def output(self, *arguments):
        """Runs one of the lab's commands and returns what it prints."""
        done = subprocess.run([str(self._program), *arguments], check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()


def measure(run, database_url, folder, state, wanted):
    """All that is wanted and that the reference can do."""
    lab = Lab(Path(folder), Path(state))
    lab.command("up", LEAN)
    with Gateway(run, lab.cluster, database_url, identity=lab.identity()) as gateway:
        for name, bench, profile in BENCHES:
            if name in wanted:
                lab.command("glance", "up", profile)
                with guarded(run, f"{name} beside the reference", lab.cluster):
                    bench(run, lab.cluster, {GATEWAY: gateway, REFERENCE: Glance(lab)})


def _one_upload(run, cluster, services, bench, file, chunked=False):
    """Uploads by both in turn; returns the seconds."""
    seconds, cpu = ({side: [] for side in services} for _ in range(2))
    file.warm()
    for number in range(run.rounds):
        for side in in_turn(list(services), number):
            run.settle(cluster)
            service = services[side]
            image = service.create()
            with measured(service, cpu[side]):
                seconds[side].append(service.upload(image, file, chunked).seconds)
            check_record(service, image, file)
            service.delete(image)
        say_round(bench, number, seconds)
    run.settle(cluster)
    for side in services:
        run.report.add(bench, side, "CPU s/GiB", [each / file.size * GIB for each in cpu[side]])
        run.report.add(bench, side, "MB/s", mb_per_s(file.size, seconds[side]))
    return seconds


def _upload(run, cluster, services):
    seconds = _one_upload(run, cluster, services, "upload (reference)", run.dense)
    _add_ratio(run, "upload (reference)", seconds)


def _chunked(run, cluster, services):
    seconds = _one_upload(run, cluster, services, "chunked (reference)", run.dense, chunked=True)
    _add_ratio(run, "chunked (reference)", seconds)


def _sparse(run, cluster, services):
    seconds = _one_upload(run, cluster, services, "sparse (reference)", run.scattered)
    _add_ratio(run, "sparse (reference)", seconds, SPARSE_RATIO)


def _parallel(run, cluster, services):
    bench = "parallel (reference)"
    seconds, uneven = ({side: [] for side in services} for _ in range(2))
    run.dense.warm()
    for number in range(run.rounds):
        for side in in_turn(list(services), number):
            run.settle(cluster)
            wall, each = upload_at_once(services[side], run.dense)
            seconds[side].append(wall)
            uneven[side].append(max(each) / min(each))
        say_round(bench, number, seconds)
    run.settle(cluster)
    for side in services:
        run.report.add(bench, side, "MB/s, all together", mb_per_s(AT_ONCE * run.dense.size, seconds[side]))
        run.report.add(bench, side, "slowest to fastest", uneven[side], of_rounds="max")
    _add_ratio(run, bench, seconds, PARALLEL_RATIO)


def _download(run, cluster, services):
    bench = "download (reference)"
    seconds = {side: [] for side in services}
    images = {}
    for side, service in services.items():
        images[side] = service.create()
        service.upload(images[side], run.dense)
        # Once without measuring, as in the bench without the reference.
        service.download(images[side], run.dense.size)
    for number in range(run.rounds):
        for side in in_turn(list(services), number):
            run.settle(cluster, images.values())
            seconds[side].append(services[side].download(images[side], run.dense.size).seconds)
        say_round(bench, number, seconds)
    for side, service in services.items():
        service.delete(images[side])
        run.report.add(bench, side, "MB/s", mb_per_s(run.dense.size, seconds[side]))
    run.settle(cluster)
    _add_ratio(run, bench, seconds)


def _requests(run, cluster, services):
    bench = "requests (reference)"
    rates = metadata.measure(run, bench, services)
    for kind, target in metadata.RATIOS.items():
        values = [ours / theirs for ours, theirs in zip(rates[kind][GATEWAY], rates[kind][REFERENCE])]
        run.report.add(bench, GATEWAY, f"{kind}, ratio to the reference", values, target)
    run.settle(cluster)


def _add_ratio(run, bench, seconds, target=None):
    run.report.add(bench, GATEWAY, "ratio to the reference", ratios(seconds[REFERENCE], seconds[GATEWAY]), target)


# Those of the same profile one after the other: changing it restarts the reference.
BENCHES = [
    ("upload", _upload, LEAN),
    ("chunked", _chunked, LEAN),
    ("parallel", _parallel, LEAN),
    ("download", _download, LEAN),
    ("requests", _requests, LEAN),
    ("sparse", _sparse, THIN),
]
