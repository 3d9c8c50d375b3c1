#!/bin/sh
# Runs the loom models. $1, if given, is the name of a mutation to plant; see mutants.sh.
set -eu
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"
export RUSTFLAGS="--cfg loom"

# The mutation goes to this crate alone, so that the others need not be built again for each.
# Less optimised than usual: compiling takes longer than what most models do.
models=$(cargo rustc --quiet --profile bench --lib --message-format json -- \
    -C opt-level=1 -C debuginfo=0 \
    ${1:+--cfg "switchboard_mutant=\"$1\""} |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
test -x "$models"
"$models" model::
