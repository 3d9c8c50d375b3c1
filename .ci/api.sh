#!/usr/bin/env bash
# Compares the public API with tests/api.txt, or writes that anew with --update. A line that goes or
# changes there is a breaking change: CONTRIBUTING.md says what that means for the version.
#
# Needs a nightly toolchain (for the output of rustdoc) and cargo-public-api. The versions are
# pinned together: another nightly may name things of the standard library otherwise, or write what
# this tool cannot read.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=0.52.0 nightly=${API_NIGHTLY:-nightly-2026-05-20}

if ! cargo public-api --version 2>/dev/null | grep -q " $tool\$"; then
    cargo install cargo-public-api --locked --version "$tool"
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
