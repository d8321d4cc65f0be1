#!/usr/bin/env bash
# The promise of the whole thing: what an OpenStack client uploads, a machine boots from, as a
# copy-on-write clone in another pool, read straight from RBD with the rights of a compute node.
# shellcheck source=../clients/daemon.sh source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/../clients/daemon.sh"

readonly HERE=${BASH_SOURCE[0]%/*}
# Some 4 s on an idle machine, without hardware virtualisation.
readonly BOOT_LIMIT_SECONDS=180
readonly REMOVAL_LIMIT_SECONDS=60
readonly MIB=$((1 << 20))

openstack() {
    "$ROCKPOOL_TEST_CLIENTS/openstack" --os-auth-type admin_token --os-endpoint "$URL/v2" \
        --os-token "$MEMBER_TOKEN" "$@" </dev/null
}
nova_keyring() { echo "$ROCKPOOL_TEST_CEPH_DIR/client.nova.keyring"; }
rbd_nova() { rbd -c "$ROCKPOOL_TEST_CEPH_DIR/ceph.conf" --id nova --keyring "$(nova_keyring)" "$@"; }
image() { cat "$WORK/image"; }
machine() { echo "machine-$(image)"; }
used_bytes() { rbd_admin du --format json "$1" | jq '[.images[].used_size] | add'; }

makes_a_disk() {
    bash "$HERE/disk.sh" "$WORK/disk" "${ROCKPOOL_TEST_CACHE:-$WORK/cache}" "$DISK_TOKEN"
}

uploads_it() {
    openstack image create --disk-format raw --container-format bare --file "$WORK/disk" \
        -f value -c id boot-disk >"$WORK/image"
    expect status "$(openstack image show -f value -c status "$(image)")" active
}

has_the_layout_of_glance() {
    rbd_admin info --format json "images/$(image)" >"$WORK/info"
    expect size "$(jq .size "$WORK/info")" "$(stat -c %s "$WORK/disk")"
    expect order "$(jq .order "$WORK/info")" 23
    expect "object size" "$(jq .object_size "$WORK/info")" $((8 * MIB))
    expect features "$(jq -c '.features | sort' "$WORK/info")" \
        '["deep-flatten","exclusive-lock","fast-diff","layering","object-map"]'
}

# Nova and Cinder find the snapshot by this URL.
is_found_by_its_url() {
    local fsid
    fsid=$(ceph -c "$ROCKPOOL_TEST_CEPH_DIR/ceph.conf" --id admin fsid)
    expect direct_url "$(curl -sf -H "X-Auth-Token: $MEMBER_TOKEN" "$URL/v2/images/$(image)" | jq -r .direct_url)" \
        "rbd://$fsid/images/$(image)/snap"
}

has_one_protected_snapshot() {
    rbd_admin snap ls --format json "images/$(image)" >"$WORK/snaps"
    expect snapshots "$(jq -r '.[] | "\(.name) protected=\(.protected)"' "$WORK/snaps")" "snap protected=true"
}

says_what_it_is() {
    rbd_admin image-meta list --format json "images/$(image)" >"$WORK/meta"
    expect "keys without the prefix" "$(jq -c '[keys[] | select(startswith("rockpool.") | not)]' "$WORK/meta")" '[]'
    meta_says name boot-disk
    meta_says size "$(stat -c %s "$WORK/disk")"
    meta_says checksum "$(md5sum <"$WORK/disk" | cut -d' ' -f1)"
    meta_says hash "$(sha512sum <"$WORK/disk" | cut -d' ' -f1)"
    meta_says owner 0000000000000000000000000000de01
    meta_says "disk format" raw
}

meta_says() { # WHAT VALUE: under whatever key
    [[ $(jq --arg value "$2" '[.[] | select(. == $value)] | length' "$WORK/meta") -gt 0 ]] || {
        echo "No image-meta entry holds the $1 '$2':"
        cat "$WORK/meta"
        return 1
    }
}

keeps_zeros_out_of_the_pool() {
    local used
    used=$(used_bytes "images/$(image)")
    ((used > 0 && used <= 48 * MIB)) || { echo "The image uses $used bytes." && return 1; }
}

is_cloned_by_nova() {
    rbd_nova clone "images/$(image)@snap" "vms/$(machine)"
    expect "the clone's data" "$(used_bytes "vms/$(machine)")" 0
}

is_safe_from_nova() {
    expect_failure rbd_nova snap unprotect "images/$(image)@snap"
    expect_failure rbd_nova rm --no-progress "images/$(image)"
}

boots() {
    timeout "$BOOT_LIMIT_SECONDS" qemu-system-x86_64 -machine pc,accel=tcg -m 256 \
        -nodefaults -no-user-config -display none -no-reboot -serial "file:$WORK/serial" \
        -drive "file=rbd:vms/$(machine):id=nova:conf=$ROCKPOOL_TEST_CEPH_DIR/ceph.conf:keyring=$(nova_keyring),format=raw,if=virtio" \
        </dev/null || { echo "qemu ended with $?." && cat "$WORK/serial" && return 1; }
    grep -q "ROCKPOOL-BOOT token $DISK_TOKEN" "$WORK/serial" || { cat "$WORK/serial" && return 1; }
    grep -q "ROCKPOOL-BOOT wrote" "$WORK/serial" || { cat "$WORK/serial" && return 1; }
}

# The machine wrote 1 MiB: one object at most two, of 8 MiB each, and not the image's 256 MiB.
has_little_data_of_its_own() {
    local used
    used=$(used_bytes "vms/$(machine)")
    ((used > 0 && used <= 16 * MIB)) || { echo "The clone uses $used bytes." && return 1; }
}

left_the_image_alone() {
    expect "the SHA-512 of the snapshot" \
        "$(rbd_admin export --no-progress "images/$(image)@snap" - | sha512sum | cut -d' ' -f1)" \
        "$(sha512sum <"$WORK/disk" | cut -d' ' -f1)"
}

is_not_deleted_under_a_clone() {
    expect_failure openstack image delete "$(image)"
    expect status "$(openstack image show -f value -c status "$(image)")" active
    has_one_protected_snapshot
}

is_deleted() {
    rbd_nova rm --no-progress "vms/$(machine)"
    openstack image delete "$(image)"
    expect_failure openstack image show "$(image)"
}

leaves_nothing() {
    local deadline=$((SECONDS + REMOVAL_LIMIT_SECONDS))
    until [[ -z $(leftovers) ]]; do
        ((SECONDS < deadline)) || { echo "This is left: $(leftovers)" && return 1; }
        sleep 0.5
    done
}

# Big data may be removed in the background, through the trash.
leftovers() {
    local pool
    for pool in images vms; do
        rbd_admin ls "$pool" | grep -F "$(image)" || true
        rbd_admin trash ls "$pool" | grep -F "$(image)" || true
    done
}

DISK_TOKEN=$(random_token)
start_gateway local
step "a bootable disk is made" makes_a_disk
step "openstack uploads it" uploads_it
step "its RBD image has Glance's layout" has_the_layout_of_glance
step "its direct_url names the snapshot" is_found_by_its_url
step "it has one protected snapshot" has_one_protected_snapshot
step "its metadata say what it is" says_what_it_is
step "its zeros take no room" keeps_zeros_out_of_the_pool
step "a compute node clones it" is_cloned_by_nova
step "a compute node cannot harm it" is_safe_from_nova
step "a machine boots from the clone and writes to it" boots
step "the clone has little data of its own" has_little_data_of_its_own
step "the image is as it was" left_the_image_alone
step "it is not deleted while a clone needs it" is_not_deleted_under_a_clone
step "it is deleted after its clone" is_deleted
step "nothing is left in the pools" leaves_nothing
stop_gateway
