//! What keep-alive promises: bounds, order, and that nobody is cut who does as always.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// These tests have no timer.
fn note(keepalive: &mut KeepAlive, gap: Duration, prior: &mut Prior) {
    let _: Rearm = keepalive.note_gap(gap, prior);
}

/// A connection with these gaps behind it, in a world of its own.
fn after(gaps: impl IntoIterator<Item = Duration>) -> KeepAlive {
    let (mut keepalive, mut prior) = (KeepAlive::default(), Prior::new());
    for gap in gaps {
        note(&mut keepalive, gap, &mut prior);
    }
    keepalive
}

fn any_gap() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        Just(Duration::from_nanos(u64::MAX)),
        (0..2_000_000_000u64).prop_map(Duration::from_nanos),
        (0..1_000_000u64).prop_map(Duration::from_millis),
        any::<u64>().prop_map(Duration::from_nanos),
    ]
}

fn any_idle() -> impl Strategy<Value = Adaptive> {
    let span = || prop_oneof![1..2_000u64, 1..=604_800_000u64];
    (span(), 1..=100u32, span()).prop_map(|(one, factor, other)| Adaptive {
        min: Duration::from_millis(one.min(other)),
        factor,
        max: Duration::from_millis(one.max(other)),
    })
}

/// A prior that has seen these first gaps, and perhaps enough newcomers who went.
fn any_prior() -> impl Strategy<Value = Prior> {
    (vec(any_gap(), 0..20), any::<bool>()).prop_map(|(gaps, is_settled)| {
        let mut prior = Prior::new();
        for gap in gaps {
            note(&mut prior.open(), gap, &mut prior);
        }
        let idle = Adaptive::default();
        let gone = if is_settled { 100 } else { 0 };
        (0..gone).for_each(|_| prior.note_cut(&KeepAlive::default(), idle.max, &idle));
        prior
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    /// Whatever is learned: from `min` to `max`, less under more pressure, and no panic.
    #[test]
    fn the_timeout_is_within_its_bounds_and_falls_with_pressure(
        is_scout: bool,
        gaps in vec(any_gap(), 0..40),
        idle in any_idle(),
        mut prior in any_prior(),
    ) {
        let mut keepalive = KeepAlive::new(is_scout);
        for gap in std::iter::once(Duration::ZERO).chain(gaps) {
            note(&mut keepalive, gap, &mut prior);
            let timeouts = Pressure::ALL.map(|level| keepalive.timeout(&idle, level, &prior));
            prop_assert!(timeouts.iter().all(|time| (idle.min..=idle.max).contains(time)));
            prop_assert!(timeouts.is_sorted_by(|calmer, harder| calmer >= harder));
            prop_assert_eq!(timeouts[3], idle.min);
            if let Some(predicted) = keepalive.predicted() {
                prop_assert!(timeouts[2] >= predicted.min(idle.max));
            }
        }
    }

    /// The choice of whom to give up is in the order of silence for each of them.
    #[test]
    fn more_silence_is_more_overdue(
        gaps in vec(any_gap(), 0..20),
        idle in any_idle(),
        prior in any_prior(),
        one in any_gap(),
        other in any_gap(),
    ) {
        let keepalive = after(gaps);
        let (less, more) = (one.min(other), one.max(other));
        let key = |silent| keepalive.overdue(silent, &idle, &prior);
        prop_assert!(key(less) <= key(more));
        prop_assert!(!key(Duration::ZERO).is_late());
        prop_assert!(key(idle.max * 2).is_late());
    }

    /// A device that keeps its period to within a fifth, in whatever order its gaps come, and that
    /// says what it says in several parts.
    #[test]
    fn a_periodic_device_is_never_cut_below_the_top_level(
        period_ms in prop_oneof![2_000..10_000u64, 10_000..1_000_000u64, Just(503_000_000u64)],
        beats in vec((-200..=200i64, vec(0..BURST_MICROS / 4, 0..4)), 3..80),
        steady in 0..30usize,
        factor in 1..=100u32,
    ) {
        let idle = Adaptive { min: MS, factor, max: SILENCE_MAX };
        let (mut keepalive, mut prior) = (KeepAlive::default(), Prior::new());
        let mut spoke_for = Duration::ZERO;
        // Long in step first, so that there is no deviation left; then it varies.
        let beats = std::iter::repeat_n((-200, Vec::new()), steady).chain(beats);
        for (per_mille, parts) in beats {
            let beat_ms = period_ms.saturating_add_signed(period_ms as i64 * per_mille / 1000);
            let silence = Duration::from_millis(beat_ms) - spoke_for;
            for level in &Pressure::ALL[..3] {
                let timeout = keepalive.timeout(&idle, *level, &prior);
                let is_known = keepalive.has_habit() || *level == Pressure::Calm;
                prop_assert!(timeout > silence || !is_known, "{timeout:?} at {level:?}");
            }
            note(&mut keepalive, silence, &mut prior);
            let parts = parts.into_iter().map(Duration::from_micros);
            spoke_for = parts.clone().sum();
            parts.for_each(|part| note(&mut keepalive, part, &mut prior));
        }
    }

    /// A device that talks for up to as long as it is silent.
    #[test]
    fn a_device_that_talks_and_is_silent_by_turns_is_never_cut_below_the_top_level(
        silence_s in 30..600u64,
        talk_percent in 0..=100u64,
        step_ms in 1..4_000u64,
        rounds in vec(90..=110u64, 2..8),
    ) {
        let idle = Adaptive { min: secs(1), factor: 3, max: secs(15 * 60) };
        let (mut keepalive, mut prior) = (KeepAlive::default(), Prior::new());
        for (round, percent) in rounds.into_iter().enumerate() {
            for _ in 0..(silence_s * talk_percent * 10 / step_ms).min(5_000) {
                note(&mut keepalive, Duration::from_millis(step_ms), &mut prior);
            }
            let silence = secs(silence_s) * u32::try_from(percent).expect("small") / 100;
            let timeout = keepalive.timeout(&idle, Pressure::High, &prior);
            // The first silence of all nobody can foresee.
            prop_assert!(round == 0 || !keepalive.has_habit() || timeout > silence, "{timeout:?}");
            note(&mut keepalive, silence, &mut prior);
        }
    }

    /// Steps of any size that are shorter than a burst: as if every second one had come.
    #[test]
    fn one_that_never_stops_talking_is_known_soon(step_micros in 1..=BURST_MICROS) {
        let steps = 4 * (BURST_MICROS / step_micros + 1);
        let step = Duration::from_micros(step_micros);
        let keepalive = after((0..steps.min(100_000)).map(|_| step));
        if steps <= 100_000 {
            prop_assert!(keepalive.predicted().expect("a habit") <= secs(4));
        }
    }
}

#[test]
fn a_chatty_connection_that_falls_silent_has_the_least_time_after_two_gaps() {
    let (idle, prior) = (Adaptive::default(), Prior::new());
    let time =
        |gaps| after(std::iter::repeat_n(secs(1), gaps)).timeout(&idle, Pressure::Calm, &prior);
    assert_eq!(time(0), idle.max);
    assert_eq!(time(1), idle.max);
    assert_eq!(time(2), idle.min);
    assert_eq!(time(1_000), idle.min);
}

#[test]
fn one_long_silence_is_an_exception_after_eight_times_its_length() {
    let (idle, prior) = (Adaptive::default(), Prior::new());
    let mut keepalive = after([secs(1), secs(1), secs(300)]);
    assert!(keepalive.timeout(&idle, Pressure::High, &prior) > secs(300));
    let mut chat = |seconds: u64| {
        (0..seconds).for_each(|_| note(&mut keepalive, secs(1), &mut Prior::new()));
        keepalive.timeout(&idle, Pressure::Calm, &prior)
    };
    assert!(chat(300) > secs(300), "it may well come again");
    assert_eq!(chat(8 * 300), idle.min);
}

#[test]
fn a_burst_is_one_message() {
    let mut parts = Vec::new();
    for _ in 0..20 {
        parts.extend([50 * MS, 50 * MS, secs(300) - 100 * MS]);
    }
    let whole = after([secs(300); 20]);
    assert_eq!(after(parts).predicted(), whole.predicted());
    assert_eq!(whole.gaps(), 20);
    assert_eq!(after([Duration::ZERO; 1000]).predicted(), None);
}

#[test]
fn the_count_of_gaps_saturates_and_leaves_its_neighbours_alone() {
    for is_scout in [false, true] {
        let mut keepalive = KeepAlive::new(is_scout);
        let mut prior = Prior::new();
        for _ in 0..2 * GAPS_MAX {
            note(&mut keepalive, BURST, &mut prior);
            note(&mut keepalive, Duration::from_micros(999_999), &mut prior);
            assert_eq!(keepalive.is_scout(), is_scout);
            assert_eq!(keepalive.packed & BURST_MASK, 999_999);
            note(&mut keepalive, Duration::from_micros(1), &mut prior);
        }
        assert_eq!(keepalive.gaps(), GAPS_MAX);
    }
}

#[test]
fn a_newcomer_has_the_time_that_others_needed_and_a_scout_has_all() {
    let idle = Adaptive::default();
    let mut prior = Prior::new();
    let mut other = KeepAlive::default();
    (0..2).for_each(|_| note(&mut other, secs(120), &mut prior));
    let (new, scout) = (KeepAlive::new(false), KeepAlive::new(true));
    let times = |who: &KeepAlive, prior: &Prior| {
        Pressure::ALL.map(|level| who.timeout(&idle, level, prior).as_secs())
    };
    assert_eq!(times(&new, &prior), [900, 900, 900, 60]);
    assert_eq!(times(&scout, &prior), [900, 900, 900, 60]);
    (0..100).for_each(|_| prior.note_cut(&new, idle.max, &idle));
    let known = times(&new, &prior);
    assert!(known[0] > 120 && known[0] < 180, "{known:?}");
    assert_eq!(known, [known[0], known[0], known[0], 60]);
    assert_eq!(times(&scout, &prior), [900, 900, 900, 60]);
}

#[test]
fn whoever_is_furthest_beyond_the_habit_goes_first_and_newcomers_last() {
    let (idle, prior) = (Adaptive::default(), Prior::new());
    let chatty = after([secs(1); 10]);
    let hourly = after([secs(300); 10]);
    let new = KeepAlive::default();
    let silent = secs(600);
    let key = |who: &KeepAlive| who.overdue(silent, &idle, &prior);
    assert!(key(&chatty) > key(&hourly) && key(&hourly) > key(&new));
    assert!(key(&hourly).is_late() && !key(&new).is_late());
    // A pause of a few seconds is no reason to give up the chattiest.
    assert!(!chatty.overdue(secs(50), &idle, &prior).is_late());
}

#[test]
fn a_fixed_time_and_none_are_what_they_say_under_any_pressure() {
    let (keepalive, prior) = (after([secs(1); 10]), Prior::new());
    for level in Pressure::ALL {
        assert_eq!(timeout(&keepalive, &Idle::Never, level, &prior), None);
        let fixed = timeout(&keepalive, &Idle::After(secs(7)), level, &prior);
        assert_eq!(fixed, Some(secs(7)));
        assert_eq!(timeout(&keepalive, &Idle::default(), level, &prior), Some(secs(60)));
    }
}
