//! The order of nodes, and which of them matter.

use crate::error::{Error, Result, fail};
use crate::ir::{Node, ValueId};
use std::collections::{HashMap, HashSet};

/// A node whose graph is not complete yet.
#[derive(Debug)]
pub struct Draft {
    /// The node.
    pub node: Node,
    /// Outer values that its subgraphs read.
    pub captures: Vec<ValueId>,
    /// Why the node cannot be used, should anything need it.
    pub fault: Option<Error>,
}

impl Draft {
    /// Every value that must be there before the node runs.
    fn reads(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.node.inputs.iter().flatten().chain(&self.captures).copied()
    }
}

/// Puts every node after the producers of what it reads. Nodes in such an order already, as ONNX asks for, stay as they are.
pub fn sort(drafts: Vec<Draft>) -> Result<Vec<Draft>> {
    let mut producers = HashMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        producers.extend(draft.node.outputs.iter().flatten().map(|&value| (value, index)));
    }
    let producer = |value: ValueId| producers.get(&value).copied();
    let in_order = |(index, draft): (usize, &Draft)| draft.reads().filter_map(producer).all(|at| at < index);
    if drafts.iter().enumerate().all(in_order) {
        return Ok(drafts);
    }

    let mut order = Vec::with_capacity(drafts.len());
    let mut states = vec![State::New; drafts.len()];
    for start in 0..drafts.len() {
        let mut path = Vec::new();
        let mut next = Some(start);
        loop {
            if let Some(index) = next {
                match states[index] {
                    State::Placed => {}
                    State::OnPath => return Err(cycle(&drafts[index])),
                    State::New => {
                        states[index] = State::OnPath;
                        let before: Vec<usize> = drafts[index].reads().filter_map(producer).collect();
                        path.push((index, before.into_iter()));
                    }
                }
            }
            let Some((index, before)) = path.last_mut() else { break };
            next = before.next();
            if next.is_none() {
                states[*index] = State::Placed;
                order.push(*index);
                path.pop();
            }
        }
    }
    let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| drafts[index].take()).collect())
}

#[derive(Clone, Copy)]
enum State {
    New,
    OnPath,
    Placed,
}

fn cycle(draft: &Draft) -> Error {
    fail!(Malformed, "node '{}' ({}) needs its own result: the graph has a cycle", draft.node.name, draft.node.op)
}

/// Drops sorted nodes that nothing needs. `needed` starts as what the outputs read and becomes everything that is read.
pub fn prune(drafts: Vec<Draft>, needed: &mut HashSet<ValueId>) -> Vec<Draft> {
    let mut kept: Vec<Draft> = Vec::with_capacity(drafts.len());
    for draft in drafts.into_iter().rev() {
        if draft.node.outputs.iter().flatten().any(|value| needed.contains(value)) {
            needed.extend(draft.reads());
            kept.push(draft);
        }
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use std::collections::BTreeMap;

    fn draft(name: &str, reads: &[u32], captures: &[u32], writes: u32) -> Draft {
        let node = Node {
            name: name.into(),
            op: "Op".into(),
            domain: String::new(),
            inputs: reads.iter().map(|&value| Some(ValueId(value))).collect(),
            outputs: vec![Some(ValueId(writes)), None],
            attributes: BTreeMap::new(),
        };
        Draft { node, captures: captures.iter().map(|&value| ValueId(value)).collect(), fault: None }
    }

    fn names(drafts: &[Draft]) -> Vec<&str> {
        drafts.iter().map(|draft| draft.node.name.as_str()).collect()
    }

    #[test]
    fn producers_come_first_and_order_is_otherwise_kept() {
        let drafts = vec![draft("c", &[2, 9], &[], 3), draft("b", &[1], &[], 2), draft("a", &[0], &[], 1)];
        assert_eq!(names(&sort(drafts).unwrap()), ["a", "b", "c"]);
        let captured = vec![draft("if", &[], &[5], 6), draft("late", &[0], &[], 5)];
        assert_eq!(names(&sort(captured).unwrap()), ["late", "if"]);
        let in_order = vec![draft("y", &[0], &[], 2), draft("x", &[0], &[], 1)];
        assert_eq!(names(&sort(in_order).unwrap()), ["y", "x"]);
    }

    #[test]
    fn a_cycle_is_malformed_and_named() {
        for drafts in [
            vec![draft("a", &[2], &[], 1), draft("b", &[1], &[], 2)],
            vec![draft("a", &[1], &[], 1)],
            vec![draft("a", &[], &[1], 1)],
        ] {
            let error = sort(drafts).unwrap_err();
            assert_eq!(error.status, Status::Malformed);
            assert!(error.message.contains("node 'a'"), "{error}");
        }
    }

    #[test]
    fn a_long_chain_backwards_is_sorted_without_recursion() {
        let drafts = (0..100_000).rev().map(|index| draft("n", &[index], &[], index + 1)).collect();
        assert!(
            sort(drafts)
                .unwrap()
                .iter()
                .enumerate()
                .all(|(at, draft)| draft.node.outputs[0] == Some(ValueId(at as u32 + 1)))
        );
    }

    #[test]
    fn dead_nodes_go_and_captures_keep_nodes_alive() {
        let drafts = vec![
            draft("captured", &[0], &[], 1),
            draft("dead", &[0], &[], 2),
            draft("dead too", &[2], &[], 3),
            draft("if", &[], &[1], 4),
        ];
        let mut needed = HashSet::from([ValueId(4)]);
        assert_eq!(names(&prune(drafts, &mut needed)), ["captured", "if"]);
        assert_eq!(needed, HashSet::from([ValueId(0), ValueId(1), ValueId(4)]));
    }
}
