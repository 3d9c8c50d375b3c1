//! Random lives of connections, each with a calm end in which everything must finish.

use crate::core::conn::life::{End, Life, Op};
use crate::words::config::Rate;
use proptest::collection::vec;
use proptest::prelude::*;

fn op() -> impl Strategy<Value = Op> {
    let end = prop_oneof![
        40 => Just(End::Open),
        2 => Just(End::Finish),
        2 => Just(End::Close),
        1 => Just(End::Abort),
        1 => Just(End::Panic),
    ];
    let done = (0..150usize, 0..10usize, end);
    prop_oneof![
        8 => (1..200usize).prop_map(Op::Receive),
        1 => Just(Op::Fin),
        1 => (0..8u8).prop_map(|lot| if lot == 0 { Op::Break } else { Op::Fin }),
        8 => (0..200usize).prop_map(Op::Room),
        2 => any::<bool>().prop_map(Op::SpuriousRead),
        2 => Just(Op::SpuriousWrite),
        4 => (0..4000u64).prop_map(Op::Pass),
        20 => done.prop_map(|(put, keep, end)| Op::Done { put, keep, end }),
        2 => Just(Op::Handle),
        5 => (0..60usize).prop_map(Op::Post),
        1 => (0..60usize).prop_map(Op::PostOrClose),
        4 => Just(Op::ReadMail),
        2 => Just(Op::Throttle),
        4 => any::<bool>().prop_map(Op::ReadOn),
        1 => Just(Op::PostClose),
        1 => (0..8u8).prop_map(|lot| if lot == 0 { Op::PostAbort } else { Op::Drain }),
    ]
}

fn rate() -> impl Strategy<Value = Option<Rate>> {
    let rate = (20..5_000u64, 1..300u64);
    prop::option::of(rate.prop_map(|(rate, burst)| Rate::per_second(rate).burst(burst)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 1024 }))]
    #[test]
    fn every_life_keeps_the_rules_and_ends(
        room in prop_oneof![Just(0usize), 0..300usize, Just(usize::MAX)],
        ops in vec(op(), 1..120),
        rates in prop::option::of((rate(), rate())),
    ) {
        Life { room, rates: rates.unwrap_or_default(), ops }.run();
    }
}
