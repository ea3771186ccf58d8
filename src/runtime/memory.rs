//! Memories: what a host program takes from a device or lends it, beside the inputs and outputs of contexts.

use super::claims::{Claims, Part, overlap};
use super::engine::{Engine, EngineCore};
use super::ledger::{Account, Entry};
use crate::device::host::memory::PAGE_BYTES;
use crate::device::host::process::Lock;
use crate::device::host::{HostRange, check_range};
use crate::device::{Attachment, Rectangle, RowLayout, RowMemory, SharedMemory};
use crate::error::{Result, ensure, fail};
use crate::limits::{ATTACHMENT_ALIGNMENT, MEMORY_BYTES_MAX, ROW_BYTES_MAX};
use std::ops::Range;
use std::sync::Arc;

/// What a memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Host memory that the library has taken: page-locked and mapped on a GPU.
    Pinned,
    /// The host program's own memory, page-locked and mapped on a GPU until it is given back.
    Registered,
    /// Rows of device memory, each of which begins where the device accesses it best.
    Pitched,
    /// Rows of device memory without gaps.
    Linear,
}

/// A memory in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// What it is.
    pub kind: MemoryKind,
    /// Where the host finds it; `None` for device memory.
    pub address: Option<*mut u8>,
    /// All its bytes, gaps between rows included.
    pub bytes: usize,
    /// Rows; 1 for host memory.
    pub rows: usize,
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Bytes from the start of a row to that of the next.
    pub pitch_bytes: usize,
    /// Inputs and outputs that lie in it. One counts until its context, and every context that is linked to that one, is dropped and drained.
    pub attached: usize,
}

/// A part of rows, and how it lies in the host's memory. All zero is everything, dense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// The first row.
    pub first_row: usize,
    /// Rows; 0: all from the first on.
    pub rows: usize,
    /// The first byte of each row.
    pub first_byte: usize,
    /// Bytes of each row; 0: all from the first on.
    pub row_bytes: usize,
    /// In the host's memory, bytes from the start of a row to that of the next; 0: as many as are copied of each.
    pub host_pitch_bytes: usize,
}

/// Ranges that are registered with an engine.
#[derive(Debug, Default)]
pub struct Registrations(Lock<Vec<Range<usize>>>);

/// A range's entry, taken out when dropped.
struct Registration {
    all: Arc<Registrations>,
    pages: Range<usize>,
}

impl Registration {
    fn enter(all: &Arc<Registrations>, range: &HostRange) -> Result<Self> {
        let start = range.address() as usize;
        let end = start.checked_add(range.bytes()).and_then(|end| end.checked_next_multiple_of(PAGE_BYTES));
        let pages = start..end.unwrap_or(usize::MAX);
        let mut ranges = all.0.lock()?;
        if let Some(other) = ranges.iter().find(|other| overlap(other, &pages)) {
            return Err(fail!(
                InvalidArgument,
                "the pages {:#x}..{:#x} overlap {:#x}..{:#x}, which are registered already",
                pages.start,
                pages.end,
                other.start,
                other.end
            ));
        }
        ranges.push(pages.clone());
        drop(ranges);
        Ok(Registration { all: all.clone(), pages })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Ok(mut ranges) = self.all.0.lock() {
            ranges.retain(|other| *other != self.pages);
        }
    }
}

/// What is behind a memory.
enum Body {
    Shared(Arc<dyn SharedMemory>),
    Rows(Box<dyn RowMemory>, RowLayout),
}

/// The memory itself, which lives as long as a handle or a context that uses it. Fields are dropped in this order: a range is no
/// longer registered when its entry goes.
struct Core {
    kind: MemoryKind,
    body: Body,
    claims: Claims,
    _registration: Option<Registration>,
    _entries: Vec<Entry>,
}

/// A part of a memory for one input or output. Fields are dropped in this order: whoever finds the part given back finds the memory let go,
/// too.
pub struct Claim {
    core: Arc<Core>,
    part: Part,
    start: usize,
}

impl Claim {
    /// Makes it as large as so many bytes need; on failure it stays as it is.
    pub(super) fn resize(&self, bytes: usize) -> Result<()> {
        self.part.change(self.start..part_end(&self.core, self.start, bytes)?)
    }

    /// For a lane.
    pub(super) fn attachment(self: &Arc<Self>) -> Result<Attachment> {
        match &self.core.body {
            Body::Shared(memory) => Ok(Attachment { memory: memory.clone(), offset: self.start, claim: self.clone() }),
            Body::Rows(..) => Err(fail!(Internal, "device memory is attached")),
        }
    }
}

/// The end of a part; an empty one has a byte, so that it can be told from others.
fn part_end(core: &Core, start: usize, bytes: usize) -> Result<usize> {
    let Body::Shared(memory) = &core.body else {
        return Err(fail!(InvalidArgument, "device memory cannot be attached, only what the host reaches, too"));
    };
    let all = memory.bytes();
    let end = start.checked_add(bytes.max(1)).filter(|end| *end <= all);
    end.ok_or_else(|| {
        fail!(InvalidArgument, "{bytes} bytes from byte {start} on are needed, and the memory has {all} bytes")
    })
}

/// Memory of one engine's device. Dropping it gives it back, unless it is attached: contexts, and those that are linked to them, keep it until
/// they are gone. The end of the last one gives it back on the engine's thread, which tells of no parked request meanwhile.
pub struct Memory {
    engine: Arc<EngineCore>,
    core: Arc<Core>,
}

fn ensure_size(bytes: usize) -> Result<()> {
    ensure!(bytes > 0, InvalidArgument, "a memory has at least one byte");
    ensure!(bytes <= MEMORY_BYTES_MAX, TooLarge, "a memory of {bytes} bytes is above {MEMORY_BYTES_MAX}");
    Ok(())
}

impl Memory {
    /// Takes zeroed host memory that the device reaches: page-locked and mapped on a GPU, pages of their own on the host device.
    ///
    /// # Errors
    /// `InvalidArgument` for no bytes, `TooLarge`, `OutOfMemory`, `Driver`, `DeviceLost`.
    pub fn pinned(engine: &Engine, bytes: usize) -> Result<Memory> {
        ensure_size(bytes)?;
        let entries = Self::enter(engine, Account::Memory, bytes)?;
        let body = Body::Shared(engine.core.device.pinned(bytes)?);
        Ok(Self::new(engine, MemoryKind::Pinned, body, None, entries))
    }

    /// Lets the device reach memory of the host program's own, which begins with a page. It is one's own to free once this memory is dropped
    /// and [`MemoryInfo::attached`] was 0 then.
    ///
    /// # Errors
    /// `InvalidArgument` for a range that is null, empty, not aligned to pages, not there, or overlaps one that is registered;
    /// `TooLarge`, `OutOfMemory`, `Driver`, `DeviceLost`.
    pub fn registered(engine: &Engine, range: HostRange) -> Result<Memory> {
        check_range(&range)?;
        ensure_size(range.bytes())?;
        let entries = Self::enter(engine, Account::Registered, range.bytes())?;
        let registration = Registration::enter(&engine.core.registrations, &range)?;
        let body = Body::Shared(engine.core.device.register(range)?);
        Ok(Self::new(engine, MemoryKind::Registered, body, Some(registration), entries))
    }

    /// Takes rows of device memory, whose contents are undefined.
    ///
    /// # Errors
    /// `InvalidArgument` for no rows, no bytes, or elements that are not of 4, 8 or 16 bytes; `TooLarge`, `OutOfMemory`, `Driver`,
    /// `DeviceLost`.
    pub fn rows(engine: &Engine, layout: RowLayout) -> Result<Memory> {
        let RowLayout { rows, row_bytes, element_bytes } = layout;
        ensure!(rows > 0 && row_bytes > 0, InvalidArgument, "{rows} rows of {row_bytes} bytes are no memory");
        ensure!(row_bytes <= ROW_BYTES_MAX, TooLarge, "a row of {row_bytes} bytes is above {ROW_BYTES_MAX}");
        if let Some(bytes) = element_bytes {
            ensure!(matches!(bytes, 4 | 8 | 16), InvalidArgument, "elements have 4, 8 or 16 bytes, not {bytes}");
        }
        let least = rows.checked_mul(row_bytes);
        let least =
            least.ok_or_else(|| fail!(TooLarge, "{rows} rows of {row_bytes} bytes exceed the address space"))?;
        ensure_size(least)?;
        // Only the device knows the pitch, and only when it has taken the memory: what is needed at least is asked for before.
        let mut entries = Self::enter(engine, Account::Memory, least)?;
        let memory = engine.core.device.rows(&layout)?;
        let bytes = memory.pitch_bytes().saturating_mul(rows);
        ensure_size(bytes)?;
        entries.push(engine.core.ledger.enter(Account::Memory, bytes.saturating_sub(least))?);
        let kind = if element_bytes.is_some() { MemoryKind::Pitched } else { MemoryKind::Linear };
        Ok(Self::new(engine, kind, Body::Rows(memory, layout), None, entries))
    }

    fn enter(engine: &Engine, account: Account, bytes: usize) -> Result<Vec<Entry>> {
        engine.core.ensure_alive()?;
        let ledger = &engine.core.ledger;
        Ok(vec![ledger.enter(Account::Memories, 1)?, ledger.enter(account, bytes)?])
    }

    fn new(
        engine: &Engine,
        kind: MemoryKind,
        body: Body,
        registration: Option<Registration>,
        entries: Vec<Entry>,
    ) -> Memory {
        let core = Core { kind, body, claims: Claims::default(), _registration: registration, _entries: entries };
        Memory { engine: engine.core.clone(), core: Arc::new(core) }
    }

    /// What it is and where.
    pub fn info(&self) -> MemoryInfo {
        let attached = self.core.claims.count();
        let kind = self.core.kind;
        match &self.core.body {
            Body::Shared(memory) => {
                let bytes = memory.bytes();
                let address = Some(memory.address());
                MemoryInfo { kind, address, bytes, rows: 1, row_bytes: bytes, pitch_bytes: bytes, attached }
            }
            Body::Rows(memory, RowLayout { rows, row_bytes, .. }) => {
                let pitch_bytes = memory.pitch_bytes();
                let (rows, row_bytes, bytes) = (*rows, *row_bytes, pitch_bytes.saturating_mul(*rows));
                MemoryInfo { kind, address: None, bytes, rows, row_bytes, pitch_bytes, attached }
            }
        }
    }

    /// The bytes of host memory, to be read and written in place.
    ///
    /// # Errors
    /// `InvalidArgument` for device memory, `WrongState` while it is attached: then its contexts have views of it.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        let core = Arc::get_mut(&mut self.core);
        let core = core.ok_or_else(|| fail!(WrongState, "the memory is attached: contexts have views of it"))?;
        match &mut core.body {
            Body::Shared(memory) => {
                let memory = Arc::get_mut(memory);
                Ok(memory.ok_or_else(|| fail!(Internal, "a memory that is not attached is in use"))?.bytes_mut())
            }
            Body::Rows(..) => Err(fail!(InvalidArgument, "the host has no access to device memory; copy it")),
        }
    }

    fn rectangle(&self, options: &CopyOptions) -> Result<(&dyn RowMemory, Rectangle)> {
        let Body::Rows(memory, layout) = &self.core.body else {
            return Err(fail!(InvalidArgument, "host memory is read and written in place, not copied"));
        };
        let rest = |given: usize, all: usize, first: usize| if given == 0 { all.saturating_sub(first) } else { given };
        let row_bytes = rest(options.row_bytes, layout.row_bytes, options.first_byte);
        let rectangle = Rectangle {
            first_row: options.first_row,
            rows: rest(options.rows, layout.rows, options.first_row),
            first_byte: options.first_byte,
            row_bytes,
            host_pitch_bytes: if options.host_pitch_bytes == 0 { row_bytes } else { options.host_pitch_bytes },
        };
        Ok((&**memory, rectangle))
    }

    /// Copies a rectangle from the host and waits for the end of it.
    ///
    /// # Errors
    /// `InvalidArgument` for host memory, or a rectangle that is not inside of the memory or of `from`; `Driver`, `DeviceLost`.
    pub fn write(&self, options: &CopyOptions, from: &[u8]) -> Result<()> {
        let (memory, rectangle) = self.rectangle(options)?;
        memory.write(&rectangle, from)
    }

    /// Copies a rectangle to the host and waits for the end of it.
    ///
    /// # Errors
    /// As [`Memory::write`].
    pub fn read(&self, options: &CopyOptions, into: &mut [u8]) -> Result<()> {
        let (memory, rectangle) = self.rectangle(options)?;
        memory.read(&rectangle, into)
    }

    /// A part of so many bytes for an input or output of a context of that engine.
    pub(super) fn claim(&self, engine: &Arc<EngineCore>, offset: usize, bytes: usize) -> Result<Claim> {
        ensure!(Arc::ptr_eq(engine, &self.engine), InvalidArgument, "memory and context belong to different engines");
        let part = offset..part_end(&self.core, offset, bytes)?;
        ensure!(
            offset.is_multiple_of(ATTACHMENT_ALIGNMENT),
            InvalidArgument,
            "a tensor begins at a multiple of {ATTACHMENT_ALIGNMENT} bytes of the memory, not at byte {offset}"
        );
        let part = self.core.claims.take(part)?;
        Ok(Claim { core: self.core.clone(), part, start: offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ledger::Ledger;
    use std::sync::mpsc::{Sender, channel};

    /// A memory that tells, when it goes, whether a part of it is still taken.
    struct Probe {
        claims: Claims,
        bytes: [u8; 64],
        tell: Sender<usize>,
    }

    impl SharedMemory for Probe {
        fn address(&self) -> *mut u8 {
            self.bytes.as_ptr().cast_mut()
        }

        fn bytes(&self) -> usize {
            self.bytes.len()
        }

        fn bytes_mut(&mut self) -> &mut [u8] {
            &mut self.bytes
        }
    }

    impl Drop for Probe {
        fn drop(&mut self) {
            self.tell.send(self.claims.count()).unwrap();
        }
    }

    #[test]
    fn a_part_is_taken_until_the_memory_is_gone() {
        let (claims, (tell, told)) = (Claims::default(), channel());
        let probe = Arc::new(Probe { claims: claims.clone(), bytes: [0; 64], tell });
        let core = Arc::new(Core {
            kind: MemoryKind::Pinned,
            body: Body::Shared(probe),
            claims: claims.clone(),
            _registration: None,
            _entries: vec![Ledger::new(64).enter(Account::Memory, 64).unwrap()],
        });
        let claim = Arc::new(Claim { part: claims.take(0..64).unwrap(), core, start: 0 });
        let attachment = claim.attachment().unwrap();
        drop(claim);
        assert_eq!((claims.count(), told.try_recv().ok()), (1, None));
        drop(attachment);
        assert_eq!((claims.count(), told.try_recv()), (0, Ok(1)));
    }
}
