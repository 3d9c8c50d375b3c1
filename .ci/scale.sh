#!/bin/bash
# scale.sh [CONNECTIONS]                                    120,000 unless given; at most 1,000,000
#
# Opens so many connections to one echo process in a guest of its own (see vm-run.sh), has one
# message echoed on each and compares it, lets them idle, closes them all, and tells what they cost.
# A first thousand is not counted: it brings in the code and the buffers that every server needs.
# Fails if one of them was lost, if a connection takes more than 256 bytes of the process, or if
# more than 1 % of its memory, and 256 KiB of buffers and stacks, stays when all are closed. The
# allocator is told to give back what is freed, of which it would keep a part (mallopt(3)).
# Needs 1 GiB of memory, and another 13 for each million connections.
set -euo pipefail
cd "$(dirname "$0")/.."
connections=${1:-120000}
case $connections in
  '' | *[!0-9]*) echo "usage: .ci/scale.sh [CONNECTIONS]" >&2; exit 2 ;;
esac

cargo build --quiet --release --example echo
cargo build --quiet --release -p switchboard-bench --bin load
output=$(mktemp)
trap 'rm -f "$output"' EXIT
.ci/vm-run.sh -m $((1024 + connections * 13 / 1000)) -t $((120 + connections / 100)) \
  -f "${CARGO_TARGET_DIR:-target}/release/examples/echo" \
  -f "${CARGO_TARGET_DIR:-target}/release/load" "
    : > server
    MALLOC_MMAP_THRESHOLD_=131072 /bin/echo --addr 127.0.0.1:7000 > server &
    until grep -q listening server; do sleep 0.1; done
    load idle --addr 127.0.0.1:7000 --pid \$! --connections 1000 > /dev/null &&
      load idle --addr 127.0.0.1:7000 --pid \$! --connections $connections --sources 64 ||
      { cat /proc/net/netstat /proc/net/sockstat; exit 1; }
  " > "$output" || { cat "$output"; exit 1; }

field() { sed -n "s/.*\"$1\":\([-0-9.e]*\).*/\1/p" "$output"; }
[ "$(field alive)" = "$connections" ] || { cat "$output"; exit 1; }
awk -v connections="$connections" -v user="$(field rss_bytes_per_connection)" \
  -v kernel="$(field kernel_bytes_per_connection)" -v seconds="$(field seconds)" \
  -v start="$(field rss_start_kib)" -v connected="$(field rss_connected_kib)" \
  -v closed="$(field rss_closed_kib)" 'BEGIN {
    printf "connections          %d: opened, one echo each compared, closed\n", connections
    printf "user space           %.0f bytes a connection\n", user
    printf "kernel, both ends    %.0f bytes a connection\n", kernel
    printf "resident             %d KiB before, %d with all, %d after\n", start, connected, closed
    printf "time                 %.0f s\n", seconds
    if (user > 256) { print "more than 256 bytes a connection"; exit 1 }
    if (closed - start > connected / 100 + 256) { print "not given back"; exit 1 }
  }'
