#!/usr/bin/env bash
# python-openstackclient without Keystone: auth type admin_token. It takes the endpoint as it is and
# does not look for versions, so the endpoint ends in /v2.
# shellcheck source=daemon.sh source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/daemon.sh"

openstack() {
    "$ROCKPOOL_TEST_CLIENTS/openstack" --os-auth-type admin_token --os-endpoint "$URL/v2" --os-token "$TOKEN" "$@"
}
openstack_on_terminal() {
    on_terminal "$ROCKPOOL_TEST_CLIENTS/openstack" --os-auth-type admin_token --os-endpoint "$URL/v2" \
        --os-token "$TOKEN" "$@"
}
field() { openstack image show -f value -c "$2" "$1"; } # IMAGE FIELD
property() { openstack image show -f json "$1" | jq -r ".properties[\"$2\"]"; }
hash_of() { sha512sum <"$1" | cut -d' ' -f1; }

creates_a_record_without_data() {
    openstack_on_terminal image create --disk-format raw --container-format bare empty
    expect status "$(field empty status)" queued
    expect owner "$(field empty owner)" "$DEMO_PROJECT"
    openstack image delete empty
}

uploads_with_a_length() {
    openstack image create --disk-format raw --container-format bare --file "$WORK/disk" \
        --property os_distro=debian --tag first --min-disk 1 sized
    expect status "$(field sized status)" active
    expect size "$(field sized size)" "$(stat -c %s "$WORK/disk")"
    expect checksum "$(field sized checksum)" "$(md5sum <"$WORK/disk" | cut -d' ' -f1)"
    expect os_hash_algo "$(property sized os_hash_algo)" sha512
    expect os_hash_value "$(property sized os_hash_value)" "$(hash_of "$WORK/disk")"
    expect os_distro "$(property sized os_distro)" debian
    expect min_disk "$(field sized min_disk)" 1
}

uploads_chunked_from_a_pipe() {
    # shellcheck disable=SC2002 # a pipe, whose length nobody knows, is the point
    cat "$WORK/disk" | openstack image create --disk-format raw --container-format bare piped
    expect status "$(field piped status)" active
    expect size "$(field piped size)" "$(stat -c %s "$WORK/disk")"
    expect os_hash_value "$(property piped os_hash_value)" "$(hash_of "$WORK/disk")"
}

lists_what_is_there() {
    expect "the list" "$(openstack image list --sort-column Name -f value -c Name -c Status)" \
        $'piped active\nsized active'
    expect "the list by name" "$(openstack image list --name sized -f value -c Name)" sized
    expect "the list by tag" "$(openstack image list --tag first -f value -c Name)" sized
    expect "the long list" "$(openstack image list --long --name sized -f value -c 'Disk Format' -c Size)" \
        "raw $(stat -c %s "$WORK/disk")"
}

downloads_what_was_uploaded() {
    openstack image save --file "$WORK/saved" sized
    expect "the downloaded file" "$(hash_of "$WORK/saved")" "$(hash_of "$WORK/disk")"
    openstack image save piped >"$WORK/saved"
    expect "the download of the piped image" "$(hash_of "$WORK/saved")" "$(hash_of "$WORK/disk")"
}

changes_properties_and_tags() {
    openstack image set --property hw_disk_bus=virtio --property os_distro=fedora --tag second \
        --min-ram 64 --name renamed sized
    expect hw_disk_bus "$(property renamed hw_disk_bus)" virtio
    expect os_distro "$(property renamed os_distro)" fedora
    expect min_ram "$(field renamed min_ram)" 64
    expect tags "$(openstack image show -f json renamed | jq -c '.tags | sort')" '["first","second"]'
    openstack image unset --property hw_disk_bus renamed
    expect "the removed property" "$(property renamed hw_disk_bus)" null
}

hides_private_images_from_others() {
    TOKEN=$ADMIN_TOKEN openstack image create --private --disk-format raw --container-format bare \
        --file "$WORK/disk" secret
    expect_failure openstack image show secret
    TOKEN=$ADMIN_TOKEN openstack image delete secret
}

refuses_to_delete_a_protected_image() {
    openstack image set --protected renamed
    expect_failure openstack image delete renamed
    openstack image set --unprotected renamed
}

deletes_records_and_data() {
    local ids id
    ids=$(openstack image list -f value -c ID)
    openstack image delete renamed piped
    expect "the list" "$(openstack image list -f value -c ID)" ""
    for id in $ids; do
        expect_failure rbd_admin info "images/$id"
    done
}

refuses_a_wrong_token() {
    TOKEN=wrong expect_failure openstack image list
}

start_gateway local
DEMO_PROJECT=0000000000000000000000000000de01
TOKEN=$MEMBER_TOKEN
# Not a multiple of any block size, and with a hole in it.
head -c 9000001 /dev/urandom >"$WORK/disk"
truncate -s 30000001 "$WORK/disk"
head -c 1000 /dev/urandom >>"$WORK/disk"

step "openstack creates a record without data" creates_a_record_without_data
step "openstack uploads with a length" uploads_with_a_length
step "openstack uploads chunked from a pipe" uploads_chunked_from_a_pipe
step "openstack lists what is there" lists_what_is_there
step "openstack downloads what was uploaded" downloads_what_was_uploaded
step "openstack changes properties and tags" changes_properties_and_tags
step "openstack does not see the private images of others" hides_private_images_from_others
step "openstack is refused to delete a protected image" refuses_to_delete_a_protected_image
step "openstack deletes records and data" deletes_records_and_data
step "openstack is refused with a wrong token" refuses_a_wrong_token
stop_gateway
