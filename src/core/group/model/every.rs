//! Every interleaving (within a bound) of few threads that have to do with one group.

use loom::model;
use loom::model::Builder;

use super::{Desk, Reader, assert_over, group};
use crate::words::sync::{Arc, thread};

/// Like `model`, for what would take minutes with three preemptions.
fn few_preemptions(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(2).min(2));
    builder.check(check);
}

#[test]
fn who_stays_is_told_all_in_order_while_another_leaves() {
    few_preemptions(|| {
        let (desk, group) = (Desk::new(), group());
        let (stays, leaves) = (desk.connection(1), desk.connection(2));
        stays.join(&group);
        leaves.join(&group);
        let publisher = {
            let (desk, group) = (Arc::clone(&desk), group.clone());
            thread::spawn(move || {
                group.broadcast("1").expect("there is room");
                group.broadcast("2").expect("there is room");
                desk.end();
            })
        };
        let leaver = {
            let (desk, group, leaves) = (Arc::clone(&desk), group.clone(), leaves.clone());
            thread::spawn(move || {
                leaves.leave(&group);
                desk.end();
            })
        };
        let mut reader = Reader::of(&desk);
        reader.read(2);
        publisher.join().expect("it does not panic");
        leaver.join().expect("it does not panic");
        assert_eq!(reader.told(&stays), ["1", "2"]);
        assert!(reader.told(&stays).starts_with(reader.told(&leaves)));
        assert_eq!(group.stats().backlog_bytes, 0);
        stays.leave(&group);
        desk.end();
        reader.read(3);
        assert_over(&group);
    });
}

#[test]
fn the_last_one_leaves_while_it_is_told() {
    model(|| {
        let (desk, group) = (Desk::new(), group());
        let last = desk.connection(1);
        last.join(&group);
        let publisher = {
            let (desk, group) = (Arc::clone(&desk), group.clone());
            thread::spawn(move || {
                group.broadcast("1").expect("there is room");
                desk.end();
            })
        };
        last.leave(&group);
        let mut reader = Reader::of(&desk);
        reader.read(1);
        publisher.join().expect("it does not panic");
        // What came behind the leave was told to nobody.
        assert!(reader.told(&last).len() <= 1);
        assert_over(&group);
    });
}

#[test]
fn who_joins_hears_itself_though_the_last_one_leaves() {
    model(|| {
        let (desk, group) = (Desk::new(), group());
        let (last, comes) = (desk.connection(1), desk.connection(2));
        last.join(&group);
        last.leave(&group);
        let joiner = {
            let (desk, group, comes) = (Arc::clone(&desk), group.clone(), comes.clone());
            thread::spawn(move || {
                comes.join(&group);
                group.broadcast("1").expect("there is room");
                comes.leave(&group);
                desk.end();
            })
        };
        let mut reader = Reader::of(&desk);
        reader.read(1);
        joiner.join().expect("it does not panic");
        assert_eq!(reader.told(&comes), ["1"], "once");
        assert_over(&group);
    });
}

#[test]
fn who_joins_twice_is_told_once() {
    model(|| {
        let (desk, group) = (Desk::new(), group());
        let member = desk.connection(1);
        let other = {
            let (desk, group, member) = (Arc::clone(&desk), group.clone(), member.clone());
            thread::spawn(move || {
                member.join(&group);
                desk.end();
            })
        };
        member.join(&group);
        group.broadcast("1").expect("there is room");
        let mut reader = Reader::of(&desk);
        reader.read(1);
        other.join().expect("it does not panic");
        assert_eq!(reader.told(&member), ["1"]);
        member.leave(&group);
        desk.end();
        reader.read(2);
        assert_over(&group);
    });
}

#[test]
fn all_hear_two_publishers_in_one_order() {
    model(|| {
        let (desk, group) = (Desk::new(), group());
        let members = [desk.connection(1), desk.connection(2)];
        members.iter().for_each(|member| member.join(&group));
        let other = {
            let (desk, group) = (Arc::clone(&desk), group.clone());
            thread::spawn(move || {
                group.broadcast("theirs").expect("there is room");
                desk.end();
            })
        };
        // The reader takes the one while the other is on its way.
        let mut reader = Reader::of(&desk);
        group.broadcast("ours").expect("there is room");
        reader.read(1);
        other.join().expect("it does not panic");
        let [one, other] = &members;
        let told = reader.told(one);
        assert!(told == ["ours", "theirs"] || told == ["theirs", "ours"], "each once");
        assert_eq!(told, reader.told(other));
        assert_eq!(group.stats().backlog_bytes, 0, "the backlog is exact");
    });
}

#[test]
fn a_reactor_ends_while_it_is_joined() {
    model(|| {
        let (desk, group) = (Desk::new(), group());
        let last = desk.connection(1);
        last.join(&group);
        last.leave(&group);
        desk.end();
        let joiner = {
            let (desk, group) = (Arc::clone(&desk), group.clone());
            thread::spawn(move || {
                desk.connection(2).join(&group);
                group.broadcast("1").expect("there is room");
            })
        };
        let mut reader = Reader::of(&desk);
        reader.read(1);
        // It reads no letter from now on.
        desk.seats.close();
        joiner.join().expect("it does not panic");
        assert_over(&group);
        assert_eq!(group.stats().backlog_bytes, 0);
        desk.connection(3).join(&group);
        assert_over(&group);
    });
}

#[test]
fn two_reactors_are_told_the_same_while_one_loses_its_members() {
    few_preemptions(|| {
        let (desks, group) = ([Desk::new(), Desk::new()], group());
        let (stays, leaves) = (desks[0].connection(1), desks[1].connection(2));
        stays.join(&group);
        leaves.join(&group);
        let publisher = {
            let (desks, group) = (desks.clone(), group.clone());
            thread::spawn(move || {
                group.broadcast("1").expect("there is room");
                desks.iter().for_each(|desk| desk.end());
            })
        };
        let other = {
            let desk = Arc::clone(&desks[1]);
            thread::spawn(move || {
                let mut reader = Reader::of(&desk);
                reader.read(1);
                reader
            })
        };
        leaves.leave(&group);
        let mut reader = Reader::of(&desks[0]);
        reader.read(1);
        publisher.join().expect("it does not panic");
        let other = other.join().expect("it does not panic");
        assert_eq!(reader.told(&stays), ["1"]);
        assert!(other.told(&leaves).len() <= 1);
        assert_eq!(group.stats().backlog_bytes, 0);
    });
}
