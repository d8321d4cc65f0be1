#!/usr/bin/env bash
# Makes a small bootable raw disk out of Debian packages alone, without mounting anything:
#
#   disk.sh FILE CACHE TOKEN
#
# An MBR with one active FAT partition; in it syslinux, Debian's cloud kernel, and an initramfs whose
# init is busybox. The machine says on its first serial line that it runs and which token stands in
# the second sector of its disk, writes one MiB to the disk, and powers off. CACHE keeps the packages.
set -euo pipefail

readonly FILE=$1 CACHE=$2 TOKEN=$3
readonly DISK_MIB=256
readonly PARTITION_START_MIB=1
# Where the running machine writes: an area that was zero and lies outside of all files.
readonly SCRATCH_MIB=200
# In the order in which they need one another.
readonly MODULES=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk)

WORK=$(mktemp -d "${TMPDIR:-/tmp}/rockpool-disk.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

die() {
    echo "$*" >&2
    exit 1
}

# ---------------------------------------------------------------- packages

# The name of the kernel package changes with every update; the meta package knows it.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }'
}

download() {
    # apt drops its rights for a download, which only makes it complain about our folder.
    (cd "$CACHE" && apt-get -q -o APT::Sandbox::User=root download "$(kernel_package)" busybox-static)
}

# Prints the file of a package in the cache; a download that broke off has another name there.
cached() {
    local files
    mapfile -t files < <(compgen -G "$CACHE/$1_*.deb")
    [[ -n ${files[0]:-} ]] && echo "${files[-1]}"
}

get_packages() {
    mkdir -p "$CACHE"
    if ! cached 'linux-image-*-cloud-amd64' >/dev/null || ! cached busybox-static >/dev/null; then
        download || { apt-get -q update && download; }
    fi
    dpkg-deb -x "$(cached 'linux-image-*-cloud-amd64')" "$WORK/kernel"
    dpkg-deb -x "$(cached busybox-static)" "$WORK/busybox"
}

# ---------------------------------------------------------------- what the machine runs

write_init() {
    cat >"$1" <<INIT
#!/bin/busybox sh
/bin/busybox mkdir -p /dev /proc /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
for module in ${MODULES[*]}; do /bin/busybox insmod /\$module.ko; done
for try in 1 2 3 4 5 6 7 8 9 10; do
    [ -b /dev/vda ] && break
    /bin/busybox sleep 1
done
echo "ROCKPOOL-BOOT token \$(/bin/busybox dd if=/dev/vda bs=512 skip=1 count=1 2>/dev/null | /bin/busybox head -n 1)"
[ -b /dev/vda ] && /bin/busybox yes rockpool | /bin/busybox head -c 1048576 |
    /bin/busybox dd of=/dev/vda bs=1048576 seek=$SCRATCH_MIB conv=fsync 2>/dev/null &&
    echo "ROCKPOOL-BOOT wrote"
/bin/busybox poweroff -f
INIT
    chmod 755 "$1"
}

make_initrd() {
    local root=$WORK/initrd module source
    mkdir -p "$root/bin"
    cp "$WORK/busybox/bin/busybox" "$root/bin/"
    write_init "$root/init"
    for module in "${MODULES[@]}"; do
        source=$(find "$WORK/kernel" -name "$module.ko" -o -name "$module.ko.xz")
        case $source in
        *.ko) cp "$source" "$root/$module.ko" ;;
        *.ko.xz) xz -dc "$source" >"$root/$module.ko" ;;
        *) die "The kernel package has no module $module." ;;
        esac
    done
    (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$WORK/initrd.gz"
}

# ---------------------------------------------------------------- the disk

little_endian() { # 32 bits
    printf '%08x' "$1" | sed -E 's/(..)(..)(..)(..)/\\x\4\\x\3\\x\2\\x\1/'
}

# One active partition of type 0e (FAT16, LBA); the CHS fields say "use LBA".
write_mbr() {
    local start=$((PARTITION_START_MIB * 2048)) sectors=$(((DISK_MIB - PARTITION_START_MIB) * 2048))
    dd if=/usr/lib/SYSLINUX/mbr.bin of="$FILE" bs=440 count=1 conv=notrunc status=none
    printf '%b' "\x80\xfe\xff\xff\x0e\xfe\xff\xff$(little_endian $start)$(little_endian $sectors)" |
        dd of="$FILE" bs=1 seek=446 conv=notrunc status=none
    printf '\x55\xaa' | dd of="$FILE" bs=1 seek=510 conv=notrunc status=none
    printf '%s\n' "$TOKEN" | dd of="$FILE" bs=512 seek=1 conv=notrunc status=none
}

write_partition() {
    local partition="$FILE@@${PARTITION_START_MIB}M" start=$((PARTITION_START_MIB * 2048))
    export MTOOLS_SKIP_CHECK=1
    mformat -i "$partition" -T $(((DISK_MIB - PARTITION_START_MIB) * 2048)) -h 255 -s 63 -H "$start" ::
    mcopy -i "$partition" "$WORK"/kernel/boot/vmlinuz-* ::/vmlinuz
    mcopy -i "$partition" "$WORK/initrd.gz" ::/initrd.gz
    mcopy -i "$partition" - ::/syslinux.cfg <<'CFG'
SERIAL 0 115200
DEFAULT linux
LABEL linux
    KERNEL vmlinuz
    INITRD initrd.gz
    APPEND console=ttyS0 quiet panic=-1
CFG
    syslinux --install --offset $((start * 512)) "$FILE"
}

get_packages
make_initrd
rm -f "$FILE"
truncate -s "${DISK_MIB}M" "$FILE"
write_mbr
write_partition
