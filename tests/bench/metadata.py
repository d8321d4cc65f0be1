"""Requests without data: how many a second, and how long pages take among many images."""

import http.client
import statistics
import subprocess
import time
import urllib.parse

import machine
from report import at_least, at_most
from run import in_turn, say
from service import Failed

THREADS, CONNECTIONS = 2, 16
LOAD_SECONDS = 8
# What the reference's own bench lists a page of.
PAGE_IMAGES = 40
RECORD = '{"name":"bench-requests","disk_format":"raw","container_format":"bare","os_distro":"debian","hw_disk_bus":"scsi","tags":["bench"]}'

# Ratios to the reference, and the memory of the gateway under this load.
RATIOS = {"show": at_least(15), "page of 25": at_least(15), "create": at_least(8), "delete": at_least(8)}
LOADED_MIB = at_most(80)

FEW, MANY = 1_000, 100_000
LATENCY_REQUESTS = 300
PAGE_P99_MS = at_most(10)
MANY_TO_FEW = at_most(1.5)
WALK_SECONDS = at_most(6)

CREATE = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '%s'
"""
# Each thread has its share of the ids, and stops when none is left.
DELETE = """
local threads = 0
function setup(thread) thread:set("share", threads); threads = threads + 1 end
function init()
  ids, next_id = {}, 0
  local line_number = 0
  for line in io.lines("%s") do
    if line_number %% %d == share then ids[#ids + 1] = line end
    line_number = line_number + 1
  end
end
function request()
  if next_id >= #ids then wrk.thread:stop() else next_id = next_id + 1 end
  return wrk.format("DELETE", "/v2/images/" .. ids[next_id])
end
"""
# Latencies in microseconds; what was not answered as it should be counts as an error.
DONE = """
function done(summary, latency, requests)
  io.write(string.format("result %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


def load(run, service, path, script="", seconds=LOAD_SECONDS):
    """Requests on 16 connections; returns how many a second, and p50 and p99 in ms."""
    lua = run.state / "wrk.lua"
    lua.write_text(script + DONE)
    command = ["wrk", f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(lua)]
    command += ["-H", f"X-Auth-Token: {service.token}", service.url + path]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = next((line.split()[1:] for line in output.splitlines() if line.startswith("result ")), None)
    if result is None:
        raise Failed(f"wrk printed no result: {output}")
    count, duration_us, p50_us, p99_us, errors = map(int, result)
    if errors:
        raise Failed(f"{service.url}{path}: {errors} of {count} requests failed")
    return count / (duration_us / 1e6), p50_us / 1000, p99_us / 1000


def requests(run):
    """Show, page, create and delete, one after the other."""
    with run.gateway() as gateway:
        measure(run, "requests", {"gateway": gateway})


def measure(run, bench, services):
    """The same of one service or of several in turn; returns the rates of each by kind of request."""
    rates = {kind: {side: [] for side in services} for kind in RATIOS}
    latencies = {kind: {side: [] for side in services} for kind in RATIOS}
    resident = []
    shown = {side: [service.create() for _ in range(PAGE_IMAGES)][-1] for side, service in services.items()}

    def one(kind, side, *arguments, **options):
        rate, _, p99_ms = load(run, services[side], *arguments, **options)
        rates[kind][side].append(rate)
        latencies[kind][side].append(p99_ms)

    for number in range(run.rounds):
        for side in in_turn(list(services), number):
            machine.await_quiet(5)
            one("show", side, f"/v2/images/{shown[side]}")
            one("page of 25", side, "/v2/images?limit=25")
            one("create", side, "/v2/images", CREATE % RECORD)
            if side == "gateway":
                resident.append(machine.rss_mib(services[side].pid))
            delete_all(run, services[side], lambda *arguments, **options: one("delete", side, *arguments, **options))
        say(f"{bench} {number + 1}: " + "; ".join(
            f"{kind} " + ", ".join(f"{side} {each[-1]:.0f}/s" for side, each in sides.items()) for kind, sides in rates.items()))
    for service, image in zip(services.values(), shown.values()):
        service.delete(image)
    for kind in RATIOS:
        for side in services:
            run.report.add(bench, side, f"{kind}, requests/s", rates[kind][side])
            run.report.add(bench, side, f"{kind}, p99 ms", latencies[kind][side])
    run.report.add(bench, "gateway", "RSS in MiB", resident, LOADED_MIB, of_rounds="max")
    return rates


def delete_all(run, service, measured):
    """Deletes what the creation has made: most of it under measurement."""
    ids, path = [], "/v2/images?limit=1000&name=bench-requests"
    while path:
        page = service.request("GET", path)
        ids += [image["id"] for image in page["images"]]
        path = page.get("next")
    listed = run.state / "ids"
    listed.write_text("".join(f"{image}\n" for image in ids))
    measured("/", DELETE % (listed, THREADS), seconds=max(2, LOAD_SECONDS // 2))
    while True:
        page = service.request("GET", "/v2/images?limit=1000&name=bench-requests")["images"]
        if not page:
            return
        for image in page:
            try:
                service.delete(image["id"])
            except Failed as error:
                # wrk goes away without waiting for its last answers.
                if ": 404 " not in str(error):
                    raise


def lists(run):
    """Pages among 1,000 and among 100,000 images of one project, on one connection."""
    latencies, walks = {}, []
    for count in (FEW, MANY):
        with run.gateway() as gateway:
            seed(run, count)
            for name, path in pages(gateway, count).items():
                latencies.setdefault(name, []).append(latency(gateway, path))
            if count == MANY:
                walks = [walk(gateway, count) for _ in range(run.rounds)]
                resident = machine.rss_mib(gateway.pid)
            unseed(run)
    add = run.report.add
    for name, (few, many) in latencies.items():
        add("lists", f"{name}, {MANY:,} images", "p99 ms", [percentile(many, 99)], PAGE_P99_MS)
        add("lists", f"{name}, {MANY:,} images", "p50 ms", [statistics.median(many)])
        add("lists", name, f"p50 at {MANY:,} to p50 at {FEW:,}", [statistics.median(many) / statistics.median(few)], MANY_TO_FEW)
    add("lists", f"all {MANY:,} in pages of 1000", "s", walks, WALK_SECONDS)
    add("lists", "afterwards", "RSS in MiB", [resident], LOADED_MIB)


def pages(gateway, count):
    """The pages to ask for, by name."""
    deep = gateway.request("GET", f"/v2/images?limit=1&name=bench-{count // 2}")["images"][0]["id"]
    return {
        "default order": "/v2/images?limit=25",
        "by name": "/v2/images?limit=25&sort=name:asc",
        "by tag": "/v2/images?limit=25&tag=bench",
        "by rare tag": "/v2/images?limit=25&tag=rare-7",
        "by property": "/v2/images?limit=25&os_distro=debian",
        "by rare property": "/v2/images?limit=25&os_version=7",
        "deep in the list": f"/v2/images?limit=25&marker={deep}",
        "deep by name": f"/v2/images?limit=25&sort=name:asc&marker={deep}",
    }


def latency(gateway, path):
    """Milliseconds of each of many requests for the same page, one after the other."""
    address = urllib.parse.urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    took = []
    for _ in range(LATENCY_REQUESTS):
        start = time.perf_counter()
        connection.request("GET", path, headers={"X-Auth-Token": gateway.token})
        answer = connection.getresponse()
        answer.read()
        took.append((time.perf_counter() - start) * 1000)
        if answer.status != 200:
            raise Failed(f"GET {path}: {answer.status}")
    connection.close()
    # The first opens connections and prepares statements.
    return took[10:]


def percentile(values, percent):
    """The value that so many per cent do not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def walk(gateway, count):
    """Seconds for the whole listing."""
    start, seen, path = time.monotonic(), 0, "/v2/images?limit=1000"
    while path:
        page = gateway.request("GET", path)
        seen += len(page["images"])
        path = page.get("next")
    if seen != count:
        raise Failed(f"the whole listing has {seen} images, not {count}")
    return time.monotonic() - start


def seed(run, count):
    """Images with three properties, two tags and a location each, as if they had been uploaded. A hundred share each rare
    value, so that a page of them is as long among few as among many."""
    sql(run, f"""
        CREATE TEMPORARY TABLE seeded AS SELECT gen_random_uuid() AS id, n FROM generate_series(1, {count}) n;
        INSERT INTO image_ids SELECT id FROM seeded;
        INSERT INTO images (id, status, name, visibility, owner, protected, hidden, container_format, disk_format, min_disk_gib, min_ram_mib,
            size_bytes, virtual_size_bytes, checksum, os_hash_algo, os_hash_value, created_at, updated_at)
          SELECT id, 'active', 'bench-' || n, 'shared', 'p-bench', false, false, 'bare', 'raw', 0, 0, 1073741824, 1073741824, md5(n::text), 'sha512',
            repeat(md5(n::text), 4), now() - n * interval '1 second', now() - n * interval '1 second' FROM seeded;
        INSERT INTO image_properties (image_id, name, value) SELECT id, 'os_distro', 'debian' FROM seeded
          UNION ALL SELECT id, 'hw_disk_bus', 'scsi' FROM seeded UNION ALL SELECT id, 'os_version', (n % ({count} / 100))::text FROM seeded;
        INSERT INTO image_tags (image_id, value) SELECT id, 'bench' FROM seeded UNION ALL SELECT id, 'rare-' || n % ({count} / 100) FROM seeded;
        INSERT INTO image_locations (image_id, store, url) SELECT id, 'ceph', 'rbd://fsid/images/' || id || '/snap' FROM seeded""")
    # Postgres does this by itself within a minute.
    sql(run, "VACUUM ANALYZE images, image_properties, image_tags, image_locations")


def unseed(run):
    """Removes them again."""
    sql(run, "DELETE FROM images WHERE name LIKE 'bench-%'")
    sql(run, "VACUUM ANALYZE images, image_properties, image_tags, image_locations")


def sql(run, text):
    """Statements on the gateway's database."""
    subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", run.database_url, "-c", text], check=True)
