"""The machine: what it is, whether it is quiet, and what a process takes of it."""

import os
import platform
import re
import subprocess
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# A machine of which less than this share is busy counts as quiet: an idle cluster takes some per cent.
QUIET_SHARE = 0.10
QUIET_SAMPLE_SECONDS = 0.5


def describe():
    """What the figures were measured on."""
    cpus = Path("/proc/cpuinfo").read_text()
    memory = Path("/proc/meminfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", cpus, re.MULTILINE)
    total = re.search(r"^MemTotal:\s*(\d+) kB$", memory, re.MULTILINE)
    return {
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(total.group(1)) / 2**20, 1),
        "kernel": os.uname().release,
        "ceph": _first_line("ceph", "--version"),
        "curl": " ".join(_first_line("curl", "--version").split()[:2]),
    }


def revision(repo):
    """The commit that was measured; with "-dirty" it is not quite that one."""
    try:
        return _first_line("git", "-C", str(repo), "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None


def await_quiet(limit_seconds):
    """Waits until the machine has little else to do; returns the busy share seen last."""
    end = time.monotonic() + limit_seconds
    while True:
        busy, total = _ticks()
        time.sleep(QUIET_SAMPLE_SECONDS)
        busy_after, total_after = _ticks()
        share = (busy_after - busy) / max(1, total_after - total)
        if share < QUIET_SHARE or time.monotonic() >= end:
            return round(share, 3)


def cpu_seconds(pids):
    """CPU time of these processes so far, user and system."""
    return sum(_process_ticks(pid) for pid in pids) / TICKS_PER_SECOND


def with_descendants(pid):
    """The process and all that it has started."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(_fields(stat)[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found.extend(children.get(each, []))
    return found


def rss_mib(pid):
    """Resident memory now."""
    return _status_mib(pid, "VmRSS")


def peak_rss_mib(pid):
    """Most resident memory since `reset_peak`."""
    return _status_mib(pid, "VmHWM")


def reset_peak(pid):
    """Lets the peak of resident memory begin at what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status_mib(pid, name):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s*(\d+) kB$", status, re.MULTILINE).group(1)) / 1024


def _process_ticks(pid):
    fields = _fields(Path(f"/proc/{pid}/stat"))
    return int(fields[11]) + int(fields[12])


def _fields(stat):
    # The second field, the name in brackets, may hold anything.
    return stat.read_text().rpartition(")")[2].split()


def _ticks():
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    idle, waiting = ticks[3], ticks[4]
    return sum(ticks) - idle - waiting, sum(ticks)


def _first_line(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]
