//! Constant factors of a map's operand: what a kernel with a scale of its own can take over.

use crate::ir::DType;
use crate::kernels::{Binary, Instr, Map, Reg};

/// If the map uses `operand` only multiplied (or divided) by a constant: that factor, and the map without it, over the same
/// operands.
pub fn factor(map: &Map, operand: usize) -> Option<(f32, Map)> {
    let input = only_register(map, operand)?;
    let user = only_user(map, input)?;
    let constant = |reg: Reg| match map.body[reg] {
        Instr::Const(dtype, value) if dtype.is_float() => Some(value.as_f64()),
        _ => None,
    };
    let factor = match map.body[user] {
        Instr::Binary(Binary::Mul, a, b) if a == input => constant(b)?,
        Instr::Binary(Binary::Mul, a, b) if b == input => constant(a)?,
        Instr::Binary(Binary::Div, a, b) if a == input => 1.0 / constant(b)?,
        _ => return None,
    };
    let fits = (factor as f32).is_finite() && factor != 0.0;
    fits.then(|| (factor as f32, passed_through(map, user, input)))
}

/// The register that reads `operand`, if just one does.
pub fn only_register(map: &Map, operand: usize) -> Option<Reg> {
    let mut registers = (0..map.body.len()).filter(|&reg| map.body[reg] == Instr::Input(operand));
    let first = registers.next()?;
    registers.next().is_none().then_some(first)
}

/// The instruction that reads a register, if just one does, once.
pub fn only_user(map: &Map, reg: Reg) -> Option<Reg> {
    let mut users = (0..map.body.len()).flat_map(|user| map.body[user].operands().map(move |read| (user, read)));
    let mut users = users.by_ref().filter(|&(_, read)| read == reg);
    let (first, _) = users.next()?;
    users.next().is_none().then_some(first)
}

/// The map with instruction `user` giving just the float register `value`; dead instructions stay.
pub fn passed_through(map: &Map, user: Reg, value: Reg) -> Map {
    let mut map = map.clone();
    map.body[user] = Instr::Cast(DType::F32, value);
    map
}

/// Whether the map delivers operand 0 as it is.
pub fn is_identity(map: &Map) -> bool {
    map.body == [Instr::Input(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Scalar;

    #[test]
    fn a_factor_is_found_and_taken_out() {
        let constant = |value| Instr::Const(DType::F32, Scalar::Float(value));
        let scaled_and_masked = Map {
            inputs: vec![DType::F32; 2],
            body: vec![
                Instr::Input(0),
                constant(8.0),
                Instr::Binary(Binary::Div, 0, 1),
                Instr::Input(1),
                Instr::Binary(Binary::Add, 2, 3),
            ],
            output: DType::F32,
        };
        let (scale, rest) = factor(&scaled_and_masked, 0).unwrap();
        assert_eq!(scale, 0.125);
        let (rest, kept) = rest.simplified();
        assert_eq!(rest, Map::binary(Binary::Add, DType::F32));
        assert_eq!(kept, [0, 1]);
        assert!(factor(&rest, 0).is_none());

        let squared = Map {
            inputs: vec![DType::F32],
            body: vec![
                Instr::Input(0),
                constant(2.0),
                Instr::Binary(Binary::Mul, 0, 1),
                Instr::Binary(Binary::Add, 0, 2),
            ],
            output: DType::F32,
        };
        assert!(factor(&squared, 0).is_none(), "the operand is used without the factor too");
    }
}
