//! Who runs and who waits: tables, and what holds whatever happens.

use proptest::prelude::*;

use super::*;

type Set = QueueSet<&'static str, &'static str>;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn queuing(queues: usize, hand: usize, length_limit: usize) -> Queuing {
    Queuing::Queue { dealer: Dealer::new(queues, hand).unwrap(), queues, length_limit }
}

/// A request of one seat, of a flow whose only queue is `queue`.
fn start(set: &mut Set, millis: u64, queue: u64, name: &'static str) -> Start {
    let mut woken = Vec::new();
    let start = set.start(at(millis), queue, WorkEstimate::seats(1), name, || name, &mut woken);
    assert_eq!(woken, [""; 0], "nobody is woken by who comes in");
    start
}

fn id(start: Start) -> Id {
    match start {
        Start::Executing(id) | Start::Waiting(id) => id,
        Start::Rejected(rejection) => panic!("{rejection:?}"),
    }
}

fn finish(set: &mut Set, millis: u64, id: Id) -> Vec<&'static str> {
    let mut woken = Vec::new();
    assert_eq!(set.finish(at(millis), id, &mut woken), None);
    woken
}

#[test]
fn without_queues_who_finds_no_seat_is_turned_away() {
    let mut set = Set::new(at(0), Queuing::Reject, 2);
    let first = id(start(&mut set, 0, 0, "a"));
    id(start(&mut set, 0, 0, "b"));
    assert_eq!(start(&mut set, 0, 0, "c"), Start::Rejected(Rejection::ConcurrencyLimit));
    assert_eq!(finish(&mut set, 1, first), [""; 0]);
    assert!(matches!(start(&mut set, 1, 0, "d"), Start::Executing(_)));
    assert_eq!(set.counts(), Counts { dispatched: 3, rejected: 1, cancelled: 0 });
}

#[test]
fn exempt_requests_always_run_and_their_seats_are_counted() {
    let mut set = Set::new(at(0), Queuing::Exempt, 0);
    let ids: Vec<Id> = (0..50).map(|_| id(start(&mut set, 0, 0, "a"))).collect();
    assert_eq!((set.executing(), set.seats_in_use()), (50, 50));
    for id in ids {
        finish(&mut set, 1, id);
    }
    assert!(set.is_idle());
    assert_eq!(set.look_at_demand(at(1)).max, 50.0);
}

#[test]
fn a_full_queue_turns_away_and_others_do_not() {
    let mut set = Set::new(at(0), queuing(2, 1, 1), 1);
    let running = id(start(&mut set, 0, 0, "running"));
    assert!(matches!(start(&mut set, 0, 0, "first"), Start::Waiting(_)));
    assert_eq!(start(&mut set, 0, 0, "second"), Start::Rejected(Rejection::QueueFull));
    assert!(matches!(start(&mut set, 0, 1, "other"), Start::Waiting(_)));
    assert_eq!(finish(&mut set, 5, running).len(), 1);
}

#[test]
fn an_elephant_does_not_starve_a_mouse() {
    let mut set = Set::new(at(0), queuing(2, 1, 100), 1);
    let mut running = id(start(&mut set, 0, 0, "elephant"));
    for _ in 0..50 {
        start(&mut set, 0, 0, "elephant");
    }
    let mouse = id(start(&mut set, 10, 1, "mouse"));
    let mut before = 0;
    for round in 0..50 {
        let woken = finish(&mut set, 20 + 10 * round, running);
        running = match woken.as_slice() {
            ["mouse"] => break,
            ["elephant"] => {
                let next = set.requests().find(|(_, request)| request.state == State::Executing);
                before += 1;
                next.unwrap().0
            }
            other => panic!("{other:?}"),
        };
    }
    assert!(before <= 1, "{before} requests of the elephant went first");
    assert_eq!(set.request(mouse).unwrap().state, State::Executing);
}

#[test]
fn hands_let_a_mouse_pass_by_a_queue_that_an_elephant_fills() {
    // the elephant has one queue, the mouse may choose between two
    let mut set = Set::new(at(0), queuing(4, 2, 50), 1);
    let dealer = Dealer::new(4, 2).unwrap();
    let (elephant, mouse) = (0, 5);
    assert_eq!(dealer.deal(elephant).cards(), [0, 1]);
    assert_eq!(dealer.deal(mouse).cards(), [1, 2]);
    start(&mut set, 0, elephant, "elephant");
    for _ in 0..20 {
        start(&mut set, 0, elephant, "elephant");
    }
    let id = id(start(&mut set, 0, mouse, "mouse"));
    assert_eq!(set.request(id).unwrap().queue, Some(2));
}

#[test]
fn a_wide_request_waits_for_its_seats_and_one_that_is_too_wide_runs_alone() {
    let mut set = Set::new(at(0), queuing(1, 1, 50), 4);
    let mut woken = Vec::new();
    let mut ask = |set: &mut Set, seats, name: &'static str| {
        set.start(at(0), 0, WorkEstimate::seats(seats), name, || name, &mut woken)
    };
    let two = id(ask(&mut set, 2, "two"));
    let three = id(ask(&mut set, 3, "three"));
    assert_eq!(set.request(three).unwrap().state, State::Waiting);
    let ten = id(ask(&mut set, 10, "ten"));
    assert_eq!(finish(&mut set, 1, two), ["three"]);
    assert_eq!(finish(&mut set, 2, three), ["ten"]);
    assert_eq!(set.seats_in_use(), 10);
    assert_eq!(finish(&mut set, 3, ten), [""; 0]);
    assert_eq!(set.seats_in_use(), 0);
}

#[test]
fn seats_stay_taken_for_watchers() {
    let mut set = Set::new(at(0), queuing(1, 1, 50), 4);
    let work = WorkEstimate { initial_seats: 1, final_seats: 8, additional_latency: at(5) };
    let mut woken = Vec::new();
    let write = id(set.start(at(0), 0, work, "write", || "write", &mut woken));
    assert!(matches!(start(&mut set, 0, 0, "next"), Start::Waiting(_)));
    // eight seats for 5 ms are as much work as four for 10 ms
    assert_eq!(set.finish(at(1), write, &mut woken), Some(at(10)));
    assert_eq!((woken.len(), set.executing(), set.seats_in_use()), (0, 0, 4));
    assert!(!set.is_idle(), "somebody waits");
    set.release(at(11), write, &mut woken);
    assert_eq!((woken.as_slice(), set.seats_in_use()), (["next"].as_slice(), 1));
    set.release(at(12), write, &mut woken);
    assert_eq!(set.seats_in_use(), 1, "once is enough");
}

#[test]
fn who_gives_up_lets_those_behind_run() {
    let mut set = Set::new(at(0), queuing(1, 1, 50), 4);
    let mut woken = Vec::new();
    let running = id(start(&mut set, 0, 0, "running"));
    let wide = id(set.start(at(0), 0, WorkEstimate::seats(4), "wide", || "wide", &mut woken));
    let narrow = id(start(&mut set, 0, 0, "narrow"));
    assert_eq!(set.waiting(), 2);
    assert!(set.cancel(at(1), wide, &mut woken));
    assert_eq!(woken, ["narrow"]);
    assert!(!set.cancel(at(1), narrow, &mut woken), "it runs already");
    assert_eq!(set.counts(), Counts { dispatched: 2, rejected: 1, cancelled: 1 });
    finish(&mut set, 2, running);
    finish(&mut set, 2, narrow);
    assert!(set.is_idle());
}

#[test]
fn queues_that_are_too_many_empty_first() {
    let mut set = Set::new(at(0), queuing(4, 1, 50), 1);
    let running = id(start(&mut set, 0, 3, "running"));
    let waiting = id(start(&mut set, 0, 3, "waiting"));
    let mut woken = Vec::new();
    set.configure(at(1), queuing(2, 1, 50), 1, &mut woken);
    assert_eq!(set.queues().len(), 4);
    let new = id(start(&mut set, 1, 1, "new"));
    assert_eq!(finish(&mut set, 2, running), ["new"]);
    assert_eq!(finish(&mut set, 3, new), ["waiting"]);
    assert_eq!(set.queues().len(), 4);
    finish(&mut set, 4, waiting);
    assert_eq!(set.queues().len(), 2);
    set.configure(at(5), queuing(8, 1, 50), 5, &mut woken);
    assert_eq!((set.queues().len(), woken.len()), (8, 0));
}

#[test]
fn more_seats_wake_who_waits() {
    let mut set = Set::new(at(0), queuing(1, 1, 50), 1);
    for name in ["a", "b", "c", "d"] {
        start(&mut set, 0, 0, name);
    }
    let mut woken = Vec::new();
    set.configure(at(1), queuing(1, 1, 50), 3, &mut woken);
    assert_eq!(woken, ["b", "c"]);
    set.configure(at(2), Queuing::Reject, 9, &mut woken);
    assert_eq!(woken, ["b", "c", "d"], "those that wait are served also when nobody may wait any more");
}

#[test]
fn virtual_time_is_shared_by_busy_queues() {
    let mut set = Set::new(at(0), queuing(2, 1, 50), 2);
    id(start(&mut set, 0, 0, "a"));
    set.sync(at(1000));
    assert_eq!(set.current_r.to_string(), "1.00000000ss", "one seat for one queue");
    id(start(&mut set, 1000, 1, "b"));
    for _ in 0..4 {
        start(&mut set, 1000, 1, "b");
    }
    set.sync(at(2000));
    assert_eq!(set.current_r.to_string(), "2.00000000ss", "two seats for two queues");
    // a queue that begins does so now, not in the past
    assert!(set.queues()[1].next_dispatch_r() >= SeatSeconds::new(1.0, at(1000)));
}

/// One step of a random run.
#[derive(Clone, Copy, Debug)]
enum Step {
    Start { hash: u64, initial: u32, last: u32, latency: u64 },
    Cancel(usize),
    Finish(usize),
    Release(usize),
    Configure { queues: usize, limit: u32, reject: bool },
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        6 => (any::<u64>(), 1_u32..5, 0_u32..5, 0_u64..20)
            .prop_map(|(hash, initial, last, latency)| Step::Start { hash, initial, last, latency }),
        2 => any::<usize>().prop_map(Step::Cancel),
        4 => any::<usize>().prop_map(Step::Finish),
        3 => any::<usize>().prop_map(Step::Release),
        1 => (1_usize..9, 0_u32..7, any::<bool>())
            .prop_map(|(queues, limit, reject)| Step::Configure { queues, limit, reject }),
    ];
    proptest::collection::vec((0_u64..30, step), 1..120)
}

proptest! {
    #[test]
    fn seats_are_never_given_twice_and_nobody_is_forgotten(steps in steps()) {
        let mut set: QueueSet<(), Id> = QueueSet::new(at(0), queuing(4, 2, 3), 3);
        let mut limit = 3;
        let mut now = 0;
        let (mut waiting, mut executing, mut lingering) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = 0;
        let mut ids = std::collections::HashMap::new();
        for (passed, step) in steps {
            now += passed;
            let mut woken = Vec::new();
            let before = set.seats_in_use();
            match step {
                Step::Start { hash, initial, last, latency } => {
                    let additional_latency = if last == 0 { at(0) } else { at(latency) };
                    let work = WorkEstimate { initial_seats: initial, final_seats: last, additional_latency };
                    let name = next;
                    next += 1;
                    match set.start(at(now), hash, work, (), || name, &mut woken) {
                        Start::Executing(id) => {
                            ids.insert(name, id);
                            executing.push(name);
                        }
                        Start::Waiting(id) => {
                            ids.insert(name, id);
                            waiting.push(name);
                        }
                        Start::Rejected(_) => {}
                    }
                }
                Step::Cancel(which) if !waiting.is_empty() => {
                    let name = waiting.remove(which % waiting.len());
                    prop_assert!(set.cancel(at(now), ids[&name], &mut woken));
                }
                Step::Finish(which) if !executing.is_empty() => {
                    let name = executing.swap_remove(which % executing.len());
                    if set.finish(at(now), ids[&name], &mut woken).is_some() {
                        lingering.push(name);
                    }
                }
                Step::Release(which) if !lingering.is_empty() => {
                    let name = lingering.swap_remove(which % lingering.len());
                    set.release(at(now), ids[&name], &mut woken);
                }
                Step::Configure { queues, limit: seats, reject } => {
                    limit = seats;
                    let queuing = if reject { Queuing::Reject } else { queuing(queues, 1, 3) };
                    set.configure(at(now), queuing, limit, &mut woken);
                }
                _ => {}
            }
            for name in woken {
                let at = waiting.iter().position(|other| *other == name);
                prop_assert!(at.is_some(), "{name} is woken and does not wait");
                waiting.remove(at.unwrap_or_default());
                executing.push(name);
            }
            prop_assert_eq!((set.waiting(), set.executing()), (waiting.len(), executing.len()));
            let taken: u32 = set
                .requests()
                .filter(|(_, request)| request.state != State::Waiting)
                .map(|(_, request)| request.work.max_seats())
                .sum();
            prop_assert_eq!(set.seats_in_use(), taken);
            let by_queue: usize = set.queues().iter().map(|queue| queue.waiting().len()).sum();
            prop_assert_eq!(by_queue, waiting.len());
            let active = set.queues().iter().filter(|queue| queue.is_active()).count();
            prop_assert_eq!(active, set.active_queues);
            // more seats than there are: only for who is alone, or who had them when there were more
            prop_assert!(
                set.seats_in_use() <= limit.max(before) || executing.len() == 1,
                "{} of {limit}", set.seats_in_use()
            );
            // who could run, runs
            if let Some(queue) = set.next_queue()
                && set.seats_in_use() < limit
            {
                let head = set.queues()[queue].waiting()[0];
                prop_assert!(!set.can_accommodate(set.request(head).unwrap().work.max_seats()));
            }
        }
        // once all have finished, nobody is left behind
        let mut woken = Vec::new();
        set.configure(at(now), queuing(2, 1, 3), 3, &mut woken);
        loop {
            for name in woken.drain(..) {
                waiting.retain(|other| *other != name);
                executing.push(name);
            }
            now += 10;
            let Some(name) = executing.pop() else {
                let Some(name) = lingering.pop() else { break };
                set.release(at(now), ids[&name], &mut woken);
                continue;
            };
            if set.finish(at(now), ids[&name], &mut woken).is_some() {
                lingering.push(name);
            }
        }
        prop_assert!(waiting.is_empty() && set.is_idle());
        prop_assert_eq!((set.seats_in_use(), set.queues().len(), set.requests().count()), (0, 2, 0));
    }

    #[test]
    fn flows_that_always_ask_get_equal_time(weights in proptest::collection::vec(1_u64..20, 2..5)) {
        // each flow has a queue of its own and always somebody waiting; its requests take as many milliseconds as it says
        let mut set: QueueSet<usize, usize> = QueueSet::new(at(0), queuing(8, 1, 1000), 1);
        let mut time = vec![0; weights.len()];
        let mut woken = Vec::new();
        for flow in 0..weights.len() {
            for _ in 0..3 {
                set.start(at(0), flow as u64, WorkEstimate::seats(1), flow, || flow, &mut woken);
            }
        }
        let mut now = 0;
        while now < 5000 {
            let running = set.requests().find(|(_, request)| request.state == State::Executing);
            let Some((id, flow)) = running.map(|(id, request)| (id, request.about)) else { break };
            now += weights[flow];
            time[flow] += weights[flow];
            set.finish(at(now), id, &mut woken);
            set.start(at(now), flow as u64, WorkEstimate::seats(1), flow, || flow, &mut woken);
        }
        let fair = now / weights.len() as u64;
        for (flow, time) in time.iter().enumerate() {
            prop_assert!(time.abs_diff(fair) <= 150, "flow {flow} had {time} of {fair} in {weights:?}");
        }
    }
}
