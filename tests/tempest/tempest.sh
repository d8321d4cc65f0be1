#!/usr/bin/env bash
# Tempest's tests of the Image API, with the defaults and once more with loose settings: nothing fails.
# What Tempest skips is listed with Tempest's reason; what it is told to leave out (left_out.txt) with ours.
# shellcheck source=../clients/daemon.sh source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/../clients/daemon.sh"

readonly HERE=$REPO/tests/tempest
readonly TESTS='^tempest\.api\.image\.'

PATH=$ROCKPOOL_TEST_CLIENTS:$PATH

make_workspace() {
    tempest init "$WORK/tempest" --workspace-path "$WORK/workspace.yaml"
}

write_tempest_config() { # STRICT: true or false
    cat >"$WORK/tempest/etc/tempest.conf" <<INI
[DEFAULT]
log_file = $WORK/tempest.log
[oslo_concurrency]
lock_path = $WORK/tempest/locks
[auth]
use_dynamic_credentials = true
admin_username = $ROCKPOOL_TEST_KEYSTONE_ADMIN_USER
admin_password = $ROCKPOOL_TEST_KEYSTONE_ADMIN_PASSWORD
admin_project_name = $ROCKPOOL_TEST_KEYSTONE_ADMIN_PROJECT
admin_domain_name = $ROCKPOOL_TEST_KEYSTONE_DOMAIN
admin_system = all
[enforce_scope]
glance = true
[identity]
auth_version = v3
uri_v3 = $ROCKPOOL_TEST_KEYSTONE_URL
region = $ROCKPOOL_TEST_KEYSTONE_REGION
v3_endpoint_type = public
[service_available]
glance = true
nova = false
neutron = false
cinder = false
swift = false
[image]
region = $ROCKPOOL_TEST_KEYSTONE_REGION
build_timeout = 40
container_formats = bare,ami,ari,aki,ovf,ova
disk_formats = raw,qcow2,ami,ari,aki,vhd,vmdk,vdi,iso,vhdx
[image-feature-enabled]
import_image = false
manage_locations = false
http_store_enabled = false
store_weight_enabled = false
image_conversion = false
os_glance_reserved = true
image_format_enforcement = $1
do_secure_hash = $1
INI
}

# Its own exit code says less than its results: a line for each test.
run_tempest() { # NAME STRICT REGEX
    local count
    write_tempest_config "$2"
    (cd "$WORK/tempest" && tempest run --concurrency 2 --regex "$3" --exclude-list "$HERE/left_out.txt" --subunit \
        >"$WORK/tempest.subunit" 2>"$WORK/tempest.errors") || true
    python "$HERE/report.py" "$1" <"$WORK/tempest.subunit" | tee "$WORK/tempest.report"
    count=$(grep -c '^not ok ' "$WORK/tempest.report") || true
    FAILED_STEPS=$((FAILED_STEPS + count))
    grep -q '^ok ' "$WORK/tempest.report" || {
        sed 's/^/#   /' "$WORK/tempest.errors"
        FAILED_STEPS=$((FAILED_STEPS + 1))
        echo "not ok $1: no test ran"
    }
}

# Tempest takes the first resource type that it finds: every cloud has some.
add_a_resource_type() {
    local token
    token=$(OS_CLOUD='admin' openstack token issue -f value -c id)
    curl -sf -X POST -H "X-Auth-Token: $token" -H "Content-Type: application/json" "$URL/v2/metadefs/namespaces" \
        -d '{"namespace": "Some::Space", "resource_type_associations": [{"name": "Some::Type"}]}'
}

list_what_is_left_out() {
    local test reason
    while IFS='#' read -r test reason; do
        [[ -z ${test// /} || -z $reason ]] || skip "tempest ${test%% *}" "${reason# }"
    done <"$HERE/left_out.txt"
}

# Those that Tempest runs only where formats are not enforced, or hashes not computed.
readonly LOOSE_TESTS='test_images\.List(User|Shared)ImagesTest|do_secure_hash_false'

start_gateway keystone
step "a Tempest workspace is made" make_workspace
step "a resource type is there" add_a_resource_type
list_what_is_left_out
run_tempest tempest true "$TESTS"
stop_gateway

export IMAGES="do_secure_hash = false" INSPECTION="require_image_format_match = false"
start_gateway keystone
run_tempest "tempest, loose," false "$LOOSE_TESTS"
stop_gateway
