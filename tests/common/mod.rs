//! What the behavioural tests share: clients that never wait for ever, a handler that tells of
//! every call, and gates for handlers to wait at.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod dialing;

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use socket2::{Domain, SockRef, Socket, Type};
use switchboard::config::Listening;
use switchboard::control::Snapshot;
use switchboard::{Builder, CloseReason, Codec, Context, Handler, LengthPrefixed, Outcome, Server};

/// After this a test gives up waiting: far longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a handler says that is made to panic.
pub(crate) const PLANTED: &str = "a planted panic";

/// Planted panics are not told; all others are.
pub(crate) fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            if text.or(payload.downcast_ref::<&str>().copied()) != Some(PLANTED) {
                tell(panic);
            }
        }));
    });
}

/// The present moment, for deadlines.
#[expect(clippy::disallowed_methods, reason = "a deadline for a test that would hang else")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets others run for about so long; no condition may depend on how long it is.
pub(crate) fn pause(time: Duration) {
    thread::park_timeout(time);
}

/// Polls `condition` until it holds; panics if it never does.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = now() + PATIENCE;
    while !condition() {
        assert!(now() < deadline, "in vain: {what}");
        pause(Duration::from_millis(1));
    }
}

/// Polls snapshots of a server until one is as it should be, and answers that one.
#[track_caller]
pub(crate) fn wait_for(
    what: &str,
    server: &Server,
    mut is: impl FnMut(&Snapshot) -> bool,
) -> Snapshot {
    let mut snapshot = server.snapshot();
    wait_until(what, || {
        snapshot = server.snapshot();
        is(&snapshot)
    });
    snapshot
}

/// The sum of one figure over all reactors.
pub(crate) fn sum<T: std::iter::Sum>(
    snapshot: &Snapshot,
    figure: impl Fn(&switchboard::control::ReactorSnapshot) -> T,
) -> T {
    snapshot.reactors.iter().map(figure).sum()
}

/// A server of two reactors with two standbys, whatever the machine has.
pub(crate) fn builder() -> Builder {
    Server::builder().reactors(2).workers(2)
}

/// A client whose calls end.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    try_connect(addr).expect("the server listens")
}

/// The same to a server that may be gone, or end the connection as soon as it begins.
pub(crate) fn try_connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&addr, PATIENCE).map(prepare)
}

/// A client that has little room: its system takes a few kilobytes and no more.
pub(crate) fn connect_narrow(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small receive buffer");
    socket.set_send_buffer_size(4096).expect("a small send buffer");
    socket.connect(&addr.into()).expect("the server listens");
    prepare(socket.into())
}

fn prepare(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Ends a connection with RST.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("to linger not at all");
    drop(stream);
}

/// Sends `bytes` and takes as many, which have to be the same. For no more than fits in between.
#[track_caller]
pub(crate) fn echo(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("the server reads");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("the server answers");
    assert!(back == bytes, "not what was sent");
}

/// Everything up to the end of the server's output.
#[track_caller]
pub(crate) fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("a clean end of input");
    bytes
}

/// Reads until the connection is no more; true if it was reset, false if it was finished.
#[track_caller]
pub(crate) fn ends_in_reset(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 65_536];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => {
                let lost = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
                assert!(lost.contains(&error.kind()), "neither finished nor reset: {error}");
                return true;
            }
        }
    }
}

/// Why a test leaves itself out where resets are not told; it prints that, so that
/// `.ci/platforms.sh` takes note.
pub(crate) const RESETS_UNTOLD: &str =
    "left out: a reset looks like an end of input there, which waits for a reader";

/// Whether the first read after a reset tells of it.
///
/// Wine (8.0) shuts a socket down before it closes it, so that FIN goes ahead of RST, and its polls
/// take the error away. What a read there tells then is the end of input, though a read that waited
/// and a write say ConnectionReset. So under Wine, of which `.ci/wine-run.sh` tells, a test can
/// demand that a connection ends, not how; on Windows itself it demands both.
pub(crate) fn resets_are_told() -> bool {
    std::env::var_os("SWITCHBOARD_UNDER_WINE").is_none()
}

/// Reads until the connection is no more, which has to be by a reset where resets are told.
#[track_caller]
pub(crate) fn expect_reset(stream: &mut TcpStream) {
    let reset = ends_in_reset(stream);
    assert!(reset || !resets_are_told(), "it was finished, not reset");
}

/// Bytes of which any two stretches differ: a repetition, a gap or a swap is seen.
pub(crate) fn pattern(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// A frame as [`LengthPrefixed::u32`] has it.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    [&length.to_be_bytes(), payload].concat()
}

/// The payload of the next frame.
pub(crate) fn read_frame(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}

/// The codec of most tests with frames.
pub(crate) fn frames() -> LengthPrefixed {
    LengthPrefixed::u32()
}

/// One call of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Frame(Vec<u8>),
    Eof,
    Drained,
    Drain,
    /// With its key.
    Timer(u64),
    /// A frame that had waited for too long.
    Shed(Vec<u8>),
    /// With the label of the cause.
    Close(&'static str),
    Dropped,
}

struct Note {
    peer: SocketAddr,
    call: Call,
    reason: Option<CloseReason>,
}

/// What the handlers of one server were called for.
pub(crate) struct Journal {
    notes: Receiver<Note>,
    read: RefCell<Vec<Note>>,
}

type Act = dyn Fn(&mut Context, &Call) -> Outcome + Send + Sync;

/// Writes every call into the journal, then does what the test says.
struct Recorder {
    peer: SocketAddr,
    journal: Sender<Note>,
    act: Arc<Act>,
}

impl Recorder {
    fn note(&self, call: Call, reason: Option<CloseReason>) {
        // A test that is over does not listen any more.
        drop(self.journal.send(Note { peer: self.peer, call, reason }));
    }

    fn on(&mut self, cx: &mut Context, call: Call) -> Outcome {
        self.note(call.clone(), None);
        (self.act)(cx, &call)
    }
}

impl Handler for Recorder {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        self.on(cx, Call::Open)
    }

    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        self.on(cx, Call::Frame(frame.to_vec()))
    }

    fn on_eof(&mut self, cx: &mut Context) -> Outcome {
        self.on(cx, Call::Eof)
    }

    fn on_drained(&mut self, cx: &mut Context) -> Outcome {
        self.on(cx, Call::Drained)
    }

    fn on_drain(&mut self, cx: &mut Context) -> Outcome {
        self.on(cx, Call::Drain)
    }

    fn on_timer(&mut self, cx: &mut Context, key: u64) -> Outcome {
        self.on(cx, Call::Timer(key))
    }

    fn on_shed(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        self.on(cx, Call::Shed(frame.to_vec()))
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.note(Call::Close(reason.cause().label()), Some(reason.clone()));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.note(Call::Dropped, None);
    }
}

/// Starts a server that keeps a journal and does in each call what `act` says.
pub(crate) fn serve<C>(
    builder: Builder,
    codec: C,
    act: impl Fn(&mut Context, &Call) -> Outcome + Send + Sync + 'static,
) -> (Server, Journal)
where
    C: Codec<Frame = BytesMut, Message = Bytes> + Clone + Sync,
{
    serve_each(builder, codec, act, vec![Box::new(|_| {})])
}

/// Changes the settings of a listener.
pub(crate) type Adapt = Box<dyn FnOnce(&mut Listening)>;

/// The same with several listeners, each with settings of its own.
pub(crate) fn serve_each<C>(
    mut builder: Builder,
    codec: C,
    act: impl Fn(&mut Context, &Call) -> Outcome + Send + Sync + 'static,
    listeners: Vec<Adapt>,
) -> (Server, Journal)
where
    C: Codec<Frame = BytesMut, Message = Bytes> + Clone + Sync,
{
    let (sender, notes) = channel();
    let act: Arc<Act> = Arc::new(act);
    for adapt in listeners {
        let (sender, act) = (sender.clone(), Arc::clone(&act));
        let recorder =
            move |peer| Recorder { peer, journal: sender.clone(), act: Arc::clone(&act) };
        builder = builder.listen_with("127.0.0.1:0", codec.clone(), recorder, adapt);
    }
    let server = builder.start().expect("the server starts");
    (server, Journal { notes, read: RefCell::default() })
}

/// What the trait does by default, and an echo.
pub(crate) fn by_default(cx: &mut Context, call: &Call) -> Outcome {
    match call {
        Call::Frame(bytes) => cx.send(bytes.clone())?,
        Call::Eof => cx.finish(),
        Call::Drain => cx.close(),
        Call::Shed(_) => return Err("shed".into()),
        Call::Open | Call::Drained | Call::Timer(_) | Call::Close(_) | Call::Dropped => {}
    }
    Ok(())
}

impl Journal {
    /// Waits until the handler for the client `peer` was called so.
    #[track_caller]
    pub(crate) fn wait_for(&self, peer: SocketAddr, call: &Call) {
        let deadline = now() + PATIENCE;
        while !self.read.borrow().iter().any(|note| note.peer == peer && note.call == *call) {
            self.read_on(deadline, call);
        }
    }

    /// What the handler for the client `peer` was called for up to now.
    pub(crate) fn calls(&self, peer: SocketAddr) -> Vec<Call> {
        self.read.borrow_mut().extend(self.notes.try_iter());
        let read = self.read.borrow();
        read.iter().filter(|note| note.peer == peer).map(|note| note.call.clone()).collect()
    }

    /// Waits until the connection of the client `peer` is gone: all calls, and why it ended.
    #[track_caller]
    pub(crate) fn life(&self, peer: SocketAddr) -> (Vec<Call>, CloseReason) {
        self.wait_for(peer, &Call::Dropped);
        let read = self.read.borrow();
        let its: Vec<_> = read.iter().filter(|note| note.peer == peer).collect();
        let reason = its.iter().find_map(|note| note.reason.clone());
        let calls = its.into_iter().map(|note| note.call.clone()).collect();
        (calls, reason.expect("on_close comes before the drop"))
    }

    #[track_caller]
    fn read_on(&self, deadline: Instant, call: &Call) {
        let left = deadline.saturating_duration_since(now());
        let note = self.notes.recv_timeout(left);
        let note = note.unwrap_or_else(|_| panic!("in vain: the call {call:?}"));
        self.read.borrow_mut().push(note);
    }
}

/// The address by which the server knows a client.
pub(crate) fn name(stream: &TcpStream) -> SocketAddr {
    stream.local_addr().expect("a connected socket has an address")
}

/// Where handlers wait until the test lets them go. It opens by itself when the test has failed,
/// so that its server can stop.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<GateState>);

#[derive(Default)]
struct GateState {
    /// How many have come, how many may go on.
    counts: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Gate {
    /// What a handler calls: returns once the test has let it go.
    pub(crate) fn pass(&self) {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0 += 1;
        let number = counts.0;
        self.0.changed.notify_all();
        let waits = |counts: &mut (usize, usize)| counts.1 < number;
        let passed = self.0.changed.wait_timeout_while(counts, 2 * PATIENCE, waits);
        drop(passed.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until so many handlers have come in all.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) {
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let fewer = |counts: &mut (usize, usize)| counts.0 < count;
        let waited = self.0.changed.wait_timeout_while(counts, PATIENCE, fewer);
        let come = waited.unwrap_or_else(PoisonError::into_inner).0.0;
        assert!(come >= count, "in vain: {come} of {count} handlers have come");
    }

    /// Lets one more handler go.
    pub(crate) fn let_one_go(&self) {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
        self.0.changed.notify_all();
    }

    /// Lets all handlers go, those to come as well.
    pub(crate) fn open(&self) {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).1 = usize::MAX;
        self.0.changed.notify_all();
    }
}
