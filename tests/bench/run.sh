#!/usr/bin/env bash
# Measures the release gateway beside what its cluster can do at best, on servers of its own that are
# gone afterwards. Root on Debian 12; README.md says what the figures mean.
#
#   tests/bench/run.sh [OPTION...]
#
#   --only BENCH,...   upload, chunked, parallel, download, range, sparse, convert,
#                      memory, requests, lists; all without it
#   --rounds N         rounds of each bench (5)
#   --size-mib N       size of the dense image (1024); the sparse ones are ten times as large
#   --out FILE         where the JSON goes (bench.json in cargo's target folder)
#   --reference        also measure the reference Glance, where there is a lab
#   --lab DIR          folder of the lab (../shared/lab beside this repository)
#
# The figures never fail a run; a transfer that fails or brings other bytes does.
#
# Environment:
#   ROCKPOOL_BENCH_BINARY   measure this gateway instead of building one
#   LAB_STATE               where the lab keeps its virtual environments (/var/tmp/rockpool-bench-lab);
#                           they stay for the next run, its servers and their data do not
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$HERE/../.." && pwd)
readonly HERE REPO
readonly CLUSTER_SH=$REPO/ceph/cluster.sh
# Ports that are asked for at once: 50 for the cluster, the others for the lab.
readonly PORTS=100
readonly LAB_PORT_OFFSET=50

ONLY=upload,chunked,parallel,download,range,sparse,convert,memory,requests,lists
ROUNDS=5 SIZE_MIB=1024 OUT='' REFERENCE='' LAB=$REPO/../shared/lab
STATE='' CHILD='' LAB_USED=''

say() { printf '[bench] %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit "$1"
}

# ---------------------------------------------------------------- options

is_number() { [[ $1 =~ ^[1-9][0-9]*$ ]]; }

parse() {
    while (($# > 0)); do
        case $1 in
        -h | --help) usage 0 ;;
        --reference) REFERENCE=yes && shift && continue ;;
        --only | --rounds | --size-mib | --out | --lab) (($# > 1)) || die "$1 needs a value." ;;
        *) say "There is no option '$1'." && usage 1 >&2 ;;
        esac
        case $1 in
        --only) ONLY=$2 ;;
        --rounds) ROUNDS=$2 ;;
        --size-mib) SIZE_MIB=$2 ;;
        --out) OUT=$(realpath -m -- "$2") ;;
        --lab) LAB=$2 ;;
        esac
        shift 2
    done
    if ! is_number "$ROUNDS" || ! is_number "$SIZE_MIB"; then die "--rounds and --size-mib take a whole number."; fi
    # Offsets within the images are whole objects of 8 MiB.
    ((SIZE_MIB % 64 == 0)) || die "--size-mib takes a multiple of 64."
    LAB=$(realpath -m -- "$LAB")
}

# ---------------------------------------------------------------- the end, whatever happened

cleanup() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    # The benches have a process group of their own, with the gateways in it.
    if [[ -n $CHILD ]]; then
        { kill -KILL -- "-$CHILD" && wait "$CHILD"; } 2>/dev/null || true
    fi
    [[ -z $LAB_USED ]] || "$LAB/lab" wipe >&2 || true
    [[ ! -e $STATE/cluster ]] || "$CLUSTER_SH" wipe "$STATE/cluster" || true
    [[ -z $STATE ]] || rm -rf "$STATE"
    exit "$status"
}

# ---------------------------------------------------------------- what the benches need

find_binary() {
    local target
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
    command -v cargo >/dev/null || die "Rust is missing; ceph/demo.sh says how to get it."
    target=$(cd "$REPO" && cargo metadata --format-version 1 --no-deps | jq -r .target_directory)
    : "${OUT:=$target/bench.json}"
    if [[ -n ${ROCKPOOL_BENCH_BINARY:-} ]]; then
        BINARY=$(realpath -- "$ROCKPOOL_BENCH_BINARY")
        return
    fi
    (cd "$REPO" && cargo build --release) >&2
    BINARY=$target/release/rockpool
}

# Postgres runs as a user of its own, who must be able to get there. Not /tmp by default: it may be
# memory, and the OSD's file is larger than that.
make_state() {
    STATE=$(mktemp -d "${TMPDIR:-/var/tmp}/rockpool-bench.XXXXXX")
    chmod 755 "$STATE"
}

are_free() { # FIRST
    local port
    for ((port = $1; port < $1 + PORTS; port++)); do
        ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 1
    done
}

# Below the ports that the kernel gives to outgoing connections.
choose_ports() {
    until
        PORT=$((20000 + RANDOM % 100 * PORTS))
        are_free "$PORT"
    do :; done
}

start_servers() {
    unset ROCKPOOL_CLUSTER_ADDRESS ROCKPOOL_CLUSTER_THROWAWAY
    export ROCKPOOL_CLUSTER_PORT=$PORT
    # Ten dense images at once, and the sparse ones.
    export ROCKPOOL_CLUSTER_GIB=$((20 + 10 * SIZE_MIB / 1024))
    "$CLUSTER_SH" up "$STATE/cluster"
    "$CLUSTER_SH" pg-up "$STATE/cluster"
    "$CLUSTER_SH" pg-database "$STATE/cluster" bench >/dev/null
    "$CLUSTER_SH" pg-database "$STATE/cluster" bench_lab >/dev/null
}

# The benches start the lab when its turn comes: until then it would only disturb. What takes minutes,
# and what has to be stopped, is here.
prepare_lab() {
    local port=$((PORT + LAB_PORT_OFFSET))
    [[ -n $REFERENCE ]] || return 0
    if [[ ! -x $LAB/lab ]]; then
        say "There is no lab in $LAB: the reference is skipped."
        return
    fi
    export LAB_STATE=${LAB_STATE:-/var/tmp/rockpool-bench-lab}
    export LAB_PG_PORT=$port LAB_MC_PORT=$((port + 1)) LAB_MON_V2=$((port + 2)) LAB_MON_V1=$((port + 3))
    export LAB_KS_PORT=$((port + 4)) LAB_GL_PORT=$((port + 5)) LAB_GL2_PORT=$((port + 6)) LAB_WWW_PORT=$((port + 7))
    export LAB_OSD_PORT_MIN=$((port + 10)) LAB_OSD_PORT_MAX=$((port + 49))
    "$LAB/lab" install >&2
    [[ -z $(find "$LAB_STATE/run" -name '*.pid' 2>/dev/null) ]] ||
        die "A lab runs in $LAB_STATE: stop it, or set LAB_STATE."
    LAB_USED=yes
}

# In the background, because bash would put off a signal until a foreground command ended.
run_benches() {
    local status=0 lab=()
    [[ -z $REFERENCE ]] || lab=(--reference)
    [[ -z $LAB_USED ]] || lab+=(--lab "$LAB" --lab-state "$LAB_STATE")
    setsid /usr/bin/python3 -B "$HERE/main.py" --repo "$REPO" --binary "$BINARY" --state "$STATE" --out "$OUT" \
        --only "$ONLY" --rounds "$ROUNDS" --size-mib "$SIZE_MIB" "${lab[@]}" </dev/null &
    CHILD=$!
    wait "$CHILD" || status=$?
    return "$status"
}

main() {
    parse "$@"
    ((EUID == 0)) || die "Root is needed: to install packages, and to look into the gateway's memory."
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    "$CLUSTER_SH" install gcc libc6-dev librbd-dev libssl-dev pkg-config curl jq python3 wrk \
        qemu-utils qemu-block-extra
    find_binary
    choose_ports
    prepare_lab
    make_state
    start_servers
    run_benches
}

main "$@"
