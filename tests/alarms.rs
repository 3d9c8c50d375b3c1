//! Alarms: told when a limit is near or reached, once, and when that is over.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{
    PATIENCE, PLANTED, builder, connect, echo, expect_reset, hush, sum, try_connect, wait_for,
    wait_until,
};
use switchboard::control::AlarmKind;
use switchboard::{Builder, Raw, Server, handler_fn};

/// A server that sends back what comes.
fn echoing(builder: Builder) -> Server {
    let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    builder.listen("127.0.0.1:0", Raw::new(), echo).start().expect("it starts")
}

/// Clients that are inside: each was answered.
fn enter(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut inside: Vec<_> = (0..count).map(|_| connect(addr)).collect();
    inside.iter_mut().for_each(|client| echo(client, b"inside"));
    inside
}

#[track_caller]
fn empty(server: &Server) {
    wait_for("all are gone", server, |now| now.connections() == 0 && now.admitted == 0);
}

#[test]
fn an_alarm_is_told_once_however_often_a_limit_is_met() {
    let (tell, alarms) = mpsc::channel();
    let limited = builder().limits(|limits| {
        limits.connections_max = 10;
        limits.connections_per_client_max = Some(6);
        limits.alarm_percent = 50;
    });
    let server = echoing(limited.on_alarm(move |alarm| drop(tell.send(alarm.clone()))));
    for _ in 0..3 {
        let inside = enter(server.local_addr(), 6);
        // It may learn of it while it still connects.
        try_connect(server.local_addr()).iter_mut().for_each(expect_reset);
        wait_for("it is counted", &server, |now| now.admitted == 6);
        drop(inside);
        empty(&server);
    }
    let mut told = [0; 2].map(|_: i32| alarms.recv_timeout(PATIENCE).expect("an alarm"));
    told.sort_by_key(|alarm| alarm.kind == AlarmKind::Client);
    let [connections, client] = told;
    assert_eq!((connections.kind, connections.raised), (AlarmKind::Connections, true));
    // The seventh has a place for as long as it takes to see who it is.
    assert!((5..=7).contains(&connections.count) && connections.max == 10, "{connections:?}");
    assert_eq!((client.kind, client.raised, client.times), (AlarmKind::Client, true, 1));
    assert_eq!(client.client, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    drop(server);
    assert_eq!(alarms.try_iter().count(), 0, "nothing more within the cool-down");
}

#[test]
fn an_alarm_that_is_over_is_told_and_a_callback_may_panic() {
    hush();
    let (tell, alarms) = mpsc::channel();
    let limited = builder().limits(|limits| {
        limits.connections_max = 4;
        limits.alarm_cool_down = Duration::from_millis(1);
    });
    let limited = limited.on_alarm(move |alarm| {
        drop(tell.send(alarm.clone()));
        panic!("{PLANTED}");
    });
    let server = echoing(limited);
    for _ in 0..3 {
        let inside = enter(server.local_addr(), 4);
        let begun = alarms.recv_timeout(PATIENCE).expect("an alarm");
        assert!(begun.raised && begun.kind == AlarmKind::Connections, "{begun:?}");
        drop(inside);
        let over = alarms.recv_timeout(PATIENCE).expect("its end");
        assert!(!over.raised && over.kind == AlarmKind::Connections, "{over:?}");
        // Clients that have yet to leave would raise another one together with the next.
        empty(&server);
    }
    wait_for("they are counted", &server, |now| sum(now, |reactor| reactor.panics) == 6);
}

#[test]
fn a_queue_that_is_nearly_full_is_told() {
    let (tell, alarms) = mpsc::channel();
    let limited = builder().reactors(1).limits(|limits| {
        limits.connections_max = 1;
        limits.backlog = 16;
    });
    let server = echoing(limited.on_alarm(move |alarm| drop(tell.send(alarm.clone()))));
    let _inside = enter(server.local_addr(), 1);
    let _waiting: Vec<_> = (0..15).map(|_| connect(server.local_addr())).collect();
    let told = wait_for("they wait", &server, |_| true);
    if sum(&told, |reactor| reactor.waiting) == 0 {
        // Not Linux: nobody tells.
        return;
    }
    let mut kinds = Vec::new();
    wait_until("it is told", || {
        kinds.extend(alarms.try_iter().map(|alarm| alarm.kind));
        kinds.contains(&AlarmKind::Backlog)
    });
}

#[test]
fn a_handler_that_does_not_come_back_is_told_of() {
    let (tell, alarms) = mpsc::channel();
    let limited = builder().limits(|limits| {
        limits.handler_patience = Duration::from_millis(20);
        limits.alarm_cool_down = Duration::from_millis(500);
    });
    let (go, gone) = mpsc::channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let names = Arc::new(Mutex::new(Vec::new()));
    let (wait, noted) = (Arc::clone(&gone), Arc::clone(&names));
    let server = limited
        .on_alarm(move |alarm| drop(tell.send(alarm.clone())))
        .listen("127.0.0.1:0", Raw::new(), move |_peer| {
            let (wait, noted) = (Arc::clone(&wait), Arc::clone(&noted));
            handler_fn(move |cx, bytes| {
                if &bytes[..] == b"block" {
                    noted.lock().expect("no panic").push(cx.id());
                    wait.lock().expect("no panic").recv().expect("it is let go");
                }
                cx.send(bytes)
            })
        })
        .start()
        .expect("it starts");
    let mut quick = connect(server.local_addr());
    echo(&mut quick, b"all is well");
    let mut slow = connect(server.local_addr());
    // From the third time on it goes through the slow lane.
    for _ in 0..4 {
        slow.write_all(b"block").expect("it is read");
        let begun = alarms.recv_timeout(PATIENCE).expect("an alarm");
        assert_eq!((begun.kind, begun.raised), (AlarmKind::Handlers, true));
        assert_eq!(begun.count, 1);
        assert_eq!(begun.client, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(begun.connection, names.lock().expect("no panic").last().copied());
        echo(&mut quick, b"others go on");
        go.send(()).expect("it waits");
        let mut answer = [0; 5];
        slow.read_exact(&mut answer).expect("it goes on, too");
        let over = alarms.recv_timeout(PATIENCE).expect("it is over");
        assert_eq!((over.kind, over.raised), (AlarmKind::Handlers, false));
    }
}
