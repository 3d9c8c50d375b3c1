//! Off-load: work of a handler that a thread of the pool does, and the way of its result back.

use super::context::Context;
use super::job::Call;
use super::post::{Command, Guarded, Parcel, Post};
use super::visit::Visit;
use crate::words::error::{Outcome, SpawnError};
use crate::words::id::ConnId;
use crate::words::sync::Arc;

/// Takes free jobs.
pub(crate) trait Spawn: Send + Sync {
    /// Has `call` made by a thread of the pool.
    fn spawn_call(&self, call: Call) -> Result<(), SpawnError>;
}

/// The way back of one job that has begun: however it ends, its connection hears of it once. One
/// that never begins belongs to a server that has ended, and its connection with it.
struct Return {
    post: Arc<dyn Post>,
    id: ConnId,
    result: Option<Parcel>,
}

impl Drop for Return {
    fn drop(&mut self) {
        self.post.command(Command::Back { id: self.id, result: self.result.take() });
    }
}

impl<M: 'static> Context<'_, M> {
    /// Has a thread of the pool do `job`, and then runs `then` with its result on this connection,
    /// between two calls of its handler. The connection goes on meanwhile: further frames are
    /// handled, and results come in the order in which the jobs end. [`pause`](Context::pause) is
    /// for those who want one frame at a time, see
    /// [`offload_paused`](Context::offload_paused).
    ///
    /// A handler may block, and most need nothing else. This is for a connection that has other
    /// things to do in the meantime. [`on_eof`](crate::Handler::on_eof) and
    /// [`on_drain`](crate::Handler::on_drain) wait for the results of all jobs, so that a peer that
    /// finishes after its request gets its reply. A result that comes once our side has finished
    /// or the connection has ended is dropped. If `job` panics the connection ends
    /// ([`Cause::HandlerPanicked`](crate::close::Cause)).
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::{Shutdown, TcpStream};
    /// use bytes::BytesMut;
    /// use switchboard::codec::Lines;
    /// use switchboard::{Context, Handler, Outcome, Server};
    ///
    /// struct Calculator;
    ///
    /// impl Handler for Calculator {
    ///     fn on_frame(&mut self, cx: &mut Context, line: BytesMut) -> Outcome {
    ///         let limit: u64 = std::str::from_utf8(&line)?.parse()?;
    ///         let sum = move || (1..=limit).sum::<u64>();
    ///         let reply = |_: &mut Calculator, cx: &mut Context, sum: u64| {
    ///             Ok(cx.send(sum.to_string())?)
    ///         };
    ///         Ok(cx.offload(sum, reply)?)
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server =
    ///     Server::builder().listen("127.0.0.1:0", Lines::new(), |_peer| Calculator).start()?;
    /// let mut client = TcpStream::connect(server.local_addr())?;
    /// client.write_all(b"100\n")?;
    /// client.shutdown(Shutdown::Write)?;
    /// let mut reply = String::new();
    /// client.read_to_string(&mut reply)?;
    /// assert_eq!(reply, "5050\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SpawnError`] if as many jobs wait as may (`jobs_max`), or the server has ended: `job` and
    /// `then` are dropped.
    pub fn offload<H, T>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        then: impl FnOnce(&mut H, &mut Context<'_, M>, T) -> Outcome + Send + 'static,
    ) -> Result<(), SpawnError>
    where
        H: 'static,
        T: Send + 'static,
    {
        let (office, id) = self.office_and_id();
        let post = office.post();
        office.spawn(Call::new(move || {
            let mut back = Return { post, id, result: None };
            let result = job();
            let visit: Visit<H, M> = Box::new(move |handler, cx| then(handler, cx, result));
            back.result = Some(Parcel::Visit(Guarded::new(visit)));
        }))?;
        self.note_offload();
        Ok(())
    }

    /// Like [`offload`](Context::offload), and reads nothing more until the result has come: the
    /// next frame is handled after `then`. What the peer sends meanwhile waits in the system.
    ///
    /// # Errors
    /// As [`offload`](Context::offload); then reading goes on.
    pub fn offload_paused<H, T>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        then: impl FnOnce(&mut H, &mut Context<'_, M>, T) -> Outcome + Send + 'static,
    ) -> Result<(), SpawnError>
    where
        H: 'static,
        T: Send + 'static,
    {
        self.offload(job, |handler: &mut H, cx: &mut Context<'_, M>, result| {
            cx.resume();
            then(handler, cx, result)
        })?;
        self.pause();
        Ok(())
    }
}
