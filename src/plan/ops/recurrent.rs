//! LSTM and GRU.

use super::call::{self, Call};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Scalar};
use crate::kernels::{Activation, Cell, Direction, Recurrent};
use crate::plan::{Builder, View};

/// `LSTM`.
pub fn lstm(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    recurrent(b, call, Cell::Lstm { input_forget: call.flag("input_forget", false)? })
}

/// `GRU`.
pub fn gru(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    recurrent(b, call, Cell::Gru { linear_before_reset: call.flag("linear_before_reset", false)? })
}

fn recurrent(b: &mut Builder, call: &Call<'_>, cell: Cell) -> Result<Vec<View>> {
    let lstm = matches!(cell, Cell::Lstm { .. });
    let (gates, defaults): (usize, &[&str]) =
        if lstm { (4, &["Sigmoid", "Tanh", "Tanh"]) } else { (3, &["Sigmoid", "Tanh"]) };
    let direction = match call.string("direction", "forward")? {
        "forward" => Direction::Forward,
        "reverse" => Direction::Reverse,
        "bidirectional" => Direction::Bidirectional,
        other => return Err(fail!(Unsupported, "attribute 'direction' is '{other}'")),
    };
    let directions = if direction == Direction::Bidirectional { 2 } else { 1 };
    let batch_first = call.flag("layout", false)?;
    let (x, w, r) = (call.input(0)?, call.input(1)?.clone(), call.input(2)?.clone());
    for (index, view) in [x, &w, &r].into_iter().enumerate() {
        ensure!(view.rank() == 3, ShapeMismatch, "operand {index} has rank {}, not 3", view.rank());
    }
    let x = if batch_first { x.swap(0, 1) } else { x.clone() };
    let hidden = call::extent(call.int("hidden_size", r.shape[2] as i64)?, "attribute 'hidden_size'")?;
    let rows = hidden.saturating_mul(gates);
    let (steps, batch, features) = (x.shape[0], x.shape[1], x.shape[2]);
    expect("W", &w, &[directions, rows, features])?;
    expect("R", &r, &[directions, rows, hidden])?;

    let mut operands = vec![x, w, r];
    operands.push(operand_or_zero(b, call, 3, "B", &[directions, rows.saturating_mul(2)])?);
    operands.push(match call.optional(4) {
        Some(lengths) => b.cast(&lengths.clone(), DType::I32)?,
        None => b.fill(DType::I32, Scalar::Int(steps as i64), &[batch])?,
    });
    expect("sequence_lens", &operands[4], &[batch])?;
    let states: &[(usize, &str)] = if lstm { &[(5, "initial_h"), (6, "initial_c")] } else { &[(5, "initial_h")] };
    for &(index, name) in states {
        let stored = if batch_first { [batch, directions, hidden] } else { [directions, batch, hidden] };
        let state = operand_or_zero(b, call, index, name, &stored)?;
        operands.push(if batch_first { state.swap(0, 1) } else { state });
    }
    if lstm {
        operands.push(operand_or_zero(b, call, 7, "P", &[directions, hidden.saturating_mul(3)])?);
    }
    let kernel = Recurrent {
        cell,
        direction,
        hidden,
        activations: activations(call, defaults, directions)?,
        clip: call.optional_float("clip")?,
    };
    let results = b.emit(kernel, &operands)?;
    if !batch_first {
        return Ok(results);
    }
    let (y, states) = results.split_first().ok_or_else(|| fail!(Internal, "no results"))?;
    let mut views = vec![y.permute(&[2, 0, 1, 3])];
    views.extend(states.iter().map(|state| state.swap(0, 1)));
    Ok(views)
}

fn expect(name: &str, view: &View, shape: &[usize]) -> Result<()> {
    ensure!(view.shape == shape, ShapeMismatch, "{name} has shape {:?}, not {shape:?}", view.shape);
    Ok(())
}

fn operand_or_zero(b: &mut Builder, call: &Call<'_>, index: usize, name: &str, shape: &[usize]) -> Result<View> {
    match call.optional(index) {
        Some(view) => {
            expect(name, view, shape)?;
            Ok(view.clone())
        }
        None => b.fill(b.dtype(call.input(0)?), Scalar::Float(0.0), shape),
    }
}

/// The gate functions. `activation_alpha` and `activation_beta` hold a value for each function that takes one, in order.
fn activations(call: &Call<'_>, defaults: &[&str], directions: usize) -> Result<Vec<Activation>> {
    let wanted = defaults.len() * directions;
    let names: Vec<String> = match call.strings("activations")? {
        Some(names) => names.iter().map(|name| name.to_lowercase()).collect(),
        None => defaults.repeat(directions).iter().map(|name| name.to_lowercase()).collect(),
    };
    ensure!(names.len() == wanted, Malformed, "attribute 'activations' has {} names, not {wanted}", names.len());
    let mut alphas = call.floats("activation_alpha")?.iter();
    let mut betas = call.floats("activation_beta")?.iter();
    let mut function = |name: &String| match name.as_str() {
        "sigmoid" => Ok(Activation::Sigmoid),
        "tanh" => Ok(Activation::Tanh),
        "relu" => Ok(Activation::Relu),
        "hardsigmoid" => {
            Ok(Activation::HardSigmoid { alpha: *alphas.next().unwrap_or(&0.2), beta: *betas.next().unwrap_or(&0.5) })
        }
        other => Err(fail!(Unsupported, "attribute 'activations' names '{other}'")),
    };
    names.iter().map(&mut function).collect()
}
