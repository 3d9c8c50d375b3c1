#!/usr/bin/env bash
# platforms.sh [epoll|poll|pipe|i686|musl|aarch64|s390x|windows ...]      (default: all of them)
#
# Runs the behavioural suite, which docs/platforms/suite.txt names, and the unit tests on platforms;
# stores what came of each test in docs/platforms/PLATFORM.txt, and makes docs/platforms.md of all
# that is stored there. But for the first three it needs Debian, as root, and installs its packages.
# LIMIT: seconds that one file of tests may take. AREAS: those to run, "unit" among them, where not
# all are; what is stored of the others stays.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never
suite=docs/platforms/suite.txt
[ $# -gt 0 ] || set -- epoll poll pipe i686 musl aarch64 s390x windows

# The platform's way to run cargo, and how the page says it.
choose() {
    rust=$(rustc --version | cut -d' ' -f2) host=$(rustc -vV | sed -n 's/^host: //p')
    cargo=(env cargo) limit=${LIMIT:-300} extra=
    unset CARGO_PROFILE_DEV_DEBUG CARGO_PROFILE_DEV_OPT_LEVEL
    target=$host how="natively, Linux $(uname -r | cut -d- -f1)"
    case $1 in
        epoll) return ;;
        poll) select_by --cfg mio_unsupported_force_poll_poll ;;
        pipe) select_by --cfg mio_unsupported_force_waker_pipe ;;
        i686) target=i686-unknown-linux-gnu && cross i686 ;;
        musl) target=x86_64-unknown-linux-musl && cross musl ;;
        aarch64) target=aarch64-unknown-linux-gnu && cross arm64 && emulated aarch64 ;;
        s390x) target=s390x-unknown-linux-gnu && cross s390x && emulated s390x ;;
        windows)
            target=x86_64-pc-windows-gnu && cross win && slow
            export WINE_TIMEOUT=$limit
            how="$(/usr/lib/wine/wine64 --version | sed 's/^wine-\([0-9.]*\).*/Wine \1/'), not Windows itself"
            ;;
        *) echo "platforms: unknown platform: $1" >&2; exit 2 ;;
    esac
}
select_by() {
    cargo=(env CARGO_TARGET_DIR="target/$platform" RUSTFLAGS="$*" cargo) how+=", \`$*\`"
    export CARGO_PROFILE_DEV_DEBUG=0 # a third of the time to build
}
cross() {
    export CARGO_PROFILE_DEV_DEBUG=0
    .ci/xsetup.sh base "$1"
    rust=$(/usr/bin/rustc --version | cut -d' ' -f2) cargo=(.ci/xcargo.sh "$target")
}
emulated() {
    slow
    export CARGO_PROFILE_DEV_OPT_LEVEL=1 # pays from the first simulated world on
    export SWITCHBOARD_UNDER_QEMU=1 # it does not tell all that the kernel would
    how="qemu-user $("qemu-$1-static" --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')"
}
slow() { # ten times slower: fewer random cases, one test at a time, more patience
    cargo=(env SIM_SEEDS=20 PROPTEST_CASES=8 RUST_TEST_THREADS=1 "${cargo[@]}")
    limit=${LIMIT:-900} extra=", with fewer random cases"
}

# Every test that the file has and what became of it: ok, FAILED, left-out with what the test says
# why, or unfinished if the file took too long or died.
results() {
    "${cargo[@]}" test --quiet "$@" -- --list 2>/dev/null | sed -n 's/: test$//p' > "$scratch/list"
    timeout -k 10 "$limit" "${cargo[@]}" test "$@" -- --show-output < /dev/null > "$scratch/output" 2>&1 || true
    awk 'NR == FNR && $1 == "----" { shown = $2 }
         NR == FNR && /^left out: / && came[shown] == "ok" { sub("left out", ""); came[shown] = "left-out"; why[shown] = $0 }
         NR == FNR && $1 == "test" && / (ok|FAILED)$/ { came[$2] = $NF }
         NR != FNR { print ($1 in came) ? came[$1] : "unfinished", $1 why[$1] }' \
        "$scratch/output" "$scratch/list"
    grep -q '^test result: ok' "$scratch/output" || cp "$scratch/output" "$kept/$platform$*.log"
}

# The areas that the platform does not leave out, of those that are wanted; `unit` are the unit tests.
areas() {
    awk -v here="$1" -v wanted=" ${AREAS:-} " -F' *[|] *' '
        /^without / && ($1 " ") ~ " " here " " { left_out[$2] }
        /^area / { sub("area ", "", $1); areas[++count] = $1 }
        END {
            areas[++count] = "unit"
            for (i = 1; i <= count; i++)
                if (!(areas[i] in left_out) && (wanted == "  " || wanted ~ " " areas[i] " "))
                    print areas[i]
        }' "$suite"
}

# Of the unit tests a count for each room, and the names of those that did not pass.
counted() {
    awk '{ split($2, path, "::"); all[path[2]]++; passed[path[2]] += $1 == "ok" }
        $1 != "ok" { print }
        END { for (room in all) print "passed", "unit::" room, passed[room], all[room] }'
}

# Puts what comes in the place of what is stored of an area.
put() {
    {
        facts
        { grep -vE "^(target|how|date|commit) |^[^ ]+ $1::" "$stored" || true; cat; } | LC_ALL=C sort -k2
    } > "$scratch/stored"
    mv "$scratch/stored" "$stored"
}

facts() {
    echo "target $target"
    echo "how $how$extra; Rust $rust"
    echo "date $(date -u +%F)"
    echo "commit $commit"
}

scratch=$(mktemp -d) kept=target/platforms
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$kept"
commit=$(git rev-parse --short=9 HEAD)
git diff --quiet HEAD -- src tests Cargo.toml || commit+=" and changes"
for platform in "$@"; do
    choose "$platform"
    stored=docs/platforms/$platform.txt
    [ -n "${AREAS:-}" ] || : > "$stored"
    touch "$stored"
    mapfile -t files < <(areas "$platform" | sed 's/^/--test=/; s/^--test=unit$/--lib/')
    "${cargo[@]}" test --quiet --no-run "${files[@]}"
    for file in "${files[@]}"; do
        case $file in
            --lib) results --lib | sed 's/ / unit::/' | counted | put unit ;;
            *) area=${file#--test=} && results "$file" | sed "s/ / $area::/" | put "$area" ;;
        esac
    done
    awk -v platform="$platform" '$1 == "ok" { ok++ } $1 == "passed" { ok += $3 }
        $1 == "FAILED" || $1 == "unfinished" { print platform ":", $0; bad++ }
        END { print platform ":", ok + 0, "passed,", bad + 0, "did not" }' "$stored"
done
SWITCHBOARD_UPDATE_DOCS=1 cargo test --quiet --test platforms the_page > /dev/null
