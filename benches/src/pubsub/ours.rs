//! The peer on this crate: every connection joins one group.

use std::error::Error;
use std::io;
use std::net::TcpListener;

use bytes::BytesMut;
use switchboard::group::Group;
use switchboard::{Context, Handler, Outcome, Raw, Server};

use super::{GREETING, obey};

struct Subscriber(Group);

impl Handler for Subscriber {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        cx.join(&self.0);
        Ok(cx.send(GREETING)?)
    }

    fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
        Ok(())
    }
}

/// Serves until the asker leaves.
///
/// # Errors
/// When the server cannot start.
pub fn serve(threads: usize, control: &TcpListener) -> Result<(), Box<dyn Error>> {
    let group = Group::new(Raw::new());
    let members = group.clone();
    let server = Server::builder()
        .reactors(threads)
        .listen("127.0.0.1:0", Raw::new(), move |_peer| Subscriber(members.clone()))
        .start()?;
    println!("listening on {},{}", server.local_addr(), control.local_addr()?);
    let mut full = 0_u64;
    obey(control, |message| full += u64::from(group.broadcast(message).is_err()))?;
    drop(server.stop());
    if full > 0 {
        return Err(io::Error::other(format!("{full} messages were refused")).into());
    }
    Ok(())
}
