//! The load: clients that behave well, and must never notice those that do not.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::{
    connect, connect_narrow, echo, ends_in_reset, pattern, pause, read_all, reset, try_connect,
};
use crate::dice::Dice;
use crate::server::{BLOCK, PANIC, Server};

/// Where clients find what they want.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    echo: SocketAddr,
    rough: SocketAddr,
    /// The server that only echoes, over a bad network.
    bad: SocketAddr,
}

/// What was done, to compare with what the server has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Connections that were undisturbed, and had every byte compared.
    pub(crate) whole: u64,
    /// Connections over the bad network, and those of them that were cut.
    pub(crate) bad: u64,
    pub(crate) cut: u64,
    /// Handlers that were made to panic.
    pub(crate) panics: u64,
    /// Connections that ended in any other way.
    pub(crate) rude: u64,
}

impl Places {
    pub(crate) fn of(server: &Server, bad: SocketAddr) -> Self {
        Self { echo: server.echo, rough: server.rough, bad }
    }

    /// One client that nobody disturbs.
    pub(crate) fn be_polite(&self, dice: &mut Dice, done: &mut Done) {
        match dice.below(4) {
            0 => chat(self.echo, dice),
            1 => half_close(self.echo, dice),
            2 => read_slowly(self.echo, dice),
            _ => ask_to_block(self.rough, dice),
        }
        done.whole += 1;
    }

    /// One client that is a nuisance.
    pub(crate) fn be_rude(&self, dice: &mut Dice, done: &mut Done) {
        match dice.below(4) {
            0 => drop(connect(self.echo)),
            1 => reset(connect(self.echo)),
            2 => reset_midway(self.echo, dice),
            _ => {
                done.panics += 1;
                ask_to_panic(self.rough, dice);
            }
        }
        done.rude += 1;
    }

    /// One client whose network is bad.
    pub(crate) fn be_far(&self, dice: &mut Dice, done: &mut Done) {
        done.bad += 1;
        done.cut += u64::from(!chat_from_afar(self.bad, dice));
    }
}

fn chat(addr: SocketAddr, dice: &mut Dice) {
    let mut client = connect(addr);
    for _ in 0..1 + dice.below(20) {
        let bytes = pattern(1 + dice.below(20_000), dice.next());
        echo(&mut client, &bytes);
    }
    client.shutdown(Shutdown::Write).expect("finish");
    assert_eq!(read_all(&mut client), b"", "more than was sent");
}

fn half_close(addr: SocketAddr, dice: &mut Dice) {
    let mut client = connect(addr);
    // As much as the server holds for a connection even if nobody reads.
    let bytes = pattern(dice.below(200_000), dice.next());
    client.write_all(&bytes).expect("the server reads");
    client.shutdown(Shutdown::Write).expect("finish");
    assert!(read_all(&mut client) == bytes, "not what was sent");
}

fn read_slowly(addr: SocketAddr, dice: &mut Dice) {
    let mut client = connect_narrow(addr);
    let bytes = pattern(100_000 + dice.below(100_000), dice.next());
    client.write_all(&bytes).expect("the server reads");
    let mut back = vec![0; bytes.len()];
    for piece in back.chunks_mut(4_000) {
        pause(Duration::from_micros(dice.below(500) as u64));
        client.read_exact(piece).expect("the server answers");
    }
    assert!(back == bytes, "not what was sent");
}

fn ask_to_block(addr: SocketAddr, dice: &mut Dice) {
    let mut client = connect(addr);
    let time = u8::try_from(1 + dice.below(20)).expect("a few milliseconds");
    echo(&mut client, &[BLOCK, time, 1, 2, 3]);
    echo(&mut client, b"and again");
}

fn ask_to_panic(addr: SocketAddr, dice: &mut Dice) {
    let mut client = connect(addr);
    if dice.one_in(2) {
        echo(&mut client, b"hello");
    }
    client.write_all(&[PANIC]).expect("the server reads");
    // Which of the two, other tests say; here it has to end.
    let _reset = ends_in_reset(&mut client);
}

fn reset_midway(addr: SocketAddr, dice: &mut Dice) {
    let mut client = connect(addr);
    let bytes = pattern(1 + dice.below(100_000), dice.next());
    client.write_all(&bytes).expect("the server reads");
    let mut back = vec![0; dice.below(bytes.len())];
    client.read_exact(&mut back).expect("the server answers");
    assert!(bytes.starts_with(&back), "not what was sent");
    reset(client);
}

/// True if it was not cut. What arrives is right in either case.
fn chat_from_afar(addr: SocketAddr, dice: &mut Dice) -> bool {
    let Ok(mut client) = try_connect(addr) else { return false };
    let bytes = pattern(1 + dice.below(60_000), dice.next());
    for part in bytes.chunks(1 + dice.below(10_000)) {
        if exchange(&mut client, part).is_err() {
            return false;
        }
    }
    client.shutdown(Shutdown::Write).is_ok() && matches!(client.read(&mut [0]), Ok(0))
}

fn exchange(client: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    client.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    let mut have = 0;
    while have < back.len() {
        let count = client.read(&mut back[have..])?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        assert!(back[have..have + count] == bytes[have..have + count], "not what was sent");
        have += count;
    }
    Ok(())
}
