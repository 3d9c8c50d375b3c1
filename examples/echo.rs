//! Sends back whatever it receives; understands nothing but bytes.
//!
//! `cargo run --release --example echo`, then `nc 127.0.0.1 7000`.
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

mod common;

use std::error::Error;

use switchboard::{Raw, handler_fn};

fn main() -> Result<(), Box<dyn Error>> {
    let options = common::options("127.0.0.1:7000")?;
    let report = options
        .builder()
        .listen(options.addr(), Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
        .on_start(|addrs| println!("listening on {}", addrs[0]))
        .run()?;
    println!("{report}");
    Ok(())
}
