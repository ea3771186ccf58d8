//! Memories.

use super::context::si_context;
use super::engine::si_engine;
use super::error::{si_error, si_result};
use super::guard;
use super::objects::{CONTEXTS, ENGINES, MEMORIES};
use super::pointer::{In, Lent, Many, ManyOut, Out, place, versioned};
use crate::error::{Result, Status, ensure, fail};
use crate::runtime::{CopyOptions, Engine, Memory, MemoryInfo, MemoryKind, RowLayout};
use std::ffi::c_void;
use std::mem::MaybeUninit;

/// Memory that a host takes from an engine's device or lends it, beside the inputs and outputs that contexts have anyway. Inputs and
/// outputs of contexts can be attached to host memory, so that a host with buffers of its own copies nothing. Device memory is for
/// hosts that keep data on the device and copy to and from it. Any thread may use it, several at once. It may be freed before the contexts
/// that it is attached to; they, and those that are linked to them, keep it until they are freed and drained.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_memory {
    /// 0 is no memory.
    pub handle: u64,
}

/// Host memory that the library takes, zeroed: page-locked and mapped on a GPU, pages of their own on the host device.
pub const SI_MEMORY_PINNED: u32 = 1;
/// The host's own memory: page-locked and mapped on a GPU while it is registered.
pub const SI_MEMORY_REGISTERED: u32 = 2;
/// Rows of device memory, each of which begins where the device accesses it best; on the host device, with a cache line of 64 bytes.
pub const SI_MEMORY_PITCHED: u32 = 3;
/// Rows of device memory without gaps between them.
pub const SI_MEMORY_LINEAR: u32 = 4;

/// The host's own memory begins at a multiple of this.
pub const SI_MEMORY_PAGE_BYTES: u64 = 4096;
/// An input or output begins at a multiple of this in the memory that it is attached to.
pub const SI_MEMORY_ALIGNMENT: u64 = 64;

/// What memory is to be had. Fields that a kind has no use for are zero.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_memory_options {
    /// Set by the caller to sizeof(si_memory_options).
    pub struct_size: u32,
    /// One of `SI_MEMORY_*`.
    pub kind: u32,
    /// SI_MEMORY_REGISTERED: the first byte, at a multiple of SI_MEMORY_PAGE_BYTES. Owned by the caller, who keeps it mapped and writable
    /// at this address until si_memory_free, and beyond if `attached_count` was not 0 then.
    pub address: Lent,
    /// SI_MEMORY_PINNED and SI_MEMORY_REGISTERED: how many bytes.
    pub bytes: u64,
    /// SI_MEMORY_PITCHED and SI_MEMORY_LINEAR: how many rows.
    pub row_count: u64,
    /// SI_MEMORY_PITCHED and SI_MEMORY_LINEAR: bytes of a row.
    pub row_bytes: u64,
    /// SI_MEMORY_PITCHED: bytes of the elements that the device will access rows by: 4, 8 or 16. 0: 16.
    pub element_bytes: u32,
    /// Zero.
    pub reserved: u32,
}

/// A memory in figures.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_memory_info {
    /// Set by the caller to sizeof(si_memory_info).
    pub struct_size: u32,
    /// One of `SI_MEMORY_*`.
    pub kind: u32,
    /// Where the host reads and writes it in place; null for device memory. Owned by the memory (or, if it is registered, by the host), valid
    /// until it is freed and no context uses it any more.
    pub address: *mut c_void,
    /// All its bytes, gaps between rows included.
    pub bytes: u64,
    /// Rows; 1 for host memory.
    pub row_count: u64,
    /// Bytes of a row; all for host memory.
    pub row_bytes: u64,
    /// Bytes from the start of a row to that of the next.
    pub pitch_bytes: u64,
    /// Inputs and outputs that are attached to it. One counts until its context, and every context that is linked to that one, is freed
    /// and drained. A host that wants its registered memory back frees the contexts, waits for 0, and frees this while no other thread
    /// is inside a call with it.
    pub attached_count: u32,
    /// Zero.
    pub reserved: u32,
}

/// A part of rows of device memory, and how it lies in the host's. All zero (but struct_size) is everything, without gaps; a null pointer is,
/// too.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct si_copy_options {
    /// Set by the caller to sizeof(si_copy_options).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// The first row.
    pub row_index: u64,
    /// How many rows. 0: all from the first on.
    pub row_count: u64,
    /// The first byte of each row.
    pub byte_index: u64,
    /// How many bytes of each row. 0: all from the first on.
    pub row_bytes: u64,
    /// In the host's memory, bytes from the start of a row to that of the next. 0: as many as are copied of each.
    pub pitch_bytes: u64,
}

versioned! { si_memory_options: 48, si_memory_info: 56, si_copy_options: 48 }

fn size(value: u64, name: &str) -> Result<usize> {
    usize::try_from(value).map_err(|_| fail!(InvalidArgument, "{name} is {value}, more than there can be"))
}

impl si_memory_options {
    /// That fields other than those which the kind has a use for are zero.
    fn ensure_only(&self, used: &[&str]) -> Result<()> {
        ensure!(self.reserved == 0, InvalidArgument, "options.reserved is {}, and must be zero", self.reserved);
        let are_set = [
            ("address", !self.address.is_null()),
            ("bytes", self.bytes != 0),
            ("row_count", self.row_count != 0),
            ("row_bytes", self.row_bytes != 0),
            ("element_bytes", self.element_bytes != 0),
        ];
        match are_set.iter().find(|(name, is_set)| *is_set && !used.contains(name)) {
            Some((name, _)) => {
                Err(fail!(InvalidArgument, "options.{name} is set, and memory of kind {} has none", self.kind))
            }
            None => Ok(()),
        }
    }

    fn make(&self, engine: &Engine) -> Result<Memory> {
        match self.kind {
            SI_MEMORY_PINNED => {
                self.ensure_only(&["bytes"])?;
                Memory::pinned(engine, size(self.bytes, "options.bytes")?)
            }
            SI_MEMORY_REGISTERED => {
                self.ensure_only(&["address", "bytes"])?;
                Memory::registered(engine, self.address.lend(size(self.bytes, "options.bytes")?))
            }
            SI_MEMORY_PITCHED => {
                self.ensure_only(&["row_count", "row_bytes", "element_bytes"])?;
                let element = if self.element_bytes == 0 { 16 } else { self.element_bytes as usize };
                Memory::rows(engine, self.layout(Some(element))?)
            }
            SI_MEMORY_LINEAR => {
                self.ensure_only(&["row_count", "row_bytes"])?;
                Memory::rows(engine, self.layout(None)?)
            }
            other => Err(fail!(InvalidArgument, "options.kind {other} is no SI_MEMORY_ value")),
        }
    }

    fn layout(&self, element_bytes: Option<usize>) -> Result<RowLayout> {
        let (rows, row_bytes) =
            (size(self.row_count, "options.row_count")?, size(self.row_bytes, "options.row_bytes")?);
        Ok(RowLayout { rows, row_bytes, element_bytes })
    }
}

impl From<&MemoryInfo> for si_memory_info {
    fn from(info: &MemoryInfo) -> Self {
        si_memory_info {
            struct_size: size_of::<Self>() as u32,
            kind: match info.kind {
                MemoryKind::Pinned => SI_MEMORY_PINNED,
                MemoryKind::Registered => SI_MEMORY_REGISTERED,
                MemoryKind::Pitched => SI_MEMORY_PITCHED,
                MemoryKind::Linear => SI_MEMORY_LINEAR,
            },
            address: info.address.map_or(std::ptr::null_mut(), |address| address.cast()),
            bytes: info.bytes as u64,
            row_count: info.rows as u64,
            row_bytes: info.row_bytes as u64,
            pitch_bytes: info.pitch_bytes as u64,
            attached_count: info.attached as u32,
            reserved: 0,
        }
    }
}

impl si_copy_options {
    fn options(given: In<si_copy_options>) -> Result<CopyOptions> {
        let Some(given) = given.read()? else { return Ok(CopyOptions::default()) };
        ensure!(given.reserved == 0, InvalidArgument, "options.reserved is {}, and must be zero", given.reserved);
        Ok(CopyOptions {
            first_row: size(given.row_index, "options.row_index")?,
            rows: size(given.row_count, "options.row_count")?,
            first_byte: size(given.byte_index, "options.byte_index")?,
            row_bytes: size(given.row_bytes, "options.row_bytes")?,
            host_pitch_bytes: size(given.pitch_bytes, "options.pitch_bytes")?,
        })
    }
}

/// Takes memory, or registers the host's own. This is for setting up: on a GPU, it and si_memory_free may wait for all that the GPU is
/// at, and hold up what others submit meanwhile.
///
/// @param engine Borrowed for the call; contexts of this engine may use the memory.
/// @param options Borrowed for the call; required.
/// @param out_memory Receives the memory, owned by the caller, free with si_memory_free.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (a field of another kind is set, nothing is asked for, or a range is null, not aligned, not all there or
///     registered already), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_TOO_LARGE, SI_LIMIT_REACHED, SI_OUT_OF_MEMORY,
///     SI_DRIVER, SI_DEVICE_LOST.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_memory_new(
    engine: si_engine,
    options: In<si_memory_options>,
    out_memory: Option<&mut MaybeUninit<si_memory>>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_memory = place(out_memory, "out_memory")?;
        let options = options.required("options")?;
        let memory = ENGINES.pin(engine.handle, |engine| options.make(engine))?;
        let handle = MEMORIES.insert(memory, (), |_, ()| ())?;
        out_memory.write(si_memory { handle });
        Ok(Status::Ok)
    })
}

/// Describes a memory.
///
/// @param memory Borrowed for the call.
/// @param out_info Receives the description. Owned by the caller.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_memory_describe(
    memory: si_memory,
    out_info: Out<si_memory_info>,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let out_info = out_info.check("out_info")?;
        let info = MEMORIES.pin(memory.handle, |memory| Ok(memory.info()))?;
        out_info.write(&si_memory_info::from(&info))?;
        Ok(Status::Ok)
    })
}

/// Copies rows from the host to device memory, and returns when they are there.
///
/// @param memory Borrowed for the call; SI_MEMORY_PITCHED or SI_MEMORY_LINEAR.
/// @param options Which rows, and how they lie in data. Borrowed for the call; null means all of them, without gaps.
/// @param data Where the first byte of the first row is. Borrowed for the call; page-locked memory is faster.
/// @param data_bytes How many bytes may be read from there on.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (host memory, or rows or bytes that are not in the memory or in data), SI_INVALID_HANDLE,
///     SI_STALE_HANDLE, SI_WRONG_TYPE, SI_DRIVER, SI_DEVICE_LOST.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_memory_write(
    memory: si_memory,
    options: In<si_copy_options>,
    data: Many<u8>,
    data_bytes: usize,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let (options, data) = (si_copy_options::options(options)?, data.elements(data_bytes, "data")?);
        MEMORIES.pin(memory.handle, |memory| memory.write(&options, data))?;
        Ok(Status::Ok)
    })
}

/// Copies rows from device memory to the host, and returns when they are there. Bytes between rows are left alone.
///
/// @param memory Borrowed for the call; SI_MEMORY_PITCHED or SI_MEMORY_LINEAR.
/// @param options Which rows, and how they lie in out_data. Borrowed for the call; null means all of them, without gaps.
/// @param out_data Where the first byte of the first row goes. Owned by the caller; page-locked memory is faster.
/// @param data_bytes How many bytes may be written from there on.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (host memory, or rows or bytes that are not in the memory or in out_data), SI_INVALID_HANDLE,
///     SI_STALE_HANDLE, SI_WRONG_TYPE, SI_DRIVER, SI_DEVICE_LOST. After the last two, what out_data holds is undefined.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_memory_read(
    memory: si_memory,
    options: In<si_copy_options>,
    out_data: ManyOut<u8>,
    data_bytes: usize,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let (options, data) = (si_copy_options::options(options)?, out_data.bytes(data_bytes, "out_data")?);
        MEMORIES.pin(memory.handle, |memory| memory.read(&options, data))?;
        Ok(Status::Ok)
    })
}

/// Makes an input of a context lie in host memory of the host's choice: the device reads it there, and nothing is copied. What is there
/// stays, but for values of shape inputs and what padding fills. It needs as many bytes as the input has in the largest bucket.
///
/// @param target The context. Borrowed for the call; not prepared yet. It keeps the memory until it, and every context that is
///     linked to it, is freed and drained.
/// @param input_index The context's input. `si_context_input` then gives an address in the memory.
/// @param memory Borrowed for the call; SI_MEMORY_PINNED or SI_MEMORY_REGISTERED, of the context's engine.
/// @param byte_offset Where in the memory the input begins: a multiple of SI_MEMORY_ALIGNMENT.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_ARGUMENT (an index that is too high, an input that is linked or attached already, device memory, different
///     engines, an offset that is not aligned, a memory that is too small, or a part of it that another input or output has),
///     SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (prepared already), SI_WRONG_THREAD, SI_BUSY, SI_POISONED,
///     SI_DEVICE_LOST.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_attach_input(
    target: si_context,
    input_index: u32,
    memory: si_memory,
    byte_offset: u64,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let (index, offset) = (input_index as usize, size(byte_offset, "byte_offset")?);
        MEMORIES.pin(memory.handle, |memory| {
            CONTEXTS.enter(target.handle, |context| context.attach_input(index, memory, offset))
        })?;
        Ok(Status::Ok)
    })
}

/// Makes an output of a context lie in host memory of the host's choice: the device writes it there, and nothing is copied.
/// si_context_prepare may write there, too. It needs as many bytes as the output has in the largest bucket.
///
/// @param target The context. Borrowed for the call; not prepared yet. It keeps the memory until it, and every context that is
///     linked to it, is freed and drained.
/// @param output_index The context's output. `si_context_output` then gives an address in the memory.
/// @param memory Borrowed for the call; SI_MEMORY_PINNED or SI_MEMORY_REGISTERED, of the context's engine.
/// @param byte_offset Where in the memory the output begins: a multiple of SI_MEMORY_ALIGNMENT.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return As si_context_attach_input.
/// Threads: the context's rule. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_context_attach_output(
    target: si_context,
    output_index: u32,
    memory: si_memory,
    byte_offset: u64,
    error: Option<&mut MaybeUninit<si_error>>,
) -> si_result {
    guard::call(error, || {
        let (index, offset) = (output_index as usize, size(byte_offset, "byte_offset")?);
        MEMORIES.pin(memory.handle, |memory| {
            CONTEXTS.enter(target.handle, |context| context.attach_output(index, memory, offset))
        })?;
        Ok(Status::Ok)
    })
}

/// Frees a memory, now or when the last context that it is attached to is freed and drained. On the host device a freed memory's
/// addresses lead to nothing, as those of a freed context's inputs. Registered memory is the host's own again at once if `attached_count`
/// was 0; if another thread is inside a call with this memory, when that call returns. Otherwise the end of the last context gives it
/// back, on a thread of the engine's: on a GPU, parked requests of the engine may be told of their ends later by the time that the
/// driver takes for it.
///
/// @param memory Consumed. The zero handle is a no-op.
/// @param error Receives the failure. Owned by the caller, may be null.
/// @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
/// Threads: any. Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn si_memory_free(memory: si_memory, error: Option<&mut MaybeUninit<si_error>>) -> si_result {
    guard::call(error, || {
        MEMORIES.remove(memory.handle, |_| ())?;
        Ok(Status::Ok)
    })
}
