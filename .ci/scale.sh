#!/bin/bash
# scale.sh [CONNECTIONS]                                    120,000 unless given; at most 1,000,000
#
# Opens so many connections to one echo process in a guest of its own (see vm-run.sh): one message
# is echoed on each and compared, then ten more on one of a hundred while the others idle, and all
# are closed. Tells what they cost. A first ten thousand are not counted: they bring in the code and
# the buffers that every server needs.
#
# Fails if a connection was lost, if one takes more than 256 bytes of the process, with everything
# on that is on by default, or if more than 1 % of the process's memory of before is left in the
# end (scale-guest.sh has how that is told from what the allocator keeps). Of more than 250,000 the
# server expects a word once an hour only: opening them takes the guest so long that the first would
# be closed for their silence, and the questions of the system whether their hosts are still there,
# thousands each second, would be most of what it does.
# Exits with 77, and the reason, where this cannot be run.
#
# Needs 1 GiB of memory, and another 13 for each million connections; a processor that is no other's
# takes 10 minutes for a million.
set -euo pipefail
cd "$(dirname "$0")/.."
connections=${1:-120000}
case $connections in
  '' | *[!0-9]*) echo "usage: .ci/scale.sh [CONNECTIONS]" >&2; exit 2 ;;
esac
patience=
[ "$connections" -le 250000 ] || patience="--silence-max 3600 --host-check 3600"
memory=$((1024 + connections * 13 / 1000))
free=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
if [ "$free" -lt "$memory" ]; then
  echo "skipped: the guest needs $memory MiB of memory, and $free are free"
  exit 77
fi

cargo build --quiet --release --example echo
cargo build --quiet --release -p switchboard-bench --bin load
output=$(mktemp)
trap 'rm -f "$output"' EXIT
code=0
.ci/vm-run.sh -m "$memory" -t $((120 + connections / 100)) \
  -f "${CARGO_TARGET_DIR:-target}/release/examples/echo" \
  -f "${CARGO_TARGET_DIR:-target}/release/load" \
  -f .ci/scale-guest.sh "scale-guest.sh $connections $patience" > "$output" || code=$?
if [ $code = 77 ]; then
  echo "skipped: there is no guest to be had here"
  exit 77
elif [ $code != 0 ]; then
  cat "$output"
  exit 1
fi

field() { tail -1 "$output" | sed -n "s/.*\"$1\":\([-0-9.e]*\).*/\1/p"; }
awk -v connections="$connections" -v rounds="$(grep -c rss_closed "$output")" \
  -v alive="$(field alive)" -v echoes="$(field active_echoes)" \
  -v active="$(field active)" -v p50="$(field p50)" -v p99="$(field p99)" \
  -v user="$(field rss_bytes_per_connection)" -v kernel="$(field kernel_bytes_per_connection)" \
  -v start="$(field rss_start_kib)" -v connected="$(field rss_connected_kib)" \
  -v closed="$(field rss_closed_kib)" -v connect_s="$(field connect_seconds)" \
  -v close_s="$(field close_seconds)" -v seconds="$(field seconds)" 'BEGIN {
    printf "connections          %d: opened, one echo each compared, closed\n", connections
    if (rounds > 1) printf "rounds               %d, of which what follows is the last\n", rounds
    printf "active               %d of them: %d echoes, p50 %.0f ms, p99 %.0f ms\n", \
      active, echoes, p50 / 1000, p99 / 1000
    printf "user space           %.0f bytes a connection\n", user
    printf "kernel, both ends    %.0f bytes a connection\n", kernel
    printf "resident             %d KiB before, %d with all, %d after\n", start, connected, closed
    printf "time                 %.0f s, of which %.0f to open and %.0f to close\n", \
      seconds, connect_s, close_s
    if (alive != connections) { print "FAILED: " alive " were left when all were silent"; bad = 1 }
    if (echoes != active * 10) { print "FAILED: the active ones did not have all echoes"; bad = 1 }
    if (user > 256) { print "FAILED: more than 256 bytes of user space a connection"; bad = 1 }
    if (closed > start * 1.01) { print "FAILED: memory is not back to the start + 1 %"; bad = 1 }
    exit bad
  }'
