//! Listeners: from what the user asked for to one socket, or one per reactor.

use std::any::TypeId;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::core::session::{Factory, Session};
use crate::sys::{ListenOptions, Listener, StreamOptions};
use crate::words::config::{Filter, Limits, Listening, Placement};
use crate::words::error::Error;
use crate::words::sync::Arc;

/// A listener that is asked for and not opened yet.
pub(crate) struct Plan {
    /// What the user wrote, and what the resolver made of it.
    asked: String,
    resolved: io::Result<Vec<SocketAddr>>,
    pub(crate) factory: Arc<dyn Factory>,
    adapt: Box<Adapt>,
}

/// Changes the settings of a listener.
type Adapt = dyn FnOnce(&mut Listening);

/// A listener that is open.
pub(crate) struct Opened {
    pub(crate) addr: SocketAddr,
    /// One place for each reactor; `None` where another one accepts for it.
    pub(crate) sockets: Vec<Option<Listener>>,
}

/// Makes sessions for those whom the filter lets in.
struct Screened {
    filter: Filter,
    inner: Arc<dyn Factory>,
}

impl Factory for Screened {
    fn session(&self, peer: SocketAddr) -> Box<dyn Session> {
        self.inner.session(peer)
    }

    fn handler(&self) -> TypeId {
        self.inner.handler()
    }

    fn admits(&self, peer: SocketAddr) -> bool {
        self.filter.admits(peer)
    }
}

impl Plan {
    pub(crate) fn new(
        addr: impl ToSocketAddrs + std::fmt::Debug,
        factory: Arc<dyn Factory>,
        adapt: impl FnOnce(&mut Listening) + 'static,
    ) -> Self {
        let resolved = addr.to_socket_addrs().map(Iterator::collect);
        Plan { asked: format!("{addr:?}"), resolved, factory, adapt: Box::new(adapt) }
    }

    /// Its settings, which begin as those of its server.
    pub(crate) fn listening(&mut self, limits: &Limits) -> Result<Listening, Error> {
        let mut listening = Listening::of(limits);
        std::mem::replace(&mut self.adapt, Box::new(|_| {}))(&mut listening);
        listening.check()?;
        if let Some(filter) = listening.filter.clone() {
            let inner = Arc::clone(&self.factory);
            self.factory = Arc::new(Screened { filter, inner });
        }
        Ok(listening)
    }

    /// Opens listener number `index`: the first address that the system grants.
    pub(crate) fn open(
        &mut self,
        index: usize,
        reactors: usize,
        placement: Placement,
        limits: &Limits,
    ) -> Result<Opened, Error> {
        let resolved = std::mem::replace(&mut self.resolved, Ok(Vec::new()));
        let candidates =
            resolved.map_err(|error| Error::io(format!("resolving {}", self.asked), error))?;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        for addr in candidates {
            match open(addr, index, reactors, placement, limits) {
                Ok(opened) => return Ok(opened),
                Err(error) => failure = error,
            }
        }
        Err(Error::io(format!("listening on {}", self.asked), failure))
    }
}

fn open(
    addr: SocketAddr,
    index: usize,
    reactors: usize,
    placement: Placement,
    limits: &Limits,
) -> io::Result<Opened> {
    let options = ListenOptions {
        backlog: limits.backlog,
        reuse_port: placement == Placement::ReusePort,
        only_v6: true,
        accepted: StreamOptions::of_server(limits),
    };
    let first = Listener::listen(addr, &options)?;
    // The port may have been left to the system.
    let addr = first.local_addr()?;
    let mut sockets: Vec<Option<Listener>> = (0..reactors).map(|_| None).collect();
    match placement {
        Placement::ReusePort => {
            for socket in &mut sockets[1..] {
                *socket = Some(Listener::listen(addr, &options)?);
            }
            sockets[0] = Some(first);
        }
        // Several listeners are accepted for by several reactors.
        Placement::LeastLoaded => sockets[index % reactors] = Some(first),
    }
    Ok(Opened { addr, sockets })
}
