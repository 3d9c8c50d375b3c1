#!/bin/sh
# Runs the models: loom takes every interleaving of few threads (up to a bound of preemptions),
# Shuttle some of many. $1, if given, is the name of a mutation to plant; see mutants.sh.
set -eu
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"

# Builds the models for the checker that these flags choose, and runs those of that name.
# The mutation goes to this crate alone, so that the others need not be built again for each.
# Less optimised than usual: compiling takes longer than what most models do.
check() {
    models=$(CARGO_TARGET_DIR="$target/$2" RUSTFLAGS="$1" \
        cargo rustc --quiet --profile bench --lib --message-format json -- \
        -C opt-level=1 -C debuginfo=0 ${4:+--cfg "switchboard_mutant=\"$4\""} |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    test -x "$models"
    "$models" "$3"
}

check "--cfg loom" loom model:: "$@"
check "--cfg loom --cfg shuttle" shuttle model::some:: "$@"
