//! One says it, ten thousand hear it: this crate's groups, tokio's broadcast channel and a
//! hand-written mio loop, each as a process that is asked to publish over a connection of its own.

pub mod crowd;
pub mod ours;
pub mod raw;
pub mod tokio_peer;

use std::io::{self, Read};
use std::net::TcpListener;

use bytes::Bytes;

/// What is published, in bytes.
pub const MESSAGE_BYTES: usize = 64;
/// What a subscriber gets before the first message: it will miss none from now on.
pub const GREETING: &[u8] = b"!";

/// Publishes one message for each byte that comes over the first connection, until that ends.
///
/// # Errors
/// When nobody connects.
pub fn obey(listener: &TcpListener, mut publish: impl FnMut(Bytes)) -> io::Result<()> {
    let message = Bytes::from(vec![b'm'; MESSAGE_BYTES]);
    let (mut asker, _) = listener.accept()?;
    let mut asks = [0; 256];
    loop {
        match asker.read(&mut asks)? {
            0 => return Ok(()),
            count => (0..count).for_each(|_| publish(message.clone())),
        }
    }
}
