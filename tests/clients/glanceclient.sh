#!/usr/bin/env bash
# python-glanceclient with Keystone: each of its commands, at least once. It reads /v2/schemas/... first.
# shellcheck source=daemon.sh source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/daemon.sh"

# It knows no clouds.yaml.
export OS_AUTH_URL=$ROCKPOOL_TEST_KEYSTONE_URL OS_REGION_NAME=$ROCKPOOL_TEST_KEYSTONE_REGION
export OS_USER_DOMAIN_NAME=$ROCKPOOL_TEST_KEYSTONE_DOMAIN OS_PROJECT_DOMAIN_NAME=$ROCKPOOL_TEST_KEYSTONE_DOMAIN
site() { jq -r "$1" "$ROCKPOOL_TEST_KEYSTONE_SITE"; }
as() { # USER COMMAND...
    local -x OS_USERNAME=$1 OS_PASSWORD OS_PROJECT_NAME
    OS_PASSWORD=$(site ".users.$1.password")
    OS_PROJECT_NAME=$(site ".users.$1.project")
    "${@:2}"
}
glance() { "$ROCKPOOL_TEST_CLIENTS/glance" "$@"; }
glance_on_terminal() { on_terminal "$ROCKPOOL_TEST_CLIENTS/glance" "$@"; }
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

image() { cat "$WORK/created"; }
# The values of the only column of a table, or of the column with this number.
column() { awk -F'|' -v column="${1:-1}" 'NR > 3 && NF > 2 { gsub(/^ +| +$/, "", $(column + 1)); print $(column + 1) }'; }

tags_an_image() {
    glance image-tag-update "$(image)" second
    expect tags "$(field "$(image)" tags)" '["first", "second"]'
    glance image-tag-delete "$(image)" second
    expect tags "$(field "$(image)" tags)" '["first"]'
}

shares_an_image() {
    local alt
    alt=$(site .projects.alt_demo)
    glance member-create "$(image)" "$alt"
    expect_failure glance member-create "$(image)" "$alt"
    as alt_demo glance member-update "$(image)" "$alt" accepted
    expect "the members" "$(glance member-list --image-id "$(image)" | column 3)" accepted
    expect "the member" "$(glance member-get "$(image)" "$alt" | table_value status)" accepted
    as alt_demo glance image-download --file "$WORK/saved" "$(image)"
    expect "what the member downloaded" "$(hash_of "$WORK/saved")" "$(hash_of "$WORK/disk")"
    glance member-delete "$(image)" "$alt"
    as alt_demo expect_failure glance image-show "$(image)"
}

deactivates_an_image() {
    glance image-deactivate "$(image)"
    expect status "$(field "$(image)" status)" deactivated
    expect_failure glance image-download --file "$WORK/refused" "$(image)"
    glance image-reactivate "$(image)"
    expect status "$(field "$(image)" status)" active
}

# The lines that a table breaks a value into, as one.
joined() { tr -d '| \n'; }

knows_stores_and_usage() {
    expect "the stores" "$(glance stores-info | joined | grep -o '"id":"[a-z]*"' | sort)" $'"id":"archive"\n"id":"ceph"'
    as admin glance stores-info --detail | joined | grep '"type":"rbd"'
    glance usage
    glance import-info
    # The one place of the data.
    as admin expect_failure glance stores-delete --store ceph "$(image)"
}

# As Nova does with a snapshot that it made in the pool.
registers_what_is_in_the_pool() {
    local id source
    source=$(field "$(image)" direct_url)
    id=$(glance_on_terminal image-create --name located --disk-format raw --container-format bare | table_value id)
    expect_failure glance add-location --url "$source" "$id"
    as nova glance add-location --url "$source" "$id"
    for ((tries = 100; tries > 0; tries--)); do
        [[ $(field "$id" os_hash_value) != "$(hash_of "$WORK/disk")" ]] || break
        sleep 0.2
    done
    expect_data "$id"
    glance explain image >/dev/null
    glance image-delete "$id"
    glance image-download --file "$WORK/saved" "$(image)"
}

lists_tasks() {
    as admin glance task-list >"$WORK/tasks"
    as admin glance task-show "$(column 1 <"$WORK/tasks" | head -n 1)" >"$WORK/task"
    expect "the type of the task" "$(table_value type <"$WORK/task")" location_import
    glance image-tasks "$(image)"
    expect_failure glance task-list
}

await_status() { # ID STATUS
    local tries
    for ((tries = 60; tries > 0; tries--)); do
        [[ $(field "$1" status) != "$2" ]] || return 0
        sleep 0.5
    done
    glance image-show "$1"
    glance -v image-tasks "$1"
    return 1
}
stored_hash() { rbd_admin export --no-progress "images/$1" - | hash_of /dev/stdin; } # ID

stages_and_imports() {
    local id
    id=$(glance_on_terminal image-create --name staged --disk-format raw --container-format bare | table_value id)
    glance image-stage --file "$WORK/disk" "$id"
    expect status "$(field "$id" status)" uploading
    glance image-import "$id"
    await_status "$id" active
    expect_data "$id"
    expect "what the pool holds" "$(stored_hash "$id")" "$(hash_of "$WORK/disk")"
    expect "how its task ended" "$(glance image-tasks "$id" | column 2)" success
    glance image-delete "$id"
}

# A qcow2 image, which becomes raw on the way.
imports_by_url() {
    local id
    id=$(glance_on_terminal image-create-via-import --name fetched --disk-format qcow2 --container-format bare \
        --import-method web-download --uri "$FILES_URL/disk.qcow2" | table_value id)
    await_status "$id" active
    expect disk_format "$(field "$id" disk_format)" raw
    expect checksum "$(field "$id" checksum)" "$(md5sum <"$WORK/files/disk.qcow2" | cut -d' ' -f1)"
    expect size "$(field "$id" size)" "$(stat -c %s "$WORK/whole")"
    expect "what the pool holds" "$(stored_hash "$id")" "$(hash_of "$WORK/whole")"
    glance image-delete "$id"
}

# Of the only region there is, which is another for all that anybody knows.
imports_from_a_region() {
    local id
    glance image-update --property hw_disk_bus=scsi "$(image)"
    id=$(glance_on_terminal image-create-via-import --name far --disk-format raw --container-format bare \
        --import-method glance-download --remote-region "$OS_REGION_NAME" --remote-image-id "$(image)" | table_value id)
    await_status "$id" active
    expect_data "$id"
    expect hw_disk_bus "$(field "$id" hw_disk_bus)" scsi
    expect "what the pool holds" "$(stored_hash "$id")" "$(hash_of "$WORK/disk")"
    glance image-delete "$id"
}

copies_to_another_store() {
    local tries
    expect_failure glance image-import --import-method copy-image --stores archive "$(image)"
    as admin glance image-import --import-method copy-image --stores archive "$(image)"
    for ((tries = 60; tries > 0; tries--)); do
        [[ $(field "$(image)" stores) != *,* ]] || break
        sleep 0.5
    done
    expect stores "$(field "$(image)" stores | tr , '\n' | sort)" $'archive\nceph'
    expect "what the archive holds" "$(sha512sum "$WORK/archive/$(image)".* | grep -c "^$(hash_of "$WORK/disk")")" 1
    as admin glance stores-delete --store archive "$(image)"
    expect stores "$(field "$(image)" stores)" ceph
    expect_failure ls "$WORK/archive/$(image)".*
}

makes_an_image_by_a_task() {
    local task id tries input
    input=$(jq -nc --arg url "$FILES_URL/disk.qcow2" \
        '{import_from: $url, import_from_format: "qcow2", image_properties: {name: "by task", visibility: "public"}}')
    expect_failure glance task-create --type import --input "$input"
    task=$(as admin glance task-create --type import --input "$input" | table_value id)
    for ((tries = 60; tries > 0; tries--)); do
        as admin glance task-show "$task" >"$WORK/task"
        [[ $(table_value status <"$WORK/task") =~ ^(pending|processing)$ ]] || break
        sleep 0.5
    done
    expect "how the task ended" "$(table_value status <"$WORK/task")" success
    id=$(table_value image_id <"$WORK/task")
    expect name "$(field "$id" name)" "by task"
    expect "what the pool holds" "$(stored_hash "$id")" "$(hash_of "$WORK/whole")"
    as admin glance image-delete "$id"
}

says_that_there_is_no_cache() {
    # The others say it, too, but with exit code 0.
    as admin expect_failure glance cache-list
    as admin glance cache-queue "$(image)" 2>&1 | grep 'does not support image caching'
}

has_metadata_namespaces() {
    glance md-namespace-list
    expect_failure glance md-namespace-create My::Space
    as admin glance md-namespace-create --display-name Mine --visibility public My::Space
    as admin glance md-namespace-update --description "a space" My::Space
    expect "the namespaces" "$(glance md-namespace-list | column)" My::Space
    expect "the description" "$(glance md-namespace-show My::Space | table_value description)" "a space"
    echo '{"namespace": "My::Import", "visibility": "public", "tags": [{"name": "one"}]}' >"$WORK/namespace"
    as admin glance md-namespace-import --file "$WORK/namespace"
    expect "the imported tag" "$(glance md-tag-list My::Import | column)" one
    as admin glance md-namespace-delete My::Import
}

has_metadata_objects() {
    as admin glance md-object-create --name thing \
        --schema '{"properties": {"size": {"title": "Size", "type": "integer"}}}' My::Space
    as admin glance md-object-update --schema '{"description": "changed", "properties": {"size": {"title": "Size", "type": "integer"}}}' \
        My::Space thing
    expect "the objects" "$(glance md-object-list My::Space | column)" thing
    expect "the description" "$(glance md-object-show My::Space thing | table_value description)" changed
    expect "the property" "$(glance md-object-property-show My::Space thing size | table_value title)" Size
    as admin glance md-object-delete My::Space thing
    as admin glance md-object-create --name thing --schema '{}' My::Space
    as admin glance md-namespace-objects-delete My::Space
    expect "the objects" "$(glance md-object-list My::Space | column)" ""
}

has_metadata_properties() {
    as admin glance md-property-create --name bus --title Bus --type string --schema '{"enum": ["ide"]}' My::Space
    as admin glance md-property-update --title "The bus" --schema '{"type": "string"}' My::Space bus
    expect "the properties" "$(glance md-property-list My::Space | column)" bus
    expect "the title" "$(glance md-property-show My::Space bus | table_value title)" "The bus"
    as admin glance md-property-delete My::Space bus
    as admin glance md-property-create --name bus --title Bus --type string --schema '{}' My::Space
    as admin glance md-namespace-properties-delete My::Space
    expect "the properties" "$(glance md-property-list My::Space | column)" ""
}

has_metadata_tags() {
    # With --append it fails before it sends anything. Without, it replaces all tags.
    as admin glance md-tag-create-multiple --names two,three My::Space
    as admin glance md-tag-create --name one My::Space
    as admin glance md-tag-update --name first My::Space one
    expect "the tags" "$(glance md-tag-list My::Space | column | sort | paste -sd,)" first,three,two
    expect "the tag" "$(glance md-tag-show My::Space first | table_value name)" first
    as admin glance md-tag-delete My::Space first
    as admin glance md-namespace-tags-delete My::Space
    expect "the tags" "$(glance md-tag-list My::Space | column)" ""
}

has_metadata_resource_types() {
    as admin glance md-resource-type-associate --name My::Type --prefix my_ My::Space
    expect "the associations" "$(glance md-namespace-resource-type-list My::Space | column)" My::Type
    glance md-resource-type-list | column | grep -x My::Type
    as admin glance md-resource-type-deassociate My::Space My::Type
    expect "the associations" "$(glance md-namespace-resource-type-list My::Space | column)" ""
    as admin glance md-namespace-delete My::Space
    expect_failure glance md-namespace-show My::Space
}

mkdir "$WORK/archive" "$WORK/files"
IMAGES='default_store = "ceph"'
SECTIONS="$(fetch_from_here)
[stores.archive]
type = \"file\"
data_dir = \"$WORK/archive\""
start_gateway keystone
serve_files "$WORK/files"
as demo declare -px OS_USERNAME OS_PASSWORD OS_PROJECT_NAME >"$WORK/demo"
# shellcheck disable=SC1091 # it was written just now
source "$WORK/demo"
head -c 12345678 /dev/urandom >"$WORK/disk"
# A disk has whole sectors.
head -c 12345344 "$WORK/disk" >"$WORK/whole"
qemu-img convert -f raw -O qcow2 "$WORK/whole" "$WORK/files/disk.qcow2"

step "glance creates a record without data" creates_a_record_without_data
step "glance creates with data" creates_with_data
step "glance uploads later" uploads_later
step "glance uploads chunked from a pipe" uploads_chunked_from_a_pipe
step "glance is refused a second upload" refuses_a_second_upload
step "glance is refused a wrong size" refuses_a_wrong_size
step "glance lists what is there" lists_what_is_there
step "glance downloads what was uploaded" downloads_what_was_uploaded
step "glance changes properties" changes_properties
step "glance tags an image" tags_an_image
step "glance shares an image" shares_an_image
step "glance deactivates an image" deactivates_an_image
step "glance knows stores and usage" knows_stores_and_usage
step "glance registers what is in the pool" registers_what_is_in_the_pool
step "glance lists tasks" lists_tasks
step "glance stages and imports an image" stages_and_imports
step "glance imports an image by URL" imports_by_url
step "glance imports an image of a region" imports_from_a_region
step "glance copies an image to another store" copies_to_another_store
step "glance makes an image by a task" makes_an_image_by_a_task
step "glance is told that there is no cache" says_that_there_is_no_cache
step "glance has metadata namespaces" has_metadata_namespaces
step "glance has metadata objects" has_metadata_objects
step "glance has metadata properties" has_metadata_properties
step "glance has metadata tags" has_metadata_tags
step "glance has metadata resource types" has_metadata_resource_types
step "glance deletes records and data" deletes_records_and_data
stop_gateway
