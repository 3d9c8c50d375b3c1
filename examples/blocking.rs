//! A handler that blocks beside handlers that do not: a message whose first byte is 0xFF puts its
//! handler to sleep for 50 ms, all others are echoed at once.
//!
//! With `--addr` it serves. Without, it shows the isolation by itself: one client sends nothing but
//! slow messages while another measures how long its own take.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example talks to its user"
)]

mod common;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use switchboard::config::Scheduling;
use switchboard::{Context, Handler, Outcome, Raw};

const SLOW: u8 = 0xFF;
const PINGS: usize = 4_000;

struct Blocking;

impl Handler for Blocking {
    fn on_frame(&mut self, cx: &mut Context, bytes: BytesMut) -> Outcome {
        if bytes.first() == Some(&SLOW) {
            thread::sleep(Duration::from_millis(50));
        }
        Ok(cx.send(bytes)?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = common::options("127.0.0.1:0")?;
    if options.asked.is_some() {
        let server = options.builder().listen(options.addr(), Raw::new(), |_peer| Blocking);
        let report = server.on_start(|addrs| println!("listening on {}", addrs[0])).run()?;
        println!("{report}");
        return Ok(());
    }
    println!("one client blocks its handler for 50 ms at a time; another one pings meanwhile:");
    for scheduling in [Scheduling::Inline, Scheduling::TakeOver] {
        // One reactor, so that both clients are served by the same one.
        let server = options
            .builder()
            .reactors(options.reactors.unwrap_or(1))
            .scheduling(scheduling)
            .listen(options.addr(), Raw::new(), |_peer| Blocking)
            .start()?;
        let mut pings = measure(server.local_addr())?;
        pings.sort_unstable();
        let take_overs = server.snapshot().take_overs;
        let name = format!("{scheduling:?}");
        println!(
            "  {name:<10} p50 {:>9.1?}  p99 {:>9.1?}  max {:>9.1?}  take-overs {take_overs}",
            pings[pings.len() / 2],
            pings[pings.len() * 99 / 100],
            pings[pings.len() - 1],
        );
        server.stop();
    }
    Ok(())
}

/// How long each ping takes while another client sends slow messages.
fn measure(addr: SocketAddr) -> std::io::Result<Vec<Duration>> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let slow = scope.spawn(|| -> std::io::Result<()> {
            let mut stream = TcpStream::connect(addr)?;
            while !over.load(Ordering::Relaxed) {
                stream.write_all(&[SLOW])?;
                stream.read_exact(&mut [0])?;
            }
            Ok(())
        });
        let pings = ping(addr);
        over.store(true, Ordering::Relaxed);
        slow.join().unwrap_or(Ok(()))?;
        pings
    })
}

fn ping(addr: SocketAddr) -> std::io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let begun = Instant::now();
    let mut pings = Vec::new();
    while pings.len() < PINGS && begun.elapsed() < Duration::from_secs(3) {
        let sent = Instant::now();
        stream.write_all(b"ping")?;
        stream.read_exact(&mut [0; 4])?;
        pings.push(sent.elapsed());
    }
    Ok(pings)
}
