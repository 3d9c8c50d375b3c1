#!/bin/sh
# Plants one bug after the other and asks whether the simulation finds it.
#
#   .ci/sim-mutants.sh [bug ...]     SIM_SEEDS: how many seeds it may take, 1000 by default
set -eu
cd "$(dirname "$0")/.."
bugs="accounting_off_by_header
busy_evicted
cancelled_fires
client_kept
closed_twice
deadline_of_turn
debt_forgiven
dial_never_late
door_unheeded
exhausted_forgotten
fan_cuts_in
farewell_unheeded
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
pause_unheeded
permit_kept
place_kept
place_untold
rate_unwatched
release_untold
requests_forgotten
requeue_forgotten
room_forgotten
seen_unnoted
short_read_drains
slot_overslept
sooner_unsaid
sweep_skips
timer_early
trial_permit_kept
unserved_forgotten
urgent_ignored"
[ $# -eq 0 ] || bugs="$*"
missed=""
for bug in $bugs; do
    # Only this crate is built anew: the flag does not reach the dependencies.
    binary=$(cargo rustc --quiet --lib --profile test --message-format=json-render-diagnostics \
        -- --cfg "switchboard_sim_mutant=\"$bug\"" 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    if SIM_SEEDS="${SIM_SEEDS:-1000}" timeout 900 "$binary" --exact \
        front::sim::tests::the_server_keeps_its_promises_under_every_seed \
        >target/mutant.log 2>&1; then
        echo "MISSED $bug"
        missed="$missed $bug"
    else
        seed=$(grep -o 'SIM_SEED=[0-9]*' target/mutant.log | head -1)
        echo "caught $bug: ${seed:-$(tail -1 target/mutant.log)}"
    fi
done
[ -z "$missed" ]
