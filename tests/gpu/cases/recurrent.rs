//! LSTM and GRU.

use super::{Case, case};
use crate::net::Net;
use crate::wire::{float, int, text};
use streaminfer::ir::DType;

/// What a recurrent case has beside its sequence.
#[derive(Clone, Copy, Debug)]
struct Shape {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
}

const SHAPES: [Shape; 4] = [
    Shape { steps: 1, batch: 1, inputs: 3, hidden: 5 },
    Shape { steps: 7, batch: 3, inputs: 10, hidden: 17 },
    Shape { steps: 12, batch: 1, inputs: 128, hidden: 128 },
    Shape { steps: 5, batch: 9, inputs: 33, hidden: 64 },
];

fn directions(direction: &str) -> usize {
    if direction == "bidirectional" { 2 } else { 1 }
}

/// Weights, recurrence weights and biases of a cell with so many gates.
fn weights(net: &mut Net, shape: Shape, gates: usize, directions: usize) -> [String; 3] {
    let rows = gates * shape.hidden;
    [
        net.weight(&[directions, rows, shape.inputs], (shape.inputs as f64).powf(-0.5)),
        net.weight(&[directions, rows, shape.hidden], (shape.hidden as f64).powf(-0.5)),
        net.weight(&[directions, 2 * rows], 0.2),
    ]
}

fn lstm(shape: Shape, direction: &'static str) -> Case {
    case(format!("LSTM {shape:?} {direction}"), move |net| {
        let count = directions(direction);
        let x = net.floats(&[shape.steps, shape.batch, shape.inputs]);
        let [w, r, b] = weights(net, shape, 4, count);
        let state = [0, 1].map(|_| net.floats(&[count, shape.batch, shape.hidden]));
        let attributes = [int("hidden_size", shape.hidden as i64), text("direction", direction)];
        let results = net.ops("LSTM", &[&x, &w, &r, &b, "", &state[0], &state[1]], 3, attributes);
        results.iter().for_each(|result| net.result(result));
    })
}

fn gru(shape: Shape, direction: &'static str, is_linear_first: i64) -> Case {
    case(format!("GRU {shape:?} {direction} {is_linear_first}"), move |net| {
        let count = directions(direction);
        let x = net.floats(&[shape.steps, shape.batch, shape.inputs]);
        let [w, r, b] = weights(net, shape, 3, count);
        let state = net.floats(&[count, shape.batch, shape.hidden]);
        let attributes = [
            int("hidden_size", shape.hidden as i64),
            text("direction", direction),
            int("linear_before_reset", is_linear_first),
        ];
        let results = net.ops("GRU", &[&x, &w, &r, &b, "", &state], 2, attributes);
        results.iter().for_each(|result| net.result(result));
    })
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in SHAPES {
        for direction in ["forward", "reverse", "bidirectional"] {
            cases.push(lstm(shape, direction));
            cases.push(gru(shape, direction, 0));
            cases.push(gru(shape, direction, 1));
        }
    }
    // The states come out as they went in, also where every step would have a launch of its own.
    for hidden in [5, 160] {
        let shape = Shape { steps: 0, batch: 2, inputs: 3, hidden };
        cases.extend([lstm(shape, "forward"), gru(shape, "forward", 1)]);
    }
    cases.push(case("LSTM with peepholes and clip", |net| {
        let shape = SHAPES[1];
        let x = net.floats(&[shape.steps, shape.batch, shape.inputs]);
        let [w, r, b] = weights(net, shape, 4, 1);
        let peepholes = net.weight(&[1, 3 * shape.hidden], 0.3);
        let attributes = [int("hidden_size", shape.hidden as i64), float("clip", 1.5)];
        let results = net.ops("LSTM", &[&x, &w, &r, &b, "", "", "", &peepholes], 3, attributes);
        results.iter().for_each(|result| net.result(result));
    }));
    cases.push(case("LSTM of sequences that end early", |net| {
        let shape = SHAPES[1];
        let x = net.floats(&[shape.steps, shape.batch, shape.inputs]);
        let [w, r, b] = weights(net, shape, 4, 2);
        let lengths = net.indices(DType::I32, &[shape.batch], 1, shape.steps as i64 + 1);
        let attributes = [int("hidden_size", shape.hidden as i64), text("direction", "bidirectional")];
        let results = net.ops("LSTM", &[&x, &w, &r, &b, &lengths], 3, attributes);
        results.iter().for_each(|result| net.result(result));
    }));
    cases
}
