#!/usr/bin/env bash
# python-glanceclient with a token and a URL, without Keystone. It reads /v2/schemas/image first.
# shellcheck source=daemon.sh source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/daemon.sh"

glance() {
    "$ROCKPOOL_TEST_CLIENTS/glance" --os-auth-token "$MEMBER_TOKEN" --os-image-url "$URL" "$@"
}
glance_on_terminal() {
    on_terminal "$ROCKPOOL_TEST_CLIENTS/glance" --os-auth-token "$MEMBER_TOKEN" --os-image-url "$URL" "$@"
}
# glance prints tables only: | name | value |
field() { glance image-show --max-column-width 1000 "$1" | table_value "$2"; } # ID FIELD
table_value() { awk -F'|' -v name="$1" '{ gsub(/^ +| +$/, "", $2); gsub(/^ +| +$/, "", $3) } $2 == name { print $3 }'; }
hash_of() { sha512sum <"$1" | cut -d' ' -f1; }

creates_a_record_without_data() {
    local id
    id=$(glance_on_terminal image-create --name queued | table_value id)
    expect status "$(field "$id" status)" queued
    glance image-delete "$id"
}

# glance sends a file chunked, and its size in a header of its own.
creates_with_data() {
    glance image-create --name created --disk-format raw --container-format bare --file "$WORK/disk" \
        --property os_distro=debian --tags first | table_value id >"$WORK/created"
    expect_data "$(cat "$WORK/created")"
    expect os_distro "$(field "$(cat "$WORK/created")" os_distro)" debian
}

uploads_later() {
    local id
    id=$(glance_on_terminal image-create --name later --disk-format raw --container-format bare | table_value id)
    echo "$id" >"$WORK/later"
    glance image-upload --file "$WORK/disk" --size "$(stat -c %s "$WORK/disk")" "$id"
    expect_data "$id"
}

uploads_chunked_from_a_pipe() {
    local id
    # shellcheck disable=SC2002 # a pipe, whose length nobody knows, is the point
    id=$(cat "$WORK/disk" | glance image-create --name piped --disk-format raw --container-format bare |
        table_value id)
    expect_data "$id"
    glance image-delete "$id"
}

expect_data() {
    expect status "$(field "$1" status)" active
    expect size "$(field "$1" size)" "$(stat -c %s "$WORK/disk")"
    expect checksum "$(field "$1" checksum)" "$(md5sum <"$WORK/disk" | cut -d' ' -f1)"
    expect os_hash_value "$(field "$1" os_hash_value)" "$(hash_of "$WORK/disk")"
}

refuses_a_second_upload() {
    expect_failure glance image-upload --file "$WORK/disk" "$(cat "$WORK/created")"
}

refuses_a_wrong_size() {
    local id
    id=$(glance_on_terminal image-create --name short --disk-format raw --container-format bare | table_value id)
    expect_failure glance image-upload --file "$WORK/disk" --size 12345 "$id"
    expect status "$(field "$id" status)" queued
    glance image-delete "$id"
}

lists_what_is_there() {
    expect "the list" "$(glance image-list | awk -F'|' 'NR > 3 && NF > 2 { gsub(/ /, "", $3); print $3 }')" \
        $'created\nlater'
}

# glance computes the hash that the record names and fails if it differs.
downloads_what_was_uploaded() {
    glance image-download --file "$WORK/saved" "$(cat "$WORK/created")"
    expect "the downloaded file" "$(hash_of "$WORK/saved")" "$(hash_of "$WORK/disk")"
}

changes_properties() {
    local id
    id=$(cat "$WORK/created")
    glance image-update --name renamed --property hw_disk_bus=virtio --remove-property os_distro "$id"
    expect name "$(field "$id" name)" renamed
    expect hw_disk_bus "$(field "$id" hw_disk_bus)" virtio
    expect "the removed property" "$(field "$id" os_distro)" ""
}

deletes_records_and_data() {
    local id
    for id in "$(cat "$WORK/created")" "$(cat "$WORK/later")"; do
        rbd_admin info "images/$id" >/dev/null
        glance image-delete "$id"
        expect_failure rbd_admin info "images/$id"
        expect_failure glance image-show "$id"
    done
}

start_gateway local
head -c 12345678 /dev/urandom >"$WORK/disk"

step "glance creates a record without data" creates_a_record_without_data
step "glance creates with data" creates_with_data
step "glance uploads later" uploads_later
step "glance uploads chunked from a pipe" uploads_chunked_from_a_pipe
step "glance is refused a second upload" refuses_a_second_upload
step "glance is refused a wrong size" refuses_a_wrong_size
step "glance lists what is there" lists_what_is_there
step "glance downloads what was uploaded" downloads_what_was_uploaded
step "glance changes properties" changes_properties
step "glance deletes records and data" deletes_records_and_data
stop_gateway
