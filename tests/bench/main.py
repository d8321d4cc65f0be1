"""Runs the benches on servers that run.sh has started; see there for the options."""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import benches
import machine
import metadata
import reference
from cluster import Cluster
from report import Report
from run import QUIET_BEFORE_BENCH_SECONDS, Run, guarded, say

ALL = {**benches.ALL, "requests": metadata.requests, "lists": metadata.lists}


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cluster_folder = options.state / "cluster"
    cluster = Cluster(cluster_folder / "ceph.conf", "rockpool", cluster_folder / "client.rockpool.keyring")
    about = {
        "revision": machine.revision(options.repo),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **machine.describe(),
        "image_mib": options.size_mib,
        "rounds": options.rounds,
    }
    report = Report(about)
    url = database_url(options, "bench")
    run = Run(options.state, options.binary, options.rounds, options.size_mib, cluster, url, report)
    for name in options.only:
        with guarded(run, name, cluster):
            machine.await_quiet(QUIET_BEFORE_BENCH_SECONDS)
            ALL[name](run)
    if options.lab:
        with guarded(run, "the reference", cluster):
            reference.measure(run, database_url(options, "bench_lab"), options.lab, options.lab_state, options.only)
    elif options.reference:
        report.note("The reference was skipped: there is no lab.")
    if run.busy:
        about["busy_before_transfers"] = {"median": sorted(run.busy)[len(run.busy) // 2], "max": max(run.busy)}
        if max(run.busy) > machine.QUIET_SHARE:
            report.note("The machine was not always quiet before a transfer: prefer the ratios to the times.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(report.json())
    print(report.table())
    say(f"The JSON is in {options.out}.")
    return 1 if report.failures else 0


def parse():
    """The command line; run.sh has checked the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", type=bench_names, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--size-mib", type=int, required=True)
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--lab", type=Path)
    parser.add_argument("--lab-state", type=Path)
    return parser.parse_args()


def bench_names(text):
    """The benches that are named, in the order in which they run."""
    names = text.split(",")
    for name in names:
        if name not in ALL:
            raise argparse.ArgumentTypeError(f"there is no bench '{name}', only {', '.join(ALL)}")
    return [name for name in ALL if name in names]


def database_url(options, name):
    """URL of one of the databases that run.sh has made."""
    command = [str(options.repo / "ceph" / "cluster.sh"), "pg-url", str(options.state / "cluster"), name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
