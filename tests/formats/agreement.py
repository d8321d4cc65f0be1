"""What `rockpool inspect` says of a generated corpus, compared with `qemu-img info` and oslo.utils' inspectors.

Good files are made by qemu-img, of every format and subformat, and must be accepted under their own name, with the size
of disk that qemu-img sees. Hostile ones must be refused. Then good files are damaged, field by field and at random (with
a fixed seed): whatever oslo.utils refuses is refused here, and whatever it takes for a format is taken for the same.
Where we differ on purpose is in DIFFERENT, with the reason; an entry that is not needed any more is an error.

    agreement.py BINARY FOLDER
"""

import json
import logging
import pathlib
import random
import struct
import subprocess
import sys

from oslo_utils.imageutils import format_inspector

BINARY, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
MIB = 1 << 20
SEED = 20240729
MUTANTS_PER_FILE = 30
QEMU_NAMES = {"vpc": "vhd"}
# Found by oslo.utils and by us; qemu sees a disk.
RAW_TO_QEMU = {"gpt", "iso", "raw"}

# file (or the beginning of its name) -> why we say otherwise than oslo.utils
DIFFERENT = {
    "qcow2-extended_l2": "extended L2 entries are accepted: the reader knows them",
    "qcow2-encrypted": "an encrypted qcow2 is refused",
    "vhd-fixed": "a fixed vhd is known by its footer",
    "vmdk-parent": "a VMDK that names a parent is refused",
    "vdi-parent": "a difference to another VDI is refused",
    "vhd-differencing": "a difference to another VHD is refused",
    "cut-": "what is cut off is refused",
}
# The same for qemu-img.
QEMU_DIFFERENT = {
    "vhd-fixed": "qemu looks for a footer only when it is told that there is one",
}
used, failed = set(), 0


def report(name, problems):
    global failed
    if problems:
        failed += 1
        print("\n".join(f"#   {problem}" for problem in problems[:20]))
    print(f"{'not ok' if problems else 'ok'} {name}")


def qemu_img(*arguments):
    # For LUKS it measures the processor first, and gives up in one of six tries or so.
    for _ in range(20):
        run = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True)
        if "Unable to get accurate CPU usage" not in run.stderr:
            break
    if run.returncode:
        raise SystemExit(f"qemu-img {' '.join(map(str, arguments))}: {run.stderr}")


def ours(path, *arguments):
    run = subprocess.run([BINARY, "inspect", "--json", *arguments, path], capture_output=True, text=True, timeout=60)
    if run.returncode not in (0, 3):
        raise SystemExit(f"{path}: exit code {run.returncode}: {run.stderr}")
    said = json.loads(run.stdout)
    assert said["accepted"] == (run.returncode == 0), said
    return said


def theirs(path):
    """(format, None or why it is refused): as Glance asks, at the end of the stream."""
    with open(path, "rb") as file:
        wrapper = format_inspector.InspectWrapper(file)
        while wrapper.read(65536):
            pass
        wrapper.close()
    try:
        found = wrapper.formats
    except Exception as error:
        return "unknown", str(error)
    names = sorted(str(inspector) for inspector in found)
    if names == ["gpt", "iso"]:
        found = [inspector for inspector in found if str(inspector) == "iso"]
    elif len(names) > 1:
        return ", ".join(names), "several formats"
    try:
        found[0].safety_check()
    except Exception as error:
        return str(found[0]), str(error)
    return str(found[0]), None


def qemu(path):
    run = subprocess.run(["qemu-img", "info", "--output", "json", path], capture_output=True, text=True, timeout=60)
    if run.returncode:
        return None
    info = json.loads(run.stdout)
    return QEMU_NAMES.get(info["format"], info["format"]), info["virtual-size"]


def excused(table, name):
    for key in table:
        if name.startswith(key):
            used.add(key)
            return True
    return False


# ---------------------------------------------------------------- the corpus


def disk():
    """16 MiB with data here and there."""
    path = FOLDER / "disk"
    noise = random.Random(SEED)
    with open(path, "wb") as file:
        file.truncate(16 * MIB)
        for at in range(0, 16 * MIB, 3 * MIB):
            file.seek(at + 4096)
            file.write(noise.randbytes(100_000))
    return path


def good():
    source = disk()
    made = {}

    def convert(name, kind, **options):
        path = FOLDER / name
        extra = ["-o", ",".join(f"{key}={value}" for key, value in options.items())] if options else []
        qemu_img("convert", "-f", "raw", "-O", kind, *extra, source, path)
        made[name] = QEMU_NAMES.get(kind, kind)

    convert("qcow2-v3", "qcow2")
    convert("qcow2-v2", "qcow2", compat="0.10")
    convert("qcow2-small", "qcow2", cluster_size=512)
    convert("qcow2-large", "qcow2", cluster_size="2M")
    convert("qcow2-lazy", "qcow2", lazy_refcounts="on", refcount_bits=1)
    convert("qcow2-zstd", "qcow2", compression_type="zstd")
    convert("qcow2-extended_l2", "qcow2", extended_l2="on")
    for kind in ("monolithicSparse", "streamOptimized"):
        convert(f"vmdk-{kind}", "vmdk", subformat=kind)
    convert("vhd-dynamic", "vpc")
    convert("vhd-by_size", "vpc", force_size="on")
    convert("vhd-fixed", "vpc", subformat="fixed")
    convert("vhd-fixed_by_size", "vpc", subformat="fixed", force_size="on")
    convert("vhdx-dynamic", "vhdx")
    convert("vhdx-fixed", "vhdx", subformat="fixed")
    convert("vdi-dynamic", "vdi")
    convert("vdi-static", "vdi", static="on")
    for name, kind, size in [("qcow2-empty", "qcow2", "7T"), ("vmdk-empty", "vmdk", "64G"), ("vdi-empty", "vdi", "1T"),
                             ("vhd-empty", "vpc", "1T"), ("vhdx-empty", "vhdx", "7T")]:
        qemu_img("create", "-f", kind, FOLDER / name, size)
        made[name] = QEMU_NAMES.get(kind, kind)
    # As VMware streams them: where the grain directory is says a second header at the end.
    made["vmdk-footer"] = "vmdk"
    (FOLDER / "vmdk-footer").write_bytes(with_footer((FOLDER / "vmdk-streamOptimized").read_bytes()))
    qemu_img("create", "-f", "luks", "--object", "secret,id=key,data=abc", "-o", "key-secret=key,iter-time=10", FOLDER / "luks", "16M")
    made["luks"] = "luks"
    made["raw-disk"] = "raw"
    (FOLDER / "raw-disk").write_bytes(source.read_bytes())
    made["raw-mbr"] = "gpt"
    (FOLDER / "raw-mbr").write_bytes(partitioned(b"\x80\x01\x01\x00\x83\xff\xff\xff\x00\x08\x00\x00\x00\x40\x00\x00"))
    made["raw-gpt"] = "gpt"
    (FOLDER / "raw-gpt").write_bytes(partitioned(b"\x00\x00\x02\x00\xee\xff\xff\xff\x01\x00\x00\x00\xff\x7f\x00\x00"))
    volume = iso(bytearray(4 * MIB))
    made["iso-plain"] = "iso"
    (FOLDER / "iso-plain").write_bytes(volume)
    made["iso-bootable"] = "iso"
    (FOLDER / "iso-bootable").write_bytes(partitioned(b"\x80\x01\x01\x00\x83\xff\xff\xff\x00\x08\x00\x00\x00\x40\x00\x00", volume))
    return made


def with_footer(data):
    marker = struct.pack("<QII", 1, 0, 3).ljust(512, b"\0")
    return data[:56] + b"\xff" * 8 + data[64:] + marker + data[:512] + bytes(512)


def partitioned(entry, data=None):
    data = bytearray(data or 4 * MIB)
    data[446:462] = entry
    data[510:512] = b"\x55\xaa"
    return data


def iso(data):
    data[32768:32775] = b"\x01CD001\x01"
    data[32768 + 80 : 32768 + 84] = struct.pack("<I", len(data) // 2048)
    data[32768 + 128 : 32768 + 130] = struct.pack("<H", 2048)
    return data


def hostile():
    """Files that must be refused under any name."""
    made = []

    def changed(name, source, *patches):
        data = bytearray((FOLDER / source).read_bytes())
        for at, value in patches:
            data[at % len(data) : at % len(data) + len(value)] = value
        (FOLDER / name).write_bytes(data)
        made.append(name)

    secret = FOLDER / "secret"
    secret.write_bytes(b"secret" * 1000)
    for name, options in [("qcow2-backing", []), ("qcow2-backing_v2", ["-o", "compat=0.10"])]:
        qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", secret, *options, FOLDER / name, "16M")
        made.append(name)
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={FOLDER / 'data'},data_file_raw=on", FOLDER / "qcow2-data_file", "16M")
    made.append("qcow2-data_file")
    qemu_img("create", "-f", "qcow2", "--object", "secret,id=key,data=abc", "-o",
             "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10", FOLDER / "qcow2-encrypted", "16M")
    made.append("qcow2-encrypted")
    qemu_img("create", "-f", "qed", FOLDER / "qed", "16M")
    made.append("qed")
    for kind in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"):
        qemu_img("create", "-f", "vmdk", "-o", f"subformat={kind}", FOLDER / f"vmdk-{kind}", "16M")
        made.append(f"vmdk-{kind}")
    for bit in range(5, 64):
        changed(f"qcow2-feature{bit}", "qcow2-v3", (72, struct.pack(">Q", 1 << bit)))
    changed("qcow2-version1", "qcow2-v3", (4, struct.pack(">I", 1)))
    changed("qcow2-two_formats", "qcow2-v3", (0x40, struct.pack("<I", 0xBEDA107F)))
    changed("qcow2-iso", "qcow2-v3", (32768, b"\x01CD001"))
    descriptor = (FOLDER / "vmdk-monolithicSparse").read_bytes()[512:1536]
    for name, old, new in [("vmdk-path", b'SPARSE "', b'SPARSE "/etc/passwd'), ("vmdk-kind", b"monolithicSparse", b"vmfsSparse"),
                           ("vmdk-line", b"# Extent description", b"hello"),
                           ("vmdk-parent", b"# Extent description", b'parentFileNameHint="/etc/passwd"')]:
        assert old in descriptor
        changed(name, "vmdk-monolithicSparse", (512, descriptor.replace(old, new, 1)[:1024]))
    (FOLDER / "vmdk-text").write_bytes(
        b'# Disk DescriptorFile\nversion=1\nCID=1\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n' + b"# padding\n" * 60)
    made.append("vmdk-text")
    for at in (12, 512, 516, 540, 1024, 1036):
        changed(f"vmdk-footer{at}", "vmdk-footer", (-1536 + at, b"\x09"))
    changed("vhd-differencing", "vhd-dynamic", (60, struct.pack(">I", 4)))
    changed("vdi-parent", "vdi-dynamic", (0x4C, struct.pack("<I", 4)))
    changed("luks-version2", "luks", (6, struct.pack(">H", 2)))
    changed("mbr-flag", "raw-mbr", (446, b"\x07"))
    changed("mbr-none", "raw-mbr", (446, bytes(16)))
    changed("gpt-more", "raw-gpt", (462, b"\x00\x01\x01\x00\x83"))
    changed("gpt-chs", "raw-gpt", (447, b"\x09"))
    for name, source, length in [("cut-qcow2", "qcow2-v3", 65536), ("cut-vhd", "vhd-dynamic", -512), ("cut-vdi", "vdi-empty", 4096),
                                 ("cut-vhdx", "vhdx-dynamic", 300_000), ("cut-vmdk", "vmdk-footer", -512),
                                 ("cut-luks", "luks", 4096)]:
        (FOLDER / name).write_bytes((FOLDER / source).read_bytes()[:length])
        made.append(name)
    return made


# ---------------------------------------------------------------- the comparison


def check_good(made):
    problems = []
    for name, kind in made.items():
        path = FOLDER / name
        said = ours(path)
        if not said["accepted"] or said["format"] != kind:
            problems.append(f"{name}: {said}")
        as_called = {"gpt": "raw"}.get(kind, kind)
        if not ours(path, "--disk-format", as_called)["accepted"]:
            problems.append(f"{name} is refused as {as_called}")
        if kind not in ("raw", "iso", "gpt", "luks") and ours(path, "--disk-format", "raw")["accepted"]:
            problems.append(f"{name} is accepted as raw")
        by_oslo, refusal = theirs(path)
        if (by_oslo != kind or refusal) and not excused(DIFFERENT, name):
            problems.append(f"{name} is {kind}; oslo.utils says {by_oslo}, {refusal}")
        seen = qemu(path)
        kind_by_qemu = "raw" if kind in RAW_TO_QEMU else kind
        if kind == "iso":
            continue
        if seen != (kind_by_qemu, said["virtual_size"]):
            by_name = subprocess.run(["qemu-img", "info", "-f", "vpc", "--output", "json", path], capture_output=True, text=True)
            told = json.loads(by_name.stdout)["virtual-size"] if by_name.returncode == 0 else None
            if not (told == said["virtual_size"] and excused(QEMU_DIFFERENT, name)):
                problems.append(f"{name}: {kind}, {said['virtual_size']}; qemu-img says {seen}")
    report(f"{len(made)} good files are what qemu-img and oslo.utils say", problems)


def check_hostile(made):
    problems = []
    for name in made:
        for called in (None, "raw", "qcow2", "vmdk"):
            said = ours(FOLDER / name, *(["--disk-format", called] if called else []))
            if said["accepted"]:
                problems.append(f"{name} is accepted as {called}: {said}")
        if theirs(FOLDER / name)[1] is None and not excused(DIFFERENT, name):
            problems.append(f"{name} is not refused by oslo.utils: say why in DIFFERENT")
    report(f"{len(made)} hostile files are refused under any name", problems)


def check_damaged(made):
    """Damage near the headers; compared one way: whatever oslo.utils refuses, we do."""
    noise = random.Random(SEED)
    problems, count = [], 0
    path = FOLDER / "damaged"
    for name, kind in made.items():
        original = (FOLDER / name).read_bytes()[: 4 * MIB]
        if name.endswith("-empty") or name.startswith("vhd-fixed"):
            continue
        for _ in range(MUTANTS_PER_FILE):
            data = bytearray(original)
            for _ in range(noise.randint(1, 3)):
                at = noise.choice([noise.randrange(600), noise.randrange(66_000), noise.randrange(len(data))])
                value = noise.choice([noise.randbytes(1), b"\xff" * 4, bytes(8), noise.randbytes(4)])
                data[at : at + len(value)] = value
            path.write_bytes(data)
            count += 1
            said, (by_oslo, refusal) = ours(path), theirs(path)
            if refusal and said["accepted"] and not excused(DIFFERENT, name):
                problems.append(f"{name}: accepted as {said['format']}; oslo.utils: {by_oslo}, {refusal}")
            # What oslo.utils gives up on as malformed is raw to it, and refused here.
            if by_oslo != said["format"] and by_oslo != "raw" and refusal is None:
                problems.append(f"{name}: {said['format']} to us, {by_oslo} to oslo.utils")
    path.unlink(missing_ok=True)
    report(f"{count} damaged files are refused wherever oslo.utils refuses them", problems)


logging.disable(logging.CRITICAL)
files = good()
check_good(files)
check_hostile(hostile())
check_damaged(files)
report("every difference that is excused is one", sorted((set(DIFFERENT) | set(QEMU_DIFFERENT)) - used))
sys.exit(1 if failed else 0)
