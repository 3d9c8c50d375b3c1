//! Some of the interleavings of a crowd, as a fixed seed has them: members of two reactors that
//! come, go and stay while two threads broadcast. There are too many to take all of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use super::{Desk, Group, Reader, assert_over, group};
use crate::core::handle::Handle;
use crate::words::sync::{Arc, thread};

/// How many schedules of each kind.
const SCHEDULES: usize = 5_000;
const SEED: u64 = 1;
/// Messages of each publisher.
const MESSAGES: usize = 3;

/// The connections of one reactor.
struct Crowd {
    desk: Arc<Desk>,
    /// Members from the beginning to the end.
    stay: [Handle; 2],
    leaves: Handle,
    comes: Handle,
}

impl Crowd {
    fn new(group: &Group) -> Crowd {
        let desk = Desk::new();
        let [one, other, leaves, comes] = [1, 2, 3, 4].map(|slot| desk.connection(slot));
        [&one, &other, &leaves].into_iter().for_each(|member| member.join(group));
        Crowd { desk, stay: [one, other], leaves, comes }
    }

    /// One comes and says so, while one leaves.
    fn move_members(&self, group: &Group, name: &'static str) {
        self.leaves.leave(group);
        self.comes.join(group);
        group.broadcast(name).expect("there is room");
    }

    fn check(&self, reader: &Reader, own: &str) {
        let told = self.stay.each_ref().map(|member| reader.told(member));
        assert_eq!(told[0], told[1], "in one order");
        let mut by_publisher: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        for message in told[0] {
            by_publisher.entry(message[0]).or_default().push(message[1]);
        }
        let all: Vec<u8> = (b'0'..).take(MESSAGES).collect();
        for publisher in [b'a', b'b'] {
            assert_eq!(by_publisher[&publisher], all, "each once, in the order of its thread");
        }
        assert_eq!((&by_publisher[&b'x'][..], &by_publisher[&b'y'][..]), (&b"!"[..], &b"!"[..]));
        // All letters of a reactor are in one order: who leaves has a beginning of what was told,
        // who comes has an end.
        assert!(told[0].starts_with(reader.told(&self.leaves)));
        let heard = reader.told(&self.comes);
        assert!(told[0].ends_with(heard));
        assert!(heard.contains(&Bytes::copy_from_slice(own.as_bytes())), "it hears itself");
    }
}

fn publish(group: &Group, name: u8) {
    for number in (b'0'..).take(MESSAGES) {
        group.broadcast(vec![name, number]).expect("there is room");
    }
}

fn a_crowd_is_told() {
    let group = group();
    let crowds = Arc::new([Crowd::new(&group), Crowd::new(&group)]);
    let end = |crowds: &[Crowd; 2]| crowds.iter().for_each(|crowd| crowd.desk.end());
    let readers = [0, 1].map(|index| {
        let desk = Arc::clone(&crowds[index].desk);
        thread::spawn(move || {
            let mut reader = Reader::of(&desk);
            reader.read(4);
            reader
        })
    });
    let mut others = Vec::new();
    for name in [b'a', b'b'] {
        let (crowds, group) = (Arc::clone(&crowds), group.clone());
        others.push(thread::spawn(move || {
            publish(&group, name);
            end(&crowds);
        }));
    }
    for (index, name) in ["x!", "y!"].into_iter().enumerate() {
        let (crowds, group) = (Arc::clone(&crowds), group.clone());
        others.push(thread::spawn(move || {
            crowds[index].move_members(&group, name);
            end(&crowds);
        }));
    }
    others.into_iter().for_each(|other| other.join().expect("it does not panic"));
    let mut readers = readers.map(|reader| reader.join().expect("it does not panic"));
    for (index, own) in ["x!", "y!"].into_iter().enumerate() {
        crowds[index].check(&readers[index], own);
    }
    assert_eq!(group.stats().backlog_bytes, 0);
    // The members of one reactor leave, and the other one ends.
    let [one, other] = &*crowds;
    one.stay.iter().chain([&one.comes]).for_each(|member| member.leave(&group));
    one.desk.end();
    readers[0].read(5);
    other.desk.seats.close();
    assert_over(&group);
}

#[test]
fn a_crowd_is_told_in_random_order() {
    let scheduler = RandomScheduler::new_from_seed(SEED, SCHEDULES);
    Runner::new(scheduler, Config::new()).run(a_crowd_is_told);
}

#[test]
fn a_crowd_is_told_with_few_changes_of_threads() {
    let scheduler = PctScheduler::new_from_seed(SEED, 3, SCHEDULES);
    Runner::new(scheduler, Config::new()).run(a_crowd_is_told);
}
