//! Requests over pooled connections, which survive that the server restarts.
//!
//! With `--addr 127.0.0.1:7001` it asks the `rpc` example what it reads from its input, a request a
//! line. Without, it starts a server itself, restarts it, and shows what a request sees of that.
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

mod common;

use std::error::Error;
use std::io::stdin;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use switchboard::client::{
    Backoff, IdlePool, PoolOptions, Reconnect, ReconnectEvent, ReconnectOptions,
};
use switchboard::{LengthPrefixed, Outcome, Server, handler_fn};

/// How long an answer may take, and a restart.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client of one server, for any number of threads.
struct Client {
    /// For requests: each borrows a connection.
    pool: IdlePool<LengthPrefixed>,
    /// Is made again whenever it ends, and so tells when the server is there again.
    _link: Reconnect,
}

impl Client {
    fn new(runtime: &Server, addr: SocketAddr, news: Sender<News>) -> Result<Self, Box<dyn Error>> {
        let control = runtime.control();
        let pool = control.pool(PoolOptions::new().total_max(2), addr, LengthPrefixed::u32())?;
        let quick = Backoff::new().base(Duration::from_millis(10)).max(Duration::from_secs(1));
        let options = ReconnectOptions::new().backoff(quick).watch(move |event| {
            let told = if let ReconnectEvent::Connected = event {
                news.send(News::Up)
            } else if let ReconnectEvent::Failed(_) = event {
                news.send(News::Down)
            } else {
                Ok(())
            };
            // Whoever listened may be gone before us.
            told.unwrap_or_default();
        });
        let quiet = |_peer| handler_fn(|_cx, _frame| -> Outcome { Ok(()) });
        let _link = control.reconnect(options, addr, LengthPrefixed::u32(), quiet);
        Ok(Client { pool, _link })
    }

    /// One request and its answer. The connection goes back to the pool when both are through; one
    /// that failed does not.
    fn ask(&self, request: &str) -> Result<String, Box<dyn Error>> {
        let mut connection = self.pool.checkout(PATIENCE)?;
        connection.send(request.to_owned())?;
        let answer = connection.recv(PATIENCE)?;
        Ok(String::from_utf8(answer.to_vec())?)
    }
}

/// What the link tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Up,
    Down,
}

/// Waits until the link says this.
fn wait_for(what: News, news: &Receiver<News>) -> Result<(), Box<dyn Error>> {
    while news.recv_timeout(PATIENCE)? != what {}
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = common::options("127.0.0.1:0")?;
    // A server without listeners: the threads that the client's connections live on.
    let runtime = options.builder().start()?;
    let (sender, news) = mpsc::channel();
    let Some(addr) = options.asked else { return demonstrate(&runtime, options.addr()) };
    let client = Client::new(&runtime, addr, sender)?;
    for request in stdin().lines() {
        let request = request?;
        // Only what may be done twice may be asked twice: the server may have done it already.
        let answer = client.ask(&request).or_else(|error| {
            println!("[{error}; waiting for the server]");
            wait_for(News::Up, &news)?;
            client.ask(&request)
        })?;
        println!("{answer}");
    }
    Ok(())
}

/// Answers in capitals.
fn serve(addr: SocketAddr) -> Result<Server, switchboard::Error> {
    let upper = |_peer| handler_fn(|cx, request| cx.send(request.to_ascii_uppercase()));
    Server::builder().listen(addr, LengthPrefixed::u32(), upper).start()
}

fn demonstrate(runtime: &Server, addr: SocketAddr) -> Result<(), Box<dyn Error>> {
    let server = serve(addr)?;
    let addr = server.local_addr();
    let (sender, news) = mpsc::channel();
    let client = Client::new(runtime, addr, sender)?;
    wait_for(News::Up, &news)?;

    let answered = thread::scope(|scope| {
        let ask = || (0..100).filter(|_| client.ask("hello").is_ok()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum::<usize>()
    });
    let (_, connections) = client.pool.counts();
    println!("{answered} of 400 requests of 4 threads answered, over {connections} connections");

    server.stop();
    println!("the server has stopped");
    wait_for(News::Down, &news)?;
    let failed = client.ask("are you there?").err().ok_or("somebody else has answered")?;
    println!("a request fails: {failed}");

    let server = serve(addr)?;
    println!("the server is back at its address");
    wait_for(News::Up, &news)?;
    println!("a request is answered: {}", client.ask("are you there?")?);
    drop(client);
    println!("{}", server.drain(PATIENCE, Duration::ZERO));
    Ok(())
}
