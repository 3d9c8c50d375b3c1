//! Pools of connections: reuse, bounds, waiting, and connections that are of no use any more.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use common::{PATIENCE, builder, frames, wait_for, wait_until};
use socket2::{Domain, Socket, Type};
use switchboard::client::{CheckoutError, IdlePool, PoolOptions, RecvError};
use switchboard::{CloseReason, Context, Handler, LengthPrefixed, Outcome, Server};

/// Sends everything back, does what some words ask for, and counts the connections.
struct Teller {
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Handler for Teller {
    fn on_open(&mut self, _: &mut Context) -> Outcome {
        let open = self.open.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(open, SeqCst);
        Ok(())
    }

    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        match &frame[..] {
            b"twice" => cx.send(frame.clone())?,
            b"close" => cx.close(),
            b"nothing" => return Ok(()),
            _ => {}
        }
        if &frame[..] != b"close" {
            cx.send(frame)?;
        }
        Ok(())
    }

    fn on_close(&mut self, _: &CloseReason) {
        self.open.fetch_sub(1, SeqCst);
    }
}

struct Scene {
    server: Server,
    client: Server,
    most: Arc<AtomicUsize>,
}

impl Scene {
    fn new() -> Scene {
        let (open, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let its = Arc::clone(&most);
        let teller = move |_| Teller { open: Arc::clone(&open), most: Arc::clone(&its) };
        let server = builder().listen("127.0.0.1:0", frames(), teller).start().expect("it starts");
        let client = builder().start().expect("it starts");
        Scene { server, client, most }
    }

    fn pool(&self, options: PoolOptions) -> IdlePool<LengthPrefixed> {
        let pool = self.client.control().pool(options, self.server.local_addr(), frames());
        pool.expect("the options are in range")
    }

    fn opened(&self) -> u64 {
        self.client.snapshot().opened()
    }
}

#[track_caller]
fn ask(pool: &IdlePool<LengthPrefixed>, question: &'static str) {
    let mut connection = pool.checkout(PATIENCE).expect("a connection");
    connection.send(question).expect("it is open");
    assert_eq!(connection.recv(PATIENCE).expect("an answer"), question);
}

#[test]
fn a_connection_is_used_again() {
    let scene = Scene::new();
    let pool = scene.pool(PoolOptions::new());
    (0..10).for_each(|_| ask(&pool, "hello"));
    assert_eq!((scene.opened(), pool.counts()), (1, (1, 1)));
    drop(pool);
    wait_for("the pool has closed it", &scene.client, |snapshot| snapshot.admitted == 0);
}

#[test]
fn there_are_never_more_than_allowed_and_everybody_gets_one() {
    let scene = Scene::new();
    let pool = scene.pool(PoolOptions::new().total_max(3));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..20).for_each(|_| ask(&pool, "hello")));
        }
    });
    let (idle, total) = pool.counts();
    assert!(idle == total && (1..=3).contains(&total), "{idle} of {total}");
    assert_eq!(scene.opened(), u64::try_from(total).expect("few"));
    assert!(scene.most.load(SeqCst) <= 3);
}

#[test]
fn who_waits_is_served_or_told_in_time() {
    let scene = Scene::new();
    let pool = scene.pool(PoolOptions::new().total_max(1));
    let held = pool.checkout(PATIENCE).expect("the first");
    let refused = pool.checkout(Duration::from_millis(10)).expect_err("there is none");
    assert!(matches!(refused, CheckoutError::TimedOut), "{refused}");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| ask(&pool, "patience"));
        drop(held);
        waiter.join().expect("it got the connection");
    });
    assert_eq!((scene.opened(), pool.counts()), (1, (1, 1)));
}

#[test]
fn who_waits_for_an_answer_is_told_when_none_can_come() {
    let scene = Scene::new();
    let pool = scene.pool(PoolOptions::new().frames_max(4).idle_max(2));
    let mut connection = pool.checkout(PATIENCE).expect("a connection");
    connection.send("nothing").expect("it is open");
    let late = connection.recv(Duration::from_millis(10)).expect_err("it answers nothing");
    assert_eq!(
        (late, late.to_string().as_str()),
        (RecvError::TimedOut, "no frame has come in time")
    );
    connection.send("close").expect("it is open");
    let gone = connection.recv(PATIENCE).expect_err("it has ended");
    assert_eq!((gone, gone.to_string().as_str()), (RecvError::Gone, "the connection has ended"));
    drop(connection);
    assert_eq!(pool.counts(), (0, 0), "it is of no use any more");
    // Who asks next gets another one, through any clone of the pool.
    ask(&pool.clone(), "hello");
    assert_eq!(scene.opened(), 2);
}

#[test]
fn one_that_died_while_it_was_idle_is_not_given_out() {
    let scene = Scene::new();
    let pool = scene.pool(PoolOptions::new());
    let mut connection = pool.checkout(PATIENCE).expect("a connection");
    connection.send("close").expect("it is open");
    connection.settle();
    drop(connection);
    wait_until("its end is noticed", || pool.counts() == (0, 0));
    ask(&pool, "hello");
    assert_eq!((scene.opened(), pool.counts()), (2, (1, 1)));
}

#[test]
fn one_with_an_answer_outstanding_or_to_spare_is_not_given_out() {
    let scene = Scene::new();
    let pool = scene.pool(PoolOptions::new());
    let mut connection = pool.checkout(PATIENCE).expect("a connection");
    connection.send("nothing").expect("it is open");
    assert_eq!(connection.recv(Duration::from_millis(1)), Err(RecvError::TimedOut));
    drop(connection);
    assert_eq!(pool.counts(), (0, 0));

    // Two answers to one question: the second lies there when somebody else comes.
    let mut connection = pool.checkout(PATIENCE).expect("a connection");
    connection.send("twice").expect("it is open");
    connection.recv(PATIENCE).expect("the first answer");
    connection.recv(PATIENCE).expect("the second answer");
    drop(connection);
    assert_eq!(pool.counts(), (0, 0), "one more than was asked for");
    ask(&pool, "hello");
    pool.checkout(PATIENCE).expect("it is idle").discard();
    assert_eq!(pool.counts(), (0, 0));
}

#[test]
fn a_place_is_not_lost_when_nobody_answers() {
    let scene = Scene::new();
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let addr = deaf.local_addr().expect("its address").as_socket().expect("an address of IP");
    let options = PoolOptions::new().total_max(1);
    let pool = scene.client.control().pool(options, addr, frames()).expect("in range");
    for _ in 0..5 {
        let refused = pool.checkout(PATIENCE).expect_err("nobody listens");
        assert!(matches!(refused, CheckoutError::Connect(_)), "{refused}");
        assert_eq!(pool.counts(), (0, 0));
    }
    // Without any patience the place is free again once it is clear what has become of it.
    let refused = pool.checkout(Duration::ZERO).expect_err("nobody listens");
    assert!(matches!(refused, CheckoutError::TimedOut | CheckoutError::Connect(_)), "{refused}");
    wait_until("the place is free", || pool.counts() == (0, 0));
    deaf.listen(1).expect("it listens from now on");
    pool.checkout(PATIENCE).expect("a connection");
}

#[test]
fn one_that_is_idle_for_long_is_closed() {
    let scene = Scene::new();
    let pool = scene.pool(PoolOptions::new().idle_timeout(Duration::from_millis(5)));
    ask(&pool, "hello");
    wait_until("it is closed", || pool.counts() == (0, 0));
    wait_for("and gone", &scene.client, |snapshot| snapshot.admitted == 0);
    ask(&pool, "again");
}

#[test]
fn a_closed_pool_gives_nothing_and_keeps_nothing() {
    let scene = Scene::new();
    let pool = scene.pool(PoolOptions::new().total_max(1));
    let held = pool.checkout(PATIENCE).expect("a connection");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.checkout(PATIENCE).map(drop));
        pool.close();
        let told = waiter.join().expect("it does not panic");
        assert!(matches!(told, Err(CheckoutError::Closed)), "{told:?}");
    });
    drop(held);
    assert_eq!(pool.counts(), (0, 0));
    wait_for("all is closed", &scene.client, |snapshot| snapshot.admitted == 0);
    let options = PoolOptions::new().total_max(0);
    let refused = scene.client.control().pool(options, scene.server.local_addr(), frames());
    assert!(refused.expect_err("out of range").to_string().contains("`total_max`"));
}

#[test]
fn a_server_that_drains_ends_the_use_of_its_pools() {
    let Scene { server, client, .. } = Scene::new();
    let addr = server.local_addr();
    let pool = client.control().pool(PoolOptions::new(), addr, frames()).expect("in range");
    ask(&pool, "hello");
    let report = client.drain(PATIENCE, Duration::ZERO);
    assert_eq!((report.stuck, report.unserved), (0, 0));
    let refused = pool.checkout(PATIENCE).expect_err("it has ended");
    assert!(matches!(&refused, CheckoutError::Connect(error) if error.is_final()), "{refused}");
    assert_eq!(pool.counts(), (0, 0));
    server.stop();
}
