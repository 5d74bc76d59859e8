//! Asking servers: the same connections, the same loop and the same clock for all, whatever they speak. What they speak is
//! beside this, one file for each: how a question is written, and when an answer is whole. Nothing is interpreted further,
//! so that a client costs little and about the same for all.
//!
//! *Closed*: each connection asks again as soon as it was answered; what the server spends on a request is read from the
//! kernel. *Open*: requests come when they come, whether or not the last one was answered, and a request waits from the
//! moment it was to come (Tene's "coordinated omission" is what happens otherwise).

pub mod h2;
pub mod http;
pub mod line;
pub mod postgres;
pub mod resp;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

pub use line::Line;

use crate::draw::Draw;
use crate::servers::Address;

/// The longest latency that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;
/// How long after the end arrivals are still taken: whoever is further behind than this has a queue that only grew.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// What a server speaks.
pub trait Protocol: Clone + Send + 'static {
    /// Says hello on a new connection.
    fn greet(&mut self, line: &mut Line) -> impl Future<Output = Result<()>> + Send;

    /// Writes the question about a key.
    fn ask(&mut self, key: usize, out: &mut Vec<u8>);

    /// How long the answer is at whose beginning `seen` is; none while that cannot be told, or some of it is missing.
    ///
    /// # Errors
    ///
    /// When it is not the answer that was asked for.
    fn length(&self, seen: &[u8]) -> Result<Option<usize>>;
}

/// One connection, and what is spoken on it.
pub struct Client<P> {
    protocol: P,
    line: Line,
    question: Vec<u8>,
    answer: Vec<u8>,
}

/// How long it is asked, and how long before that to warm up.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Not counted.
    pub warm: Duration,
    /// Counted.
    pub counted: Duration,
}

/// What a closed loop came to.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Answers.
    pub requests: u64,
    /// In this time.
    pub took: Duration,
    /// Processor time of the server meanwhile.
    pub used: Duration,
}

/// What an open loop came to.
#[derive(Clone, Debug)]
pub struct Open {
    /// In nanoseconds, from when a request was to come.
    pub latencies: Histogram<u64>,
    /// Requests that were never asked: whoever leaves any does not keep up.
    pub left: u64,
}

/// When requests come: one after the other, at even distances.
#[derive(Debug)]
pub struct Arrivals(Mutex<Timetable>);

#[derive(Debug)]
struct Timetable {
    number: u64,
    next: Instant,
    every: Duration,
    end: Instant,
}

/// One request that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The how-manieth.
    pub number: u64,
    /// When it was to come; it may be later by now.
    pub planned: Instant,
}

/// The time, for measuring.
#[expect(
    clippy::disallowed_methods,
    reason = "what is measured here is time itself"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// A histogram of nanoseconds.
pub fn latencies() -> Histogram<u64> {
    let max = u64::try_from(LATENCY_MAX.as_nanos()).expect("a minute fits");
    Histogram::new_with_bounds(1, max, LATENCY_DIGITS).expect("these bounds make sense")
}

/// Notes how long something took.
pub fn note(latencies: &mut Histogram<u64>, took: Duration) {
    latencies.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
}

// === impl Client ===

impl<P: Protocol> Client<P> {
    /// Connects and says hello.
    ///
    /// # Errors
    ///
    /// When the server is not there, or does not like it.
    pub async fn connect(address: &Address, protocol: &P) -> Result<Self> {
        let mut protocol = protocol.clone();
        let mut line = Line::connect(address).await?;
        protocol.greet(&mut line).await?;
        Ok(Self {
            protocol,
            line,
            question: Vec::new(),
            answer: Vec::new(),
        })
    }

    /// The whole answer about a key, as it came over the wire.
    ///
    /// # Errors
    ///
    /// When it is no good, or the connection ends.
    pub async fn ask(&mut self, key: usize) -> Result<&[u8]> {
        self.question.clear();
        self.answer.clear();
        self.protocol.ask(key, &mut self.question);
        self.line.write(&self.question).await?;
        loop {
            self.line.read(&mut self.answer).await?;
            if let Some(length) = self.protocol.length(&self.answer)? {
                ensure!(length == self.answer.len(), "more came than was asked for");
                return Ok(&self.answer);
            }
        }
    }
}

/// Connects this many times.
///
/// # Errors
///
/// As [`Client::connect`].
pub async fn connect<P: Protocol>(
    address: &Address,
    protocol: &P,
    connections: usize,
) -> Result<Vec<Client<P>>> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(Client::connect(address, protocol).await?);
    }
    Ok(clients)
}

/// Asks about keys as fast as answers come; `used` tells the processor time of the server up to now.
///
/// # Errors
///
/// When an answer is no good, or `used` fails.
pub async fn closed<P: Protocol>(
    clients: Vec<Client<P>>,
    keys: usize,
    span: Span,
    used: impl Fn() -> Result<Duration>,
) -> Result<Closed> {
    let over = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicU64::new(0));
    let mut asking = JoinSet::new();
    for (number, mut client) in (0..).zip(clients) {
        let (over, answers) = (Arc::clone(&over), Arc::clone(&answers));
        let mut draw = Draw::new(number);
        asking.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                client.ask(draw.below(keys)).await?;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    let read = || -> Result<_> { Ok((now(), answers.load(Ordering::Relaxed), used()?)) };
    tokio::time::sleep(span.warm).await;
    let (start, answers_before, used_before) = read()?;
    tokio::time::sleep(span.counted).await;
    let (end, answers_after, used_after) = read()?;
    over.store(true, Ordering::Relaxed);
    while let Some(asked) = asking.join_next().await {
        asked.context("a connection's task")??;
    }
    let requests = answers_after - answers_before;
    ensure!(requests > 0, "nothing was answered");
    Ok(Closed {
        requests,
        took: end - start,
        used: used_after.saturating_sub(used_before),
    })
}

/// Asks about keys `per_second` times a second.
///
/// # Errors
///
/// When an answer is no good.
pub async fn open<P: Protocol>(
    clients: Vec<Client<P>>,
    keys: usize,
    span: Span,
    per_second: u32,
) -> Result<Open> {
    let counted_from = now() + span.warm;
    let arrivals = Arc::new(Arrivals::new(per_second, span.warm + span.counted));
    let mut asking = JoinSet::new();
    for (number, mut client) in (0..).zip(clients) {
        let arrivals = Arc::clone(&arrivals);
        let mut draw = Draw::new(number);
        asking.spawn(async move {
            let mut found = latencies();
            while let Some(arrival) = arrivals.next().await {
                client.ask(draw.below(keys)).await?;
                if arrival.planned >= counted_from {
                    note(&mut found, arrival.planned.elapsed());
                }
            }
            anyhow::Ok(found)
        });
    }
    let mut all = latencies();
    while let Some(asked) = asking.join_next().await {
        let found = asked.context("a connection's task")??;
        all.add(found).context("the same bounds")?;
    }
    Ok(Open {
        latencies: all,
        left: arrivals.left().await,
    })
}

// === impl Arrivals ===

impl Arrivals {
    /// From now on, for so long.
    pub fn new(per_second: u32, span: Duration) -> Self {
        Self::starting(now(), per_second, span)
    }

    fn starting(next: Instant, per_second: u32, span: Duration) -> Self {
        Self(Mutex::new(Timetable {
            number: 0,
            next,
            every: Duration::from_secs(1) / per_second,
            end: next + span,
        }))
    }

    /// Waits for the next; none when all have come, or when it is a second after the last should have come.
    ///
    /// Whoever is first in line waits for it looking at the clock all the time, for timers tick in milliseconds. The others
    /// on this thread go on meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Loses nothing.
    pub async fn next(&self) -> Option<Arrival> {
        let mut timetable = self.0.lock().await;
        let timetable = &mut *timetable;
        let arrival = Arrival {
            number: timetable.number,
            planned: timetable.next,
        };
        let given_up = now() >= timetable.end + BEHIND_MAX;
        if arrival.planned >= timetable.end || given_up {
            return None;
        }
        while now() < arrival.planned {
            tokio::task::yield_now().await;
        }
        timetable.number += 1;
        timetable.next += timetable.every;
        Some(arrival)
    }

    /// How many were never taken.
    pub async fn left(&self) -> u64 {
        let timetable = self.0.lock().await;
        let span = timetable.end.saturating_duration_since(timetable.next);
        u64::try_from(span.as_nanos().div_ceil(timetable.every.as_nanos())).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
