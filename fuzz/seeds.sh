#!/usr/bin/env bash
# seeds.sh: writes seeds for every target into corpus/, made with qemu-img, in the form that the targets read: chunks
# of what is not zero, each with its offset in units of 8 bytes (4 bytes, little-endian) and its length (2 bytes).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
WORK=$(mktemp -d "${TMPDIR:-/tmp}/rockpool-seeds.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

make() { # TARGET NAME FORMAT [OPTIONS]
    qemu-img create -q -f "$3" ${4:+-o "$4"} "$WORK/$1.$2" 1M
}

make qcow2 v3 qcow2
make qcow2 v2 qcow2 compat=0.10
make qcow2 zstd qcow2 compression_type=zstd
make qcow2 extended_l2 qcow2 extended_l2=on
make qcow2 data_file qcow2 "data_file=$WORK/data"
make qed plain qed
make vhd dynamic vpc
make vhd fixed vpc subformat=fixed
make vhdx dynamic vhdx
make vmdk sparse vmdk
make vmdk streamed vmdk subformat=streamOptimized
make vmdk flat vmdk subformat=monolithicFlat
make vdi dynamic vdi
make vdi static vdi static=on
# It measures the processor first, and gives up in one of six tries or so.
for _ in {1..20}; do
    qemu-img create -q -f luks --object secret,id=key,data=abc -o key-secret=key,iter-time=10 "$WORK/luks.plain" 1M && break
done
head -c 4096 /dev/urandom >"$WORK/raw.noise"
printf '\x01CD001\x01' | dd of="$WORK/iso.plain" bs=1 seek=32768 status=none
truncate -s 64K "$WORK/iso.plain" "$WORK/gpt.plain"
printf '\x80\x01\x01\x00\x83\xff\xff\xff\x00\x08\x00\x00\x00\x40\x00\x00' | dd of="$WORK/gpt.plain" bs=1 seek=446 conv=notrunc status=none
printf '\x55\xaa' | dd of="$WORK/gpt.plain" bs=1 seek=510 conv=notrunc status=none

for file in "$WORK"/*.*; do
    name=$(basename "$file")
    # An extent that belongs to another file.
    [[ $name != *-* ]] || continue
    mkdir -p "corpus/inspect_${name%%.*}"
    python3 - "$file" "corpus/inspect_${name%%.*}/${name#*.}" <<'PYTHON'
import struct
import sys

with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as seed:
    data = source.read(4 << 20)
    for at in range(0, len(data), 512):
        chunk = data[at : at + 512]
        if chunk.strip(b"\0") or at + 512 >= len(data):
            chunk = chunk.rstrip(b"\0") if at + 512 < len(data) else chunk
            seed.write(struct.pack("<IH", at // 8, len(chunk)) + chunk)
PYTHON
done

# The disks in them are read, too.
for format in qcow2 vhd vhdx vmdk vdi; do
    mkdir -p "corpus/disk_$format"
    cp "corpus/inspect_$format"/* "corpus/disk_$format"
done
