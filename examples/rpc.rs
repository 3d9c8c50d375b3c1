//! Requests and responses in length-prefixed frames, and a thread that pushes a tick to every
//! client each second.
//!
//! A request is a word and its argument: `upper TEXT`, `reverse TEXT` or `quit`.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example talks to its user"
)]

mod common;

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use switchboard::{CloseReason, ConnId, Context, Handle, Handler, LengthPrefixed, Outcome};

/// Everybody who is connected.
type Clients = Arc<Mutex<HashMap<ConnId, Handle>>>;

struct Session {
    clients: Clients,
    id: Option<ConnId>,
}

impl Handler for Session {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        self.id = Some(cx.id());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.insert(cx.id(), cx.handle());
        Ok(())
    }

    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        // Not UTF-8? `?` closes the connection and the reason says why.
        let request = std::str::from_utf8(&frame)?;
        let (verb, argument) = request.split_once(' ').unwrap_or((request, ""));
        match verb {
            "upper" => cx.send(argument.to_uppercase())?,
            "reverse" => cx.send(argument.chars().rev().collect::<String>())?,
            "quit" => cx.close(),
            _ => cx.send(format!("unknown request: {}", verb.escape_default()))?,
        }
        Ok(())
    }

    fn on_close(&mut self, reason: &CloseReason) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = self.id {
            clients.remove(&id);
            println!("{id}: {reason}");
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = common::options("127.0.0.1:7001")?;
    let clients = Clients::default();
    let everybody = Arc::clone(&clients);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let clients = everybody.lock().unwrap_or_else(PoisonError::into_inner);
            for client in clients.values() {
                if let Err(error) = client.try_send("tick") {
                    println!("{}: {error}", client.id());
                }
            }
        }
    });
    let codec = LengthPrefixed::u32().frame_max(64 << 10);
    let report = options
        .builder()
        .listen(options.addr, codec, move |_peer| Session {
            clients: Arc::clone(&clients),
            id: None,
        })
        .on_start(|addrs| println!("listening on {}", addrs[0]))
        .run()?;
    println!("{report}");
    Ok(())
}
