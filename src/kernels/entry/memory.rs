//! The memory that a reference twin works on, and strided tensors in it.

use super::layout::Address;
use super::operand::{Operand, dtype};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor, element_count};
use crate::kernels::{Family, Map};

/// Memory by device address. A range that is not all allocated is an error.
pub trait Memory {
    /// Reads `bytes.len()` bytes.
    fn load(&self, address: u64, bytes: &mut [u8]) -> Result<()>;
    /// Writes `bytes`.
    fn store(&mut self, address: u64, bytes: &[u8]) -> Result<()>;
}

/// Positions of the elements of a strided view, row-major.
pub(super) fn positions(shape: &[usize], strides: &[isize]) -> Vec<isize> {
    let mut positions = vec![0isize];
    for (&extent, &stride) in shape.iter().zip(strides) {
        positions =
            positions.iter().flat_map(|&start| (0..extent as isize).map(move |index| start + index * stride)).collect();
    }
    positions
}

/// The dense tensor that an operand presents with these extents and strides, in its stored type.
pub(super) fn read(memory: &dyn Memory, operand: &Operand, shape: &[usize], strides: &[isize]) -> Result<Tensor> {
    let stored = dtype(operand.dtype)?;
    let size = stored.bytes() as isize;
    let count = element_count(shape)?;
    let mut data = Vec::with_capacity(count * stored.bytes());
    if count > 0 {
        ensure!(!operand.address.is_none(), Internal, "an operand without an address is read");
        let positions = positions(shape, strides);
        let (low, high) = bounds(&positions);
        let mut span = vec![0; ((high - low + 1) * size) as usize];
        memory.load(shifted(operand.address, low * size), &mut span)?;
        for position in positions {
            let start = ((position - low) * size) as usize;
            data.extend_from_slice(&span[start..start + stored.bytes()]);
        }
    }
    Tensor::new(stored, shape.to_vec(), data.into())
}

/// [`read`], floats widened to binary32.
pub(super) fn read_wide(memory: &dyn Memory, operand: &Operand, shape: &[usize], strides: &[isize]) -> Result<Tensor> {
    let tensor = read(memory, operand, shape, strides)?;
    if tensor.dtype().is_float() { converted(tensor, DType::F32) } else { Ok(tensor) }
}

/// Writes a tensor's elements, converted to the operand's stored type, to where the operand presents them.
pub(super) fn write(memory: &mut dyn Memory, operand: &Operand, strides: &[isize], tensor: Tensor) -> Result<()> {
    let stored = dtype(operand.dtype)?;
    let size = stored.bytes();
    let tensor = converted(tensor, stored)?;
    ensure!(!operand.address.is_none() || tensor.count() == 0, Internal, "a result without an address is written");
    let positions = positions(tensor.shape(), strides);
    let mut start = 0;
    while start < tensor.count() {
        // Neighbours are written together.
        let mut end = start + 1;
        while end < tensor.count() && positions[end] == positions[end - 1] + 1 {
            end += 1;
        }
        let address = shifted(operand.address, positions[start] * size as isize);
        memory.store(address, &tensor.data()[start * size..end * size])?;
        start = end;
    }
    Ok(())
}

/// The tensor in another element type, converted as [`Map`] does it.
pub(super) fn converted(tensor: Tensor, to: DType) -> Result<Tensor> {
    if tensor.dtype() == to {
        return Ok(tensor);
    }
    Ok(Map::cast(tensor.dtype(), to).reference(&[tensor])?.swap_remove(0))
}

/// The address `bytes` further on.
pub(super) fn shifted(address: Address, bytes: isize) -> u64 {
    address.0.wrapping_add_signed(bytes as i64)
}

fn bounds(positions: &[isize]) -> (isize, isize) {
    positions.iter().fold((isize::MAX, isize::MIN), |(low, high), &position| (low.min(position), high.max(position)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ir::DType;

    /// Memory that begins at [`Heap::BASE`]; tensors are put into it one after the other.
    #[derive(Default)]
    pub(crate) struct Heap {
        bytes: Vec<u8>,
    }

    impl Heap {
        const BASE: u64 = 1 << 44;

        /// Puts a tensor's elements into the memory.
        pub(crate) fn put(&mut self, tensor: &Tensor) -> Address {
            let address = self.room(tensor.data().len());
            self.store(address.0, tensor.data()).unwrap();
            address
        }

        /// Takes so many bytes, filled with a pattern that is no sensible number of any type.
        pub(crate) fn room(&mut self, bytes: usize) -> Address {
            let start = self.bytes.len().next_multiple_of(256);
            self.bytes.resize(start + bytes, 0xFD);
            Address(Heap::BASE + start as u64)
        }

        /// A dense tensor that was put or written there.
        pub(crate) fn tensor(&self, address: Address, dtype: DType, shape: &[usize]) -> Tensor {
            let mut data = vec![0; element_count(shape).unwrap() * dtype.bytes()];
            self.load(address.0, &mut data).unwrap();
            Tensor::new(dtype, shape.to_vec(), data.into()).unwrap()
        }

        fn range(&self, address: u64, bytes: usize) -> Result<std::ops::Range<usize>> {
            let start = address.checked_sub(Heap::BASE).map(|start| start as usize);
            let range = start.and_then(|start| Some(start..start.checked_add(bytes)?));
            range
                .filter(|range| range.end <= self.bytes.len())
                .ok_or_else(|| fail!(Internal, "{bytes} bytes at {address:#x} are not allocated"))
        }
    }

    impl Memory for Heap {
        fn load(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
            bytes.copy_from_slice(&self.bytes[self.range(address, bytes.len())?]);
            Ok(())
        }
        fn store(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
            let range = self.range(address, bytes.len())?;
            self.bytes[range].copy_from_slice(bytes);
            Ok(())
        }
    }

    #[test]
    fn strided_tensors_go_to_and_fro() {
        let mut heap = Heap::default();
        let values: Vec<i32> = (0..12).collect();
        let address = heap.put(&Tensor::from_slice(&[12], &values));
        // The transpose of rows 2 and 1 of [3, 4], backwards.
        let reversed = Operand::new(Address(address.0 + 8 * 4), DType::I32, &[1, -4]).unwrap();
        let read = read(&heap, &reversed, &[4, 2], &reversed.steps(2)).unwrap();
        assert_eq!(read.to_vec::<i32>().unwrap(), [8, 4, 9, 5, 10, 6, 11, 7]);
        write(&mut heap, &reversed, &[1, -4], Tensor::from_slice(&[4, 2], &[0.5f32; 8])).unwrap();
        let left = heap.tensor(address, DType::I32, &[12]).to_vec::<i32>().unwrap();
        assert_eq!(left, [0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
        let outside = Operand { address: Address(address.0 + 44), ..reversed };
        assert!(super::read(&heap, &outside, &[2], &[1]).is_err());
        assert!(super::read(&heap, &Operand::none(), &[1], &[1]).is_err());
    }
}
