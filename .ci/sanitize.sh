#!/bin/bash
# sanitize.sh address|thread [cargo test's arguments...]
#
# Runs tests under AddressSanitizer with LeakSanitizer, or under ThreadSanitizer; by default all
# that start no other process, but for those that count allocations, threads or descriptors, of
# which the sanitizer has its own. Installs on Debian, as root, what it needs there.
#
# address  wants a nightly toolchain: `rustup toolchain install nightly`.
# thread   wants a std that is built with it, or each lock of std looks like a race: so it takes
#          Debian's rustc, with the source of its std, and the clang of the same LLVM.
#
# ThreadSanitizer does not understand `fence`. Ours order atomics and nothing else, so that it has
# no reason to complain of them; what they are for is proved by the loom models.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizer=${1:-}
[ $# -eq 0 ] || shift
target=x86_64-unknown-linux-gnu
folder=${CARGO_TARGET_DIR:-target}
# Reports name lines, and the build is half as long.
export CARGO_PROFILE_DEV_DEBUG=line-tables-only
# One thread plays them: some are enough here.
export SIM_SEEDS=${SIM_SEEDS:-20}
if [ $# -eq 0 ]; then
  set -- --no-fail-fast --lib
  for suite in admission alarms backpressure bytes drain groups handles isolation lifecycle limits \
    memory offload outbound overload pool reconnect session shaping timeouts timers; do
    set -- "$@" --test $suite
  done
fi

case $sanitizer in
  address)
    export CARGO_TARGET_DIR=$folder/asan
    export RUSTFLAGS=-Zsanitizer=address
    export LSAN_OPTIONS=suppressions=$PWD/.ci/lsan.supp:${LSAN_OPTIONS:-}
    export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:${ASAN_OPTIONS:-}
    exec cargo +nightly test --target "$target" "$@"
    ;;
  thread)
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      .ci/xsetup.sh base thread
    fi
    export XTARGET_DIR=$folder/tsan
    RUSTFLAGS="-Zsanitizer=thread -Zexternal-clangrt"
    RUSTFLAGS+=" -Clinker=clang-22 -Clink-arg=-fsanitize=thread"
    export RUSTFLAGS
    # Without this a report names no functions.
    symbolizer=$(readlink -f "$(command -v llvm-symbolizer-22)")
    export TSAN_OPTIONS="external_symbolizer_path=$symbolizer ${TSAN_OPTIONS:-}"
    # Its shadow memory does not go with every layout that the kernel may choose.
    exec setarch -R .ci/xcargo.sh "$target" test "$@"
    ;;
  *)
    echo "usage: sanitize.sh address|thread [cargo test's arguments...]" >&2
    exit 2
    ;;
esac
