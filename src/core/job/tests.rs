//! Real sessions in jobs: what a handler does, and does wrong, and what the job makes of it.

use super::*;
use crate::core::codec::{LengthPrefixed, Raw};
use crate::core::context::Context;
use crate::core::handle::Handle;
use crate::core::handler::Handler;
use crate::core::post::{Command, Parcel, Post};
use crate::core::refusal::SendError;
use crate::core::session::Maker;
use crate::parts::buf::Outbox;
use crate::words::config::{Overflow, Timeouts};
use crate::words::error::{Outcome, SpawnError};
use crate::words::reason::ClosePhase;
use bytes::Bytes;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Does what its input says, and remembers what it was asked.
struct Obedient {
    log: Arc<Mutex<Vec<String>>>,
    panics_in_drop: bool,
}

impl Obedient {
    fn note(&self, what: impl Into<String>) {
        self.log.lock().expect("no panic under the lock").push(what.into());
    }
}

impl Handler for Obedient {
    fn on_open(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.note(format!("open {}", cx.peer().port()));
        Ok(())
    }

    fn on_frame(&mut self, cx: &mut Context<'_>, frame: BytesMut) -> Outcome {
        self.note(String::from_utf8_lossy(&frame));
        match &frame[..] {
            b"close" => cx.close(),
            b"finish" => cx.finish(),
            b"abort" => cx.abort(),
            b"fail" => Err("as told")?,
            b"panic" => panic!("as told"),
            _ => cx.send(frame)?,
        }
        Ok(())
    }

    fn on_drained(&mut self, _: &mut Context<'_>) -> Outcome {
        self.note("drained");
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.note("eof");
        cx.finish();
        Ok(())
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.note(reason.cause().label());
        assert!(!matches!(reason.cause(), Cause::Overflow), "told to panic by this cause");
    }
}

impl Drop for Obedient {
    fn drop(&mut self) {
        assert!(!self.panics_in_drop, "told to panic when dropped");
    }
}

struct Nowhere;

impl Post for Nowhere {
    fn command(&self, _: Command) {}
}

impl Office for Nowhere {
    fn post(&self) -> Arc<dyn Post> {
        Arc::new(Nowhere)
    }

    fn spawn(&self, call: crate::core::job::Call) -> Result<(), SpawnError> {
        call.run();
        Ok(())
    }

    fn now(&self) -> Time {
        Time::ZERO
    }

    fn timeouts(&self, _: u16) -> Timeouts {
        Timeouts::default()
    }
}

fn hand(verdict: Verdict) -> Hand {
    let peer = "192.0.2.1:9".parse().expect("an address");
    Hand { peer, verdict, send_max_bytes: 100, ..Hand::blank() }
}

fn job(task: Task, input: &[u8], hand: Hand) -> Box<Job> {
    let errand = Errand { open: matches!(task, Task::Open(_)), ..Errand::default() };
    let input = Input { bytes: BytesMut::from(input), given_bytes: input.len(), leased: false };
    Box::new(Job { task, session: None, errand, input, hand, timed: false })
}

fn run(job: Box<Job>) -> (Option<Box<dyn Session>>, BytesMut, Hand, bool) {
    let Done { job, kind, panicked, .. } = job.run(&Nowhere, || Time::ZERO);
    assert_eq!(kind, Kind::Served, "it was to be served");
    let Job { session, input, hand, .. } = *job;
    (session, input.bytes, hand, panicked)
}

/// Opens a session and shows it `frames`, each behind its length.
fn serve(frames: &[&str], verdict: Verdict) -> (BytesMut, Hand, bool, Vec<String>) {
    let log = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&log);
    let handler = move |_| Obedient { log: Arc::clone(&seen), panics_in_drop: false };
    let factory = Arc::new(Maker { codec: LengthPrefixed::u8(), handler });
    let mut outbox = Outbox::new();
    for frame in frames {
        let frame = Bytes::copy_from_slice(frame.as_bytes());
        let encoded =
            crate::core::codec::Codec::encode(&mut LengthPrefixed::u8(), frame, &mut outbox);
        encoded.expect("short enough");
    }
    let mut slices = [std::io::IoSlice::new(&[]); 64];
    let count = outbox.slices(&mut slices);
    let wire: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
    let (_session, input, hand, panicked) = run(job(Task::Open(factory), &wire, hand(verdict)));
    let log = log.lock().expect("no panic under the lock").clone();
    (input, hand, panicked, log)
}

#[test]
fn frames_are_shown_in_order_until_a_close() {
    let (input, hand, _, log) = serve(&["a", "b", "close", "c"], Verdict::Open);
    assert_eq!(log, ["open 9", "a", "b", "close"]);
    assert!(matches!(hand.verdict, Verdict::Close(Cause::Closed)));
    assert_eq!((&input[..], hand.outbox.len_bytes()), (&b"\x01c"[..], 4));
}

#[test]
fn frames_are_shown_after_a_finish_but_nothing_can_be_sent() {
    for verdict in [Verdict::Open, Verdict::Finish] {
        let (_, hand, _, log) = serve(&["finish", "a", "b"], verdict);
        assert_eq!(log, ["open 9", "finish", "a"]);
        let Verdict::Close(Cause::HandlerFailed(error)) = hand.verdict else {
            panic!("the handler passes the error on");
        };
        assert_eq!(error.to_string(), SendError::Closing.to_string());
        assert!(hand.outbox.is_empty());
    }
}

#[test]
fn a_job_shows_so_many_frames_and_leaves_the_rest_for_the_next() {
    let log = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&log);
    let handler = move |_| Obedient { log: Arc::clone(&seen), panics_in_drop: false };
    let factory = Arc::new(Maker { codec: LengthPrefixed::u8(), handler });
    let two = || Hand { frames_max: 2, ..hand(Verdict::Open) };
    let mut job = job(Task::Open(factory), b"\x01a\x01b\x01c\x01d\x01e", two());
    for (frames, left, after) in [(2, 6, false), (2, 2, false), (1, 0, true)] {
        (job.errand.eof, job.errand.drain) = (true, true);
        let done = job.run(&Nowhere, || Time::ZERO);
        let Job { session, input, hand, .. } = *done.job;
        assert_eq!((hand.frames_count, input.bytes.len(), hand.unserved), (frames, left, !after));
        // What comes after the frames waits for them.
        assert_eq!((hand.eof_left, hand.drain_left), (!after, !after));
        job = Job::blank();
        job.serve_later(session.expect("it is there"), Errand::default());
        (job.input, job.hand) = (input, two());
    }
    let log = log.lock().expect("no panic under the lock").clone();
    assert_eq!(log, ["open 9", "a", "b", "c", "d", "e", "eof"]);
}

#[test]
fn an_error_closes_and_a_panic_aborts() {
    let (_, hand, panicked, _) = serve(&["a", "fail", "b"], Verdict::Open);
    assert!(matches!(hand.verdict, Verdict::Close(Cause::HandlerFailed(_))) && !panicked);
    assert_eq!(hand.outbox.len_bytes(), 2, "what was sent before leaves");
    let (_, hand, panicked, _) = serve(&["panic", "b"], Verdict::Open);
    assert!(matches!(hand.verdict, Verdict::Abort(Cause::HandlerPanicked)) && panicked);
    let (_, hand, _, _) = serve(&["abort", "b"], Verdict::Open);
    assert!(matches!(hand.verdict, Verdict::Abort(Cause::Aborted)));
}

#[test]
fn more_output_than_is_allowed_aborts_whatever_the_handler_answers() {
    let frame = "x".repeat(99);
    let (_, hand, _, log) = serve(&[&frame, &frame, "b"], Verdict::Open);
    assert!(matches!(hand.verdict, Verdict::Abort(Cause::Overflow)));
    assert_eq!(log.len(), 3);
}

/// What becomes of messages of other threads that find no room behind what the handler said.
fn overfilled(overflow: Overflow) -> Hand {
    let handler = |_| Obedient { log: Arc::default(), panics_in_drop: false };
    let factory = Arc::new(Maker { codec: LengthPrefixed::u8(), handler });
    let mut job = job(Task::Open(factory), b"", Hand { overflow, ..hand(Verdict::Open) });
    let message = |len| Parcel::pack(Bytes::from(vec![b'x'; len]));
    let noticed = Parcel::Noticed(Box::new(message(60)), 7);
    job.errand.inbox_mut().parcels.extend([message(60), noticed, message(20)]);
    let (session, _, hand, panicked) = run(job);
    assert!(session.is_some() && !panicked);
    hand
}

#[test]
fn a_message_of_another_thread_that_finds_no_room_is_left_out_whole_or_ends_all() {
    let hand = overfilled(Overflow::DropNewest);
    assert!(matches!(hand.verdict, Verdict::Open));
    assert_eq!((hand.outbox.len_bytes(), hand.dropped_count), (61 + 21, 1));
    assert!(hand.marks.is_empty(), "no notice of what was left out");
    let hand = overfilled(Overflow::Close);
    assert!(matches!(hand.verdict, Verdict::Abort(Cause::Overflow)));
}

#[test]
fn who_is_asked_to_drain_is_told_unless_it_has_closed() {
    let drain = |input: &[u8]| {
        let handler = |_| Obedient { log: Arc::default(), panics_in_drop: false };
        let factory = Arc::new(Maker { codec: Raw, handler });
        let mut job = job(Task::Open(factory), input, hand(Verdict::Open));
        job.errand.drain = true;
        let hand = run(job).2;
        (hand.verdict, hand.drain_told)
    };
    assert!(matches!(drain(b""), (Verdict::Close(Cause::Closed), true)));
    assert!(matches!(drain(b"close"), (Verdict::Close(Cause::Closed), false)));
}

#[test]
fn room_for_output_is_told_before_the_end_of_input_and_not_after_a_finish() {
    for (verdict, expected) in [
        (Verdict::Open, &["open 9", "drained", "eof"][..]),
        (Verdict::Finish, &["open 9", "eof"][..]),
    ] {
        let log = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&log);
        let handler = move |_| Obedient { log: Arc::clone(&seen), panics_in_drop: false };
        let mut job = job(Task::Open(Arc::new(Maker { codec: Raw, handler })), b"", hand(verdict));
        (job.errand.eof, job.errand.inbox_mut().drained) = (true, true);
        assert!(matches!(run(job).2.verdict, Verdict::Finish));
        assert_eq!(*log.lock().expect("no panic under the lock"), expected);
    }
}

#[test]
fn a_factory_that_panics_leaves_no_session() {
    let handler = |_| -> Obedient { panic!("no handler today") };
    let factory = Arc::new(Maker { codec: Raw, handler });
    let (session, _, hand, panicked) = run(job(Task::Open(factory), b"", hand(Verdict::Open)));
    assert!(session.is_none() && panicked);
    assert!(matches!(hand.verdict, Verdict::Abort(Cause::HandlerPanicked)));
}

#[test]
fn a_last_call_may_panic_and_so_may_the_drops_after_it() {
    #[derive(Debug)]
    struct Angry;
    impl std::fmt::Display for Angry {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("angry")
        }
    }
    impl std::error::Error for Angry {}
    impl Drop for Angry {
        fn drop(&mut self) {
            panic!("dropped an error");
        }
    }
    let close = |cause, panics_in_drop| {
        let handler = move |_| Obedient { log: Arc::default(), panics_in_drop };
        let factory = Maker { codec: Raw, handler };
        let session = factory.session("192.0.2.1:9".parse().expect("an address"));
        let reason = CloseReason::new(cause, ClosePhase::Open, 0);
        let mut job = job(Task::Close(reason), b"", hand(Verdict::Open));
        job.session = Some(session);
        let done = job.run(&Nowhere, || Time::ZERO);
        assert_eq!(done.kind, Kind::Closed, "a close serves nothing");
        done.panicked
    };
    assert!(!close(Cause::Closed, false));
    assert!(close(Cause::Overflow, false), "in on_close");
    assert!(close(Cause::Closed, true), "in the drop of the handler");
    assert!(close(Cause::Overflow, true), "in both");
    assert!(close(Cause::HandlerFailed(Arc::new(Angry)), false), "in the drop of the error");
}

#[test]
fn a_message_that_nobody_wants_may_panic_when_dropped() {
    struct Angry;
    impl Drop for Angry {
        fn drop(&mut self) {
            panic!("dropped a message");
        }
    }
    #[derive(Default)]
    struct Mail(Mutex<Vec<Command>>);
    impl Post for Mail {
        fn command(&self, command: Command) {
            self.0.lock().expect("no panic under the lock").push(command);
        }
    }
    let mail = Arc::new(Mail::default());
    let post = Arc::clone(&mail) as Arc<dyn Post>;
    let gate = crate::core::gate::Gate::new(
        crate::words::id::ConnId::new(0, 0, 0),
        std::any::TypeId::of::<()>(),
        1000,
        post,
    );
    let handle = Handle::<Angry>::new(Arc::new(gate));
    assert!(handle.try_send(Angry).is_ok());
    mail.0.lock().expect("no panic under the lock").clear();
}

#[test]
fn what_a_drop_panics_with_is_dropped_too_but_not_for_ever() {
    /// Panics with another of its kind, while some are left.
    struct Chain(usize, Arc<()>);
    impl Drop for Chain {
        fn drop(&mut self) {
            if self.0 > 0 {
                std::panic::resume_unwind(Box::new(Chain(self.0 - 1, Arc::clone(&self.1))));
            }
        }
    }
    let left_after = |panics| {
        let count = Arc::new(());
        discard(Box::new(Chain(panics, Arc::clone(&count))));
        Arc::strong_count(&count) - 1
    };
    assert_eq!([0, 1, 3].map(left_after), [0, 0, 0], "what panics left is given back");

    /// Panics with another of its kind for ever. It has no size, so that none is leaked.
    struct Endless;
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    impl Drop for Endless {
        fn drop(&mut self) {
            DROPS.fetch_add(1, SeqCst);
            std::panic::resume_unwind(Box::new(Endless));
        }
    }
    discard(Box::new(Endless));
    assert!((2..=8).contains(&DROPS.load(SeqCst)), "given up after some drops");
}

#[test]
fn calls_that_panic_or_are_dropped_harm_nobody() {
    struct Explosive;
    impl Drop for Explosive {
        fn drop(&mut self) {
            panic!("as told");
        }
    }
    let held = Explosive;
    let free = Job::free(Call::new(move || drop(held))).run(&Nowhere, || Time::ZERO);
    assert!(free.panicked && free.kind == Kind::Free && !free.kind.has_connection());
    let mut job = Job::blank();
    job.task = Task::Call(Call::new(|| {}));
    let done = job.run(&Nowhere, || Time::ZERO);
    assert!(!done.panicked && done.kind == Kind::Called);
    let held = Explosive;
    drop(Call::new(move || drop(held)));
}
