#!/usr/bin/env bash
# Tempest's tests of the Image API, with the defaults and once more with loose settings: nothing fails.
# What Tempest skips is listed with Tempest's reason; what it is told to leave out (left_out.txt) with ours.
# There are a second gateway, as Tempest's image_remote, two stores that are written to, one for http, and a web server.
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
http_image = $WEB/image.raw
http_qcow2_image = $WEB/image.qcow2
alternate_image_endpoint = image_remote
container_formats = bare,ami,ari,aki,ovf,ova
disk_formats = raw,qcow2,ami,ari,aki,vhd,vmdk,vdi,iso,vhdx
[image-feature-enabled]
import_image = true
manage_locations = true
http_store_enabled = true
store_weight_enabled = true
image_conversion = true
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

# What Tempest imports by URL and registers as locations.
start_web_server() {
    local folder=$WORK/web port
    port=$(free_port)
    WEB=http://127.0.0.1:$port
    mkdir "$folder"
    head -c 2M /dev/urandom >"$folder/image.raw"
    qemu-img convert -q -f raw -O qcow2 "$folder/image.raw" "$folder/image.qcow2"
    cat >"$WORK/nginx.conf" <<CONF
daemon off;
user root;
pid $WORK/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path $WORK/nginx.body;
    server { listen 127.0.0.1:$port; root $folder; }
}
CONF
    /usr/sbin/nginx -c "$WORK/nginx.conf" -e "$WORK/nginx.log" </dev/null >/dev/null 2>&1 &
    WEB_PID=$!
    step "a web server has images" curl -sf -o /dev/null --retry 20 --retry-delay 1 --retry-connrefused "$WEB/image.raw"
}

# Tempest stages an image at one and imports or deletes it at the other.
start_second_gateway() {
    local url
    url=http://127.0.0.1:$(free_port)
    sed "s,^listen = .*,listen = \"${url#http://}\"," "$WORK/rockpool.toml" >"$WORK/second.toml"
    "$ROCKPOOL_TEST_BINARY" serve --config "$WORK/second.toml" </dev/null >>"$LOG" 2>&1 &
    SECOND_PID=$!
    step "a second gateway gets ready" curl -sf -o /dev/null --retry 30 --retry-delay 1 --retry-all-errors "$url/readyz"
    step "the catalogue has it" add_to_catalogue image_remote "$url"
}

add_to_catalogue() { # SERVICE_TYPE URL
    local service
    export OS_CLOUD='admin'
    service=$(openstack service create --name "$1" "$1" -f value -c id)
    openstack endpoint create --region "$ROCKPOOL_TEST_KEYSTONE_REGION" "$service" public "$2"
}

stop_others() {
    [[ -z $SECOND_PID ]] || kill -TERM "$SECOND_PID" 2>/dev/null || true
    [[ -z $WEB_PID ]] || kill -TERM "$WEB_PID" 2>/dev/null || true
    wait $SECOND_PID $WEB_PID || true
    WEB_PID='' SECOND_PID=''
}

list_what_is_left_out() {
    local test reason
    while IFS='#' read -r test reason; do
        [[ -z ${test// /} || -z $reason ]] || skip "tempest ${test%% *}" "${reason# }"
    done <"$HERE/left_out.txt"
}

# Those that Tempest runs only where formats are not enforced, or hashes not computed.
readonly LOOSE_TESTS='test_images\.List(User|Shared)ImagesTest|do_secure_hash_false'

WEB_PID='' SECOND_PID=''
trap 'stop_others; finish' EXIT
start_web_server
mkdir "$WORK/folder"
export SECTIONS="[stores.folder]
type = \"file\"
data_dir = \"$WORK/folder\"
weight = -1
[stores.web]
type = \"http\"
[fetch]
allowed_hosts = [\"127.0.0.1\"]
allowed_ports = [${WEB##*:}]"
readonly COMMON_IMAGES="default_store = \"ceph\"
show_multiple_locations = true"
export IMAGES=$COMMON_IMAGES
start_gateway keystone
start_second_gateway
step "a Tempest workspace is made" make_workspace
step "a resource type is there" add_a_resource_type
list_what_is_left_out
run_tempest tempest true "$TESTS"
stop_gateway

export IMAGES="$COMMON_IMAGES
do_secure_hash = false" INSPECTION="require_image_format_match = false"
start_gateway keystone
run_tempest "tempest, loose," false "$LOOSE_TESTS"
stop_gateway
