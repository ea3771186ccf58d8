//! Loop nests of elementwise launches: axes are ordered by the result's strides and merged where all operands allow, so
//! that a kernel sees as few and as long loops as there can be.

use super::operand::Operand;

/// Rewrites the operands (the result is the last one) to the fewest axes that walk the same elements. Axes are put in
/// the order of falling strides of the result; all operands have one shape.
pub fn simplify(operands: &mut [&mut Operand]) {
    let Some(result) = operands.last() else { return };
    let mut axes: Vec<usize> = (0..result.shape.len()).filter(|&axis| result.shape[axis] != 1).collect();
    axes.sort_by_key(|&axis| std::cmp::Reverse(result.strides[axis].unsigned_abs()));
    // Groups of axes that every operand walks with one stride, outermost first: (extent, innermost axis).
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for &axis in &axes {
        let extent = result.shape[axis];
        match groups.last_mut() {
            Some((elements, inner))
                if operands
                    .iter()
                    .all(|operand| operand.strides[*inner] == operand.strides[axis] * extent as isize) =>
            {
                (*elements, *inner) = (*elements * extent, axis);
            }
            _ => groups.push((extent, axis)),
        }
    }
    for operand in operands {
        operand.shape = groups.iter().map(|&(extent, _)| extent).collect();
        operand.strides = groups.iter().map(|&(_, axis)| operand.strides[axis]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;
    use crate::lower::operand::Region;

    fn operand(shape: &[usize], strides: &[isize]) -> Operand {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        Operand { region: Region::Arena, byte_offset: 0, dtype: DType::F32, shape, strides }
    }

    #[test]
    fn axes_merge_where_all_operands_allow() {
        let mut a = operand(&[2, 3, 1, 4], &[12, 4, 99, 1]);
        let mut bias = operand(&[2, 3, 1, 4], &[0, 0, 0, 1]);
        let mut out = operand(&[2, 3, 1, 4], &[12, 4, 4, 1]);
        simplify(&mut [&mut a, &mut bias, &mut out]);
        assert_eq!((a.shape, a.strides), (vec![6, 4], vec![4, 1]));
        assert_eq!(bias.strides, [0, 1]);
        assert_eq!(out.strides, [4, 1]);
    }

    #[test]
    fn the_result_decides_the_order() {
        let mut a = operand(&[4, 6], &[6, 1]);
        let mut out = operand(&[4, 6], &[1, 4]);
        simplify(&mut [&mut a, &mut out]);
        assert_eq!((out.shape, out.strides), (vec![6, 4], vec![4, 1]));
        assert_eq!(a.strides, [1, 6]);
    }

    #[test]
    fn a_single_element_has_no_axes() {
        let mut out = operand(&[1, 1], &[1, 1]);
        simplify(&mut [&mut out]);
        assert!(out.shape.is_empty());
    }
}
