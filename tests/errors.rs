//! What errors say: the figures that explain them, and what lies beneath.

mod common;

use std::error::Error as StdError;
use std::io;
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};

use bytes::{Bytes, BytesMut};
use common::{PATIENCE, builder};
use switchboard::client::{CheckoutError, ConnectCause, ConnectError, ConnectOptions, PoolOptions};
use switchboard::codec::{Delimited, Fixed, FrameError, Lines};
use switchboard::control::SpawnError;
use switchboard::error::{SendError, TrySendError};
use switchboard::group::{BroadcastError, Group};
use switchboard::{Codec, Context, Handle, Handler, LengthPrefixed, Outcome, Raw};

/// Gives its handle away, and what it is answered when it sends.
struct Sending(Sender<(Handle, Option<SendError>)>, usize);

impl Handler for Sending {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        let refused = cx.send(vec![b'x'; self.1]).err();
        Ok(self.0.send((cx.handle(), refused))?)
    }

    fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
        Ok(())
    }
}

#[track_caller]
fn assert_says(error: &impl StdError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn a_codec_that_cannot_be_is_refused_with_what_it_may_be() {
    assert_says(&LengthPrefixed::with_width(9).expect_err("too wide"), &["1 to 8", "9"]);
    assert_says(&Delimited::new("").expect_err("no mark"), &["end mark", "one byte"]);
    assert_says(&Fixed::new(0).expect_err("no bytes"), &["fixed length", "one byte"]);
}

#[test]
fn a_frame_that_is_too_large_says_how_large_and_what_is_allowed() {
    let error = Lines::new().frame_max(4).decode(&mut BytesMut::from("12345\n"));
    let Err(FrameError::TooLarge(large)) = error else { panic!("{error:?}") };
    assert_eq!((large.length(), large.max()), (5, 4));
    assert_says(&large, &["5", "4"]);
}

#[test]
fn a_broadcast_that_the_codec_refuses_says_why() {
    let group = Group::new(Fixed::new(4).expect("it has bytes"));
    let error = group.broadcast("abc").expect_err("too short");
    assert!(matches!(error, BroadcastError::Refused(_)));
    assert_says(&error, &["refused", "3 bytes", "4 are needed"]);
    let source = error.source().and_then(|source| source.downcast_ref::<FrameError>());
    assert!(matches!(source, Some(FrameError::WrongLength { length: 3, expected: 4, .. })));
    assert!(format!("{error:?}").contains("3 bytes"));
    assert!(error.into_message().is_none(), "the codec has used it up");
    // Nothing to write is nothing to tell.
    assert!(Group::new(Raw::new()).broadcast(Bytes::new()).is_ok());
}

#[test]
fn the_error_of_the_system_lies_beneath_ours() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("its address");
    let listen = builder().listen(addr, Raw::new(), |_| Sending(channel().0, 0));
    let error = listen.start().expect_err("the port is taken");
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::AddrInUse), "{error}");
    let error = builder().reactors(0).start().expect_err("there has to be one");
    assert!(error.source().is_none(), "{error}");
}

#[test]
fn who_cannot_connect_is_told_of_the_last_attempt() {
    let client = builder().start().expect("it starts");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = gone.local_addr().expect("its address");
    drop(gone);
    let handler = |_| Sending(channel().0, 0);
    let error = client.control().connect(addr, Raw::new(), handler).wait().expect_err("nobody");
    assert!(matches!(error.cause(), ConnectCause::Failed), "{error}");
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::ConnectionRefused));

    let options = PoolOptions::new().connect(ConnectOptions::new().timeout(PATIENCE));
    let pool = client.control().pool(options, addr, Raw::new()).expect("the options are in range");
    let error = pool.checkout(PATIENCE).map(drop).expect_err("nobody");
    assert!(matches!(error, CheckoutError::Connect(_)), "{error}");
    assert!(error.source().is_some_and(|source| source.is::<ConnectError>()));
    client.stop();
}

#[test]
fn a_handle_says_why_it_takes_no_message_and_gives_it_back() {
    let (sender, told) = channel();
    let sending = move |_| Sending(sender.clone(), 1);
    let server = builder().listen("127.0.0.1:0", Raw::new(), sending);
    let server = server.start().expect("it starts");
    let _client = TcpStream::connect(server.local_addr()).expect("it accepts");
    let (handle, refused) = told.recv_timeout(PATIENCE).expect("it is opened");
    assert!(refused.is_none());
    let wrong = handle.run(|_: &mut String, _| Ok(())).expect_err("it is no String");
    assert!(matches!(wrong, TrySendError::WrongHandler(_)));
    assert_says(&wrong, &["another type"]);
    handle.close();
    let gone = handle.try_send("late").expect_err("it is closed");
    assert_says(&gone, &["has ended"]);
    assert_eq!(format!("{gone:?}"), format!("TrySendError({gone})"));
    assert_eq!(gone.into_message(), "late");
    server.stop();
}

#[test]
fn output_that_finds_no_room_says_how_much_may_wait() {
    let (sender, told) = channel();
    let sending = move |_| Sending(sender.clone(), 2 << 20);
    let server = builder().limits(|limits| limits.send_max_bytes = 1 << 20);
    let server = server.listen("127.0.0.1:0", Raw::new(), sending);
    let server = server.start().expect("it starts");
    let _client = TcpStream::connect(server.local_addr()).expect("it accepts");
    let (handle, refused) = told.recv_timeout(PATIENCE).expect("it is opened");
    let refused = refused.expect("it is more than may wait");
    assert_says(&refused, &["1048576"]);
    assert!(refused.source().is_none());
    assert_eq!(handle.stats().max_bytes, 1 << 20);
    server.stop();
}

#[test]
fn a_job_that_nobody_takes_says_why() {
    assert_says(&SpawnError::Full, &["as many", "wait"]);
    assert_says(&SpawnError::Stopping, &["end"]);
}
