//! Finds activations that an exporter has written out in smaller operators.

use super::{Binary, Instr, Map, Reg, Unary};
use crate::ir::DType;
use half::{bf16, f16};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// Factors and candidates looked at for one register; a written-out activation has fewer.
const TERMS_MAX: usize = 16;

impl Map {
    /// The same operands, with written-out GELU (by erf or tanh), SiLU, sigmoid, softplus and ReLU each as one
    /// instruction. Roundings to f16 or bf16 between the smaller operators vanish with them; constants are accepted as
    /// any float type rounds them.
    #[must_use]
    pub fn recognized(&self) -> Map {
        let mut map = self.normalized();
        let Ok(types) = map.register_types() else {
            return map;
        };
        for reg in (0..map.body.len()).filter(|&reg| types[reg] == DType::F32) {
            if let Some((op, x)) = (Reader { body: &map.body, types: &types }).activation(reg) {
                map.body[reg] = Instr::Unary(op, x);
            }
        }
        map.normalized()
    }
}

/// Reads a program backwards.
struct Reader<'a> {
    body: &'a [Instr],
    types: &'a [DType],
}

/// `factor * above[0] * above[1] .. / (below[0] * below[1] ..)`
struct Product {
    factor: f64,
    above: Vec<Reg>,
    below: Vec<Reg>,
}

impl Product {
    /// Whether this is `factor` times exactly these registers, in any order.
    fn is(&self, factor: f64, above: &[Reg], below: &[Reg]) -> bool {
        let sorted = |registers: &[Reg]| {
            let mut registers = registers.to_vec();
            registers.sort_unstable();
            registers
        };
        is_near(self.factor, factor) && sorted(&self.above) == sorted(above) && sorted(&self.below) == sorted(below)
    }
}

/// Whether a file that means `ideal` may say `value`: rounded decimals, or what a narrower float holds of it or, where it
/// divides, of its reciprocal.
fn is_near(value: f64, ideal: f64) -> bool {
    let narrowed = |x: f64| [f16::from_f64(x).to_f64(), bf16::from_f64(x).to_f64()];
    let close = |ideal: f64| (value - ideal).abs() <= 1e-5 * ideal.abs();
    close(ideal) || narrowed(ideal).contains(&value) || narrowed(1.0 / ideal).iter().any(|&stored| close(1.0 / stored))
}

impl Reader<'_> {
    /// The activation that a register computes, and of which register.
    fn activation(&self, reg: Reg) -> Option<(Unary, Reg)> {
        match self.body[reg] {
            Instr::Binary(Binary::Max, a, b) if self.constant(b) == Some(0.0) => Some((Unary::Relu, self.peel(a))),
            Instr::Binary(Binary::Max, a, b) if self.constant(a) == Some(0.0) => Some((Unary::Relu, self.peel(b))),
            Instr::Unary(Unary::Log, sum) => match self.body[self.one_plus(sum)?] {
                Instr::Unary(Unary::Exp, x) => Some((Unary::Softplus, self.peel(x))),
                _ => None,
            },
            Instr::Binary(Binary::Mul | Binary::Div, ..) | Instr::Unary(Unary::Reciprocal, _) => {
                let product = self.product(reg, None)?;
                let above = product.above.iter().find_map(|&part| self.gated(reg, part));
                above.or_else(|| product.below.iter().find_map(|&part| self.logistic(reg, part)))
            }
            _ => None,
        }
    }

    /// GELU or SiLU, if `part` is the factor beside x: `1 + erf(..)`, `1 + tanh(..)` or `sigmoid(x)`.
    fn gated(&self, reg: Reg, part: Reg) -> Option<(Unary, Reg)> {
        if let Instr::Unary(Unary::Sigmoid, x) = self.body[part] {
            let x = self.peel(x);
            return self.product(reg, Some(x))?.is(1.0, &[x, part], &[]).then_some((Unary::Silu, x));
        }
        let (op, argument) = match self.body[self.one_plus(part)?] {
            Instr::Unary(Unary::Erf, argument) => (Unary::Gelu, argument),
            Instr::Unary(Unary::Tanh, argument) => (Unary::GeluTanh, argument),
            _ => return None,
        };
        let fits = |x: &Reg| {
            let inner = if op == Unary::Gelu {
                self.is_erf_argument(argument, *x)
            } else {
                self.is_tanh_argument(argument, *x)
            };
            inner == Some(true) && self.product(reg, Some(*x)).is_some_and(|product| product.is(0.5, &[*x, part], &[]))
        };
        Some((op, self.candidates(argument).into_iter().find(fits)?))
    }

    /// Sigmoid or SiLU, if `part` is the denominator `1 + exp(-x)`.
    fn logistic(&self, reg: Reg, part: Reg) -> Option<(Unary, Reg)> {
        let Instr::Unary(Unary::Exp, negated) = self.body[self.one_plus(part)?] else {
            return None;
        };
        self.candidates(negated).into_iter().find_map(|x| {
            if !self.product(negated, Some(x))?.is(-1.0, &[x], &[]) {
                return None;
            }
            if self.product(reg, Some(x))?.is(1.0, &[x], &[part]) {
                return Some((Unary::Silu, x));
            }
            self.product(reg, None)?.is(1.0, &[], &[part]).then_some((Unary::Sigmoid, x))
        })
    }

    /// x / sqrt 2
    fn is_erf_argument(&self, argument: Reg, x: Reg) -> Option<bool> {
        Some(self.product(argument, Some(x))?.is(FRAC_1_SQRT_2, &[x], &[]))
    }

    /// sqrt(2 / pi) (x + 0.044715 x^3), the x before or inside the parenthesis.
    fn is_tanh_argument(&self, argument: Reg, x: Reg) -> Option<bool> {
        const CUBIC: f64 = 0.044715;
        let slope = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
        let product = self.product(argument, Some(x))?;
        let sum = *product.above.iter().find(|&&part| part != x)?;
        if product.is(slope, &[sum], &[]) {
            let Instr::Binary(Binary::Add, a, b) = self.body[sum] else {
                return Some(false);
            };
            let (a, b) = (self.peel(a), self.peel(b));
            let cube = if a == x { b } else { a };
            return Some((a == x || b == x) && self.product(cube, Some(x))?.is(CUBIC, &[x; 3], &[]));
        }
        let square = self.one_plus(sum)?;
        Some(product.is(slope, &[x, sum], &[]) && self.product(square, Some(x))?.is(CUBIC, &[x; 2], &[]))
    }

    /// Sees through roundings of floats.
    fn peel(&self, mut reg: Reg) -> Reg {
        while let Instr::Cast(DType::F32 | DType::F16 | DType::BF16, x) = self.body[reg]
            && self.types[x] == DType::F32
        {
            reg = x;
        }
        reg
    }

    fn constant(&self, reg: Reg) -> Option<f64> {
        match self.body[self.peel(reg)] {
            Instr::Const(dtype, value) if dtype.is_float() => Some(value.as_f64()),
            _ => None,
        }
    }

    /// The u of `1 + u`.
    fn one_plus(&self, reg: Reg) -> Option<Reg> {
        match self.body[self.peel(reg)] {
            Instr::Binary(Binary::Add, a, b) if self.constant(b) == Some(1.0) => Some(self.peel(a)),
            Instr::Binary(Binary::Add, a, b) if self.constant(a) == Some(1.0) => Some(self.peel(b)),
            _ => None,
        }
    }

    /// The register as a product, not looking into `whole`; `None` if it has too many factors.
    fn product(&self, reg: Reg, whole: Option<Reg>) -> Option<Product> {
        let mut product = Product { factor: 1.0, above: Vec::new(), below: Vec::new() };
        let mut open = vec![(reg, true)];
        while let Some((reg, above)) = open.pop() {
            if open.len() + product.above.len() + product.below.len() > TERMS_MAX {
                return None;
            }
            let reg = self.peel(reg);
            let list = if above { &mut product.above } else { &mut product.below };
            match self.body[reg] {
                _ if whole == Some(reg) => list.push(reg),
                Instr::Const(dtype, value) if dtype.is_float() => {
                    product.factor *= if above { value.as_f64() } else { 1.0 / value.as_f64() };
                }
                Instr::Binary(Binary::Mul, a, b) => open.extend([(a, above), (b, above)]),
                Instr::Binary(Binary::Div, a, b) => open.extend([(a, above), (b, !above)]),
                Instr::Unary(Unary::Reciprocal, x) => open.push((x, !above)),
                Instr::Unary(Unary::Neg, x) => {
                    product.factor = -product.factor;
                    open.push((x, above));
                }
                Instr::Binary(Binary::Pow, x, power) => match self.constant(power) {
                    Some(power) if power == 2.0 || power == 3.0 => open.extend(vec![(x, above); power as usize]),
                    _ => list.push(reg),
                },
                _ => list.push(reg),
            }
        }
        Some(product)
    }

    /// Registers that may be the x of an activation with this argument: all that its sums and products are made of.
    fn candidates(&self, argument: Reg) -> Vec<Reg> {
        let mut seen = Vec::new();
        let mut open = vec![argument];
        while let Some(reg) = open.pop() {
            let reg = self.peel(reg);
            if seen.len() == TERMS_MAX || seen.contains(&reg) || self.constant(reg).is_some() {
                continue;
            }
            seen.push(reg);
            if let Instr::Binary(Binary::Mul | Binary::Div | Binary::Add | Binary::Pow, ..)
            | Instr::Unary(Unary::Neg, _) = self.body[reg]
            {
                open.extend(self.body[reg].operands());
            }
        }
        seen
    }
}
