//! The first and the last kernel of a request. Small inputs come from mapped host memory with the first, small outputs go
//! there with the last, which also stores the completion: no copy engine takes part.

use super::Memory;
use super::layout::{Address, Arguments, Field, arguments};
use super::operand::Geometry;
use crate::error::Result;

/// Copies in one launch.
pub const SEGMENTS_MAX: usize = 16;
/// Threads of a block.
const THREADS: u32 = 256;
/// Most blocks of a launch: enough loads in flight to fill the bus.
const BLOCKS_MAX: usize = 64;

/// Positions in the completion record that the device writes: the request's number.
pub const RECORD_DONE: u64 = 0;
/// Four time stamps.
pub const RECORD_STAMPS: u64 = 8;
/// The ordinal of the last request that has ended.
pub const RECORD_ENDED: u64 = 40;

arguments! {
    /// One copy. The areas do not overlap; both begin at a multiple of 16.
    pub struct Segment {
        /// Where from.
        pub from: Address,
        /// Where to.
        pub to: Address,
        /// How many bytes.
        pub bytes: u64,
    }
}

arguments! {
    /// What a lane keeps in device memory from request to request.
    pub struct Control {
        /// Requests ended.
        pub ordinal: u64,
        /// When the first kernel began, by the GPU's clock.
        pub start_ns: u64,
        /// When the inputs were in place, by the GPU's clock.
        pub inputs_ns: u64,
        /// What this request adds to the GPU's clock to get the host's, modulo 2^64.
        pub offset_ns: u64,
        /// Blocks of the last kernel that are through; 0 between requests.
        pub arrived: u32,
        /// Zero.
        pub reserved: u32,
    }
}

arguments! {
    /// What all lanes of a device know of the GPU's clock, so that their time stamps can be compared.
    pub struct Clock {
        /// Host minus GPU clock, a signed number: the greatest difference seen, less what the clocks may have drifted apart since.
        pub offset_ns: u64,
        /// The GPU's clock when `offset_ns` was last lowered.
        pub lowered_ns: u64,
    }
}

impl Clock {
    /// Before the first request: less than any difference.
    pub fn unknown() -> Self {
        Clock { offset_ns: (i64::MIN / 2) as u64, lowered_ns: 0 }
    }
}

arguments! {
    /// Copies, and notes when the request began. Entry `transfer_fetch`.
    pub struct FetchArguments {
        /// The copies.
        pub segments: [Segment; SEGMENTS_MAX],
        /// The lane's [`Control`]; absent: only copies.
        pub control: Address,
        /// The device's [`Clock`].
        pub clock: Address,
        /// Host time of the submit in nanoseconds, in mapped memory.
        pub submit_ns: Address,
        /// How many segments there are.
        pub count: u32,
        /// Zero.
        pub reserved: u32,
    }
}

arguments! {
    /// Copies, then stores the completion. Entry `transfer_finish`.
    pub struct FinishArguments {
        /// The copies.
        pub segments: [Segment; SEGMENTS_MAX],
        /// The lane's [`Control`].
        pub control: Address,
        /// The completion record in mapped memory.
        pub record: Address,
        /// How many segments there are.
        pub count: u32,
        /// Zero.
        pub reserved: u32,
    }
}

fn padded(segments: &[Segment]) -> [Segment; SEGMENTS_MAX] {
    std::array::from_fn(|index| segments.get(index).copied().unwrap_or_else(Segment::zero))
}

/// The launch for these copies: 16 bytes a thread and turn. A request begins and ends with one even if there is nothing to copy.
fn launch(segments: &[Segment]) -> Geometry {
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    Geometry::line((bytes as usize).div_ceil(THREADS as usize * 16).clamp(1, BLOCKS_MAX), THREADS)
}

impl FetchArguments {
    /// At most [`SEGMENTS_MAX`] copies. `control`, `clock` and `submit_ns` are 0 for copies alone.
    pub fn new(segments: &[Segment], [control, clock, submit_ns]: [u64; 3]) -> Self {
        let [control, clock, submit_ns] = [control, clock, submit_ns].map(Address);
        FetchArguments {
            segments: padded(segments),
            control,
            clock,
            submit_ns,
            count: segments.len() as u32,
            reserved: 0,
        }
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        launch(&self.segments)
    }
}

impl FinishArguments {
    /// At most [`SEGMENTS_MAX`] copies, and the end of the request.
    pub fn new(segments: &[Segment], control: u64, record: u64) -> Self {
        let (control, record) = (Address(control), Address(record));
        FinishArguments { segments: padded(segments), control, record, count: segments.len() as u32, reserved: 0 }
    }

    /// Blocks and threads.
    pub fn launch(&self) -> Geometry {
        launch(&self.segments)
    }
}

fn copy(segments: &[Segment], count: u32, memory: &mut dyn Memory) -> Result<()> {
    for segment in &segments[..(count as usize).min(SEGMENTS_MAX)] {
        let mut bytes = vec![0; segment.bytes as usize];
        memory.load(segment.from.0, &mut bytes)?;
        memory.store(segment.to.0, &bytes)?;
    }
    Ok(())
}

fn load<T: Field>(memory: &dyn Memory, address: u64) -> Result<T> {
    let mut bytes = vec![0; T::BYTES];
    memory.load(address, &mut bytes)?;
    Ok(T::get(&bytes))
}

pub(super) fn fetch_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = FetchArguments::get(bytes);
    copy(&arguments.segments, arguments.count, memory)?;
    if arguments.control.is_none() {
        return Ok(());
    }
    // A twin has no clock of its own: time stands still at the submit.
    let mut control: Control = load(memory, arguments.control.0)?;
    let now: u64 = load(memory, arguments.submit_ns.0)?;
    (control.start_ns, control.inputs_ns, control.offset_ns) = (now, now, 0);
    memory.store(arguments.clock.0, &Clock { offset_ns: 0, lowered_ns: now }.encode())?;
    memory.store(arguments.control.0, &control.encode())
}

pub(super) fn finish_twin(bytes: &[u8], memory: &mut dyn Memory) -> Result<()> {
    let arguments = FinishArguments::get(bytes);
    copy(&arguments.segments, arguments.count, memory)?;
    let mut control: Control = load(memory, arguments.control.0)?;
    control.ordinal += 1;
    memory.store(arguments.control.0, &control.encode())?;
    let stamps = [control.start_ns, control.inputs_ns, control.start_ns, control.start_ns];
    memory.store(arguments.record.0 + RECORD_STAMPS, &stamps.encode())?;
    let number = ((control.ordinal - 1) % u64::from(u32::MAX) + 1) as u32;
    memory.store(arguments.record.0 + RECORD_DONE, &number.encode())?;
    memory.store(arguments.record.0 + RECORD_ENDED, &control.ordinal.encode())
}

#[cfg(test)]
mod tests {
    use super::super::memory::tests::Heap;
    use super::*;
    use crate::ir::{DType, Tensor};

    #[test]
    fn a_request_is_fetched_and_finished() {
        let mut heap = Heap::default();
        let (from, to) = (heap.put(&Tensor::from_slice(&[4], &[1f32, 2.0, 3.0, 4.0])), heap.room(16));
        let control = heap.put(&Tensor::from_slice(&[Control::BYTES / 8], &[0i64; Control::BYTES / 8]));
        let clock = heap.room(Clock::BYTES);
        let submit = heap.put(&Tensor::from_slice(&[1], &[77i64]));
        let record = heap.put(&Tensor::from_slice(&[6], &[0i64; 6]));
        let segments = [Segment { from, to, bytes: 16 }];
        let fetch = FetchArguments::new(&segments, [control.0, clock.0, submit.0]);
        assert_eq!(fetch.launch(), Geometry::line(1, THREADS));
        let finish = FinishArguments::new(&[], control.0, record.0);
        for ordinal in 1..=2 {
            fetch_twin(&fetch.encode(), &mut heap).unwrap();
            finish_twin(&finish.encode(), &mut heap).unwrap();
            let record = heap.tensor(record, DType::I64, &[6]).to_vec::<i64>().unwrap();
            assert_eq!(record, [ordinal, 77, 77, 77, 77, ordinal]);
        }
        assert_eq!(heap.tensor(to, DType::F32, &[4]).to_f64s(), [1.0, 2.0, 3.0, 4.0]);
    }
}
