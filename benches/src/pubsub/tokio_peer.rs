//! The peer on tokio: a broadcast channel, and a task per connection that writes what comes.

use std::error::Error;
use std::io;
use std::net::TcpListener;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task;

use super::{GREETING, obey};
use crate::peer::BACKLOG;

/// Serves until the asker leaves.
///
/// # Errors
/// When the server cannot start.
pub fn serve(threads: usize, control: &TcpListener) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_io().build()?;
    let (sender, _) = broadcast::channel(CAPACITY);
    let subscribe = sender.clone();
    let socket = {
        let _inside = runtime.enter();
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        socket.listen(BACKLOG as u32)?
    };
    println!("listening on {},{}", socket.local_addr()?, control.local_addr()?);
    drop(runtime.spawn(async move {
        loop {
            if let Ok((stream, _)) = socket.accept().await {
                // A connection that breaks ends its task and concerns nobody else.
                drop(task::spawn(pass_on(stream, subscribe.subscribe())));
            }
        }
    }));
    // Nobody to hear it is no error.
    obey(control, |message| drop(sender.send(message)))?;
    runtime.shutdown_background();
    Ok(())
}

async fn pass_on(
    mut stream: TcpStream,
    mut messages: broadcast::Receiver<Bytes>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(GREETING).await?;
    loop {
        match messages.recv().await {
            Ok(message) => stream.write_all(&message).await?,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// Messages that the channel keeps for those who are behind.
const CAPACITY: usize = 1_024;
