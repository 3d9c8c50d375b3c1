//! The peer on tokio's multi-thread runtime: a task per connection, in three variants.
//!
//! - `plain`: what one writes first. Each task owns its read buffer (4 KiB).
//! - `blocking`: the same, with slow chunks handed to `spawn_blocking` by an author who knows
//!   which are slow.
//! - `lazy`: waits with `readable()` and takes a buffer from a thread's pool only then, so that an
//!   idle connection holds none.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::net::SocketAddr;

use switchboard_bench::peer::{self, BACKLOG, Options};
use switchboard_bench::sys;
use switchboard_bench::work::Work;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::task;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(lexopt::Parser::from_env())?;
    let variant = Variant::parse(options.variant.as_deref())?;
    sys::raise_file_limit()?;
    let runtime =
        Builder::new_multi_thread().worker_threads(options.threads).enable_io().build()?;
    let echo = Echo {
        variant,
        work: options.work,
        buffer_bytes: options.buffer_bytes.unwrap_or(BUFFER_BYTES),
    };
    // Spawned, so that accepting happens on a worker instead of a thread more than was asked for.
    runtime.block_on(async { task::spawn(serve(options.addr, echo)).await? })?;
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Variant {
    Plain,
    Blocking,
    Lazy,
}

impl Variant {
    fn parse(name: Option<&str>) -> Result<Self, String> {
        match name {
            None | Some("plain") => Ok(Self::Plain),
            Some("blocking") => Ok(Self::Blocking),
            Some("lazy") => Ok(Self::Lazy),
            Some(other) => Err(format!("unknown variant {other}: plain, blocking or lazy")),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Echo {
    variant: Variant,
    work: Work,
    buffer_bytes: usize,
}

async fn serve(addr: SocketAddr, echo: Echo) -> io::Result<()> {
    let listener = listen(addr)?;
    peer::announce(listener.local_addr()?)?;
    loop {
        match listener.accept().await {
            // A connection that breaks ends its task and concerns nobody else.
            Ok((stream, _)) => drop(task::spawn(echo.run(stream))),
            Err(_) => task::yield_now().await,
        }
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG as u32)
}

impl Echo {
    async fn run(self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        match self.variant {
            Variant::Plain => self.plain(stream).await,
            Variant::Blocking => self.blocking(stream).await,
            Variant::Lazy => self.lazy(stream).await,
        }
    }

    async fn plain(self, mut stream: TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; self.buffer_bytes];
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            self.work.perform(&buffer[..count]);
            stream.write_all(&buffer[..count]).await?;
        }
    }

    async fn blocking(self, mut stream: TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; self.buffer_bytes];
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            if self.work.is_slow(&buffer[..count]) {
                let (work, first) = (self.work, buffer[0]);
                task::spawn_blocking(move || work.perform(&[first])).await?;
            }
            stream.write_all(&buffer[..count]).await?;
        }
    }

    async fn lazy(self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            stream.readable().await?;
            let mut buffer = take_buffer(self.buffer_bytes);
            let count = match stream.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    give_back(buffer);
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.work.perform(&buffer[..count]);
            stream.write_all(&buffer[..count]).await?;
            give_back(buffer);
        }
    }
}

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer(bytes: usize) -> Vec<u8> {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; bytes])
}

/// A task may resume on another thread; so buffers wander, and each pool is bounded.
fn give_back(buffer: Vec<u8>) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() < POOL_MAX {
            pool.push(buffer);
        }
    });
}

const BUFFER_BYTES: usize = 4 * 1024;
const POOL_MAX: usize = 64;
