//! What the crate was made for, in one screen: a gateway for devices that report at a rate and
//! receive commands, while one device in a hundred keeps blocking its handler.
//!
//! ```sh
//! cargo run --release --example gateway                    # gateway and devices in one process
//!
//! cargo run --release --example gateway -- --simulate 0    # the gateway alone; elsewhere:
//! cargo run --release --example gateway -- --connect 127.0.0.1:7010
//! ```
//!
//! `gateway.rs` is the server, `devices.rs` the clients, `words.rs` what they say to each other,
//! and `board.rs` the line of numbers.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "an example talks to its user, and measures"
)]

mod board;
mod devices;
mod every;
mod gateway;
mod words;

use std::error::Error;
use std::net::SocketAddr;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lexopt::prelude::*;
use switchboard::config::Scheduling;
use switchboard::control::Report;
use switchboard::{Builder, Server};

use self::board::Board;
use self::every::Every;
use self::gateway::Gateway;

const HELP: &str = "\
A gateway and its devices, with a line of numbers every second. Ctrl-C ends it in good order.

  --simulate N     devices in this process (2000; 0: the gateway waits for others)
  --connect ADDR   devices only, for a gateway at this address
  --listen ADDR    where the gateway listens (127.0.0.1:7010)
  --every MS       time between two reports of a device (500)
  --seconds S      ends by itself after this time
  --inline         isolates no slow handler, as an ordinary event loop: to see the difference";

const SECOND: Duration = Duration::from_secs(1);

/// What was asked for.
struct Options {
    devices: usize,
    connect: Option<SocketAddr>,
    listen: SocketAddr,
    every: Duration,
    seconds: Option<u64>,
    scheduling: Scheduling,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    match options.connect {
        Some(gateway) => run_devices(&options, gateway),
        None => run_gateway(&options),
    }
}

/// The gateway, and devices in the same process unless there are to be none.
fn run_gateway(options: &Options) -> Result<(), Box<dyn Error>> {
    // Each device is two descriptors here: its own end and the gateway's.
    let (builder, room) = roomy(if options.devices == 0 { 1 } else { 2 });
    let board = Arc::new(Board::default());
    let gateway = Gateway::new(&board);
    let server = gateway.start(builder.scheduling(options.scheduling), options.listen)?;
    let addr = server.local_addr();
    println!("gateway on {addr}; one device in a hundred blocks its handler; Ctrl-C ends it");

    let client = roomy(2).0.name("devices").start()?;
    let devices = simulate(options, &client, addr, room, &board);
    println!("{}", board::HEADER);
    let (control, its) = (server.control(), Arc::clone(&board));
    let line = Every::new(SECOND, move || its.show(&control.snapshot()));
    let commands = Every::new(SECOND / 20, move || gateway.command());

    let report = serve(server, options.seconds)?;
    drop((commands, line));
    board.sum_up(&report);
    client.stop();
    devices.join().map_err(|_| "the thread that connects the devices has panicked")?;
    Ok(())
}

/// Devices only.
fn run_devices(options: &Options, gateway: SocketAddr) -> Result<(), Box<dyn Error>> {
    let (builder, room) = roomy(1);
    let board = Arc::new(Board::default());
    let client = builder.name("devices").start()?;
    let devices = simulate(options, &client, gateway, room, &board);
    println!("{}", board::HEADER);
    let (control, its) = (client.control(), Arc::clone(&board));
    let line = Every::new(SECOND, move || its.show(&control.snapshot()));

    let report = serve(client, options.seconds)?;
    drop(line);
    board.sum_up(&report);
    devices.join().map_err(|_| "the thread that connects the devices has panicked")?;
    Ok(())
}

/// A builder for one of so many servers of this process, and how many devices each has room for.
fn roomy(servers: usize) -> (Builder, usize) {
    let mut room = 0;
    let builder = Server::builder()
        .raise_descriptor_limit()
        .limits(|limits| room = limits.connections_max / servers);
    (builder, room.min(devices::PORTS))
}

/// Connects the devices, as many as there is room for.
fn simulate(
    options: &Options,
    client: &Server,
    gateway: SocketAddr,
    room: usize,
    board: &Arc<Board>,
) -> thread::JoinHandle<()> {
    let count = options.devices.min(room);
    if count < options.devices {
        println!("{} devices asked for, but this system has room for {count}", options.devices);
    }
    let (control, every, board) = (client.control(), options.every, Arc::clone(board));
    thread::spawn(move || devices::connect(&control, gateway, count, every, &board))
}

/// Serves until Ctrl-C or until the time is over, then lets everybody finish.
fn serve(server: Server, seconds: Option<u64>) -> Result<Report, switchboard::Error> {
    let Some(seconds) = seconds else { return server.run() };
    thread::sleep(Duration::from_secs(seconds));
    Ok(server.drain(10 * SECOND, SECOND))
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        devices: 2_000,
        connect: None,
        listen: SocketAddr::from(([127, 0, 0, 1], 7010)),
        every: Duration::from_millis(500),
        seconds: None,
        scheduling: Scheduling::TakeOver,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("simulate") => options.devices = parser.value()?.parse()?,
            Long("connect") => options.connect = Some(parser.value()?.parse()?),
            Long("listen") => options.listen = parser.value()?.parse()?,
            Long("every") => options.every = Duration::from_millis(parser.value()?.parse()?),
            Long("seconds") => options.seconds = Some(parser.value()?.parse()?),
            Long("inline") => options.scheduling = Scheduling::Inline,
            Short('h') | Long("help") => {
                println!("{HELP}");
                process::exit(0);
            }
            Short(_) | Long(_) | Value(_) => return Err(arg.unexpected()),
        }
    }
    Ok(options)
}
