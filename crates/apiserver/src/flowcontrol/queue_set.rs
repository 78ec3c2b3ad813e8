//! Fair queuing of the requests of one level, after KEP-1040: who runs, who waits where, who is turned away. No clock
//! and no IO: callers say what time it is, and wake those whose turn it is.

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;

use super::integrator::{Integrator, Observed};
use super::seat_seconds::SeatSeconds;
use super::shuffle_sharding::Dealer;
use super::work::WorkEstimate;

/// How long a request is taken to run until it is known.
const ESTIMATED_SERVICE: Duration = Duration::from_millis(3);

/// What happens to requests that cannot run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queuing {
    /// Every request can run at once.
    Exempt,
    Reject,
    Queue {
        dealer: Dealer,
        queues: usize,
        length_limit: usize,
    },
}

/// The place of a request in a [`QueueSet`], from [`QueueSet::start`] until it has finished.
pub type Id = usize;

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    ConcurrencyLimit,
    QueueFull,
}

/// What became of a request that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Executing(Id),
    Waiting(Id),
    Rejected(Rejection),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Waiting,
    Executing,
    /// Done, but for the seats that it keeps for its watchers.
    Lingering,
}

/// A request: `T` is what the caller knows of it, `W` what wakes it.
#[derive(Debug)]
pub struct Request<T, W> {
    pub about: T,
    pub work: WorkEstimate,
    pub state: State,
    /// The queue it came through, if it did.
    pub queue: Option<usize>,
    pub arrived: Duration,
    /// When it began to run; meaningless while it waits.
    pub began: Duration,
    wake: Option<W>,
    arrival_r: SeatSeconds,
    total_work: SeatSeconds,
}

#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Id>,
    /// The work of those who wait.
    work: SeatSeconds,
    seats_waiting: u32,
    executing: usize,
    seats_in_use: u32,
    next_dispatch_r: SeatSeconds,
}

impl Queue {
    fn is_active(&self) -> bool {
        !self.waiting.is_empty() || self.executing > 0
    }

    pub fn waiting(&self) -> &VecDeque<Id> {
        &self.waiting
    }

    pub fn executing(&self) -> usize {
        self.executing
    }

    pub fn seats_in_use(&self) -> u32 {
        self.seats_in_use
    }

    pub fn seats_waiting(&self) -> u32 {
        self.seats_waiting
    }

    pub fn work(&self) -> SeatSeconds {
        self.work
    }

    pub fn next_dispatch_r(&self) -> SeatSeconds {
        self.next_dispatch_r
    }
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub dispatched: u64,
    pub rejected: u64,
    pub cancelled: u64,
}

/// All requests of a level.
#[derive(Debug)]
pub struct QueueSet<T, W> {
    queuing: Queuing,
    /// How many seats may be taken at once.
    limit: u32,
    /// More than configured while those that are too many empty.
    queues: Vec<Queue>,
    requests: Slab<Request<T, W>>,
    counts: Counts,
    waiting: usize,
    executing: usize,
    seats_waiting: u32,
    seats_in_use: u32,
    active_queues: usize,
    /// How far the virtual time is: the seat-seconds that every queue has had since the beginning.
    current_r: SeatSeconds,
    last: Duration,
    /// The queue that was served last.
    robin: usize,
    enqueued: usize,
    demand: Integrator,
}

impl<T, W> QueueSet<T, W> {
    pub fn new(now: Duration, queuing: Queuing, limit: u32) -> Self {
        let mut out = Self {
            queuing,
            limit,
            queues: Vec::new(),
            requests: Slab::new(),
            counts: Counts::default(),
            waiting: 0,
            executing: 0,
            seats_waiting: 0,
            seats_in_use: 0,
            active_queues: 0,
            current_r: SeatSeconds::ZERO,
            last: now,
            robin: 0,
            enqueued: 0,
            demand: Integrator::new(now),
        };
        out.fit_queues();
        out
    }

    /// Follows a new configuration. Those whose turn it is by that are added to `woken`.
    pub fn configure(&mut self, now: Duration, queuing: Queuing, limit: u32, woken: &mut Vec<W>) {
        self.sync(now);
        self.queuing = queuing;
        self.limit = limit;
        self.fit_queues();
        self.dispatch_all(now, woken);
    }

    /// A request comes in. One that has to wait gets what `wake` makes, to be woken with.
    pub fn start(
        &mut self,
        now: Duration,
        hash: u64,
        work: WorkEstimate,
        about: T,
        wake: impl FnOnce() -> W,
        woken: &mut Vec<W>,
    ) -> Start {
        self.sync(now);
        let seats = work.max_seats();
        let total_work = SeatSeconds::new(f64::from(work.initial_seats), ESTIMATED_SERVICE)
            + SeatSeconds::new(f64::from(work.final_seats), work.additional_latency);
        let mut request = Request {
            about,
            work,
            state: State::Executing,
            queue: None,
            arrived: now,
            began: now,
            wake: None,
            arrival_r: self.current_r,
            total_work,
        };
        let Queuing::Queue { dealer, length_limit, .. } = self.queuing else {
            if self.queuing == Queuing::Reject && !self.can_accommodate(seats) {
                self.counts.rejected += 1;
                return Start::Rejected(Rejection::ConcurrencyLimit);
            }
            self.executing += 1;
            self.counts.dispatched += 1;
            self.seats_in_use += seats;
            self.note_demand(now);
            return Start::Executing(self.requests.insert(request));
        };
        let chosen = self.choose_queue(dealer, hash);
        let queue = &mut self.queues[chosen];
        if self.seats_in_use >= self.limit && queue.waiting.len() >= length_limit {
            self.counts.rejected += 1;
            return Start::Rejected(Rejection::QueueFull);
        }
        if !queue.is_active() {
            queue.next_dispatch_r = self.current_r;
            self.active_queues += 1;
        }
        request.state = State::Waiting;
        request.queue = Some(chosen);
        let id = self.requests.insert(request);
        queue.waiting.push_back(id);
        queue.work += total_work;
        queue.seats_waiting += seats;
        self.waiting += 1;
        self.seats_waiting += seats;
        self.note_demand(now);
        self.bound_next_dispatch(chosen);
        if self.waiting == 1 {
            // nobody else can be first
            if self.seats_in_use < self.limit {
                self.dispatch(now, chosen, woken);
            }
        } else {
            self.dispatch_all(now, woken);
        }
        match self.requests.get_mut(id) {
            Some(request) if request.state == State::Waiting => {
                request.wake = Some(wake());
                Start::Waiting(id)
            }
            _ => Start::Executing(id),
        }
    }

    /// A request does not want to wait any longer. Says whether it was still waiting; else it runs.
    pub fn cancel(&mut self, now: Duration, id: Id, woken: &mut Vec<W>) -> bool {
        let waits = self.requests.get(id).is_some_and(|request| request.state == State::Waiting);
        let Some(index) = waits.then(|| self.requests[id].queue).flatten() else { return false };
        self.sync(now);
        let request = self.requests.remove(id);
        let seats = request.work.max_seats();
        let queue = &mut self.queues[index];
        queue.waiting.retain(|other| *other != id);
        queue.work -= request.total_work;
        queue.seats_waiting -= seats;
        self.waiting -= 1;
        self.seats_waiting -= seats;
        self.counts.rejected += 1;
        self.counts.cancelled += 1;
        if !self.queues[index].is_active() {
            self.active_queues -= 1;
        }
        self.note_demand(now);
        self.bound_next_dispatch(index);
        self.fit_queues();
        // it may have stood before others, for want of more seats than they need
        self.dispatch_all(now, woken);
        true
    }

    /// A request has run. Its seats are free, unless it says how long they are kept: then [`QueueSet::release`] follows.
    pub fn finish(&mut self, now: Duration, id: Id, woken: &mut Vec<W>) -> Option<Duration> {
        self.sync(now);
        let request = self.requests.get_mut(id).filter(|request| request.state == State::Executing)?;
        request.state = State::Lingering;
        let (work, queue) = (request.work, request.queue);
        let took = now.saturating_sub(request.began);
        self.executing -= 1;
        if let Some(index) = queue {
            let queue = &mut self.queues[index];
            queue.executing -= 1;
            // it was taken to need the estimate; the difference is given back, or taken
            let seats = f64::from(work.initial_seats);
            queue.next_dispatch_r += SeatSeconds::new(seats, took);
            queue.next_dispatch_r -= SeatSeconds::new(seats, ESTIMATED_SERVICE);
            if !queue.is_active() {
                self.active_queues -= 1;
            }
            self.bound_next_dispatch(index);
        }
        if work.additional_latency.is_zero() {
            self.release(now, id, woken);
            return None;
        }
        self.dispatch_all(now, woken);
        Some(work.additional_latency)
    }

    /// The seats that a finished request kept are free.
    pub fn release(&mut self, now: Duration, id: Id, woken: &mut Vec<W>) {
        if self.requests.get(id).is_none_or(|request| request.state != State::Lingering) {
            return;
        }
        self.sync(now);
        let request = self.requests.remove(id);
        let seats = request.work.max_seats();
        self.seats_in_use -= seats;
        if let Some(index) = request.queue {
            self.queues[index].seats_in_use -= seats;
        }
        self.note_demand(now);
        self.fit_queues();
        self.dispatch_all(now, woken);
    }

    /// Nobody waits and nobody runs.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    /// The seats that were asked for since the last look.
    pub fn look_at_demand(&mut self, now: Duration) -> Observed {
        self.demand.look(now)
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn executing(&self) -> usize {
        self.executing
    }

    #[cfg(test)]
    pub fn seats_in_use(&self) -> u32 {
        self.seats_in_use
    }

    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    pub fn requests(&self) -> impl Iterator<Item = (Id, &Request<T, W>)> {
        self.requests.iter()
    }

    pub fn request(&self, id: Id) -> Option<&Request<T, W>> {
        self.requests.get(id)
    }

    /// Makes as many queues as are configured. Those that are too many go once they are empty, the last first.
    fn fit_queues(&mut self) {
        let desired = match self.queuing {
            Queuing::Queue { queues, .. } => queues,
            Queuing::Exempt | Queuing::Reject => 0,
        };
        if self.queues.len() < desired {
            self.queues.resize_with(desired, Queue::default);
        }
        while self.queues.len() > desired
            && self.queues.last().is_some_and(|last| !last.is_active() && last.seats_in_use == 0)
        {
            self.queues.pop();
        }
    }

    /// Moves the virtual time on: as fast as the seats that are in use, shared by the queues that are busy.
    fn sync(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        if self.active_queues > 0 && !passed.is_zero() {
            let seats = (self.seats_in_use + self.seats_waiting).min(self.limit);
            self.current_r += SeatSeconds::new(f64::from(seats) / self.active_queues as f64, passed);
        }
    }

    /// Of a flow's hand, the queue with the least work.
    fn choose_queue(&mut self, dealer: Dealer, hash: u64) -> usize {
        let hand = dealer.deal(hash);
        let cards = hand.cards();
        // from another card each time, so that flows whose hands overlap do not all prefer the same
        let offset = self.enqueued % cards.len();
        self.enqueued = self.enqueued.wrapping_add(1);
        let in_turn = cards[offset..].iter().chain(&cards[..offset]).copied();
        in_turn.min_by_key(|card| self.queues[*card].work).unwrap_or_default()
    }

    fn can_accommodate(&self, seats: u32) -> bool {
        if seats > self.limit {
            // wider than the level: it runs alone
            return self.executing == 0;
        }
        self.seats_in_use + seats <= self.limit
    }

    fn dispatch_all(&mut self, now: Duration, woken: &mut Vec<W>) {
        while self.waiting > 0 && self.seats_in_use < self.limit {
            let Some(next) = self.next_queue() else { return };
            if !self.dispatch(now, next, woken) {
                return;
            }
        }
    }

    /// The queue whose oldest request would be through first in virtual time; of several, the next in turn.
    fn next_queue(&self) -> Option<usize> {
        let count = self.queues.len();
        let in_turn = (1..=count).map(|step| (self.robin + step) % count);
        let finishes = in_turn.filter_map(|index| {
            let queue = &self.queues[index];
            let oldest = self.requests.get(*queue.waiting.front()?)?;
            Some((queue.next_dispatch_r + oldest.total_work, index))
        });
        finishes.min_by_key(|(finish, _)| *finish).map(|(_, index)| index)
    }

    /// Lets the oldest request of a queue run, if there are seats for it.
    fn dispatch(&mut self, now: Duration, index: usize, woken: &mut Vec<W>) -> bool {
        let Some(id) = self.queues[index].waiting.front().copied() else { return false };
        let seats = self.requests[id].work.max_seats();
        if !self.can_accommodate(seats) {
            return false;
        }
        let queue = &mut self.queues[index];
        let request = &mut self.requests[id];
        queue.waiting.pop_front();
        queue.work -= request.total_work;
        queue.seats_waiting -= seats;
        self.waiting -= 1;
        self.seats_waiting -= seats;
        self.robin = index;
        // as much work afterwards, by no more seats than there are
        if request.work.final_seats > self.limit {
            let work = SeatSeconds::new(f64::from(request.work.final_seats), request.work.additional_latency);
            request.work.final_seats = self.limit;
            request.work.additional_latency = work.per_seat(self.limit);
        }
        let seats = request.work.max_seats();
        request.state = State::Executing;
        request.began = now;
        woken.extend(request.wake.take());
        queue.executing += 1;
        queue.seats_in_use += seats;
        queue.next_dispatch_r += request.total_work;
        self.executing += 1;
        self.seats_in_use += seats;
        self.counts.dispatched += 1;
        self.note_demand(now);
        self.bound_next_dispatch(index);
        true
    }

    /// A queue gains nothing from time in which it had nothing to do: its oldest request cannot have begun before it came.
    fn bound_next_dispatch(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        if let Some(oldest) = queue.waiting.front().and_then(|id| self.requests.get(*id)) {
            queue.next_dispatch_r = queue.next_dispatch_r.max(oldest.arrival_r);
        }
    }

    fn note_demand(&mut self, now: Duration) {
        self.demand.set(now, f64::from(self.seats_in_use + self.seats_waiting));
    }
}

#[cfg(test)]
#[path = "queue_set_tests.rs"]
mod tests;
