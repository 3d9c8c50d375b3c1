//! The load: clients that behave well, and must never notice those that do not.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::{
    connect, connect_narrow, echo, ends_in_reset, frame, pattern, pause, read_all, read_frame,
    reset, try_connect,
};
use crate::dice::Dice;
use crate::errands::{FETCH, JOIN, LATER, ROOMS, TELL, WORK};
use crate::server::{BLOCK, PANIC, Server};

/// Where clients find what they want.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    echo: SocketAddr,
    rough: SocketAddr,
    errands: SocketAddr,
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
        Self { echo: server.echo, rough: server.rough, errands: server.errands, bad }
    }

    /// One client that nobody disturbs.
    pub(crate) fn be_polite(&self, dice: &mut Dice, done: &mut Done) {
        match dice.below(6) {
            0 => chat(self.echo, dice),
            1 => half_close(self.echo, dice),
            2 => read_slowly(self.echo, dice),
            3 => ask_to_block(self.rough, dice),
            4 => run_errands(self.errands, dice),
            _ => talk_in_a_room(self.errands, dice),
        }
        done.whole += 1;
    }

    /// One client that is a nuisance.
    pub(crate) fn be_rude(&self, dice: &mut Dice, done: &mut Done) {
        match dice.below(7) {
            0 => drop(connect(self.echo)),
            1 => reset(connect(self.echo)),
            2 => reset_midway(self.echo, dice),
            3 => leave_errands_behind(self.errands, dice),
            4 => join_and_not_listen(self.errands, dice),
            5 => hoard(self.echo, dice),
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

/// Work that takes its time, all of it under way at once; each piece comes back whole.
fn run_errands(addr: SocketAddr, dice: &mut Dice) {
    let mut client = connect(addr);
    let mut due = Vec::new();
    for number in 0..1 + dice.below(6) {
        let mut answer = vec![u8::try_from(number).expect("a few")];
        answer.extend(pattern(dice.below(2_000), dice.next()));
        client.write_all(&errand(dice, &answer)).expect("the server reads");
        due.push(answer);
    }
    while !due.is_empty() {
        let answer = read_frame(&mut client).expect("the server answers");
        let at = due.iter().position(|wanted| *wanted == answer).expect("not what was asked for");
        due.swap_remove(at);
    }
    client.shutdown(Shutdown::Write).expect("finish");
    assert_eq!(read_all(&mut client), b"", "more than was asked for");
}

fn errand(dice: &mut Dice, rest: &[u8]) -> Vec<u8> {
    let kind = [LATER, WORK, FETCH][dice.below(3)];
    let time = u8::try_from(dice.below(20)).expect("a few milliseconds");
    frame(&[&[kind, time], rest].concat())
}

/// Two members hear all that one of them says, in order, whatever others say in between.
fn talk_in_a_room(addr: SocketAddr, dice: &mut Dice) {
    let room = u8::try_from(dice.below(ROOMS.into())).expect("a few rooms");
    let mut members = [join(addr, room), join(addr, room)];
    let name = dice.next().to_be_bytes();
    for number in 0..1 + dice.below(20) {
        let number = u32::try_from(number).expect("a few").to_be_bytes();
        let said = [&name[..], &number, &pattern(dice.below(300), dice.next())].concat();
        let order = frame(&[&[TELL, 0], &said[..]].concat());
        members[0].write_all(&order).expect("the server reads");
        for member in &mut members {
            // What comes next from this one is what was said last.
            loop {
                let heard = read_frame(member).expect("it is told");
                if heard.starts_with(&name) {
                    assert!(heard == said, "not what was said");
                    break;
                }
            }
        }
    }
}

fn join(addr: SocketAddr, room: u8) -> TcpStream {
    let mut client = connect(addr);
    client.write_all(&frame(&[JOIN, room])).expect("the server reads");
    assert_eq!(read_frame(&mut client).expect("an answer"), b"joined");
    client
}

fn leave_errands_behind(addr: SocketAddr, dice: &mut Dice) {
    let mut client = connect(addr);
    for _ in 0..1 + dice.below(6) {
        let rest = pattern(dice.below(2_000), dice.next());
        client.write_all(&errand(dice, &rest)).expect("the server reads");
    }
    if dice.one_in(2) { reset(client) } else { drop(client) }
}

/// Says much in a room and hears nothing.
fn join_and_not_listen(addr: SocketAddr, dice: &mut Dice) {
    let mut client = connect_narrow(addr);
    let room = u8::try_from(dice.below(ROOMS.into())).expect("a few rooms");
    client.write_all(&frame(&[JOIN, room])).expect("the server reads");
    for _ in 0..dice.below(60) {
        let said = [&[TELL, 0], &pattern(1_000, dice.next())[..]].concat();
        // It may have been given up for being so far behind.
        if client.write_all(&frame(&said)).is_err() {
            return;
        }
    }
    pause(Duration::from_millis(dice.below(50) as u64));
    if dice.one_in(2) { reset(client) } else { drop(client) }
}

/// Has the server hold as much as it will, for a while.
fn hoard(addr: SocketAddr, dice: &mut Dice) {
    let mut client = connect_narrow(addr);
    client.set_nonblocking(true).expect("an option");
    let bytes = pattern(64 << 10, dice.next());
    for _ in 0..40 {
        if client.write(&bytes).is_err() {
            pause(Duration::from_millis(1));
        }
    }
    reset(client);
}
