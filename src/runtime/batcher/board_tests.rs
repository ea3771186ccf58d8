//! Every rule of the board, at times of the test's own.

use super::batch::{Closing, Misuse, Notice, Order, Refusal, Size, Turn};
use super::board::Board;
use super::service::Service;
use super::slot::{Phase, SlotId};
use crate::error::Status;
use crate::limits::BATCHER_DIMENSIONS_MAX;

const DELAY: u64 = 1_000;
const WAKE: u64 = 10;
const NONE: u64 = u64::MAX;

/// A board with batches of 1, 2 and 4 rows that take 100, 160 and 320, and a second class of 1 and 4.
fn board(batches: usize) -> Board {
    let size = |rows, bucket, ns| Size { rows, bucket, service: Service::measured(ns) };
    let sizes = vec![vec![size(1, 0, 100), size(2, 1, 160), size(4, 2, 320)], vec![size(1, 3, 100), size(4, 4, 400)]];
    Board::new(batches, sizes, DELAY, (WAKE, 200))
}

fn reserve(board: &mut Board, rows: usize, deadline_ns: u64, now_ns: u64) -> SlotId {
    board.reserve(0, rows, deadline_ns, [0; BATCHER_DIMENSIONS_MAX], now_ns).unwrap()
}

fn refused(board: &mut Board, class: usize, deadline_ns: u64, now_ns: u64) -> Refusal {
    board.reserve(class, 1, deadline_ns, [0; BATCHER_DIMENSIONS_MAX], now_ns).unwrap_err()
}

/// Where a slot lies: batch and row.
fn place(board: &Board, id: SlotId) -> (usize, usize) {
    let place = board.place(id).unwrap();
    (place.batch, place.row)
}

/// Where the next slot lies.
fn lands(board: &mut Board, rows: usize, now_ns: u64) -> (usize, usize) {
    let id = reserve(board, rows, NONE, now_ns);
    place(board, id)
}

fn phase(board: &Board, id: SlotId) -> Phase {
    board.place(id).unwrap().phase
}

/// A turn in which no completion is due.
fn turn(board: &mut Board, now_ns: u64) -> Turn {
    board.turn(now_ns, &mut |notice| panic!("{notice:?}"))
}

fn launched(board: &mut Board, now_ns: u64) -> Order {
    match turn(board, now_ns) {
        Turn::Launch(order) => order,
        other => panic!("{other:?}"),
    }
}

fn end(board: &mut Board, batch: usize, status: Status) {
    board.ended(batch, status, 100, &mut |notice| panic!("{notice:?}"));
}

#[test]
fn a_full_batch_closes_with_its_last_commit_in_the_bucket_that_holds_it() {
    let mut board = board(2);
    let ids: Vec<SlotId> = (0..4).map(|_| reserve(&mut board, 1, NONE, 0)).collect();
    assert_eq!(ids.iter().map(|&id| place(&board, id)).collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 2), (0, 3)]);
    let next = reserve(&mut board, 1, NONE, 1);
    assert_eq!(place(&board, next), (1, 0), "a full batch takes no more");
    for &id in &ids[..3] {
        board.commit(id, 0).unwrap();
        assert_eq!(turn(&mut board, 1), Turn::Rest(DELAY));
    }
    board.commit(ids[3], 0).unwrap();
    assert_eq!(launched(&mut board, 1), Order { batch: 0, bucket: 2, deadline_ns: 0 });
    assert_eq!(turn(&mut board, 1), Turn::Rest(1 + DELAY));
    end(&mut board, 0, Status::Ok);
    assert!(ids.iter().all(|&id| phase(&board, id) == Phase::Ended(Status::Ok)));
    assert_eq!(board.totals().padding_rows, 0);
}

#[test]
fn a_batch_closes_after_its_delay_and_what_is_not_committed_has_expired() {
    let mut board = board(1);
    let (first, second, third) =
        (reserve(&mut board, 1, NONE, 10), reserve(&mut board, 1, NONE, 20), reserve(&mut board, 1, NONE, 30));
    board.commit(first, 0).unwrap();
    board.commit(second, 0).unwrap();
    assert_eq!(turn(&mut board, 9 + DELAY), Turn::Rest(10 + DELAY));
    assert_eq!(launched(&mut board, 10 + DELAY), Order { batch: 0, bucket: 1, deadline_ns: 0 });
    assert_eq!(phase(&board, third), Phase::Ended(Status::Expired));
    assert_eq!(board.commit(third, 0), Err(Misuse::Phase(Phase::Ended(Status::Expired))));
    assert_eq!(refused(&mut board, 0, NONE, 10 + DELAY), Refusal::Full, "a closed batch takes nothing");
    end(&mut board, 0, Status::Ok);
    for id in [first, second] {
        board.release(id).unwrap();
    }
    assert_eq!(refused(&mut board, 0, NONE, 2 * DELAY), Refusal::Full, "the owner of the third may still write");
    board.abandon(third).unwrap();
    assert_eq!(lands(&mut board, 1, 10 * DELAY), (0, 0));
}

#[test]
fn how_a_batch_closed_is_known_until_its_last_slot_is_given_back() {
    let mut board = board(1);
    for number in 1..=2u64 {
        let opened_ns = number * 10_000;
        let ids: Vec<SlotId> = (0..3).map(|late| reserve(&mut board, 1, NONE, opened_ns + late)).collect();
        assert_eq!(board.closing(0), Closing::default());
        ids.iter().for_each(|&id| board.commit(id, 0).unwrap());
        let closed_ns = opened_ns + DELAY + 5;
        launched(&mut board, closed_ns);
        board.postpone(0, closed_ns + 50);
        launched(&mut board, closed_ns + 50);
        // The first has been learnt from: an eighth of what 320 and 100 differ by.
        let usual_ns = [320, 292][number as usize - 1];
        end(&mut board, 0, Status::Ok);
        let closing = Closing { number, rows: 3, bucket_rows: 4, opened_ns, closed_ns, usual_ns };
        for id in ids {
            assert_eq!(board.closing(0), closing);
            board.release(id).unwrap();
        }
    }
}

#[test]
fn a_batch_closes_in_time_for_its_earliest_deadline() {
    let mut board = board(1);
    let ids: Vec<SlotId> = [NONE, 700, 900].map(|deadline| reserve(&mut board, 1, deadline, 0)).to_vec();
    // Three rows run in the bucket of four: 320 and a quarter.
    assert_eq!(turn(&mut board, 0), Turn::Rest(300 - WAKE));
    ids.iter().for_each(|&id| board.commit(id, 0).unwrap());
    // Without the one whose deadline is the earliest there is more time.
    assert!(board.give_up(ids[1], Status::Cancelled, &mut |_| ()).unwrap());
    assert_eq!(turn(&mut board, 300), Turn::Rest(500 - WAKE));
    assert_eq!(launched(&mut board, 500 - WAKE), Order { batch: 0, bucket: 2, deadline_ns: 0 });
}

#[test]
fn what_cannot_be_met_has_expired_at_reserve_or_when_its_batch_closes() {
    let mut board = board(2);
    assert_eq!(refused(&mut board, 0, 100, 0), Refusal::Late);
    assert_eq!(refused(&mut board, 0, 125 + WAKE, 0), Refusal::Late, "a batch of one takes 100 and a quarter");
    let early = reserve(&mut board, 1, 126 + WAKE, 0);
    board.commit(early, 0).unwrap();
    // The one who closes it comes too late.
    assert_eq!(turn(&mut board, 27 + WAKE), Turn::Closed(0));
    assert_eq!(phase(&board, early), Phase::Ended(Status::Expired));
    board.release(early).unwrap();
    assert_eq!(board.totals().batches, 0);
    // Next to one that can be met.
    let ids = [200, 5_000].map(|deadline| reserve(&mut board, 1, deadline, 0));
    assert_ne!(
        place(&board, ids[0]).0,
        place(&board, ids[1]).0,
        "two rows take 200, and the first has no time for that"
    );
    board.abandon(ids[0]).unwrap();
    let (late, fine) = (reserve(&mut board, 1, 2_000, 0), ids[1]);
    assert_eq!(place(&board, late).0, place(&board, fine).0);
    board.commit(late, 0).unwrap();
    board.commit(fine, 0).unwrap();
    let order = launched(&mut board, 1_900);
    assert_eq!((order.batch, order.bucket, order.deadline_ns), (place(&board, fine).0, 0, 5_000));
    assert_eq!(phase(&board, late), Phase::Ended(Status::Expired));
    assert_eq!(phase(&board, fine), Phase::Committed);
}

#[test]
fn who_closes_late_gets_more_time_within_bounds() {
    let mut board = board(1);
    let late_by = |board: &mut Board, late_ns: u64| {
        let id = reserve(board, 1, NONE, 0);
        assert_eq!(turn(board, DELAY + late_ns), Turn::Closed(0));
        board.abandon(id).unwrap();
    };
    late_by(&mut board, 40);
    assert_eq!(board.wake_ns, (7 * WAKE + 80) / 8);
    (0..100).for_each(|_| late_by(&mut board, 5_000));
    assert_eq!(board.wake_ns, 200);
    (0..100).for_each(|_| late_by(&mut board, 0));
    assert_eq!(board.wake_ns, WAKE);
}

#[test]
fn refusals_because_of_a_bad_average_end_it() {
    let mut board = board(1);
    for _ in 0..100 {
        let id = reserve(&mut board, 4, NONE, 0);
        board.commit(id, 0).unwrap();
        launched(&mut board, 0);
        board.ended(0, Status::Ok, 10_000, &mut |_| ());
        board.release(id).unwrap();
    }
    let mut refusals = 0;
    while board.reserve(0, 4, 500, [0; BATCHER_DIMENSIONS_MAX], 0).is_err() {
        refusals += 1;
    }
    assert!((10..300).contains(&refusals), "{refusals}");
}

#[test]
fn an_abandoned_row_is_the_next_ones() {
    let mut board = board(1);
    let ids: Vec<SlotId> = (0..4).map(|_| reserve(&mut board, 1, NONE, 0)).collect();
    assert_eq!(refused(&mut board, 0, NONE, 0), Refusal::Full);
    board.abandon(ids[1]).unwrap();
    assert_eq!(board.commit(ids[1], 0), Err(Misuse::Stale));
    let again = reserve(&mut board, 1, NONE, 0);
    assert_eq!(place(&board, again), (0, 1));
    assert_ne!(again, ids[1]);
    [again, ids[2], ids[3]].iter().for_each(|&id| board.abandon(id).unwrap());
    board.commit(ids[0], 0).unwrap();
    assert_eq!(launched(&mut board, DELAY).bucket, 0, "what is left fits the smallest");
    end(&mut board, 0, Status::Ok);
    board.release(ids[0]).unwrap();
    // A batch that all have left is nobody's.
    let id = reserve(&mut board, 1, NONE, 0);
    board.abandon(id).unwrap();
    assert_eq!(turn(&mut board, NONE - 1), Turn::Rest(NONE));
    assert_eq!(board.occupancy().slots, 0);
}

#[test]
fn groups_of_rows_are_neighbours() {
    let mut board = board(2);
    let (pair, single) = (reserve(&mut board, 2, NONE, 0), reserve(&mut board, 1, NONE, 0));
    assert_eq!((place(&board, pair), place(&board, single)), ((0, 0), (0, 2)));
    board.commit(pair, 0).unwrap();
    board.commit(single, 0).unwrap();
    // Two more do not fit; the first batch waits for nobody and goes.
    let other = reserve(&mut board, 2, NONE, 0);
    assert_eq!(place(&board, other), (1, 0));
    assert_eq!(launched(&mut board, 0), Order { batch: 0, bucket: 2, deadline_ns: 0 });
    assert_eq!((board.totals().rows, board.totals().padding_rows), (3, 1));
    // A hole is found again, if it is large enough.
    let (last, end) = (reserve(&mut board, 1, NONE, 0), reserve(&mut board, 1, NONE, 0));
    board.abandon(other).unwrap();
    board.abandon(end).unwrap();
    assert_eq!(place(&board, last), (1, 2));
    assert_eq!(lands(&mut board, 2, 0), (1, 0));
}

#[test]
fn classes_do_not_share_a_batch() {
    let mut board = board(2);
    let first = reserve(&mut board, 1, NONE, 0);
    let second = board.reserve(1, 1, NONE, [0; BATCHER_DIMENSIONS_MAX], 5).unwrap();
    assert_eq!((place(&board, first).0, place(&board, second).0), (0, 1));
    assert_eq!(lands(&mut board, 1, 6), (0, 1));
    board.commit(second, 0).unwrap();
    assert_eq!(turn(&mut board, DELAY), Turn::Closed(0));
    assert_eq!(launched(&mut board, 5 + DELAY), Order { batch: 1, bucket: 3, deadline_ns: 0 });
}

#[test]
fn a_failed_batch_fails_its_own_slots_only() {
    let mut board = board(2);
    let ids: Vec<SlotId> = (0..8).map(|_| reserve(&mut board, 1, NONE, 0)).collect();
    ids.iter().for_each(|&id| board.commit(id, 0).unwrap());
    let orders = [launched(&mut board, 0), launched(&mut board, 0)];
    end(&mut board, orders[0].batch, Status::Driver);
    assert!(ids[..4].iter().all(|&id| phase(&board, id) == Phase::Ended(Status::Driver)));
    assert!(ids[4..].iter().all(|&id| phase(&board, id) == Phase::Committed));
    ids[..4].iter().for_each(|&id| board.release(id).unwrap());
    assert_eq!(lands(&mut board, 1, 0).0, orders[0].batch, "the context works on");
    end(&mut board, orders[1].batch, Status::Panicked);
    ids[4..].iter().for_each(|&id| board.release(id).unwrap());
    for row in 1..4 {
        assert_eq!(lands(&mut board, 1, 0), (orders[0].batch, row));
    }
    assert_eq!(
        refused(&mut board, 0, NONE, 0),
        Refusal::Full,
        "a context in which a worker has panicked is not used again"
    );
}

#[test]
fn when_every_context_has_panicked_that_is_said() {
    let mut board = board(1);
    let id = reserve(&mut board, 4, NONE, 0);
    board.commit(id, 0).unwrap();
    launched(&mut board, 0);
    end(&mut board, 0, Status::Panicked);
    board.release(id).unwrap();
    assert_eq!(refused(&mut board, 0, NONE, 0), Refusal::Lost);
}

#[test]
fn a_cancelled_slot_ends_at_once_and_its_row_drains_with_the_batch() {
    let mut board = board(1);
    let ids: Vec<SlotId> = (0..4).map(|_| reserve(&mut board, 1, NONE, 0)).collect();
    assert_eq!(board.give_up(ids[0], Status::Cancelled, &mut |_| ()), Err(Misuse::Phase(Phase::Reserved)));
    ids.iter().for_each(|&id| board.commit(id, 0).unwrap());
    launched(&mut board, 0);
    assert_eq!(board.give_up(ids[0], Status::Cancelled, &mut |_| ()), Ok(true));
    assert_eq!(board.give_up(ids[0], Status::Cancelled, &mut |_| ()), Ok(false));
    assert_eq!(phase(&board, ids[0]), Phase::Ended(Status::Cancelled));
    assert_eq!(board.release(ids[1]), Err(Misuse::Phase(Phase::Committed)));
    board.release(ids[0]).unwrap();
    assert_eq!(refused(&mut board, 0, NONE, 0), Refusal::Full, "the row is part of a batch that runs");
    end(&mut board, 0, Status::Ok);
    assert_eq!(board.give_up(ids[1], Status::Cancelled, &mut |_| ()), Ok(false));
    ids[1..].iter().for_each(|&id| board.release(id).unwrap());
    assert_eq!(lands(&mut board, 1, 0), (0, 0));
}

#[test]
fn a_parked_slot_has_one_completion_and_its_row_is_free_once_that_is_reaped() {
    let mut board = board(1);
    let ids = [reserve(&mut board, 2, NONE, 0), reserve(&mut board, 2, NONE, 0)];
    assert_eq!(board.park(ids[0], &mut |_| ()), Err(Misuse::Phase(Phase::Reserved)));
    board.commit(ids[0], 7).unwrap();
    board.park(ids[0], &mut |notice| panic!("{notice:?}")).unwrap();
    assert_eq!(board.park(ids[0], &mut |_| ()), Err(Misuse::ParkedAlready));
    board.commit(ids[1], 8).unwrap();
    launched(&mut board, 0);
    let mut notices = Vec::new();
    board.ended(0, Status::Ok, 1, &mut |notice| notices.push(notice));
    assert_eq!(notices, [Notice { index: 0, token: 7, status: Status::Ok }]);
    board.park(ids[1], &mut |notice| notices.push(notice)).unwrap();
    assert_eq!(notices[1..], [Notice { index: 2, token: 8, status: Status::Ok }]);
    ids.iter().for_each(|&id| board.release(id).unwrap());
    assert_eq!(board.release(ids[0]), Err(Misuse::Stale));
    for notice in notices.iter().rev() {
        assert_eq!(refused(&mut board, 0, NONE, 0), Refusal::Full);
        board.reaped(notice.index);
    }
    assert_eq!(lands(&mut board, 1, 0), (0, 0));
}

#[test]
fn a_batch_that_the_device_refuses_is_tried_again_until_it_is_too_late() {
    let mut board = board(2);
    let ids = [reserve(&mut board, 2, 900, 0), reserve(&mut board, 2, NONE, 0)];
    ids.iter().for_each(|&id| board.commit(id, 0).unwrap());
    launched(&mut board, 0);
    assert!(!board.retry());
    board.postpone(0, 50);
    assert_eq!(turn(&mut board, 49), Turn::Rest(50));
    assert_eq!(launched(&mut board, 50), Order { batch: 0, bucket: 2, deadline_ns: 0 });
    board.postpone(0, 5_000);
    assert!(board.retry());
    launched(&mut board, 51);
    board.postpone(0, 850);
    assert_eq!(launched(&mut board, 850).batch, 0);
    assert_eq!((phase(&board, ids[0]), phase(&board, ids[1])), (Phase::Ended(Status::Expired), Phase::Committed));
    assert_eq!(board.totals().batches, 1);
}

#[test]
fn closing_gives_everything_up_for_good() {
    let mut board = board(2);
    let ids: Vec<SlotId> = (0..6).map(|_| reserve(&mut board, 1, NONE, 0)).collect();
    ids[..5].iter().for_each(|&id| board.commit(id, 3).unwrap());
    launched(&mut board, 0);
    board.park(ids[0], &mut |_| ()).unwrap();
    let mut notices = Vec::new();
    board.close_all(&mut |notice| notices.push(notice));
    assert_eq!(notices, [Notice { index: 0, token: 3, status: Status::Cancelled }]);
    assert!(ids.iter().all(|&id| phase(&board, id) == Phase::Ended(Status::Cancelled)));
    assert_eq!(turn(&mut board, NONE - 1), Turn::Rest(NONE));
    assert_eq!(refused(&mut board, 0, NONE, 0), Refusal::Closed);
    end(&mut board, 0, Status::Ok);
    ids.iter().for_each(|&id| board.release(id).unwrap());
    board.reaped(0);
    assert_eq!(board.occupancy().slots, 0);
}

#[test]
fn numbers_that_name_no_slot_are_refused() {
    let mut board = board(1);
    let id = reserve(&mut board, 2, NONE, 0);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..1_000_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Every second one is near the truth.
        let number = if round % 2 == 0 { state } else { id.number() ^ (1 << (state % 64)) };
        if number != id.number() {
            assert!(board.place(SlotId::from_number(number)).is_err(), "{number:#x}");
        }
    }
    assert_eq!(board.place(SlotId::from_number(0)).unwrap_err(), Misuse::Forged);
    assert_eq!(board.place(SlotId::from_number(id.number() + 1)).unwrap_err(), Misuse::Forged, "the slot's second row");
    board.abandon(id).unwrap();
    assert_eq!(board.place(id).unwrap_err(), Misuse::Stale);
}

/// What the test believes of a slot that it has.
struct Belief {
    id: SlotId,
    batch: usize,
    rows: std::ops::Range<usize>,
    is_committed: bool,
    is_parked: bool,
}

/// A million random steps; after each, no row has two owners, and what must end has ended.
#[test]
fn random_lives_keep_the_rules() {
    let mut state = 1u64;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut board = board(3);
    let (mut slots, mut running, mut queued): (Vec<Belief>, Vec<Order>, Vec<Notice>) = Default::default();
    let (mut promised, mut delivered) = (0, 0);
    for now in 0..300_000u64 {
        let now = now * 7;
        let chosen = if slots.is_empty() { None } else { Some(next(slots.len() as u64) as usize) };
        match (next(8), chosen) {
            (0 | 1, _) => {
                let class = next(2) as usize;
                let deadline = if next(2) == 0 { NONE } else { now + next(2_000) };
                let rows = 1 + next(3) as usize;
                if let Ok(id) = board.reserve(class, rows, deadline, [0; BATCHER_DIMENSIONS_MAX], now) {
                    let place = board.place(id).unwrap();
                    let rows = place.row..place.row + rows;
                    let overlaps =
                        |it: &&Belief| it.batch == place.batch && it.rows.start < rows.end && rows.start < it.rows.end;
                    assert!(slots.iter().find(overlaps).is_none() && rows.end <= 4);
                    assert!(running.iter().all(|order| order.batch != place.batch));
                    slots.push(Belief { id, batch: place.batch, rows, is_committed: false, is_parked: false });
                }
            }
            (2 | 3, Some(index)) if board.commit(slots[index].id, index as u64).is_ok() => {
                slots[index].is_committed = true
            }
            (4, Some(index)) if board.park(slots[index].id, &mut |notice| queued.push(notice)).is_ok() => {
                slots[index].is_parked = true;
                promised += 1;
            }
            (5, Some(index)) => {
                let id = slots[index].id;
                let phase = phase(&board, id);
                let given_back = if slots[index].is_committed { board.release(id) } else { board.abandon(id) };
                assert_eq!(given_back.is_ok(), phase != Phase::Committed, "{phase:?}");
                if given_back.is_ok() {
                    slots.swap_remove(index);
                }
            }
            (6, Some(index)) => {
                _ = board.give_up(slots[index].id, Status::Cancelled, &mut |notice| queued.push(notice))
            }
            (7, _) if !running.is_empty() => {
                let order = running.swap_remove(next(running.len() as u64) as usize);
                board.ended(order.batch, if next(9) == 0 { Status::Driver } else { Status::Ok }, 100, &mut |n| {
                    queued.push(n)
                });
            }
            _ => {}
        }
        if next(3) == 0
            && let Some(notice) = queued.pop()
        {
            board.reaped(notice.index);
            delivered += 1;
        }
        loop {
            match board.turn(now, &mut |notice| queued.push(notice)) {
                Turn::Launch(order) if next(5) == 0 => board.postpone(order.batch, now + 20),
                Turn::Launch(order) => running.push(order),
                Turn::Closed(_) => {}
                Turn::Rest(due) => {
                    assert!(due > now);
                    break;
                }
            }
        }
        for order in &running {
            let writers = slots.iter().filter(|it| it.batch == order.batch && phase(&board, it.id) == Phase::Reserved);
            assert_eq!(writers.count(), 0, "nobody writes into a batch that runs");
        }
    }
    while let Some(order) = running.pop() {
        board.ended(order.batch, Status::Ok, 100, &mut |notice| queued.push(notice));
    }
    board.close_all(&mut |notice| queued.push(notice));
    slots.iter().for_each(|it| board.release(it.id).unwrap());
    delivered += queued.len();
    queued.iter().for_each(|notice| board.reaped(notice.index));
    assert_eq!(delivered, promised, "one completion for each promise");
    let (totals, occupancy) = (board.totals(), board.occupancy());
    assert_eq!(occupancy.slots, 0);
    assert!(
        totals.completed > 1_000 && totals.expired > 1_000 && totals.cancelled > 100 && totals.batches > 1_000,
        "{totals:?}"
    );
}
