//! Where the temporaries of one program lie: lifetimes in, offsets into one arena out.
//!
//! Offsets come from the greedy-by-size algorithm for offset calculation (Pisarchyk and Lee, "Efficient Memory Management
//! for Deep Neural Net Inference", 2020, algorithm 3): the largest block first, each into the tightest gap among the blocks that
//! live at the same time. Where too many blocks overlap for its quadratic search, blocks are placed in program order from a
//! best-fit free list instead, in `n log n`.

use crate::error::{Result, ensure, fail};
use crate::limits::CONTEXT_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// Alignment of every block in bytes: a cache line, and a full AVX-512 register.
pub const ALIGNMENT: usize = 64;

/// Pairs of blocks alive together up to which the tightest placement is searched for.
const OVERLAPS_MAX: usize = 2_000_000;

/// A stretch of memory and the steps between which it holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Size; 0 takes no room.
    pub bytes: usize,
    /// The first step that writes it.
    pub first: usize,
    /// The last step that reads or writes it, not before `first`.
    pub last: usize,
}

impl Block {
    fn padded(&self) -> usize {
        self.bytes.next_multiple_of(ALIGNMENT)
    }
}

/// The arena of one program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Per block, its position in bytes, a multiple of [`ALIGNMENT`].
    pub offsets: Vec<usize>,
    /// Bytes of the whole arena, a multiple of [`ALIGNMENT`].
    pub bytes: usize,
}

/// Places `blocks` so that no two that are alive at the same step overlap.
///
/// Each pair `(old, new)` of `in_place` says that `new` may take over the memory of `old`, because the step that first writes `new`
/// is the last to use `old` and works element by element. A pair is honoured where the sizes agree and `old` has not been
/// taken over already. `TooLarge` if the arena exceeds [`CONTEXT_BYTES_MAX`].
pub fn place(blocks: &[Block], in_place: &[(usize, usize)]) -> Result<Layout> {
    for (index, block) in blocks.iter().enumerate() {
        ensure!(block.first <= block.last, Internal, "arena block {index} dies before it is born");
        ensure!(block.bytes <= CONTEXT_BYTES_MAX, TooLarge, "a temporary takes {} bytes", block.bytes);
    }
    let (group_of, groups) = merge(blocks, in_place);
    let best = match overlaps(&groups) {
        Some(neighbours) => place_by_size(&groups, &neighbours),
        None => place_in_order(&groups),
    };
    let top = |offsets: &[usize]| {
        let ends = groups.iter().zip(offsets).filter(|(group, _)| group.bytes > 0);
        ends.map(|(group, offset)| offset.saturating_add(group.padded())).max().unwrap_or(0)
    };
    let bytes = top(&best);
    ensure!(bytes <= CONTEXT_BYTES_MAX, TooLarge, "the temporaries of one request take {bytes} bytes");
    Ok(Layout { offsets: group_of.iter().map(|&group| best[group]).collect(), bytes })
}

/// The bytes that no placement can go below: the most that is alive at one step.
pub fn lower_bound(blocks: &[Block]) -> usize {
    let mut changes: Vec<(usize, bool, usize)> = Vec::with_capacity(2 * blocks.len());
    for block in blocks {
        changes.push((block.first, true, block.padded()));
        changes.push((block.last + 1, false, block.padded()));
    }
    changes.sort_unstable();
    let (mut alive, mut most) = (0usize, 0);
    for (_, born, bytes) in changes {
        alive = if born { alive.saturating_add(bytes) } else { alive.saturating_sub(bytes) };
        most = most.max(alive);
    }
    most
}

/// Joins blocks that take over each other's memory. Gives each block's group, and the groups as blocks.
fn merge(blocks: &[Block], in_place: &[(usize, usize)]) -> (Vec<usize>, Vec<Block>) {
    let mut heir = vec![None; blocks.len()];
    let mut has_donor = vec![false; blocks.len()];
    for &(old, new) in in_place {
        let fits = blocks[old].bytes == blocks[new].bytes && blocks[old].last == blocks[new].first;
        // A block that is born and dies in one step could inherit from its own heir.
        let ordered = blocks[old].first < blocks[new].first;
        if fits && ordered && heir[old].is_none() && !has_donor[new] {
            heir[old] = Some(new);
            has_donor[new] = true;
        }
    }
    let mut group_of = vec![0; blocks.len()];
    let mut groups = Vec::new();
    for start in (0..blocks.len()).filter(|&index| !has_donor[index]) {
        let mut group = blocks[start];
        let mut member = Some(start);
        while let Some(index) = member {
            group_of[index] = groups.len();
            group.last = group.last.max(blocks[index].last);
            member = heir[index];
        }
        groups.push(group);
    }
    (group_of, groups)
}

/// Per block, the others alive at the same time; `None` if there are more than [`OVERLAPS_MAX`] pairs.
fn overlaps(blocks: &[Block]) -> Option<Vec<Vec<usize>>> {
    let mut by_birth: Vec<usize> = (0..blocks.len()).filter(|&index| blocks[index].bytes > 0).collect();
    by_birth.sort_by_key(|&index| blocks[index].first);
    let mut neighbours = vec![Vec::new(); blocks.len()];
    let mut pairs = 0;
    for (position, &index) in by_birth.iter().enumerate() {
        let later = by_birth[position + 1..].iter().take_while(|&&other| blocks[other].first <= blocks[index].last);
        for &other in later {
            pairs += 1;
            if pairs > OVERLAPS_MAX {
                return None;
            }
            neighbours[index].push(other);
            neighbours[other].push(index);
        }
    }
    Some(neighbours)
}

fn place_by_size(blocks: &[Block], neighbours: &[Vec<usize>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..blocks.len()).filter(|&index| blocks[index].bytes > 0).collect();
    let span = |index: usize| blocks[index].last - blocks[index].first;
    order.sort_by_key(|&index| (std::cmp::Reverse((blocks[index].bytes, span(index))), index));
    let mut offsets = vec![0usize; blocks.len()];
    let mut placed = vec![false; blocks.len()];
    for index in order {
        let needed = blocks[index].padded();
        let mut taken: Vec<(usize, usize)> = neighbours[index]
            .iter()
            .filter(|&&other| placed[other])
            .map(|&other| (offsets[other], offsets[other].saturating_add(blocks[other].padded())))
            .collect();
        taken.sort_unstable();
        let (mut end, mut best): (usize, Option<(usize, usize)>) = (0, None);
        for (start, stop) in taken {
            if start > end && start - end >= needed && best.is_none_or(|(gap, _)| start - end < gap) {
                best = Some((start - end, end));
            }
            end = end.max(stop);
        }
        offsets[index] = best.map_or(end, |(_, offset)| offset);
        placed[index] = true;
    }
    offsets
}

/// Best fit from a free list, in order of birth.
fn place_in_order(blocks: &[Block]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..blocks.len()).filter(|&index| blocks[index].bytes > 0).collect();
    order.sort_by_key(|&index| (blocks[index].first, std::cmp::Reverse(blocks[index].bytes)));
    let mut offsets = vec![0usize; blocks.len()];
    let mut free = FreeList::default();
    let mut deaths: BTreeSet<(usize, usize)> = BTreeSet::new();
    for index in order {
        while let Some(&(last, dead)) = deaths.first()
            && last < blocks[index].first
        {
            deaths.pop_first();
            free.give(offsets[dead], blocks[dead].padded());
        }
        offsets[index] = free.take(blocks[index].padded());
        deaths.insert((blocks[index].last, index));
    }
    offsets
}

/// Free ranges below `top`, which is itself free without end.
#[derive(Default)]
struct FreeList {
    by_start: BTreeMap<usize, usize>,
    by_size: BTreeSet<(usize, usize)>,
    top: usize,
}

impl FreeList {
    fn take(&mut self, bytes: usize) -> usize {
        let Some(&(size, start)) = self.by_size.range((bytes, 0)..).next() else {
            let start = self.top;
            self.top = self.top.saturating_add(bytes);
            return start;
        };
        self.remove(start, size);
        if size > bytes {
            self.insert(start + bytes, size - bytes);
        }
        start
    }

    fn give(&mut self, mut start: usize, mut bytes: usize) {
        if let Some((&before, &size)) = self.by_start.range(..start).next_back()
            && before + size == start
        {
            self.remove(before, size);
            (start, bytes) = (before, bytes + size);
        }
        if let Some(&size) = self.by_start.get(&(start + bytes)) {
            self.remove(start + bytes, size);
            bytes += size;
        }
        if start + bytes == self.top {
            self.top = start;
        } else {
            self.insert(start, bytes);
        }
    }

    fn insert(&mut self, start: usize, bytes: usize) {
        self.by_start.insert(start, bytes);
        self.by_size.insert((bytes, start));
    }

    fn remove(&mut self, start: usize, bytes: usize) {
        self.by_start.remove(&start);
        self.by_size.remove(&(bytes, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(bytes: usize, first: usize, last: usize) -> Block {
        Block { bytes, first, last }
    }

    /// A small linear congruential generator: tests need no more.
    fn random(seed: &mut u64, below: usize) -> usize {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*seed >> 33) as usize % below
    }

    fn random_blocks(seed: u64, count: usize) -> Vec<Block> {
        let mut seed = seed;
        (0..count)
            .map(|_| {
                let first = random(&mut seed, count);
                block(random(&mut seed, 5000), first, first + random(&mut seed, 12))
            })
            .collect()
    }

    fn assert_disjoint(blocks: &[Block], offsets: &[usize], bytes: usize) {
        for (i, a) in blocks.iter().enumerate().filter(|(_, block)| block.bytes > 0) {
            assert_eq!(offsets[i] % ALIGNMENT, 0);
            assert!(offsets[i] + a.bytes <= bytes);
            for (j, b) in blocks.iter().enumerate().take(i).filter(|(_, block)| block.bytes > 0) {
                let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                let together = a.first <= b.last && b.first <= a.last;
                assert!(!together || apart, "{a:?} at {} and {b:?} at {}", offsets[i], offsets[j]);
            }
        }
    }

    #[test]
    fn blocks_alive_together_never_overlap_and_totals_are_close_to_the_bound() {
        let (mut total, mut bound) = (0, 0);
        for seed in 0..40 {
            let blocks = random_blocks(seed, 120);
            let layout = place(&blocks, &[]).unwrap();
            assert_disjoint(&blocks, &layout.offsets, layout.bytes);
            total += layout.bytes;
            bound += lower_bound(&blocks);
        }
        assert!(total * 100 <= bound * 108, "{total} bytes where {bound} are needed");
    }

    #[test]
    fn placement_in_order_is_sound_too() {
        for seed in 0..20 {
            let blocks = random_blocks(seed, 150);
            assert_disjoint(&blocks, &place_in_order(&blocks), usize::MAX);
        }
    }

    #[test]
    fn a_chain_needs_its_two_largest_neighbours() {
        let sizes = [64, 640, 6400, 64, 1280];
        let blocks: Vec<Block> = sizes.iter().enumerate().map(|(i, &bytes)| block(bytes, i, i + 1)).collect();
        assert_eq!(place(&blocks, &[]).unwrap().bytes, 640 + 6400);
    }

    #[test]
    fn an_elementwise_chain_runs_in_place() {
        let blocks = [block(640, 0, 1), block(640, 1, 2), block(640, 2, 3), block(64, 3, 4)];
        let layout = place(&blocks, &[(0, 1), (1, 2), (2, 3)]).unwrap();
        assert_eq!(layout.offsets[..3], [0, 0, 0]);
        assert_eq!(layout.bytes, 640 + 64, "blocks of different sizes do not share");
        let used_later = [block(64, 0, 5), block(64, 1, 2)];
        assert_eq!(place(&used_later, &[(0, 1)]).unwrap().bytes, 128, "the old value is still needed");
    }

    #[test]
    fn a_hundred_thousand_blocks_alive_at_once_take_the_other_way() {
        let blocks: Vec<Block> = (0..100_000).map(|i| block(64, i, 100_000)).collect();
        assert!(overlaps(&blocks).is_none());
        assert_eq!(place(&blocks, &[]).unwrap().bytes, 64 * 100_000);
    }

    #[test]
    fn an_arena_over_the_limit_is_refused() {
        let blocks = [block(CONTEXT_BYTES_MAX, 0, 1), block(64, 0, 1)];
        assert_eq!(place(&blocks, &[]).unwrap_err().status, crate::error::Status::TooLarge);
    }
}
