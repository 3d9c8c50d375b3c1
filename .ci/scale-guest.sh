#!/bin/sh
# scale-guest.sh CONNECTIONS [the server's arguments...]
#
# What scale.sh does inside its guest; prints the figures of each round as `load idle` tells them.
#
# The allocator is to give back at once what is freed (mallopt(3)); up to 64 KiB at the end of its
# heap it keeps all the same (FASTBIN_CONSOLIDATION_THRESHOLD of glibc's malloc.c), more than 1 % of
# what the server has without connections. So there are up to three rounds, until one has left less
# than that: what a server leaks it leaks each time.
connections=$1
shift
: > server
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=4096 MALLOC_TRIM_THRESHOLD_=4096 MALLOC_TOP_PAD_=0
/bin/echo --addr 127.0.0.1:7000 "$@" > server &
server=$!
until grep -q listening server; do sleep 0.1; done

load() { /bin/load idle --addr 127.0.0.1:7000 --pid $server --sources 64 --connections "$1"; }
kib() { sed -n "s/.*rss_$1_kib.:\([0-9]*\).*/\1/p" figures; }
load 10000 > /dev/null || exit 1
for _ in 1 2 3; do
  load "$connections" > figures || { cat figures /proc/net/netstat /proc/net/sockstat; exit 1; }
  cat figures
  [ $((100 * $(kib closed))) -gt $((101 * $(kib start))) ] || break
done
