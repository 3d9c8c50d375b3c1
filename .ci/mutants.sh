#!/bin/sh
# Plants each known mutation and demands that some loom model fails; exits with 1 if one survives.
set -eu
cd "$(dirname "$0")"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if ! ./models.sh >"$log" 2>&1; then
    cat "$log"
    echo "the models fail without any mutation"
    exit 1
fi

# The names stand in Cargo.toml, where the compiler checks each that the code asks for.
mutants=$(sed -n 's/.*cfg(switchboard_mutant, values(\(.*\))).*/\1/p' ../Cargo.toml | tr -d '",')
test -n "$mutants"
survivors=0
for mutant in $mutants; do
    if ./models.sh "$mutant" >"$log" 2>&1; then
        echo "SURVIVED $mutant"
        survivors=1
    elif grep -q 'panicked at' "$log"; then
        echo "caught   $mutant"
    else
        cat "$log"
        echo "$mutant was not tried"
        exit 1
    fi
done
exit "$survivors"
