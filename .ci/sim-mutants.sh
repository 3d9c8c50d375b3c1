#!/bin/sh
# Plants one bug after the other and asks whether the simulation finds it.
#
#   .ci/sim-mutants.sh [bug ...]     SIM_SEEDS: how many seeds it may take, 1000 by default
#
# Each bug stands behind a cfg of its own, `cargo rustc -- --cfg switchboard_sim_mutant=\"bug\"`.
# One build for each takes its time; so this works on a copy in which the environment chooses.
set -eu
cd "$(dirname "$0")/.."
bugs="accounting_off_by_header
backoff_skipped
busy_evicted
cancelled_fires
client_kept
closed_twice
dead_given_out
deadline_of_turn
debt_forgiven
dial_never_late
door_unheeded
exhausted_forgotten
fan_cuts_in
farewell_unheeded
full_for_ever
generation_ignored
grade_stuck
input_not_handed_on
input_unlooked
last_notice_lost
later_forgotten
linger_skipped
mailbox_sleep_untold
notice_early
output_overtakes
overtaken_dropped
overtaken_unnoted
pause_unheeded
permit_kept
place_kept
place_of_pool_kept
place_untold
rate_unwatched
raw_cut
release_untold
requests_forgotten
requeue_forgotten
room_forgotten
seen_unnoted
sentinel_blind
short_read_drains
slot_overslept
sooner_unsaid
successor_unwatched
sweep_skips
timer_early
timer_lost
trial_permit_kept
unserved_forgotten
urgent_ignored"
listed=$bugs
[ $# -eq 0 ] || bugs="$*"

planted=$(grep -rhoE 'switchboard_sim_mutant = "[a-z_0-9]+"' src | cut -d'"' -f2 | sort -u)
if [ "$planted" != "$listed" ]; then
    echo "the list here is not what is planted in src"
    exit 1
fi

copy=target/mutants
rm -rf $copy/src
mkdir -p $copy
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t $copy
find $copy/src -name '*.rs' -exec \
    sed -i -E 's/cfg!\(switchboard_sim_mutant = ("[a-z_0-9]+")\)/crate::planted(\1)/g' {} +
cat >>$copy/src/lib.rs <<'END'

/// Whether the environment asks for this bug.
pub(crate) fn planted(bug: &str) -> bool {
    static ASKED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    ASKED.get_or_init(|| std::env::var("SIM_MUTANT").unwrap_or_default()) == bug
}
END
binary=$(cd $copy &&
    CARGO_TARGET_DIR=target CARGO_INCREMENTAL=0 CARGO_PROFILE_TEST_OPT_LEVEL=1 cargo test --quiet --lib \
        --no-run --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -n "$binary" ] || exit 1

missed=""
for bug in none $bugs; do
    if SIM_MUTANT=$bug SIM_SEEDS="${SIM_SEEDS:-1000}" timeout 900 "$binary" --exact \
        front::sim::tests::the_server_keeps_its_promises_under_every_seed \
        >target/mutant.log 2>&1; then
        [ "$bug" = none ] && continue
        echo "MISSED $bug"
        missed="$missed $bug"
    else
        seed=$(grep -o 'SIM_SEED=[0-9]*' target/mutant.log | head -1)
        if [ "$bug" = none ]; then
            echo "without any bug the simulation fails: ${seed:-$(tail -1 target/mutant.log)}"
            exit 1
        fi
        echo "caught $bug: ${seed:-$(tail -1 target/mutant.log)}"
    fi
done
[ -z "$missed" ]
