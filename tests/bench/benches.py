"""The benches that need no other service: the gateway beside what `rbd` does with the same cluster.

Each takes the run, measures in rounds, one side after the other, and adds its figures to the report.
The bounds are those of the project's first issue, section 11.
"""

import hashlib
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import files
import machine
from gateway import DEFAULT, HASHES, NO_HASHES
from report import at_least, at_most
from run import in_turn, mb_per_s, measured, ratios, say, say_round
from service import Failed, check_record

GIB = 2**30
AT_ONCE = 4
RANGE_BYTES = 8 * files.MIB
RANGE_WARM_UPS = 3
RANGES = 20
FEW_REQUESTS = 20
IDLE_AGAIN_SECONDS = 5

UPLOAD_RATIOS = {DEFAULT: at_least(0.48), "SHA-512": at_least(0.62), NO_HASHES: at_least(0.83)}
UPLOAD_CPU = at_most(3.4)
DOWNLOAD_RATIO = at_least(1.1)
# "None starved", in figures: the slowest of them takes at most twice as long as the fastest.
SLOWEST_TO_FASTEST = at_most(2)
RANGE_MS = at_most(30)
# The source of an import is in Ceph, that of qemu-img on disk.
CONVERT_RATIOS = {"plain": at_least(0.5), "deflate": at_least(1.5), "zstd": at_least(1.5)}
GROWTH = at_most(1.05)
IDLE_MIB = at_most(40)
TRANSFER_MIB = at_most(64)


def upload(run):
    """One upload by one curl, beside `rbd import`, with each choice of hashes."""
    _uploads(run, "upload", list(HASHES), chunked=False)


def chunked(run):
    """The same without a Content-Length."""
    _uploads(run, "chunked", [DEFAULT], chunked=True)


def _uploads(run, bench, choices, chunked):
    limit = "rbd import"
    seconds, sent, cpu = ({side: [] for side in [limit, *choices]} for _ in range(3))
    with ExitStack() as stack:
        gateways = {hashes: stack.enter_context(run.gateway(hashes=hashes)) for hashes in choices}
        run.dense.warm()
        for number in range(run.rounds):
            for side in in_turn([limit, *choices], number):
                run.settle(run.cluster)
                if side == limit:
                    seconds[side].append(run.cluster.rbd_import(run.dense))
                    run.cluster.rbd_remove()
                    continue
                gateway = gateways[side]
                image = gateway.create()
                with measured(gateway, cpu[side]):
                    transfer = gateway.upload(image, run.dense, chunked)
                seconds[side].append(transfer.seconds)
                sent[side].append(transfer.sent_seconds)
                check_upload(run, gateway, image, number)
                gateway.delete(image)
            say_round(bench, number, seconds)
        run.settle(run.cluster)
    size, add = run.dense.size, run.report.add
    add(bench, limit, "MB/s", mb_per_s(size, seconds[limit]))
    for side in choices:
        # What a chunked upload has to reach is not said; it is shown beside the same bounds.
        add(bench, side, "ratio to rbd import", ratios(seconds[limit], seconds[side]), UPLOAD_RATIOS.get(side))
        add(bench, side, "CPU s/GiB", [each / size * GIB for each in cpu[side]], UPLOAD_CPU)
        add(bench, side, "MB/s", mb_per_s(size, seconds[side]))
        if all(sent[side]):
            add(bench, side, "MB/s until all is sent", mb_per_s(size, sent[side]))


def check_upload(run, service, image, number):
    """Is what was uploaded what was to be uploaded? Where no digest says so, the first image is read back."""
    if not check_record(service, image, run.dense) and number == 0:
        if run.cluster.digest(image, "sha256") != run.dense.digest("sha256"):
            raise Failed(f"the bytes in {image} are not those that were uploaded")


def parallel(run):
    """Four uploads at once, beside four `rbd import` at once."""
    walls = {"rbd import": [], DEFAULT: []}
    uneven, cpu = [], []
    names = [f"bench-limit-{number}" for number in range(AT_ONCE)]
    with run.gateway() as gateway:
        run.dense.warm()
        for number in range(run.rounds):
            for side in in_turn(list(walls), number):
                run.settle(run.cluster)
                if side == DEFAULT:
                    with measured(gateway, cpu):
                        wall, each = upload_at_once(gateway, run.dense)
                    uneven.append(max(each) / min(each))
                else:
                    wall, _ = at_once(lambda name: run.cluster.rbd_import(run.dense, name), names)
                    for name in names:
                        run.cluster.rbd_remove(name)
                walls[side].append(wall)
            say_round("parallel", number, walls)
        run.settle(run.cluster)
    size, add = AT_ONCE * run.dense.size, run.report.add
    add("parallel", f"{AT_ONCE} rbd import", "MB/s, all together", mb_per_s(size, walls["rbd import"]))
    add("parallel", f"{AT_ONCE} uploads", "MB/s, all together", mb_per_s(size, walls[DEFAULT]))
    add("parallel", f"{AT_ONCE} uploads", "ratio to rbd import", ratios(walls["rbd import"], walls[DEFAULT]))
    add("parallel", f"{AT_ONCE} uploads", "slowest to fastest", uneven, SLOWEST_TO_FASTEST, of_rounds="max")
    add("parallel", f"{AT_ONCE} uploads", "CPU s/GiB", [each / size * GIB for each in cpu])


def at_once(work, items):
    """Does the work on all items side by side; returns the seconds of all together, and what each returned."""
    with ThreadPoolExecutor(len(items)) as pool:
        start = time.monotonic()
        results = list(pool.map(work, items))
        return time.monotonic() - start, results


def upload_at_once(service, file, count=AT_ONCE):
    """Uploads side by side; returns the seconds of all together and of each, and deletes the images."""
    images = [service.create() for _ in range(count)]
    wall, transfers = at_once(lambda image: service.upload(image, file), images)
    for image in images:
        check_record(service, image, file)
        service.delete(image)
    return wall, [transfer.seconds for transfer in transfers]


def download(run):
    """One download by one curl, beside `rbd export -` of the same image."""
    seconds, cpu = {"rbd export": [], "gateway": []}, []
    with run.gateway() as gateway:
        image = gateway.create()
        gateway.upload(image, run.dense)
        check_download(gateway, image, run.dense)
        # Once each without measuring: what was just written is not yet in the OSD's cache.
        run.cluster.rbd_export(image)
        for number in range(run.rounds):
            for side in in_turn(list(seconds), number):
                run.settle(run.cluster, [image])
                if side == "rbd export":
                    seconds[side].append(run.cluster.rbd_export(image))
                else:
                    with measured(gateway, cpu):
                        seconds[side].append(gateway.download(image, run.dense.size).seconds)
            say_round("download", number, seconds)
        gateway.delete(image)
        run.settle(run.cluster)
    size, add = run.dense.size, run.report.add
    add("download", "rbd export", "MB/s", mb_per_s(size, seconds["rbd export"]))
    add("download", "gateway", "ratio to rbd export", ratios(seconds["rbd export"], seconds["gateway"]), DOWNLOAD_RATIO)
    add("download", "gateway", "CPU s/GiB", [each / size * GIB for each in cpu])
    add("download", "gateway", "MB/s", mb_per_s(size, seconds["gateway"]))


def check_download(service, image, file):
    """Is what comes back what was uploaded?"""
    digest = hashlib.sha256()
    for chunk in service.read(image, file.size):
        digest.update(chunk)
    if digest.hexdigest() != file.digest("sha256"):
        raise Failed(f"{service.url}: the bytes of the download are not those of the file")


def range_reads(run):
    """8 MiB from the middle of a large image, each on a connection of its own."""
    file, places = run.centred, random.Random(files.SEED)
    middle, reach = file.size // 2, (file.data_bytes - RANGE_BYTES) // 2
    scattered = [middle + places.randrange(-reach, reach) for _ in range(RANGES)]
    offsets = {
        "from the middle": [middle] * RANGES,
        "of whole objects": [offset // RANGE_BYTES * RANGE_BYTES for offset in scattered],
        "across objects": scattered,
    }
    took = {}
    with run.gateway(hashes=NO_HASHES) as gateway:
        image = gateway.create()
        gateway.upload(image, file)
        for offset in (middle, offsets["across objects"][0]):
            if b"".join(gateway.read(image, RANGE_BYTES, offset)) != file.read(offset, RANGE_BYTES):
                raise Failed(f"the bytes from {offset} on are not those of the file")
        for case, starts in offsets.items():
            run.settle(run.cluster, [image])
            for _ in range(RANGE_WARM_UPS):
                gateway.download(image, RANGE_BYTES, starts[0])
            took[case] = [gateway.download(image, RANGE_BYTES, start).curl_seconds * 1000 for start in starts]
        gateway.delete(image)
        run.settle(run.cluster)
    for case, ms in took.items():
        run.report.add("range", f"8 MiB {case}", "ms to the last byte", ms, RANGE_MS)


def sparse(run):
    """A large image with 5 % data, beside `rbd import`, which leaves holes out as well."""
    file, growth = run.scattered, []
    seconds, cpu = {"rbd import": [], DEFAULT: []}, []
    with run.gateway() as gateway:
        file.warm()
        for number in range(run.rounds):
            for side in in_turn(list(seconds), number):
                run.settle(run.cluster)
                if side == "rbd import":
                    seconds[side].append(run.cluster.rbd_import(file))
                    run.cluster.rbd_remove()
                    continue
                before = run.cluster.stored_bytes()
                image = gateway.create()
                with measured(gateway, cpu):
                    seconds[side].append(gateway.upload(image, file).seconds)
                growth.append((run.cluster.stored_bytes() - before) / file.data_bytes)
                check_record(gateway, image, file)
                gateway.delete(image)
            say_round("sparse", number, seconds)
        run.settle(run.cluster)
    add, case = run.report.add, f"{file.size / GIB:g} GiB, 5 % data"
    add("sparse", case, "pool growth per byte of data", growth, GROWTH, of_rounds="max")
    add("sparse", case, "ratio to rbd import", ratios(seconds["rbd import"], seconds[DEFAULT]))
    add("sparse", case, "s", seconds[DEFAULT])
    add("sparse", case, "CPU s/GiB", [each / file.size * GIB for each in cpu])


def convert(run):
    """Staged qcow2 becomes raw by an import, beside one `qemu-img convert` of the same file to the same pool."""
    disk, limit, choices = run.wordy, "qemu-img", [DEFAULT, NO_HASHES]
    images = {
        "plain": files.qcow2(disk, "plain"),
        "deflate": files.qcow2(disk, "deflate", "-c"),
        "zstd": files.qcow2(disk, "zstd", "-c", "-o", "compression_type=zstd"),
    }
    with ExitStack() as stack:
        gateways = {hashes: stack.enter_context(run.gateway(hashes=hashes)) for hashes in choices}
        for case, file in images.items():
            seconds, staged, cpu = ({side: [] for side in [limit, *choices]} for _ in range(3))
            file.warm()
            for number in range(run.rounds):
                for side in in_turn([limit, *choices], number):
                    run.settle(run.cluster)
                    if side == limit:
                        seconds[side].append(run.cluster.qemu_convert(file, disk.size))
                        run.cluster.rbd_remove()
                        continue
                    gateway = gateways[side]
                    image = gateway.create("qcow2")
                    staged[side].append(gateway.stage(image, file))
                    with measured(gateway, cpu[side]):
                        seconds[side].append(gateway.import_staged(image))
                    check_converted(run, gateway, image, number)
                    gateway.delete(image)
                say_round(f"convert {case}", number, seconds)
            run.settle(run.cluster)
            add = run.report.add
            add("convert", f"{case}, {limit}", "s", seconds[limit])
            for side in choices:
                ratio = ratios(seconds[limit], seconds[side])
                add("convert", f"{case}, {side}", "ratio to qemu-img", ratio, CONVERT_RATIOS[case])
                add("convert", f"{case}, {side}", "s", seconds[side])
                add("convert", f"{case}, {side}", "s to stage", staged[side])
                per_gib = [each / disk.data_bytes * GIB for each in cpu[side]]
                add("convert", f"{case}, {side}", "CPU s/GiB of data", per_gib)


def check_converted(run, service, image, number):
    """Is it the disk that was in the file? Where no digest says so, the first image is read back."""
    record = service.show(image)
    if (record["disk_format"], record["size"]) != ("raw", run.wordy.size):
        raise Failed(f"{service.url}: the image was not converted: {record}")
    algorithm, value = record["os_hash_algo"], record["os_hash_value"]
    if not value and number == 0:
        algorithm, value = "sha256", run.cluster.digest(image, "sha256")
    if value and value != run.wordy.digest(algorithm):
        raise Failed(f"{service.url}: the converted image is not the disk that was in the file")


def memory(run):
    """Resident memory: idle, at the peak of transfers, and some seconds after them. A new gateway for each
    case, because what an earlier transfer left would hide what the next one takes."""
    idle = []
    with run.gateway() as uploader:
        image = uploader.create()
        uploader.upload(image, run.dense)
        _peak(run, "1 upload", 1, idle, image, _upload_many)
        _peak(run, f"{AT_ONCE} uploads", AT_ONCE, idle, image, _upload_many)
        _peak(run, "1 download", 1, idle, image, _download_many)
        _peak(run, f"{AT_ONCE} downloads", AT_ONCE, idle, image, _download_many)
        uploader.delete(image)
        run.settle(run.cluster)
    run.report.add("memory", "idle", "RSS in MiB", idle, IDLE_MIB, of_rounds="max")


def _peak(run, case, count, idle, image, transfer):
    extra = []
    with run.gateway() as gateway:
        for _ in range(FEW_REQUESTS):
            gateway.request("GET", "/v2/images")
        time.sleep(IDLE_AGAIN_SECONDS)
        idle.append(machine.rss_mib(gateway.pid))
        for _ in range(run.rounds):
            run.settle(run.cluster, [image])
            machine.reset_peak(gateway.pid)
            transfer(run, gateway, image, count)
            extra.append((machine.peak_rss_mib(gateway.pid) - idle[-1]) / count)
        time.sleep(IDLE_AGAIN_SECONDS)
        after = machine.rss_mib(gateway.pid)
    say(f"memory, {case}: {', '.join(f'{each:.0f}' for each in extra)} MiB more for each")
    run.report.add("memory", case, "peak RSS above idle, MiB each", extra, TRANSFER_MIB, of_rounds="max")
    run.report.add("memory", case, f"RSS {IDLE_AGAIN_SECONDS} s after, MiB", [after])


def _upload_many(run, gateway, _, count):
    upload_at_once(gateway, run.dense, count)


def _download_many(run, gateway, image, count):
    at_once(lambda _: gateway.download(image, run.dense.size), range(count))


ALL = {
    "upload": upload,
    "chunked": chunked,
    "parallel": parallel,
    "download": download,
    "range": range_reads,
    "sparse": sparse,
    "convert": convert,
    "memory": memory,
}
