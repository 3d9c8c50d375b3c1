//! Requests to connect in made-up networks, against what the RFC asks for.

use super::*;
use proptest::prelude::*;

const DELAY: Duration = Duration::from_millis(250);
const TIMEOUT: Duration = Duration::from_secs(5);

fn v4(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 80))
}

fn v6(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80))
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

#[test]
fn the_families_take_turns_beginning_with_the_first() {
    let sorted = take_turns(vec![v6(1), v6(2), v6(3), v4(1), v4(2), v6(1)]);
    assert_eq!(sorted, [v6(1), v4(1), v6(2), v4(2), v6(3)]);
    let sorted = take_turns(vec![v4(1), v4(2), v6(1)]);
    assert_eq!(sorted, [v4(1), v6(1), v4(2)]);
    assert!(take_turns(Vec::new()).is_empty());
}

#[test]
fn the_next_address_waits_for_the_delay_but_not_after_a_failure() {
    let mut now = Time::ZERO;
    let mut dial = Dial::new(vec![v4(1), v4(2), v4(3)], TIMEOUT, DELAY, now);
    assert_eq!(dial.next(now), Next::Start(v4(1)));
    dial.handle_started(now);
    assert_eq!(dial.next(now), Next::Wait(now + DELAY));
    now = now + DELAY;
    assert_eq!(dial.next(now), Next::Start(v4(2)));
    dial.handle_started(now);
    dial.handle_failed(v4(1), refused(), now);
    assert_eq!(dial.next(now), Next::Start(v4(3)));
    dial.handle_not_started(refused(), now);
    assert_eq!(dial.next(now), Next::Wait(Time::ZERO + TIMEOUT), "the second still goes on");
    assert_eq!(dial.next(Time::ZERO + TIMEOUT), Next::TimedOut);
    dial.handle_failed(v4(2), refused(), now);
    assert_eq!(dial.next(now), Next::Failed);
    let addrs: Vec<_> = dial.into_attempts().iter().map(|attempt| attempt.addr).collect();
    assert_eq!(addrs, [v4(1), v4(3), v4(2)]);
}

#[test]
fn without_room_the_next_address_waits_for_a_failure() {
    let now = Time::ZERO;
    let mut dial = Dial::new(vec![v4(1), v4(2)], TIMEOUT, DELAY, now);
    dial.handle_started(now);
    dial.handle_no_room();
    assert_eq!(dial.next(now + DELAY), Next::Wait(now + TIMEOUT));
    dial.handle_failed(v4(1), refused(), now + DELAY);
    assert_eq!(dial.next(now + DELAY), Next::Start(v4(2)));
}

#[test]
fn an_error_names_all_that_was_tried() {
    let attempts = vec![Attempt::new(v4(1), refused()), Attempt::new(v4(2), refused())];
    let error = ConnectError::new(String::from("db:80"), ConnectCause::Failed, attempts);
    let text = error.to_string();
    assert!(text.starts_with("connecting to db:80: no address could be reached: 192.0.2.1:80: "));
    assert!(text.contains("; 192.0.2.2:80: "), "{text}");
    assert!(!error.is_final());
}

proptest! {
    /// Each address is tried once, none too early, and it ends: in every order of answers.
    #[test]
    fn every_request_comes_to_an_end(
        families in proptest::collection::vec(any::<bool>(), 0..8),
        answers in proptest::collection::vec((0..6u8, 0..2_000u64), 1..64),
    ) {
        let addrs: Vec<_> = (1u8..).zip(&families)
            .map(|(n, &six)| if six { v6(n.into()) } else { v4(n) })
            .collect();
        let mut now = Time::ZERO;
        let mut dial = Dial::new(addrs.clone(), TIMEOUT, DELAY, now);
        let (mut live, mut started) = (Vec::new(), Vec::new());
        let mut last_event = None;
        for (what, millis) in answers.iter().cycle().take(400).copied() {
            match dial.next(now) {
                Next::Start(addr) => {
                    let due = last_event.is_none_or(|at: Time| now >= at + DELAY);
                    prop_assert!(live.is_empty() || due, "too early");
                    prop_assert!(!started.contains(&addr), "twice");
                    started.push(addr);
                    if what == 0 {
                        dial.handle_not_started(refused(), now);
                        last_event = None;
                    } else {
                        dial.handle_started(now);
                        live.push(addr);
                        last_event = Some(now);
                    }
                }
                Next::Wait(at) => {
                    prop_assert!(at > now && at <= Time::ZERO + TIMEOUT);
                    if what < 3 && !live.is_empty() {
                        now = (now + Duration::from_millis(millis)).min(at);
                        let addr = live.swap_remove(usize::from(what) % live.len());
                        dial.handle_failed(addr, refused(), now);
                        last_event = None;
                    } else if what == 3 && !live.is_empty() {
                        dial.handle_no_room();
                        now = dial_end(&dial, now);
                    } else {
                        now = at;
                    }
                }
                Next::Failed => {
                    prop_assert!(live.is_empty() && started.len() == addrs.len());
                    prop_assert_eq!(dial.into_attempts().len(), addrs.len());
                    return Ok(());
                }
                Next::TimedOut => {
                    prop_assert!(now >= Time::ZERO + TIMEOUT);
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it goes on for ever");
    }
}

/// When a request that waits would look again.
fn dial_end(dial: &Dial, now: Time) -> Time {
    match dial.next(now) {
        Next::Wait(at) => at,
        Next::Start(_) | Next::Failed | Next::TimedOut => now,
    }
}
