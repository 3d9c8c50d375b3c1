//! The devices: connections that the crate opens itself, so that thousands need no threads.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use switchboard::client::Connecting;
use switchboard::control::Control;
use switchboard::{Context, Handler, Outcome};

use crate::board::Board;
use crate::gateway::{FLEETS, codec};
use crate::words::Word;

/// Devices of one process: all systems have at least this many ports for connections to one place.
pub(crate) const PORTS: usize = 16_000;
/// One device in so many reports what the gateway stores before it replies, which blocks.
const SLOW_ONE_IN: usize = 100;
/// Devices that connect at the same time.
const BATCH: usize = 200;
/// Reports that may be without a reply.
const OUTSTANDING_MAX: usize = 100;

/// Its multiples, less what stands before the point, are spread evenly, whichever are left out.
const GOLDEN: f64 = 0.618_033_988_75;

/// The key of the only timer.
const REPORT: u64 = 0;

struct Device {
    board: Arc<Board>,
    fleet: usize,
    is_slow: bool,
    /// Until its first report, and between two.
    phase: Duration,
    every: Duration,
    reports: u64,
    /// When those were sent that have no reply yet.
    sent: VecDeque<Instant>,
}

/// Connects so many devices to the gateway; each reports at its own moment of the period `every`.
pub(crate) fn connect(
    control: &Control,
    gateway: SocketAddr,
    count: usize,
    every: Duration,
    board: &Arc<Board>,
) {
    let begin = |number: usize| {
        let device = Device {
            board: Arc::clone(board),
            fleet: number % FLEETS,
            is_slow: number % SLOW_ONE_IN == 0,
            phase: every.mul_f64((number as f64 * GOLDEN).fract()),
            every,
            reports: 0,
            sent: VecDeque::new(),
        };
        control.connect(gateway, codec(), move |_peer| device)
    };
    for first in (0..count).step_by(BATCH) {
        let last = count.min(first + BATCH);
        let batch: Vec<Connecting> = (first..last).map(begin).collect();
        for connecting in batch {
            if let Err(error) = connecting.wait() {
                board.note_failure(&error);
                if error.is_final() {
                    return;
                }
            }
        }
    }
}

impl Handler for Device {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        cx.send(Word::Hello(self.fleet as u64))?;
        Ok(cx.set_timer(REPORT, self.phase)?)
    }

    fn on_timer(&mut self, cx: &mut Context, _report: u64) -> Outcome {
        if self.sent.len() < OUTSTANDING_MAX {
            self.reports += 1;
            self.sent.push_back(Instant::now());
            let report = if self.is_slow { Word::Archive } else { Word::Report };
            cx.send(report(self.reports))?;
        }
        Ok(cx.set_timer(REPORT, self.every)?)
    }

    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        match Word::parse(&frame)? {
            Word::Reply(_) => {
                let sent = self.sent.pop_front().ok_or("a reply without a report")?;
                self.board.record(sent.elapsed(), self.is_slow);
            }
            Word::One(number) => cx.send(Word::OneDone(number))?,
            Word::All(number) => cx.send(Word::AllDone(number))?,
            word @ (Word::Hello(_)
            | Word::Report(_)
            | Word::Archive(_)
            | Word::OneDone(_)
            | Word::AllDone(_)) => return Err(format!("a gateway does not say `{word}`").into()),
        }
        Ok(())
    }
}
