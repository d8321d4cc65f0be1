#!/usr/bin/env bash
# python-openstackclient with Keystone: each of its image commands, at least once.
# shellcheck source=daemon.sh source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/daemon.sh"

export OS_CLOUD=demo
as() { # CLOUD COMMAND...
    local -x OS_CLOUD=$1
    "${@:2}"
}
openstack() { "$ROCKPOOL_TEST_CLIENTS/openstack" "$@"; }
openstack_on_terminal() { on_terminal "$ROCKPOOL_TEST_CLIENTS/openstack" "$@"; }
field() { openstack image show -f value -c "$2" "$1"; } # IMAGE FIELD
property() { openstack image show -f json "$1" | jq -r ".properties[\"$2\"]"; }
hash_of() { sha512sum <"$1" | cut -d' ' -f1; }
project() { jq -r ".projects.$1" "$ROCKPOOL_TEST_KEYSTONE_SITE"; }
metadef() { openstack image metadef "$@"; }

creates_a_record_without_data() {
    openstack_on_terminal image create --disk-format raw --container-format bare empty
    expect status "$(field empty status)" queued
    expect owner "$(field empty owner)" "$(project demo)"
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
    expect "the list by property" "$(openstack image list --property os_distro=debian -f value -c Name)" sized
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
    openstack image unset --property hw_disk_bus --tag second renamed
    expect "the removed property" "$(property renamed hw_disk_bus)" null
    expect "the other tag" "$(openstack image show -f json renamed | jq -c .tags)" '["first"]'
}

hides_images() {
    openstack image set --hidden renamed
    expect "the list" "$(openstack image list -f value -c Name)" piped
    expect "the list of hidden images" "$(openstack image list --hidden -f value -c Name)" renamed
    openstack image set --unhidden renamed
}

hides_private_images_from_others() {
    as admin openstack image create --private --disk-format raw --container-format bare \
        --file "$WORK/disk" secret
    expect_failure openstack image show secret
    as admin openstack image delete secret
}

publishes_only_as_admin() {
    expect_failure openstack image set --public renamed
    as admin openstack image set --public "$(field renamed id)"
    expect visibility "$(as alt_demo field renamed visibility)" public
    as reader expect_failure openstack image save --file "$WORK/refused" renamed
    as alt_demo openstack image save --file "$WORK/saved" renamed
    expect "the downloaded file" "$(hash_of "$WORK/saved")" "$(hash_of "$WORK/disk")"
    openstack image set --community renamed
    expect "the list of community images" "$(as alt_demo openstack image list --community -f value -c Name)" renamed
    openstack image set --shared renamed
}

shares_an_image() {
    local id alt
    id=$(field renamed id)
    alt=$(project alt_demo)
    expect "the new member" "$(openstack image add project -f value -c member_id -c status renamed "$alt")" \
        "$alt"$'\npending'
    expect "the member's list" "$(as alt_demo openstack image list -f value -c Name)" ""
    as alt_demo openstack image set --accept "$id"
    expect "the member's list" "$(as alt_demo openstack image list -f value -c Name)" renamed
    expect "the members" "$(openstack image member list renamed -f value -c 'Member ID' -c Status)" "$alt accepted"
    as alt_demo openstack image set --reject "$id"
    expect "the rejected" "$(as alt_demo openstack image list --member-status rejected --shared -f value -c Name)" renamed
    as alt_demo openstack image set --pending "$id"
    expect "the member" "$(openstack image member get renamed "$alt" -f value -c status)" pending
    openstack image remove project renamed "$alt"
    expect_failure openstack image member get renamed "$alt"
    as alt_demo expect_failure openstack image show "$id"
}

deactivates_an_image() {
    openstack image set --deactivate renamed
    expect status "$(field renamed status)" deactivated
    expect_failure openstack image save --file "$WORK/refused" renamed
    openstack image set --activate renamed
    expect status "$(field renamed status)" active
}

lists_stores() {
    expect "the stores" "$(openstack image stores list -f value -c ID | sort)" $'archive\nceph'
    expect "the default store" "$(openstack image stores list -f value -c ID -c Default | grep True)" "ceph True"
    expect "the stores in detail" "$(as admin openstack image stores list --detail -f value -c ID | sort)" $'archive\nceph'
    expect_failure openstack image stores list --detail
}

lists_import_methods() {
    openstack image import info | grep glance-direct
}

await_status() { # IMAGE STATUS
    local tries
    for ((tries = 40; tries > 0; tries--)); do
        [[ $(field "$1" status) != "$2" ]] || return 0
        sleep 0.5
    done
    openstack image show "$1"
    return 1
}
stored_hash() { rbd_admin export --no-progress "images/$(field "$1" id)" - | hash_of /dev/stdin; } # IMAGE

stages_and_imports() {
    openstack_on_terminal image create --disk-format raw --container-format bare staged
    openstack image stage --file "$WORK/disk" staged
    expect status "$(field staged status)" uploading
    openstack image import --method glance-direct staged
    await_status staged active
    expect os_hash_value "$(property staged os_hash_value)" "$(hash_of "$WORK/disk")"
    expect "what the pool holds" "$(stored_hash staged)" "$(hash_of "$WORK/disk")"
    openstack image delete staged
}

# A compressed qcow2 image, which becomes raw on the way.
imports_by_url() {
    openstack_on_terminal image create --disk-format qcow2 --container-format bare fetched
    openstack image import --method web-download --uri "$FILES_URL/disk.qcow2" fetched
    await_status fetched active
    expect disk_format "$(field fetched disk_format)" raw
    expect checksum "$(field fetched checksum)" "$(md5sum <"$WORK/files/disk.qcow2" | cut -d' ' -f1)"
    expect "what the pool holds" "$(stored_hash fetched)" "$(hash_of "$WORK/whole")"
    openstack image delete fetched
}

# Of the only region there is, which is another for all that anybody knows.
imports_from_a_region() {
    openstack_on_terminal image create --disk-format raw --container-format bare far
    openstack image import --method glance-download --remote-region "$ROCKPOOL_TEST_KEYSTONE_REGION" \
        --remote-image "$(field renamed id)" --remote-service-interface public far
    await_status far active
    expect os_distro "$(property far os_distro)" "$(property renamed os_distro)"
    expect "what the pool holds" "$(stored_hash far)" "$(hash_of "$WORK/disk")"
    openstack image delete far
}

# An administrator's business; others are refused, but the client does not look at the answer.
copies_to_another_store() {
    local id tries
    id=$(field renamed id)
    as admin openstack image import "$id" --method copy-image --store archive
    for ((tries = 40; tries > 0; tries--)); do
        [[ $(property renamed stores) != *,* ]] || break
        sleep 0.5
    done
    expect stores "$(property renamed stores | tr , '\n' | sort)" $'archive\nceph'
    expect "what the archive holds" "$(sha512sum "$WORK/archive/$id".* | grep -c "^$(hash_of "$WORK/disk")")" 1
    openstack image save --file "$WORK/saved" renamed
    expect "the downloaded file" "$(hash_of "$WORK/saved")" "$(hash_of "$WORK/disk")"
}

# There is one where the service `nova` has given a location for what to hash.
lists_tasks() {
    local id token
    id=$(openstack_on_terminal image create --disk-format raw --container-format bare -f value -c id located)
    token=$(as nova openstack token issue -f value -c id)
    curl -sf -X POST -H "X-Auth-Token: $token" -H "Content-Type: application/json" "$URL/v2/images/$id/locations" \
        -d "{\"url\": \"$(property renamed direct_url)\"}"
    as admin openstack image task list -f json >"$WORK/tasks"
    expect "the type of the task" "$(jq -r .[0].Type "$WORK/tasks")" location_import
    as admin openstack image task show -f json "$(jq -r .[0].ID "$WORK/tasks")" >"$WORK/task"
    expect "the image of the task" "$(jq -r .input.image_id "$WORK/task")" "$id"
    expect_failure openstack image task list
    openstack image delete "$id"
}

says_that_there_is_no_cache() {
    as admin expect_failure openstack cached image list
    as admin expect_failure openstack cached image queue renamed
    # These say so with exit code 0.
    as admin openstack cached image delete renamed || true
    as admin openstack cached image clear || true
}

has_metadata_namespaces() {
    local -x OS_CLOUD=admin
    as demo expect_failure metadef namespace create My::Space
    metadef namespace create --display-name Mine --description "a space" --public My::Space
    # It replaces the whole namespace: what is not said has its default.
    metadef namespace set --display-name Ours --public --unprotected --tag one --tag two My::Space
    expect "the namespaces" "$(as demo metadef namespace list -f value -c namespace)" My::Space
    expect "the namespace" "$(metadef namespace show My::Space -f json | jq -r '"\(.display_name) \([.tags[].name] | sort | join(","))"')" \
        "Ours one,two"
    metadef namespace unset --tag one My::Space
    expect "the other tag" "$(metadef namespace show My::Space -f json | jq -r '[.tags[].name] | join(",")')" two
    metadef namespace unset --all-tags My::Space
    metadef namespace set --public --protected My::Space
    expect "the namespace is protected" "$(metadef namespace show My::Space -f json | jq -r .protected)" true
    expect_failure metadef namespace delete My::Space
    metadef namespace set --public --unprotected My::Space
}

has_metadata_objects() {
    local -x OS_CLOUD=admin token
    metadef object create --namespace My::Space thing
    metadef object update --name object My::Space thing
    expect "the object" "$(metadef object show My::Space object -f value -c name)" object
    # The client makes objects without properties only.
    token=$(openstack token issue -f value -c id)
    curl -sf -o /dev/null -X PUT -H "X-Auth-Token: $token" -H "Content-Type: application/json" \
        "$URL/v2/metadefs/namespaces/My::Space/objects/object" \
        -d '{"name": "object", "properties": {"size": {"title": "Size", "type": "integer"}}}'
    expect "its property" "$(metadef object property show My::Space object size -f value -c title)" Size
    expect "the objects" "$(metadef object list My::Space -f value -c name)" object
    metadef object delete My::Space object
    expect "the objects" "$(metadef object list My::Space -f value -c name)" ""
}

has_metadata_properties() {
    local -x OS_CLOUD=admin
    metadef property create --name bus --title Bus --type string --schema '{"enum": ["ide", "scsi"]}' My::Space
    metadef property set --name bus --title "The bus" --type string --schema '{"enum": ["virtio"]}' My::Space bus
    expect "the property" "$(metadef property show My::Space bus -f json | jq -r '"\(.title) \(.enum)"')" "The bus [\"virtio\"]"
    expect "the properties" "$(metadef property list My::Space -f value -c name)" bus
    metadef property delete My::Space bus
    expect "the properties" "$(metadef property list My::Space -f value -c name)" ""
}

has_metadata_resource_types() {
    local -x OS_CLOUD=admin
    metadef resource type association create My::Space My::Type
    expect "the associations" "$(metadef resource type association list My::Space -f value -c name)" My::Type
    metadef resource type list -f value -c Name | grep -x My::Type
    metadef resource type association delete My::Space My::Type
    expect "the associations" "$(metadef resource type association list My::Space -f value -c name)" ""
    metadef namespace delete My::Space
    expect "the namespaces" "$(metadef namespace list -f value -c namespace)" ""
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

# An application credential that may only look.
obeys_access_rules() {
    as demo-app openstack_on_terminal image create --disk-format raw --container-format bare by-app
    as demo-app-show expect_failure openstack image delete by-app
    expect "what may be seen" "$(as demo-app-show openstack image list -f value -c Name)" by-app
    as demo-app openstack image delete by-app
}

refuses_those_without_a_project_or_role() {
    local cloud
    for cloud in domain-admin norole; do
        as $cloud expect_failure openstack image list
    done
    expect_failure "$ROCKPOOL_TEST_CLIENTS/openstack" --os-auth-type admin_token --os-endpoint "$URL/v2" --os-token wrong image list
}

mkdir "$WORK/archive" "$WORK/files"
IMAGES='default_store = "ceph"'
SECTIONS="$(fetch_from_here)
[stores.archive]
type = \"file\"
data_dir = \"$WORK/archive\""
start_gateway keystone
serve_files "$WORK/files"
# Not a multiple of any block size, and with a hole in it.
head -c 9000001 /dev/urandom >"$WORK/disk"
truncate -s 30000001 "$WORK/disk"
head -c 1000 /dev/urandom >>"$WORK/disk"
# A disk has whole sectors.
head -c 30000128 "$WORK/disk" >"$WORK/whole"
qemu-img convert -f raw -O qcow2 -c "$WORK/whole" "$WORK/files/disk.qcow2"

step "openstack creates a record without data" creates_a_record_without_data
step "openstack uploads with a length" uploads_with_a_length
step "openstack uploads chunked from a pipe" uploads_chunked_from_a_pipe
step "openstack lists what is there" lists_what_is_there
step "openstack downloads what was uploaded" downloads_what_was_uploaded
step "openstack changes properties and tags" changes_properties_and_tags
step "openstack hides images" hides_images
step "openstack does not see the private images of others" hides_private_images_from_others
step "openstack publishes images, as admin alone" publishes_only_as_admin
step "openstack shares an image" shares_an_image
step "openstack deactivates an image" deactivates_an_image
step "openstack lists stores" lists_stores
step "openstack lists tasks" lists_tasks
step "openstack lists import methods" lists_import_methods
step "openstack stages and imports an image" stages_and_imports
step "openstack imports an image by URL" imports_by_url
step "openstack imports an image of a region" imports_from_a_region
step "openstack copies an image to another store" copies_to_another_store
step "openstack is told that there is no cache" says_that_there_is_no_cache
step "openstack has metadata namespaces" has_metadata_namespaces
step "openstack has metadata objects" has_metadata_objects
step "openstack has metadata properties" has_metadata_properties
step "openstack has metadata resource types" has_metadata_resource_types
step "openstack is refused to delete a protected image" refuses_to_delete_a_protected_image
step "openstack deletes records and data" deletes_records_and_data
step "openstack obeys the access rules of an application credential" obeys_access_rules
step "openstack is refused without a project, a role or a token" refuses_those_without_a_project_or_role
stop_gateway
