//! `Einsum`: operands are contracted from left to right, each pair as a batched matrix product on permuted views.

use super::call::Call;
use super::reduction::keep_axes;
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Shape};
use crate::kernels::{Binary, MatMul, Reduce, ReduceOp};
use crate::plan::{Builder, View};

/// A subscript: a letter's code, or for a dimension of an ellipsis [`ELLIPSIS`] plus its distance from the end.
type Label = u32;
const ELLIPSIS: Label = 1 << 16;

/// A view whose axes have names, each name once.
#[derive(Clone, Debug)]
struct Term {
    view: View,
    labels: Vec<Label>,
}

/// `Einsum`.
pub fn einsum(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let equation: String = call.string("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let subscripts: Vec<&str> = left.split(',').collect();
    let operands = call.variadic()?;
    ensure!(subscripts.len() == operands.len(), Malformed, "'{equation}' is not for {} operands", operands.len());
    let mut terms = Vec::new();
    let mut ellipsis = 0;
    for (subscript, view) in subscripts.iter().zip(&operands) {
        let labels = parse(subscript, Some(view.rank()))?;
        ellipsis = ellipsis.max(labels.iter().filter(|&&label| label >= ELLIPSIS).count());
        terms.push(labels);
    }
    let output = match right {
        Some(right) => {
            parse(right, Some(right.replace("...", "").len() + if right.contains("...") { ellipsis } else { 0 }))?
        }
        None => implicit_output(&terms, ellipsis),
    };
    let extents = extents(&terms, &operands)?;
    let known = output
        .iter()
        .enumerate()
        .all(|(i, label)| !output[..i].contains(label) && extents.iter().any(|e| e.0 == *label));
    ensure!(known, Malformed, "the result of '{equation}' names a subscript twice or that no operand has");
    let mut terms = terms
        .into_iter()
        .zip(&operands)
        .map(|(labels, view)| diagonal(view, &labels, &extents))
        .rev()
        .collect::<Result<Vec<_>>>()?;
    let mut result = terms.pop().ok_or_else(|| fail!(Malformed, "the operator has no operands"))?;
    while let Some(next) = terms.pop() {
        let needed = |label: &Label| output.contains(label) || terms.iter().any(|term| term.labels.contains(label));
        result = contract(b, result, next, needed)?;
    }
    let result = sum_out(b, result, |label| output.contains(label))?;
    let order = output.iter().map(|label| position(&result, label)).collect::<Option<Vec<_>>>();
    Ok(vec![result.view.permute(&order.ok_or_else(|| fail!(Internal, "a subscript was lost"))?)])
}

/// The labels of one operand of the given rank; `...` stands for as many as are left.
fn parse(subscript: &str, rank: Option<usize>) -> Result<Vec<Label>> {
    let (before, after) = match subscript.split_once("...") {
        Some((before, after)) => (before, Some(after)),
        None => (subscript, None),
    };
    let letters = before.len() + after.map_or(0, str::len);
    let valid = [before, after.unwrap_or("")].iter().all(|part| part.bytes().all(|c| c.is_ascii_alphabetic()));
    ensure!(valid, Malformed, "attribute 'equation' has the subscripts '{subscript}'");
    let rank = rank.unwrap_or(letters);
    let fits = if after.is_some() { letters <= rank } else { letters == rank };
    ensure!(fits, ShapeMismatch, "the subscripts '{subscript}' are not for rank {rank}");
    let dots = (0..(rank - letters) as Label).rev().map(|distance| ELLIPSIS + distance);
    Ok(before.bytes().map(Label::from).chain(dots).chain(after.unwrap_or("").bytes().map(Label::from)).collect())
}

/// Without `->`: the ellipsis, then the letters that appear once, in alphabetical order.
fn implicit_output(terms: &[Vec<Label>], ellipsis: usize) -> Vec<Label> {
    let all: Vec<Label> = terms.iter().flatten().copied().filter(|&label| label < ELLIPSIS).collect();
    let mut once: Vec<Label> =
        all.iter().copied().filter(|label| all.iter().filter(|other| *other == label).count() == 1).collect();
    once.sort_unstable();
    (0..ellipsis as Label).rev().map(|distance| ELLIPSIS + distance).chain(once).collect()
}

/// The extent of every label: all operands agree, or have 1.
fn extents(terms: &[Vec<Label>], operands: &[View]) -> Result<Vec<(Label, usize)>> {
    let mut extents: Vec<(Label, usize)> = Vec::new();
    for (labels, view) in terms.iter().zip(operands) {
        for (&label, &extent) in labels.iter().zip(&view.shape) {
            match extents.iter_mut().find(|entry| entry.0 == label) {
                None => extents.push((label, extent)),
                Some((_, known)) if *known == 1 => *known = extent,
                Some((_, known)) => {
                    ensure!(
                        extent == *known || extent == 1,
                        ShapeMismatch,
                        "one subscript has the extents {known} and {extent}"
                    )
                }
            }
        }
    }
    Ok(extents)
}

/// Merges axes of one label into the diagonal, and repeats axes of 1 to the label's extent.
fn diagonal(view: &View, labels: &[Label], extents: &[(Label, usize)]) -> Result<Term> {
    let full: Shape = labels.iter().map(|label| extents.iter().find(|e| e.0 == *label).map_or(1, |e| e.1)).collect();
    let wide = view.broadcast(&full)?;
    let mut term = Term {
        view: View { tensor: wide.tensor, offset: wide.offset, shape: Shape::new(), strides: Vec::new() },
        labels: Vec::new(),
    };
    for (axis, label) in labels.iter().enumerate() {
        match term.labels.iter().position(|known| known == label) {
            Some(known) => term.view.strides[known] += wide.strides[axis],
            None => {
                term.labels.push(*label);
                term.view.shape.push(wide.shape[axis]);
                term.view.strides.push(wide.strides[axis]);
            }
        }
    }
    Ok(term)
}

fn position(term: &Term, label: &Label) -> Option<usize> {
    term.labels.iter().position(|known| known == label)
}

/// Sums over the axes whose label is not needed.
fn sum_out(b: &mut Builder, term: Term, needed: impl Fn(&Label) -> bool) -> Result<Term> {
    let axes: Vec<usize> = (0..term.labels.len()).filter(|&axis| !needed(&term.labels[axis])).collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let labels = term.labels.iter().copied().filter(&needed).collect();
    Ok(Term { view: b.emit1(Reduce { op: ReduceOp::Sum, axes }, &[term.view])?, labels })
}

/// The product of two terms, summed over what is not needed any more.
fn contract(b: &mut Builder, left: Term, right: Term, needed: impl Fn(&Label) -> bool) -> Result<Term> {
    let left = sum_out(b, left, |label| needed(label) || right.labels.contains(label))?;
    let right = sum_out(b, right, |label| needed(label) || left.labels.contains(label))?;
    let shared: Vec<Label> = left.labels.iter().copied().filter(|label| right.labels.contains(label)).collect();
    let (batch, inner): (Vec<Label>, Vec<Label>) = shared.iter().partition(|label| needed(label));
    let rows: Vec<Label> = left.labels.iter().copied().filter(|label| !shared.contains(label)).collect();
    let columns: Vec<Label> = right.labels.iter().copied().filter(|label| !shared.contains(label)).collect();
    let dtype = b.dtype(&left.view);
    if inner.is_empty() || !(dtype.is_float() || dtype == DType::I32) {
        let labels = [batch, inner, rows, columns].concat();
        let views = [aligned(&left, &labels), aligned(&right, &labels)];
        let product = Term { view: b.binary(Binary::Mul, &views[0], &views[1])?, labels };
        return sum_out(b, product, needed);
    }
    let a = grouped(b, &left, &batch, &rows, &inner)?;
    let c = grouped(b, &right, &batch, &inner, &columns)?;
    let product = b.emit1(MatMul { alpha: 1.0, epilogue: None }, &[a, c])?;
    let labels = [batch, rows, columns].concat();
    let extent = |label: &Label| {
        let (term, axis) = position(&left, label).map_or((&right, position(&right, label)), |axis| (&left, Some(axis)));
        axis.map_or(1, |axis| term.view.shape[axis])
    };
    let shape: Shape = labels.iter().map(extent).collect();
    Ok(Term { view: b.reshape(&product, &shape)?, labels })
}

/// The term's axes in the order of `labels`, with axes of 1 where it has none.
fn aligned(term: &Term, labels: &[Label]) -> View {
    let own: Vec<usize> = labels.iter().filter_map(|label| position(term, label)).collect();
    let missing: Vec<usize> = (0..labels.len()).filter(|&axis| position(term, &labels[axis]).is_none()).collect();
    keep_axes(term.view.permute(&own), &missing)
}

/// The term as `[batch.., first, second]` with the last two each merged from several axes.
fn grouped(b: &mut Builder, term: &Term, batch: &[Label], first: &[Label], second: &[Label]) -> Result<View> {
    let order: Option<Vec<usize>> = [batch, first, second].concat().iter().map(|label| position(term, label)).collect();
    let view = term.view.permute(&order.ok_or_else(|| fail!(Internal, "a subscript was lost"))?);
    let (head, tail) = view.shape.split_at(batch.len());
    let (rows, columns) = tail.split_at(first.len());
    let shape = [head, &[rows.iter().product(), columns.iter().product()]].concat();
    b.reshape(&view, &shape)
}
