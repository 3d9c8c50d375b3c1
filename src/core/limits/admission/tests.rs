//! The limits together: none is ever exceeded, and all are exact again after whatever happened.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::clients::Prefixes;
use super::*;
use crate::words::config::{Limits, Listening};

const PREFIXES: Prefixes = Prefixes { v4: 32, v6: 64 };

fn settings(listeners: usize, change: impl FnOnce(&mut config::Admission)) -> config::Admission {
    let limits = Limits::for_descriptors(None);
    let listening: Vec<_> = (0..listeners).map(|_| Listening::of(&limits)).collect();
    let mut settings = config::Admission::new(&limits, &listening);
    change(&mut settings);
    settings
}

fn admission(listeners: usize, change: impl FnOnce(&mut config::Admission)) -> Admission {
    let settings = settings(listeners, change);
    let clients = Clients::predictable(PREFIXES, settings.connections_per_client_max);
    Admission::new(settings, clients)
}

/// Changes what holds, as a control does.
fn change(admission: &Admission, now: Time, change: impl FnOnce(&mut config::Admission)) {
    let base = admission.settings();
    let mut new = base.clone();
    change(&mut new);
    admission.change(&base, &new, now);
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

#[test]
fn the_fuller_of_two_limits_decides_and_says_so() {
    let admission = admission(2, |a| {
        a.connections_max = 3;
        a.listeners[0].connections_max = Some(2);
    });
    let first = [admission.try_admit(0), admission.try_admit(0)].map(|admitted| admitted.is_ok());
    assert_eq!(first, [true, true]);
    assert_eq!(admission.try_admit(0).err(), Some(Full::Listener));
    let other = admission.try_admit(1).expect("the server has room");
    assert_eq!(admission.try_admit(1).err(), Some(Full::Server));
    assert_eq!(admission.held().listeners, [2, 1, 0]);
    assert!(admission.try_dial().is_none(), "it counts as well");
    admission.release(other, Via::door(1), ip(1));
    assert_eq!((admission.count(), admission.max()), (2, 3));
    assert_eq!([0, 1].map(|i| admission.is_full(i)), [Some(Full::Listener), None]);
}

#[test]
fn who_was_let_in_while_nobody_was_counted_is_not_counted_off() {
    let admission = admission(1, |_| {});
    let uncounted = admission.try_count(0, ip(1)).expect("there is no maximum");
    change(&admission, at(0), |a| a.connections_per_client_max = Some(1));
    let counted = admission.try_count(0, ip(1)).expect("the first that counts");
    assert!(counted.is_counted() && !uncounted.is_counted());
    let permits = [admission.try_admit(0), admission.try_admit(0)];
    let [Ok(one), Ok(other)] = permits else { panic!("there is room") };
    admission.release(one, uncounted, ip(1));
    assert!(admission.try_count(0, ip(1)).is_none(), "one is still there");
    change(&admission, at(0), |a| a.connections_per_client_max = None);
    assert!(admission.try_count(0, ip(1)).is_some());
    admission.release(other, counted, ip(1));
    let nothing = Held { server: 0, listeners: vec![0, 0], counted: 0, clients: 0 };
    assert_eq!(admission.held(), nothing);
}

#[test]
fn both_rates_hold_and_what_was_taken_for_nothing_goes_back() {
    let admission = admission(2, |a| {
        a.accept_rate = Some(Rate::per_second(10).burst(3));
        a.listeners[0].accept_rate = Some(Rate::per_second(1_000).burst(2));
    });
    let take = |listener, millis| admission.take_tokens(listener, at(millis));
    let (one, other) = (take(0, 0), take(0, 0));
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(take(0, 0).err(), Some(at(1)), "its own burst is used up");
    assert!(take(1, 0).is_ok());
    assert_eq!(take(1, 0).err(), Some(at(100)), "the server's burst is used up");
    assert_eq!(take(0, 10).err(), Some(at(100)), "it has its own again, the server has not");
    // Nobody came: the token goes back to both.
    admission.refund(0, other.expect("it was there"));
    assert!(take(0, 10).is_ok());
    assert_eq!(take(0, 11).err(), Some(at(100)));
    change(&admission, at(11), |a| a.accept_rate = None);
    assert!(admission.is_paced(0) && !admission.is_paced(1));
    assert!(take(1, 11).is_ok() && take(0, 11).is_ok());
}

#[test]
fn a_policy_can_be_changed() {
    let admission = admission(2, |a| a.listeners[1].when_full = WhenFull::EvictIdle);
    assert_eq!([0, 1].map(|i| admission.when_full(i)), [WhenFull::Pause, WhenFull::EvictIdle]);
    change(&admission, at(0), |a| {
        a.listeners[0].when_full = WhenFull::Reject;
        a.listeners[0].when_too_fast = WhenFull::Reject;
    });
    assert_eq!([0, 1].map(|i| admission.when_full(i)), [WhenFull::Reject, WhenFull::EvictIdle]);
    assert_eq!([0, 1].map(|i| admission.when_too_fast(i)), [WhenFull::Reject, WhenFull::Pause]);
}

#[derive(Clone, Debug)]
enum Step {
    Come { listener: u16, client: u8 },
    Leave(prop::sample::Index),
    Server(usize),
    Listener(usize, Option<usize>),
    Client(Option<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    let max = || prop::option::of(1..6_usize);
    prop_oneof![
        6 => (0..2_u16, 0..3_u8).prop_map(|(listener, client)| Step::Come { listener, client }),
        4 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => (1..8_usize).prop_map(Step::Server),
        1 => (0..2_usize, max()).prop_map(|(listener, max)| Step::Listener(listener, max)),
        1 => max().prop_map(Step::Client),
    ]
}

proptest! {
    #[test]
    fn no_limit_is_exceeded_and_all_are_exact_under_churn(steps in vec(step(), 0..150)) {
        let admission = admission(2, |a| a.connections_max = 5);
        let mut inside: Vec<(Permit, Via, u8)> = Vec::new();
        for step in steps {
            match step {
                Step::Come { listener, client } => {
                    let maxima = admission.settings();
                    let own = usize::from(listener);
                    let through = inside.iter().filter(|one| one.1.index() == own).count();
                    let of_client =
                        inside.iter().filter(|one| one.1.is_counted() && one.2 == client).count();
                    let has_room = inside.len() < maxima.connections_max
                        && maxima.listeners[own].connections_max.is_none_or(|max| through < max);
                    let admitted = admission.try_admit(listener);
                    prop_assert_eq!(admitted.is_ok(), has_room);
                    let Ok(permit) = admitted else { continue };
                    let may = maxima.connections_per_client_max.is_none_or(|max| of_client < max);
                    let counted = admission.try_count(listener, ip(client));
                    prop_assert_eq!(counted.is_some(), may);
                    match counted {
                        Some(via) => inside.push((permit, via, client)),
                        None => admission.release(permit, Via::door(listener), ip(client)),
                    }
                }
                Step::Leave(which) if !inside.is_empty() => {
                    let (permit, via, client) = inside.swap_remove(which.index(inside.len()));
                    admission.release(permit, via, ip(client));
                }
                Step::Leave(_) => {}
                Step::Server(max) => change(&admission, at(0), |a| a.connections_max = max),
                Step::Listener(which, max) => {
                    change(&admission, at(0), |a| a.listeners[which].connections_max = max);
                }
                Step::Client(max) => {
                    change(&admission, at(0), |a| a.connections_per_client_max = max);
                }
            }
            let through = |number| inside.iter().filter(|one| one.1.index() == number).count();
            let counted = inside.iter().filter(|one| one.1.is_counted());
            let mut clients: Vec<u8> = counted.map(|one| one.2).collect();
            let count = clients.len();
            clients.sort_unstable();
            clients.dedup();
            let held = Held {
                server: inside.len(),
                listeners: vec![through(0), through(1), 0],
                counted: count,
                clients: clients.len(),
            };
            prop_assert_eq!(admission.held(), held);
        }
        for (permit, via, client) in inside {
            admission.release(permit, via, ip(client));
        }
        let nothing = Held { server: 0, listeners: vec![0, 0, 0], counted: 0, clients: 0 };
        prop_assert_eq!(admission.held(), nothing);
    }
}
