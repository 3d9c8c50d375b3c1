#!/bin/sh
# Plants each known mutation and demands that some loom model fails; exits with 1 if one survives.
set -eu
cd "$(dirname "$0")"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# 0: some model fails. One preemption finds most in a second, so more are tried only if it does not.
is_caught() {
    for preemptions in 1 2 3; do
        if LOOM_MAX_PREEMPTIONS=$preemptions ./models.sh "$@" >"$log" 2>&1; then
            continue
        fi
        grep -q 'panicked at' "$log" && return 0
        cat "$log"
        echo "the models cannot be run"
        exit 1
    done
    return 1
}

if ! LOOM_MAX_PREEMPTIONS=1 ./models.sh >"$log" 2>&1; then
    cat "$log"
    echo "the models fail without any mutation"
    exit 1
fi

# The names stand in Cargo.toml, where the compiler checks each that the code asks for.
mutants=$(sed -n 's/.*cfg(switchboard_mutant, values(\(.*\))).*/\1/p' ../Cargo.toml | tr -d '",')
test -n "$mutants"
survivors=0
for mutant in $mutants; do
    if is_caught "$mutant"; then
        echo "caught   $mutant"
    else
        echo "SURVIVED $mutant"
        survivors=1
    fi
done
exit "$survivors"
