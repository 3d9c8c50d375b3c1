//! Loom models of handles: sends against closes and ends, over the real gate and the real record.
//!
//! The mailbox is a plain list with a lock here, and is looked at when the model says so: the real
//! one has models of its own.

use bytes::Bytes;
use loom::model;

use super::Next;
use super::rig::Rig;
use crate::core::handle::{Handle, TrySendError};
use crate::core::post::MESSAGE_OVERHEAD_BYTES;
use crate::words::reason::Cause;
use crate::words::sync::thread;

/// An open connection, at rest, whose handles may queue `max` bytes; and one of these.
fn open(max: usize) -> (Rig, Handle) {
    let mut rig = Rig::opening();
    rig.limits.send_max_bytes = max;
    let handle = rig.make_handle();
    rig.finish_job(|_| {});
    (rig, handle)
}

/// Takes all letters, and has the jobs done that they make.
fn serve(rig: &mut Rig) {
    rig.read_mail();
    while rig.out.is_some() {
        rig.finish_job(|_| {});
    }
}

#[test]
fn what_was_sent_before_the_close_is_delivered() {
    model(|| {
        let (mut rig, handle) = open(1 << 20);
        let closer = {
            let handle = handle.clone();
            thread::spawn(move || {
                assert!(handle.try_send("a").is_ok(), "nobody else closes");
                handle.close();
                assert_eq!(handle.try_send("b"), Err(TrySendError::Gone(Bytes::from("b"))));
                assert!(!handle.takes_messages());
            })
        };
        let other = {
            let handle = handle.clone();
            thread::spawn(move || handle.try_send("c").is_ok())
        };
        serve(&mut rig);
        closer.join().expect("it does not panic");
        let sent = other.join().expect("it does not panic");
        assert!(handle.try_send("d").is_err(), "who was told of the close is refused");
        serve(&mut rig);
        let got = rig.peer.got.as_slice();
        let known: &[&[u8]] = if sent { &[b"a", b"ac", b"ca"] } else { &[b"a"] };
        assert!(known.contains(&got), "{got:?}, sent {sent}");
        assert!(rig.peer.got_fin, "it was closed");
        assert_eq!(handle.queued_bytes(), 0, "also what was dropped is given back");
    });
}

#[test]
fn two_close_and_it_ends_once() {
    model(|| {
        let (mut rig, handle) = open(1 << 20);
        let others = [0, 1].map(|_| {
            let handle = handle.clone();
            thread::spawn(move || handle.close())
        });
        serve(&mut rig);
        others.into_iter().for_each(|other| other.join().expect("it does not panic"));
        // The engine around it asserts that there is one FIN, and one cause.
        serve(&mut rig);
        assert!(rig.peer.got_fin && handle.is_open());
        rig.receive_fin();
        rig.run();
        assert_eq!(rig.conn.next(), Next::Reap);
        assert!(!handle.is_open());
        assert_eq!(rig.end().cause().label(), "closed");
    });
}

#[test]
fn who_is_gone_stays_gone() {
    model(|| {
        let (mut rig, handle) = open(1 << 20);
        let closer = {
            let handle = handle.clone();
            thread::spawn(move || {
                let sent = handle.try_send("a").is_ok();
                handle.close();
                sent
            })
        };
        rig.conn.die(Cause::PeerReset);
        assert!(!handle.is_open());
        closer.join().expect("it does not panic");
        serve(&mut rig);
        assert!(!handle.is_open(), "a late close does not bring it back");
        assert_eq!(handle.queued_bytes(), 0);
        assert_eq!(rig.end().cause().label(), "peer_reset");
    });
}

#[test]
fn one_of_two_finds_room() {
    model(|| {
        let (mut rig, handle) = open(MESSAGE_OVERHEAD_BYTES + 1);
        let other = {
            let handle = handle.clone();
            thread::spawn(move || handle.try_send("a").is_ok())
        };
        let mine = handle.try_send("b").is_ok();
        let theirs = other.join().expect("it does not panic");
        assert!(mine != theirs, "there is room for one");
        assert_eq!(handle.queued_bytes(), MESSAGE_OVERHEAD_BYTES + 1);
        serve(&mut rig);
        assert_eq!((handle.queued_bytes(), rig.peer.got.len()), (0, 1));
        assert!(handle.try_send("c").is_ok(), "what was refused has left nothing behind");
    });
}

#[test]
fn the_bound_holds_while_messages_become_output() {
    model(|| {
        const LEN: usize = 100;
        // For one that is posted and one that is encoded, which counts less.
        let max = MESSAGE_OVERHEAD_BYTES + 2 * LEN;
        let (mut rig, handle) = open(max);
        rig.peer.room = 0;
        let send = |handle: &Handle| handle.try_send(vec![b'x'; LEN]).is_ok();
        assert!(send(&handle));
        serve(&mut rig);
        assert!(send(&handle) && !send(&handle));
        let sender = {
            let handle = handle.clone();
            thread::spawn(move || send(&handle))
        };
        serve(&mut rig);
        assert!(!sender.join().expect("it does not panic"), "two are queued, as many as may be");
        assert_eq!((handle.queued_bytes(), rig.conn.queued_bytes()), (2 * LEN, 2 * LEN));
        rig.make_room(usize::MAX);
        rig.run();
        assert_eq!((handle.queued_bytes(), rig.peer.got.len()), (0, 2 * LEN));
    });
}
