//! Rates in virtual time: how exact they are over any stretch, and who gets how much of a group.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::words::sync::{Arc, Mutex};

const CHUNK: usize = 64 << 10;

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn bound(rate: Option<Rate>) -> Flow {
    let mut flow = Flow::default();
    flow.set_rate(rate, Time::ZERO);
    flow
}

fn shared(rate: Rate) -> SharedBucket {
    Arc::new(Mutex::new(Bucket::new(rate, Time::ZERO)))
}

/// Passes up to `there` bytes if it may; how many, and when it may go on.
fn pass(flow: &mut Flow, there: usize, now: Time) -> (usize, Time) {
    if flow.is_held() && flow.wake(now).is_none() {
        return (0, flow.held_until());
    }
    match flow.ask(CHUNK, now) {
        Leave::Wait => (0, flow.held_until()),
        Leave::Go(most) => {
            let count = there.min(most);
            flow.spend(count);
            (count, now)
        }
    }
}

#[test]
fn what_is_not_bound_is_not_asked() {
    let mut flow = bound(None);
    assert_eq!(flow.ask(CHUNK, Time::ZERO), Leave::Go(CHUNK));
    assert!(!flow.spend(CHUNK) && flow.turn.is_none());
    assert!(!Shape::new().is_bound());
}

#[test]
fn a_slow_rate_is_exact_with_chunks_that_are_worth_a_minute() {
    let mut flow = bound(Some(Rate::per_second(1024)));
    let (mut now, mut sum) = (Time::ZERO, 0);
    while now < at(60_000_000_000) {
        let (count, next) = pass(&mut flow, usize::MAX, now);
        sum += count as u64;
        now = next;
    }
    let exact = 61 * 1024;
    assert!(sum <= exact + QUANTUM_MIN && sum + QUANTUM_MIN >= exact, "{sum} of {exact}");
}

#[test]
fn a_pause_is_made_up_for_at_once_but_no_further_than_the_burst() {
    let mut flow = bound(Some(Rate::per_second(10_000).burst(4_000)));
    assert_eq!(pass(&mut flow, usize::MAX, at(1)).0, 4_000);
    assert_eq!(pass(&mut flow, usize::MAX, at(2)).0, 0);
    // It has waited for its quantum, which was booked before.
    assert_eq!(pass(&mut flow, usize::MAX, at(900_000_000_000)).0, 4_000 + 512);
}

#[test]
fn what_was_not_used_is_given_back() {
    let rate = Rate::per_second(1 << 20).burst(10_000);
    let bucket = shared(rate);
    let mut flow = bound(Some(rate));
    flow.share(Group::Joined, Some(Arc::clone(&bucket)));
    for _ in 0..600 {
        assert_eq!(pass(&mut flow, 9, at(7)).0, 9);
    }
    assert_eq!(lock(&bucket).available(at(7)), 4_600);
    assert_eq!(flow.own.as_ref().map(|own| own.available(at(7))), Some(4_600));
    // Nor does one who ends while he waits take anything along.
    assert_eq!(pass(&mut flow, 4_000, at(7)).0, 4_000);
    assert_eq!(flow.ask(CHUNK, at(7)), Leave::Wait);
    assert_eq!(lock(&bucket).available(at(7)), 0);
    drop(flow);
    assert_eq!(lock(&bucket).available(at(7)), 600);
}

/// One that always wants more, and others that do so at times.
#[test]
fn a_greedy_connection_gets_its_share_of_a_group_and_no_more() {
    const OTHERS: usize = 9;
    let rate = Rate::per_second(1 << 20).burst(1 << 20);
    let bucket = shared(rate);
    let mut flows: Vec<Flow> = (0..=OTHERS).map(|_| bound(None)).collect();
    flows.iter_mut().for_each(|flow| flow.share(Group::Server, Some(Arc::clone(&bucket))));
    let mut sums = [0; OTHERS + 1];
    // The greedy one has the burst; the others come when it is used up.
    while pass(&mut flows[0], usize::MAX, Time::ZERO).0 > 0 {}
    for millis in 0..10_000 {
        let now = at(millis * 1_000_000);
        // It asks first, and as often as it is let.
        for (flow, sum) in flows.iter_mut().zip(&mut sums) {
            while let (count @ 1.., _) = pass(flow, usize::MAX, now) {
                *sum += count;
            }
        }
    }
    let all: usize = sums.iter().sum();
    assert!(all as u64 >= 99 * (10 << 20) / 100, "nothing is wasted: {all}");
    let share = all / (OTHERS + 1);
    assert!(sums.iter().all(|&sum| sum.abs_diff(share) <= share / 50), "{sums:?}");
}

fn rates() -> impl Strategy<Value = Rate> {
    (1..200_000u64, 1..20_000u64).prop_map(|(rate, burst)| Rate::per_second(rate).burst(burst))
}

proptest! {
    /// Over any stretch of a life: the burst, the rate times the time, one quantum (of a group one for
    /// each), and one more that was booked before and is used late.
    #[test]
    fn no_stretch_of_time_sees_more_than_the_rates_allow(
        own in prop::option::of(rates()),
        group in rates(),
        flows in 1..4usize,
        // Who tries, how much it has, and how long after the one before.
        tries in vec((0..4usize, 0..3_000usize, 0..80_000_000u64), 1..120),
    ) {
        let bucket = shared(group);
        let mut flows: Vec<Flow> = (0..flows).map(|_| bound(own)).collect();
        flows.iter_mut().for_each(|flow| flow.share(Group::Server, Some(Arc::clone(&bucket))));
        let (mut now, mut passed) = (0, Vec::new());
        for (who, there, after) in tries {
            now += after;
            let who = who % flows.len();
            passed.push((now, who, pass(&mut flows[who], there, at(now)).0));
        }
        let allowed = |rate: Rate, nanos: u64, quanta: usize| {
            let refilled = u128::from(nanos) * u128::from(rate.refill()) / 1_000_000_000;
            refilled + u128::from(rate.depth() + quantum(rate) * quanta as u64) + 1
        };
        for begin in 0..passed.len() {
            let (mut all, mut each) = (0, vec![0; flows.len()]);
            for &(end, who, count) in &passed[begin..] {
                all += count as u128;
                each[who] += count as u128;
                let nanos = end - passed[begin].0;
                prop_assert!(all <= allowed(group, nanos, flows.len() + 1), "the group: {passed:?}");
                let kept = own.is_none_or(|own| each[who] <= allowed(own, nanos, 2));
                prop_assert!(kept, "connection {who}: {passed:?}");
            }
        }
    }

    /// Who waits gets on when it was told, whatever the others do.
    #[test]
    fn every_wait_comes_to_an_end(rates in vec(rates(), 1..4), there in 1..2_000usize) {
        let mut flow = bound(Some(rates[0]));
        for (group, &rate) in [Group::Server, Group::Listener, Group::Joined].iter().zip(&rates) {
            flow.share(*group, Some(shared(rate)));
        }
        let mut now = Time::ZERO;
        for _ in 0..50 {
            let (count, next) = pass(&mut flow, there, now);
            let stuck = count == 0 && next <= now;
            prop_assert!(!stuck && next < Time::NEVER);
            now = next;
        }
    }

    #[test]
    fn a_changed_rate_holds_from_then_on(before in rates(), after in rates()) {
        let mut flow = bound(Some(before));
        while pass(&mut flow, usize::MAX, at(5)).0 > 0 {}
        let waited = flow.cancel(at(9));
        prop_assert_eq!(waited, Some(Duration::from_nanos(4)));
        flow.set_rate(Some(after), at(9));
        let (mut now, mut sum) = (at(9), 0);
        while now < at(3_000_000_000) {
            let (count, next) = pass(&mut flow, usize::MAX, now);
            sum += count as u64;
            now = next;
        }
        // What was left goes on; the debt of a quantum at most does, too.
        prop_assert!(sum <= 3 * after.refill() + before.depth() + quantum(after));
    }
}
