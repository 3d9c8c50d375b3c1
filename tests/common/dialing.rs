//! What tests of connections of our own share: who is called, who calls, and who is not there.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::BytesMut;
use socket2::{Domain, Socket, Type};
use switchboard::{Context, Handler, Outcome, Raw, Server, handler_fn};

use super::builder;

/// Says what it received.
pub(crate) struct Ear(pub(crate) Sender<BytesMut>);

impl Handler for Ear {
    fn on_frame(&mut self, _: &mut Context, frame: BytesMut) -> Outcome {
        Ok(self.0.send(frame)?)
    }
}

/// An ear, and what it hears.
pub(crate) fn ear() -> (Ear, Receiver<BytesMut>) {
    let (sender, heard) = channel();
    (Ear(sender), heard)
}

/// Sends back what it receives.
pub(crate) fn echo_server() -> Server {
    let echo = |_peer| handler_fn(|cx: &mut Context, bytes| cx.send(bytes));
    builder().listen("127.0.0.1:0", Raw::new(), echo).start().expect("it starts")
}

/// A server without listeners, which only connects.
pub(crate) fn client() -> Server {
    builder().start().expect("it starts")
}

/// A port that belongs to somebody who does not listen, for as long as the socket is kept.
pub(crate) fn deaf_port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let addr = socket.local_addr().expect("its address").as_socket().expect("an address of IP");
    (socket, addr)
}

/// The handler of a connection that is never made.
pub(crate) fn nobody(_: SocketAddr) -> Ear {
    panic!("no handler is made for a connection that is not there")
}

/// A listener whose queue is full: the system answers no further client.
#[cfg(target_os = "linux")]
pub(crate) fn silent_port() -> (Vec<Socket>, SocketAddr) {
    let (socket, addr) = deaf_port();
    socket.listen(1).expect("it listens");
    let mut sockets = vec![socket];
    for _ in 0..4 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        filler.set_nonblocking(true).expect("it does not block");
        // Under way is all that it ever is.
        let _under_way = filler.connect(&addr.into()).is_err();
        sockets.push(filler);
    }
    (sockets, addr)
}
