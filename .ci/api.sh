#!/usr/bin/env bash
# Compares the public API with tests/api.txt, or writes that anew with --update. A line that goes or
# changes there is a breaking change: CONTRIBUTING.md says what that means for the version.
#
# Needs a nightly toolchain (for the output of rustdoc) and cargo-public-api, and ends with 2 if
# they are not to be had. Their versions are pinned together: another nightly may name things of the
# standard library otherwise, or write what this tool cannot read.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=0.52.0 pinned=nightly-2026-05-20 commit_date=2026-05-19

# The pinned one, or a plain nightly that is the same.
find_nightly() {
    for nightly in $pinned nightly; do
        if rustc "+$nightly" --version 2>/dev/null | grep -q "$commit_date"; then
            return 0
        fi
    done
    nightly=$pinned
    rustup toolchain install "$pinned" --profile minimal --no-self-update
}
find_tool() {
    PATH=$PWD/target/tools/bin:$PATH
    if ! cargo public-api --version 2>/dev/null | grep -q " $tool\$"; then
        cargo install cargo-public-api --locked --version "$tool" --root target/tools
    fi
}
if ! find_nightly || ! find_tool; then
    echo "cannot list the public API: needs $pinned and cargo-public-api $tool"
    exit 2
fi

list=$(mktemp)
trap 'rm -f "$list"' EXIT
# Not the feature sim, of which nothing is promised. Without what is derived, blanket or automatic.
cargo "+$nightly" public-api --features testing,tokio-util -sss >"$list"
if [ "${1:-}" = --update ]; then
    cat "$list" >tests/api.txt
elif ! diff -u tests/api.txt "$list"; then
    echo "the public API has changed; if that is meant, run .ci/api.sh --update"
    exit 1
fi
