//! The token bucket against plain arithmetic, and askers that share one.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn rate() -> impl Strategy<Value = Rate> {
    let number = || prop_oneof![Just(1), 1..10u64, 1..100_000u64, 1..=Rate::MAX, Just(Rate::MAX)];
    (number(), number()).prop_map(|(rate, burst)| Rate::per_second(rate).burst(burst))
}

/// What a bucket does, as arithmetic on what is left: in billionths of a token, negative in debt.
struct Model {
    rate: Rate,
    left: i128,
    now: Time,
}

impl Model {
    fn depth(&self) -> i128 {
        i128::from(self.rate.depth()) * i128::from(SECOND)
    }

    fn advance(&mut self, now: Time) {
        let nanos = i128::try_from(now.since(self.now).as_nanos()).expect("584 years fit");
        self.left = (self.left + nanos * i128::from(self.rate.refill())).min(self.depth());
        self.now = now;
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Take(u64),
    Reserve(u64),
    Refund(u64),
    SetRate(Rate),
}

fn op() -> impl Strategy<Value = (u64, Op)> {
    let wait = prop_oneof![Just(0), 0..1_000u64, 0..SECOND, 0..1000 * SECOND, any::<u64>()];
    let amount = || prop_oneof![Just(0), 1..100u64, 0..=Rate::MAX];
    let op = prop_oneof![
        4 => amount().prop_map(Op::Take),
        4 => amount().prop_map(Op::Reserve),
        2 => amount().prop_map(Op::Refund),
        1 => rate().prop_map(Op::SetRate),
    ];
    (wait, op)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    /// It agrees with the plain sum, to the last token and nanosecond, up to the end of time.
    #[test]
    fn it_is_exact(
        first in rate(),
        start in prop_oneof![Just(0), any::<u64>(), u64::MAX - 1000..=u64::MAX],
        ops in vec(op(), 1..60),
    ) {
        let mut now = at(start);
        let mut bucket = Bucket::new(first, now);
        let mut model = Model { rate: first, left: 0, now };
        model.left = model.depth();
        for (wait, op) in ops {
            now = now + Duration::from_nanos(wait);
            model.advance(now);
            match op {
                Op::Take(n) => {
                    bucket.take(n, now);
                    model.left -= i128::from(n) * i128::from(SECOND);
                }
                Op::Reserve(n) => {
                    let (slot, ready) = (bucket.ready_at(n, now), bucket.reserve(n, now));
                    prop_assert_eq!(slot, ready);
                    model.left -= i128::from(n) * i128::from(SECOND);
                }
                Op::Refund(n) => {
                    // Booked and given back within the same moment: as if nothing had been.
                    let slot = bucket.reserve(n, now);
                    bucket.refund(n, slot);
                }
                Op::SetRate(rate) => {
                    bucket.set_rate(rate, now);
                    model.rate = rate;
                    model.left = model.left.min(model.depth());
                }
            }
            let left = u64::try_from(model.left.max(0) / i128::from(SECOND)).expect("a burst fits");
            prop_assert_eq!(bucket.available(now), left);
            for quantum in [0, 1, 64, model.rate.depth(), Rate::MAX] {
                let ready = bucket.ready_at(quantum, now);
                let need = quantum.min(model.rate.depth());
                prop_assert!(ready >= now);
                let is_ready = model.left >= i128::from(need) * i128::from(SECOND);
                prop_assert_eq!(ready == now, is_ready || now == Time::NEVER);
                if ready < Time::NEVER {
                    prop_assert!(bucket.available(ready) >= need, "said to be ready");
                }
                if ready > now {
                    let before = at(ready.as_nanos() - 1);
                    prop_assert!(bucket.available(before) < need.max(1), "ready before");
                }
            }
        }
    }

    /// Whoever takes when it is ready, up to a quantum each time, never passes more than the burst,
    /// what the rate gives, and a quantum, over any interval; and nobody waits for ever.
    #[test]
    fn no_interval_passes_more_than_it_may(
        per_second in 1..1_000_000u64,
        burst in 1..100_000u64,
        quantum in 1..100_000u64,
        steps in vec((any::<bool>(), 0..3 * SECOND, 0..=100u64), 1..80),
    ) {
        let mut bucket = Bucket::new(Rate::per_second(per_second).burst(burst), at(0));
        let mut now = at(0);
        let mut passed: Vec<(u64, u64)> = Vec::new();
        for (waits, pause, percent) in steps {
            if waits {
                now = now + Duration::from_nanos(pause);
            }
            let ready = bucket.ready_at(quantum, now);
            let longest = u128::from(2 * quantum.max(burst)) * TOKEN / u128::from(per_second) + 1;
            prop_assert!(ready.since(now).as_nanos() <= longest, "it starves");
            now = ready;
            let n = quantum * percent / 100;
            bucket.take(n, now);
            passed.push((now.as_nanos(), n));
        }
        for (first, (from, _)) in passed.iter().enumerate() {
            let mut sum = 0;
            for (until, n) in &passed[first..] {
                sum += u128::from(*n) * TOKEN;
                let refilled = u128::from(until - from) * u128::from(per_second);
                prop_assert!(sum <= tokens(burst) + refilled + tokens(quantum));
            }
        }
    }

    /// However little of what they book they use, and however late they say so: as much passes as
    /// may, and no more.
    #[test]
    fn what_is_given_back_is_neither_lost_nor_doubled(
        per_second in 1..1_000_000u64,
        burst in 1..100_000u64,
        quantum in 1..10_000u64,
        steps in vec((0..=100u64, 0..SECOND, 0..SECOND), 1..60),
    ) {
        let rate = Rate::per_second(per_second).burst(burst);
        let (mut booked, mut exact) = (Bucket::new(rate, at(0)), Bucket::new(rate, at(0)));
        let mut now = at(0);
        for (percent, late, pause) in steps {
            let n = quantum * percent / 100;
            let slot = booked.reserve(quantum, now);
            exact.take(n, now);
            now = now.max(slot) + Duration::from_nanos(late);
            booked.refund(quantum - n, slot);
            prop_assert_eq!(booked.available(now), exact.available(now));
            prop_assert_eq!(booked.ready_at(quantum, now), exact.ready_at(quantum, now));
            now = now + Duration::from_nanos(pause);
        }
    }
}

#[test]
fn a_million_operations_lose_nothing() {
    // 1/3 and 1/7 of a second have no end in decimals: an interval in nanoseconds would drift.
    // Never full, since what comes in then is lost, and rightly.
    for per_second in [3, 7, 999_999_937] {
        let operations = if cfg!(miri) { 1_000 } else { 1_000_000 };
        let mut bucket = Bucket::new(Rate::per_second(per_second).burst(2), at(0));
        let mut now = at(0);
        for _ in 0..operations {
            now = bucket.ready_at(1, now);
            bucket.take(1, now);
        }
        let exact = (u128::from(operations - 2u64) * TOKEN).div_ceil(per_second.into());
        assert_eq!(u128::from(now.as_nanos()), exact, "{per_second} per second");
    }
}

#[test]
fn a_bucket_at_the_end_of_time_is_never_ready_and_does_not_overflow() {
    let mut bucket = Bucket::new(Rate::per_second(Rate::MAX), Time::NEVER);
    assert_eq!(bucket.available(Time::NEVER), Rate::MAX);
    bucket.take(u64::MAX, Time::NEVER);
    assert_eq!(bucket.ready_at(1, Time::ZERO), Time::NEVER);
    assert_eq!(bucket.reserve(u64::MAX, Time::NEVER), Time::NEVER);
    assert_eq!(bucket.available(Time::NEVER), 0);
    bucket.set_rate(Rate::per_second(1), Time::NEVER);
    assert_eq!(bucket.available(Time::NEVER), 0);
}

#[test]
fn a_refund_after_the_bucket_was_full_again_is_void() {
    let mut bucket = Bucket::new(Rate::per_second(10).burst(10), at(0));
    let slot = bucket.reserve(10, at(0));
    // A second fills it; then others take all of it. Nothing is left, nor to be given back.
    bucket.take(10, at(SECOND));
    bucket.refund(10, slot);
    assert_eq!(bucket.available(at(SECOND)), 0);
}

/// One who shares a bucket: books a quantum, waits for the slot, uses some, and asks again: at once
/// if it is greedy or could not use all, else a little later.
struct Asker {
    /// What comes for it per second; `None` if there is no end to it.
    wants: Option<u64>,
    got: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Ask,
    Run,
}

/// Lets all ask for `seconds`, and says what each of them got.
fn share(rate: Rate, quantum: u64, wants: &[Option<u64>], seconds: u64) -> Vec<u64> {
    let mut bucket = Bucket::new(rate, at(0));
    let mut askers: Vec<Asker> = wants.iter().map(|&wants| Asker { wants, got: 0 }).collect();
    // In the order of time; the number of the step decides between those of one moment.
    let mut queue: BTreeSet<_> = (0..askers.len()).map(|n| (at(0), n, Step::Ask, n)).collect();
    let mut steps = askers.len();
    while let Some((now, _, step, number)) = queue.pop_first() {
        if now > at(seconds * SECOND) {
            break;
        }
        steps += 1;
        if step == Step::Ask {
            queue.insert((bucket.reserve(quantum, now), steps, Step::Run, number));
            continue;
        }
        let asker = &mut askers[number];
        let come = asker.wants.map(|wants| wants * now.as_nanos() / SECOND);
        let used = come.map_or(quantum, |come| (come - asker.got).min(quantum));
        asker.got += used;
        bucket.refund(quantum - used, now);
        let pause = if used < quantum { SECOND / 10 } else { 0 };
        queue.insert((now + Duration::from_nanos(pause), steps, Step::Ask, number));
    }
    askers.iter().map(|asker| asker.got).collect()
}

#[test]
fn greedy_askers_share_evenly_what_a_modest_one_leaves() {
    let (rate, quantum, seconds) = (Rate::per_second(30_000).burst(1_000), 1_000, 100);
    for modest in [0, 100, 2_000, 6_000, 9_000] {
        let got = share(rate, quantum, &[None, Some(modest), None], seconds);
        let wanted = modest * seconds;
        let lag = modest / 2 + quantum;
        assert!(
            got[1] <= wanted && got[1] + lag >= wanted,
            "{modest}: it wanted {wanted}: {got:?}"
        );
        assert!(got[0].abs_diff(got[2]) <= quantum, "{modest}: the greedy ones: {got:?}");
        let all: u64 = got.iter().sum();
        let most = 30_000 * seconds + 1_000 + quantum;
        assert!(all <= most, "{modest}: {all} of {most} passed");
        assert!(all + 3 * quantum >= 30_000 * seconds, "{modest}: {all} only: some was lost");
    }
}

#[test]
fn one_greedy_asker_among_many_gets_its_share() {
    let rate = Rate::per_second(100_000).burst(64);
    let got = share(rate, 500, &[None; 40], 60);
    let (least, most) = (got.iter().min().expect("some"), got.iter().max().expect("some"));
    assert!(most - least <= 500, "{got:?}");
    assert!(got.iter().sum::<u64>() + 40 * 500 >= 6_000_000, "{got:?}");
}
