//! A bad network: forwards connections in small random pieces, holds them up, and cuts some.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use crate::common::{pause, try_connect};
use crate::dice::Dice;

/// Stands between clients and one server; two threads for each connection.
pub(crate) struct Proxy {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    acceptor: JoinHandle<()>,
}

/// Both connections of one client. When the last thread lets go of a cut one, it ends in a reset
/// on both sides.
struct Link {
    client: TcpStream,
    server: TcpStream,
    cut: AtomicBool,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr, mut dice: Dice) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let addr = listener.local_addr().expect("its address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let acceptor = thread::spawn(move || {
            let mut pumps = Vec::new();
            // SeqCst, with the store in `stop`: this is no place to save time.
            while let Ok((client, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                pumps.retain(|pump: &JoinHandle<()>| !pump.is_finished());
                pumps.extend(forward(client, server, &mut dice));
            }
            pumps.into_iter().for_each(|pump| pump.join().expect("pumps do not panic"));
        });
        Self { addr, stop, acceptor }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// To be called when all clients are gone.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(try_connect(self.addr));
        self.acceptor.join().expect("the proxy does not panic");
    }
}

fn forward(client: TcpStream, server: SocketAddr, dice: &mut Dice) -> Vec<JoinHandle<()>> {
    let server = try_connect(server).expect("the server listens");
    client.set_nodelay(true).expect("no delay");
    client.set_read_timeout(Some(crate::common::PATIENCE)).expect("a read timeout");
    client.set_write_timeout(Some(crate::common::PATIENCE)).expect("a write timeout");
    let link = Arc::new(Link { client, server, cut: AtomicBool::new(false) });
    let pump = |upward: bool| {
        let (link, dice) = (Arc::clone(&link), Dice::new(dice.next()));
        thread::spawn(move || link.pump(upward, dice))
    };
    [true, false].map(pump).into()
}

impl Link {
    /// Moves one direction until it ends or the link is cut.
    fn pump(&self, upward: bool, mut dice: Dice) {
        let (mut from, mut to) =
            if upward { (&self.client, &self.server) } else { (&self.server, &self.client) };
        let mut piece = [0; 3_000];
        loop {
            let most = 1 + dice.below(piece.len());
            if dice.one_in(200) {
                return self.cut();
            }
            if dice.one_in(20) {
                pause(Duration::from_micros(100 + dice.below(4_000) as u64));
            }
            let count = match from.read(&mut piece[..most]) {
                Ok(0) if self.cut.load(Ordering::SeqCst) => return,
                // The end of one direction; the other goes on.
                Ok(0) => return drop(to.shutdown(Shutdown::Write)),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return self.cut(),
            };
            if to.write_all(&piece[..count]).is_err() {
                return self.cut();
            }
        }
    }

    fn cut(&self) {
        // SeqCst, with the load in `pump`: set before the other thread is woken by an end of input.
        self.cut.store(true, Ordering::SeqCst);
        for stream in [&self.client, &self.server] {
            // Either may be gone by now.
            drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
            drop(stream.shutdown(Shutdown::Read));
        }
    }
}
