"""What all benches of one run share."""

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import files
import machine
from cluster import Cluster
from gateway import Gateway
from report import Report

QUIET_BEFORE_BENCH_SECONDS = 30
QUIET_BEFORE_TRANSFER_SECONDS = 5


@dataclass
class Run:
    """The settings of a run, its files and its report."""

    state: Path
    binary: Path
    rounds: int
    size_mib: int
    cluster: Cluster
    database_url: str
    report: Report
    busy: list = field(default_factory=list)

    @cached_property
    def dense(self):
        """An image without a hole."""
        return files.dense(self.state, self.size_mib)

    @cached_property
    def scattered(self):
        """A sparse image with data all over."""
        return files.scattered(self.state, self.size_mib)

    @cached_property
    def centred(self):
        """A sparse image with data in the middle."""
        return files.centred(self.state, self.size_mib)

    @cached_property
    def wordy(self):
        """A sparse image that compresses."""
        return files.wordy(self.state, self.size_mib)

    def gateway(self, **options):
        """A gateway on the run's own cluster."""
        return Gateway(self, self.cluster, self.database_url, **options)

    def settle(self, cluster, images=()):
        """Waits until nothing of the last transfer is left but these images, and the machine is quiet."""
        cluster.await_images(images)
        self.busy.append(machine.await_quiet(QUIET_BEFORE_TRANSFER_SECONDS))


@contextmanager
def measured(service, cpu):
    """Appends the CPU seconds that the service takes in the block."""
    before = machine.cpu_seconds(service.pids())
    yield
    cpu.append(machine.cpu_seconds(service.pids()) - before)


@contextmanager
def guarded(run, name, cluster):
    """Lets the other benches go on when one fails."""
    say(f"{name} ...")
    try:
        yield
    except Exception as error:  # Whatever it is, it belongs into the report.
        run.report.fail(name, error)
        say(f"FAILED: {name}: {error}")
        cluster.ignore_what_is_there()


def in_turn(sides, round_number):
    """The sides of a comparison in an order that differs from round to round: A B C, B C A, ..."""
    shift = round_number % len(sides)
    return sides[shift:] + sides[:shift]


def ratios(limit_seconds, seconds):
    """How many times as fast as the limit, round by round."""
    return [limit / ours for limit, ours in zip(limit_seconds, seconds)]


def mb_per_s(size, seconds):
    """Throughput of each round, in 10^6 bytes a second."""
    return [size / 1e6 / each for each in seconds]


def say(text):
    """Progress, for whoever waits."""
    print(f"[bench {time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def say_round(bench, number, seconds):
    """What the last round took."""
    say(f"{bench} {number + 1}: " + ", ".join(f"{side} {each[-1]:.2f} s" for side, each in seconds.items()))
