//! Servers that come and go leave no thread and no descriptor behind. Alone in its file, since it
//! counts those of the whole process.

mod common;

use std::net::Shutdown;

use common::{builder, by_default, connect, echo, read_all, reset, serve};
use switchboard::Raw;

/// Threads and descriptors of this process, where the system says so. Wine shows those of Linux.
fn counts() -> Option<(usize, usize)> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let count = |folder| std::fs::read_dir(folder).map(Iterator::count).ok();
    count("/proc/self/task").zip(count("/proc/self/fd"))
}

fn cycle(round: usize) {
    let (server, _journal) = serve(builder(), Raw::new(), by_default);
    let mut clients: Vec<_> = (0..3).map(|_| connect(server.local_addr())).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    // One that the server ends, one that is reset, one that has ended.
    reset(clients.remove(0));
    clients[0].shutdown(Shutdown::Write).expect("finish");
    assert_eq!(read_all(&mut clients[0]), b"");
    let report = match round % 3 {
        0 => server.stop(),
        1 => {
            drop(clients);
            server.drain(common::PATIENCE, std::time::Duration::ZERO)
        }
        _ => {
            let control = server.control();
            control.stop();
            server.wait().expect("a sound server")
        }
    };
    assert_eq!((report.opened, report.closed_count(), report.stuck), (3, 3, 0), "{report}");
}

#[test]
fn two_hundred_servers_leave_no_thread_and_no_descriptor() {
    cycle(0);
    let before = counts();
    assert_eq!(before.is_some(), cfg!(target_os = "linux"));
    (0..200).for_each(cycle);
    assert_eq!(counts(), before, "threads and descriptors");
}
