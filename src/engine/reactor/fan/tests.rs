//! Tests of `Fan`: who stands where, and who gets what, while members come and go in the middle of
//! a sweep.

use super::*;
use crate::core::group::Hub;
use crate::core::post::{Command, Post};
use crate::parts::pending::Policy;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

struct Nowhere;

impl Post for Nowhere {
    fn command(&self, _: Command) {}
}

/// A group whose reactor ends in the end, or the group would hold its seats and they the group.
struct Ending(Arc<Hub>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.roll.all().iter().for_each(Seat::give_up);
    }
}

fn fan() -> (Fan, Ending) {
    let hub = Arc::new(Hub::new(Policy::DropOldest, 1_000, 1_000));
    let seat = hub.claim(&(Arc::new(Nowhere) as Arc<dyn Post>)).expect("there is room");
    let fan = Fan {
        seat,
        members: Vec::new(),
        shots: VecDeque::new(),
        next: 0,
        sweep: None,
        is_active: false,
    };
    (fan, Ending(hub))
}

fn shot(number: u64) -> Shot {
    Shot { bytes: Bytes::copy_from_slice(&number.to_be_bytes()), key: 0 }
}

/// A member, as it should be.
#[derive(Default)]
struct Model {
    place: usize,
    /// The number of the next one that it has to get.
    next: u64,
}

/// Serves the next member of the sweep, if there is one.
fn serve(fan: &mut Fan, models: &mut BTreeMap<u64, Model>) -> Result<bool, TestCaseError> {
    if !fan.begin_sweep() {
        return Ok(false);
    }
    let sweep = fan.sweep.as_mut().expect("it has begun");
    let Some(&Member { id, since }) = fan.members.get(sweep.cursor) else {
        fan.end_sweep();
        return Ok(true);
    };
    sweep.cursor += 1;
    let model = models.get_mut(&id.as_u64()).expect("only members are served");
    let shots = sweep.for_member(since);
    let whole: Vec<u8> = shots.iter().flat_map(|shot| shot.bytes.to_vec()).collect();
    if !shots.is_empty() {
        prop_assert_eq!(sweep.piece(shots), &whole[..]);
    }
    for got in shots {
        prop_assert_eq!(got, &shot(model.next), "each once, in order, from the join on");
        model.next += 1;
    }
    Ok(true)
}

proptest! {
    #[test]
    fn each_gets_what_comes_between_its_join_and_its_leave_once(
        steps in prop::collection::vec((0..10u8, any::<prop::sample::Index>()), 0..300),
    ) {
        let (mut fan, _ending) = fan();
        let mut models: BTreeMap<u64, Model> = BTreeMap::new();
        for (number, (what, which)) in steps.into_iter().enumerate() {
            match what {
                0 | 1 => {
                    let id = ConnId::new(0, number, 1);
                    models.insert(id.as_u64(), Model { place: fan.members.len(), next: fan.next });
                    fan.members.push(Member { id, since: fan.next });
                }
                2 | 3 if !models.is_empty() => {
                    let key = *models.keys().nth(which.index(models.len())).expect("there");
                    let place = models.remove(&key).expect("it is there").place;
                    fan.remove(place, |moved, to| {
                        models.get_mut(&moved.as_u64()).expect("members move").place = to;
                    });
                }
                4 | 5 => {
                    fan.shots.push_back(shot(fan.next));
                    fan.next += 1;
                }
                _ => drop(serve(&mut fan, &mut models)?),
            }
            prop_assert_eq!(fan.members.len(), models.len());
            for (key, model) in &models {
                prop_assert_eq!(fan.members[model.place].id.as_u64(), *key);
            }
        }
        while serve(&mut fan, &mut models)? {}
        for model in models.values() {
            prop_assert_eq!(model.next, fan.next, "who stays gets everything");
        }
    }
}

#[test]
fn a_sweep_is_bounded_and_takes_at_least_one() {
    let (mut fan, _ending) = fan();
    assert!(!fan.begin_sweep());
    let large = Shot { bytes: Bytes::from(vec![0; 2 * SWEEP_BYTES]), key: 0 };
    fan.shots.extend([large.clone(), shot(1), large]);
    fan.next = 3;
    let mut counts = Vec::new();
    while fan.begin_sweep() {
        counts.push(fan.sweep.as_ref().expect("it has begun").shots.len());
        fan.sweep = None;
    }
    assert_eq!(counts, [1, 1, 1]);
    fan.shots.extend((0..2_000).map(shot));
    fan.next += 2_000;
    assert!(fan.begin_sweep());
    let sweep = fan.sweep.as_ref().expect("it has begun");
    assert_eq!((sweep.shots.len(), sweep.first), (SWEEP_COUNT, 3));
}
