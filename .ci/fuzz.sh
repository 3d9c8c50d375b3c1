#!/usr/bin/env bash
# Fuzzes every target for a while, or those that are named, one after the other.
#
#   .ci/fuzz.sh [seconds [target ...]]       60 seconds each by default
#
# Starts from the seeds and from what was found before (fuzz/corpus). Ends with 1 if something is
# found, which then lies in fuzz/artifacts, and with 2 if there is no nightly toolchain or no
# cargo-fuzz. Without them `cargo test --manifest-path fuzz/Cargo.toml` runs the same targets on
# their seeds and on made-up bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:-60}"
[ $# -eq 0 ] || shift
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "needs a nightly toolchain and cargo-fuzz (cargo install cargo-fuzz --locked)"
    exit 2
fi
if [ $# -eq 0 ]; then
    for target in fuzz/fuzz_targets/*.rs; do set -- "$@" "$(basename "$target" .rs)"; done
fi
found=0
for target in "$@"; do
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    log=$(mktemp)
    # A world takes longer than a frame; none takes this long.
    if cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=60 -rss_limit_mb=4096 \
        -print_final_stats=1 >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        reached=$(grep -o 'DONE .*cov: [0-9]*' "$log" | grep -o '[0-9]*$')
        echo "$target: $runs runs, $reached edges, nothing found"
    else
        found=1
        tail -40 "$log"
        echo "$target: FOUND something, see fuzz/artifacts/$target"
    fi
    rm -f "$log"
done
exit "$found"
