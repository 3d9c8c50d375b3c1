//! Requests and responses in frames behind their length (u32, big endian).
//!
//! A request is a word and its argument: `echo TEXT`, `upper TEXT`, `reverse TEXT` or `quit`.
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

mod common;

use std::error::Error;

use bytes::BytesMut;
use switchboard::{CloseReason, Context, Handler, LengthPrefixed, Outcome};

/// One client.
struct Session {
    requests: u64,
}

impl Handler for Session {
    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        self.requests += 1;
        // Not UTF-8? `?` closes the connection and the reason says why.
        let request = std::str::from_utf8(&frame)?;
        let (verb, argument) = request.split_once(' ').unwrap_or((request, ""));
        match verb {
            "echo" => cx.send(argument.to_owned())?,
            "upper" => cx.send(argument.to_uppercase())?,
            "reverse" => cx.send(argument.chars().rev().collect::<String>())?,
            "quit" => cx.close(),
            _ => cx.send(format!("unknown request: {}", verb.escape_default()))?,
        }
        Ok(())
    }

    fn on_close(&mut self, reason: &CloseReason) {
        println!("a client left after {} requests: {reason}", self.requests);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = common::options("127.0.0.1:7001")?;
    let codec = LengthPrefixed::u32().frame_max(64 << 10);
    let report = options
        .builder()
        .listen(options.addr(), codec, |_peer| Session { requests: 0 })
        .on_start(|addrs| println!("listening on {}", addrs[0]))
        .run()?;
    println!("{report}");
    Ok(())
}
