#!/usr/bin/env bash
# Which lines of the crate the tests run, by room, and the files of which they run least.
#
#   .ci/coverage.sh         the tests: of the library, with the simulation, and the behavioural ones
#   .ci/coverage.sh fuzz    the fuzz targets on their seeds, on what fuzzing has found since
#                           (fuzz/corpus), and on made-up bytes
#
# Leaves under target/coverage: lcov.info, and uncovered.txt, which has every line that was not run.
# Lines of tests do not count. SIM_SEEDS says how many worlds, 300 by default. Ends with 2 if no
# LLVM tools of the compiler's own version are to be had.
set -euo pipefail
cd "$(dirname "$0")/.."
what="${1:-tests}"
root=$PWD out=$PWD/target/coverage
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0 SIM_SEEDS="${SIM_SEEDS:-300}"

# Profiles are written in a format of the compiler's LLVM.
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
tool() {
    local beside
    beside=$(rustc --print target-libdir)/../bin/llvm-$1
    for candidate in "$beside" "llvm-$1-$llvm" "/usr/lib/llvm-$llvm/bin/llvm-$1" "llvm-$1"; do
        if "$candidate" --version 2>/dev/null | grep -q "LLVM version $llvm\."; then
            echo "$candidate"
            return
        fi
    done
    echo "needs llvm-$1 of LLVM $llvm: rustup component add llvm-tools, or the package llvm-$llvm" >&2
    exit 2
}
profdata=$(tool profdata) || exit 2
cov=$(tool cov) || exit 2

case $what in
    # Not those that look at the sources, or start other programs and examples.
    tests) command=(cargo test --lib --features testing,tokio-util)
        for test in tests/*.rs tests/*/main.rs; do
            name=${test#tests/} name=${name%/main.rs} name=${name%.rs}
            case $name in tidy | examples | readme | guide | soak) ;; *) command+=(--test "$name") ;; esac
        done ;;
    fuzz) command=(cargo test --manifest-path fuzz/Cargo.toml) ;;
    *) echo "not known: $what"; exit 1 ;;
esac

export CARGO_TARGET_DIR=$out/build RUSTFLAGS="-Cinstrument-coverage"
# Build scripts write one, too; what they ran is of no interest.
export LLVM_PROFILE_FILE="$out/raw/%m-%p.profraw"
objects=$("${command[@]}" --no-run --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sort -u)
rm -rf "$out/raw"
failed=""
# Some may be slower than their deadlines allow: what they ran counts all the same.
"${command[@]}" --no-fail-fast >"$out/tests.log" 2>&1 || failed=1
if [ "$what" = fuzz ]; then
    for target in fuzz/fuzz_targets/*.rs; do
        name=$(basename "$target" .rs)
        [ -d "fuzz/corpus/$name" ] || continue
        find "fuzz/corpus/$name" -type f -print0 |
            xargs -0 -r -n 200 "$CARGO_TARGET_DIR/debug/$name" || failed=1
    done
    objects+=$'\n'$(find "$CARGO_TARGET_DIR/debug" -maxdepth 1 -type f -perm -u+x)
fi
grep -h '^test result\|FAILED\|^test .*failed' "$out/tests.log" || true

find "$out/raw" -name '*.profraw' >"$out/raw.list"
"$profdata" merge --sparse --failure-mode=all --input-files="$out/raw.list" -o "$out/profdata"
first=$(head -1 <<<"$objects")
others=$(tail -n +2 <<<"$objects" | sed 's/^/--object=/')
# shellcheck disable=SC2086 # Paths of ours have no blanks.
"$cov" export --format=lcov --instr-profile="$out/profdata" "$first" $others \
    --ignore-filename-regex='(/\.cargo/|/rustc/|/tests/|/fuzz/|/benches/|/tests?\.rs$)' \
    >"$out/lcov.info"

# Rooms, and each file's lines up to its tests.
awk -v root="$root/src/" -v uncovered="$out/uncovered.txt" -v what="$what" '
    function close_file() {
        if (room == "") return
        all[room] += lines; run[room] += hit
        folder = room "/" parts[2]
        if (parts[3] != "") { all[folder] += lines; run[folder] += hit; folders[folder] }
        # What fuzzing does not reach at all is not meant to be reached.
        if (lines >= 10 && (hit > 0 || !fuzzing))
            printf "%5.1f %4d of %4d  %s\n", 100 * hit / lines, hit, lines, name > files
    }
    function row(name, shown) {
        return sprintf("%-17s %8d %8d %7.1f", shown, all[name], run[name], 100 * run[name] / all[name])
    }
    BEGIN { fuzzing = what == "fuzz"; files = uncovered ".files"; printf "" > files; printf "" > uncovered }
    /^SF:/ {
        room = ""
        path = substr($0, 4)
        if (index(path, root) != 1) next
        name = substr(path, length(root) + 1)
        split(name, parts, "/")
        room = parts[1]
        if (!(3 in parts)) parts[3] = ""
        lines = hit = 0
        cut = 1e9; number = 0; marked = 0
        while ((getline text < path) > 0) {
            source[++number] = text
            if (marked && text ~ /^mod [a-z_]+ \{/ && cut == 1e9) cut = number
            marked = text ~ /^#\[cfg\((all\()?test/
        }
        close(path)
    }
    /^DA:/ && room != "" {
        split(substr($0, 4), da, ",")
        if (da[1] + 0 >= cut) next
        lines++
        if (da[2] > 0) hit++
        else print "src/" name ":" da[1] ": " source[da[1] + 0] > uncovered
    }
    /^end_of_record/ { close_file() }
    END {
        count = split("words parts core sys engine edge front", order, " ")
        printf "%-17s %8s %8s %7s\n", "room", "lines", "run", "%"
        for (i = 1; i <= count; i++) {
            room = order[i]
            if (!all[room]) continue
            print row(room, room)
            fflush()
            for (folder in folders)
                if (index(folder, room "/") == 1 && run[folder] > 0)
                    print row(folder, "  " folder) | "sort"
            close("sort")
            all["all"] += all[room]; run["all"] += run[room]
        }
        print row("all", "all")
    }' "$out/lcov.info"
echo
echo "least of these files (%, lines):"
sort -n "$out/uncovered.txt.files" | head -25
[ -z "$failed" ] || echo "some tests have failed, see $out/tests.log"
