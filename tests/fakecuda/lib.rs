//! A simulated CUDA driver: `libcuda.so.1` with the functions that this library uses, and no GPU.
//!
//! It is a checker, not a yes-man. Streams run on threads of their own in an order that a seed decides; copies copy; kernels are computed by
//! the reference twins of their entries, whose every access is checked; device memory cannot be touched by the host, and holds
//! rubbish when it is taken. A misuse ends the process with a sentence. Environment:
//!
//! - `FAKECUDA_SEED`: the schedule.
//! - `FAKECUDA_FAIL=symbol:n:code[:sticky]`: the n-th call of that function, from 1, answers so; with `sticky` all later ones,
//!   too. The function `kernel` is the n-th kernel that runs; `hang` instead of a code never ends.
//! - `FAKECUDA_DEVICES`, `FAKECUDA_CAPABILITY=8.0`, `FAKECUDA_VERSION=13000`, `FAKECUDA_MEMORY_MB`: what there is.
//! - `FAKECUDA_LOG=path`: at its end the driver writes there how often each function was called.

#![allow(missing_docs, reason = "the driver's manual has them")]
#![allow(non_snake_case, reason = "the driver's names")]
#![allow(clippy::missing_safety_doc, reason = "the driver's manual says it")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "pointers are the caller's, and valid as the manual says")]

mod driver;
mod green;
mod hold;
mod kernel;
mod memory;
mod stream;
mod tensor;

use driver::{Code, Driver, PRIORITIES, driver, fault};
use green::Resource;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use stream::{Node, Op, Rows};

/// How many the simulated device has.
const MULTIPROCESSORS: c_int = 132;

/// A function's body: counted, failed on demand, refused once the device is dead.
fn call(name: &'static str, body: impl FnOnce(&Driver) -> Result<(), Code>) -> c_int {
    driver::note_call(name);
    let driver = driver();
    match driver.admit(name) {
        Err(code) => code,
        Ok(()) => body(driver).err().unwrap_or(0),
    }
}

/// Stores a result where the caller wants it.
unsafe fn give<T>(out: *mut T, value: T) {
    if out.is_null() {
        fault("a result has no place");
    }
    // SAFETY: the caller's place for it.
    unsafe { out.write(value) };
}

/// No function of the driver's: how many of those the calling thread has called.
#[unsafe(no_mangle)]
pub extern "C" fn fakecudaCallsOfThread() -> usize {
    driver::calls_of_thread()
}

/// No function of the driver's: holds up what the flags name until it is called without them. 1: work on streams, 2: answers to
/// `cuStreamQuery`, 4: kernels of products, 8: kernels of sums over axes.
#[unsafe(no_mangle)]
pub extern "C" fn fakecudaHold(flags: c_uint) {
    hold::set(flags);
}

/// No function of the driver's: how much of what the flags name is held up at this moment.
#[unsafe(no_mangle)]
pub extern "C" fn fakecudaHeld(flags: c_uint) -> usize {
    hold::count(flags)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(flags: c_uint) -> c_int {
    driver::note_start();
    call("cuInit", |_| if flags == 0 { Ok(()) } else { Err(1) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(out: *mut c_int) -> c_int {
    call("cuDriverGetVersion", |driver| {
        unsafe { give(out, driver.options.version) };
        Ok(())
    })
}

const NAMES: &[(c_int, &CStr, &CStr)] = &[
    (0, c"CUDA_SUCCESS", c"no error"),
    (1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (100, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
    (101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (201, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
    (500, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (600, c"CUDA_ERROR_NOT_READY", c"device not ready"),
    (700, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered"),
    (712, c"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", c"part or all of the requested memory range is already mapped"),
    (719, c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
];

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: c_int, out: *mut *const c_char) -> c_int {
    driver::note_call("cuGetErrorName");
    let known = NAMES.iter().find(|(number, ..)| *number == code);
    unsafe { give(out, known.map_or(std::ptr::null(), |(_, name, _)| name.as_ptr())) };
    if known.is_some() { 0 } else { 1 }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: c_int, out: *mut *const c_char) -> c_int {
    driver::note_call("cuGetErrorString");
    let known = NAMES.iter().find(|(number, ..)| *number == code);
    unsafe { give(out, known.map_or(std::ptr::null(), |(_, _, text)| text.as_ptr())) };
    if known.is_some() { 0 } else { 1 }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(out: *mut c_int) -> c_int {
    call("cuDeviceGetCount", |driver| {
        unsafe { give(out, driver.options.devices) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(out: *mut c_int, index: c_int) -> c_int {
    call("cuDeviceGet", |driver| {
        driver.device(index)?;
        unsafe { give(out, index) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(out: *mut c_char, bytes: c_int, device: c_int) -> c_int {
    call("cuDeviceGetName", |driver| {
        driver.device(device)?;
        let name = b"Simulated GPU\0";
        if (bytes as usize) < name.len() {
            return Err(1);
        }
        unsafe { std::ptr::copy_nonoverlapping(name.as_ptr().cast(), out, name.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(out: *mut c_char, bytes: c_int, device: c_int) -> c_int {
    call("cuDeviceGetPCIBusId", |driver| {
        driver.device(device)?;
        let bus = format!("0000:{:02X}:00.0\0", 0xA0 + device);
        if (bytes as usize) < bus.len() {
            return Err(1);
        }
        unsafe { std::ptr::copy_nonoverlapping(bus.as_ptr().cast(), out, bus.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(out: *mut [u8; 16], device: c_int) -> c_int {
    call("cuDeviceGetUuid_v2", |driver| {
        driver.device(device)?;
        let mut uuid = *b"simulated-gpu-00";
        uuid[15] += device as u8;
        unsafe { give(out, uuid) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(out: *mut usize, device: c_int) -> c_int {
    call("cuDeviceTotalMem_v2", |driver| {
        driver.device(device)?;
        unsafe { give(out, driver.options.memory_bytes) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(out: *mut c_int, attribute: c_int, device: c_int) -> c_int {
    call("cuDeviceGetAttribute", |driver| {
        driver.device(device)?;
        let value = match attribute {
            16 => MULTIPROCESSORS,
            75 => driver.options.capability.0,
            76 => driver.options.capability.1,
            97 => kernel::shared_bytes_max(driver.options.capability) as c_int,
            _ => return Err(1),
        };
        unsafe { give(out, value) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(out: *mut usize, device: c_int) -> c_int {
    call("cuDevicePrimaryCtxRetain", |driver| {
        unsafe { give(out, driver.retain(device)?) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> c_int {
    call("cuDevicePrimaryCtxRelease_v2", |driver| driver.release(device))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPushCurrent_v2(context: usize) -> c_int {
    call("cuCtxPushCurrent_v2", |driver| driver.push(context))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(out: *mut usize) -> c_int {
    driver::note_call("cuCtxPopCurrent_v2");
    // Never fails on demand: a thread that has pushed pops.
    match driver::pop() {
        Some(context) => {
            unsafe { give(out, context) };
            0
        }
        None => fault("a context is popped that nobody has pushed"),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryLoadData(
    out: *mut usize,
    image: *const c_char,
    options: *const c_int,
    values: *const *mut c_void,
    count: c_uint,
    _: *const c_int,
    _: *const *mut c_void,
    library_count: c_uint,
) -> c_int {
    call("cuLibraryLoadData", |driver| {
        if image.is_null() || (count > 0 && (options.is_null() || values.is_null())) || library_count > 0 {
            return Err(1);
        }
        // SAFETY: this library loads PTX, which ends with a zero.
        let text = unsafe { CStr::from_ptr(image) }.to_str().map_err(|_| 218)?;
        unsafe { give(out, driver.load_library(text)?) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryUnload(library: usize) -> c_int {
    call("cuLibraryUnload", |driver| driver.unload_library(library))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryGetKernel(out: *mut usize, library: usize, name: *const c_char) -> c_int {
    call("cuLibraryGetKernel", |driver| {
        let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| 1)?;
        unsafe { give(out, driver.kernel(library, name)?) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuKernelGetFunction(out: *mut usize, kernel: usize) -> c_int {
    call("cuKernelGetFunction", |driver| {
        driver.current()?;
        unsafe { give(out, kernel) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuKernelSetAttribute(attribute: c_int, value: c_int, kernel: usize, device: c_int) -> c_int {
    call("cuKernelSetAttribute", |driver| {
        driver.device(device)?;
        if attribute != 8 || value < 0 { Err(1) } else { driver.allow_shared(kernel, value as u32) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(out: *mut u64, bytes: usize) -> c_int {
    call("cuMemAlloc_v2", |driver| {
        driver.current()?;
        unsafe { give(out, driver.memory.take_device(bytes, driver.options.memory_bytes)?) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    call("cuMemFree_v2", |driver| {
        driver.current()?;
        driver.drain();
        driver.memory.free(address, memory::Kind::Device)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(out: *mut u64, bytes: usize, flags: c_uint) -> c_int {
    call("cuMemHostAlloc", |driver| {
        driver.current()?;
        if flags & 2 == 0 {
            fault("host memory that the GPU cannot see");
        }
        unsafe { give(out, driver.memory.take_host(bytes)?) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(address: u64) -> c_int {
    call("cuMemFreeHost", |driver| {
        driver.current()?;
        driver.drain();
        driver.memory.free(address, memory::Kind::Host)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostGetDevicePointer_v2(out: *mut u64, address: u64, flags: c_uint) -> c_int {
    call("cuMemHostGetDevicePointer_v2", |driver| {
        driver.current()?;
        if flags != 0 || !driver.memory.is_host(address) {
            return Err(1);
        }
        unsafe { give(out, address) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, stream: usize) -> c_int {
    call("cuMemcpyHtoDAsync_v2", |driver| {
        driver.current()?;
        // Pageable memory is read before the call returns.
        let data = unsafe { std::slice::from_raw_parts(from, bytes) }.to_vec();
        driver.stream(stream)?.push(Op::Store { to, data });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: usize) -> c_int {
    call("cuMemsetD8Async", |driver| {
        driver.current()?;
        driver.stream(stream)?.push(Op::Store { to, data: vec![value; bytes] });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> c_int {
    call("cuCtxGetStreamPriorityRange", |driver| {
        driver.current()?;
        unsafe { give(least, PRIORITIES.0) };
        unsafe { give(greatest, PRIORITIES.1) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(out: *mut usize, flags: c_uint, priority: c_int) -> c_int {
    call("cuStreamCreateWithPriority", |driver| {
        let context = driver.current()?;
        if flags & 1 == 0 {
            fault("a stream that waits for the default stream");
        }
        unsafe { give(out, driver.new_stream(context, priority)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: usize) -> c_int {
    call("cuStreamDestroy_v2", |driver| {
        driver.current()?;
        driver.free_stream(stream)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: usize) -> c_int {
    call("cuStreamSynchronize", |driver| {
        driver.current()?;
        driver.stream(stream)?.drain();
        driver.alive()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamQuery(stream: usize) -> c_int {
    call("cuStreamQuery", |driver| {
        driver.current()?;
        hold::pass(hold::QUERIES);
        if driver.stream(stream)?.is_idle() { driver.alive() } else { Err(600) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitValue64_v2(stream: usize, at: u64, value: u64, flags: c_uint) -> c_int {
    call("cuStreamWaitValue64_v2", |driver| {
        driver.current()?;
        if flags != 0 || !at.is_multiple_of(8) || !driver.memory.is_host(at) {
            return Err(1);
        }
        driver.stream(stream)?.push(Op::Wait { at, value });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphCreate(out: *mut usize, flags: c_uint) -> c_int {
    call("cuGraphCreate", |driver| {
        if flags != 0 {
            return Err(1);
        }
        unsafe { give(out, driver.new_graph()) };
        Ok(())
    })
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`
#[repr(C)]
pub struct KernelNode {
    function: usize,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    parameters: *const *const u8,
    extra: *const c_void,
    kernel: usize,
    context: usize,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphAddKernelNode_v2(
    out: *mut usize,
    graph: usize,
    after: *const usize,
    after_count: usize,
    node: *const KernelNode,
) -> c_int {
    call("cuGraphAddKernelNode_v2", |driver| {
        driver.current()?;
        let node = unsafe { &*node };
        if !node.extra.is_null() || node.function != 0 || node.parameters.is_null() {
            return Err(1);
        }
        let (entry, waits) = driver.check_launch(node.kernel, node.grid, node.block, node.shared_bytes);
        // SAFETY: one parameter of the entry's size.
        let arguments = unsafe { std::slice::from_raw_parts(*node.parameters, entry.argument_bytes) }.to_vec();
        tensor::check(&entry, &arguments);
        let after =
            unsafe { std::slice::from_raw_parts(if after_count == 0 { [].as_ptr() } else { after }, after_count) };
        let kernel = Node::Kernel { entry, arguments, waits };
        unsafe { give(out, driver.add_node(graph, after, kernel, node.context)?) };
        Ok(())
    })
}

/// `CUlaunchAttributeValue`
#[repr(C, align(8))]
pub struct LaunchValue {
    priority: c_int,
    rest: [u8; 60],
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphKernelNodeSetAttribute(
    node: usize,
    attribute: c_int,
    value: *const LaunchValue,
) -> c_int {
    call("cuGraphKernelNodeSetAttribute", |driver| {
        if attribute != 8 || value.is_null() { Err(1) } else { driver.prefer(node, unsafe { (*value).priority }) }
    })
}

/// `CUgraphEdgeData`
#[repr(C)]
#[derive(PartialEq, Eq)]
pub struct Edge {
    from_port: u8,
    to_port: u8,
    kind: u8,
    reserved: [u8; 5],
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphAddDependencies_v2(
    graph: usize,
    from: *const usize,
    to: *const usize,
    edges: *const Edge,
    count: usize,
) -> c_int {
    call("cuGraphAddDependencies_v2", |driver| {
        let programmatic = Edge { from_port: 1, to_port: 0, kind: 1, reserved: [0; 5] };
        // Drivers up to CUDA 13 take the first edge's kind for all of a call.
        if count != 1 || unsafe { &*edges } != &programmatic {
            return Err(1);
        }
        driver.overlap(graph, unsafe { *from }, unsafe { *to });
        Ok(())
    })
}

/// One side of `CUDA_MEMCPY3D_v2`.
#[repr(C)]
pub struct CopySide {
    position: [usize; 4],
    memory: c_int,
    host: u64,
    device: u64,
    array: usize,
    reserved: usize,
    pitch: usize,
    height: usize,
}

/// `CUDA_MEMCPY3D_v2`
#[repr(C)]
pub struct CopyNode {
    from: CopySide,
    to: CopySide,
    extent: [usize; 3],
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphAddMemcpyNode(
    out: *mut usize,
    graph: usize,
    after: *const usize,
    after_count: usize,
    node: *const CopyNode,
    context: usize,
) -> c_int {
    call("cuGraphAddMemcpyNode", |driver| {
        let node = unsafe { &*node };
        let address = |side: &CopySide| if side.memory == 1 { side.host } else { side.device };
        let (from, to, bytes) = (address(&node.from), address(&node.to), node.extent[0]);
        if node.extent[1..] != [1, 1] || node.from.position != [0; 4] || node.to.position != [0; 4] {
            return Err(1);
        }
        let after =
            unsafe { std::slice::from_raw_parts(if after_count == 0 { [].as_ptr() } else { after }, after_count) };
        unsafe { give(out, driver.add_node(graph, after, Node::Copy { from, to, bytes }, context)?) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(out: *mut usize, graph: usize, flags: u64) -> c_int {
    call("cuGraphInstantiateWithFlags", |driver| {
        driver.current()?;
        if flags & !8 != 0 {
            return Err(1);
        }
        unsafe { give(out, driver.instantiate(graph, flags == 8)?) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphDestroy(graph: usize) -> c_int {
    call("cuGraphDestroy", |driver| driver.free_graph(graph))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphUpload(exec: usize, stream: usize) -> c_int {
    call("cuGraphUpload", |driver| {
        driver.current()?;
        driver.stream(stream)?;
        driver.exec(exec).map(|_| ())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphLaunch(exec: usize, stream: usize) -> c_int {
    call("cuGraphLaunch", |driver| {
        driver.current()?;
        let (nodes, stream) = driver.launch(exec, stream)?;
        stream.push(Op::Replay(nodes));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphExecDestroy(exec: usize) -> c_int {
    call("cuGraphExecDestroy", |driver| driver.free_exec(exec))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDevResource(device: c_int, out: *mut Resource, kind: c_int) -> c_int {
    call("cuDeviceGetDevResource", |driver| {
        driver.device(device)?;
        if kind != 1 {
            return Err(914);
        }
        unsafe { give(out, Resource::new(0, 0, MULTIPROCESSORS as u32)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevSmResourceSplitByCount(
    out: *mut Resource,
    count: *mut c_uint,
    from: *const Resource,
    rest: *mut Resource,
    flags: c_uint,
    least: c_uint,
) -> c_int {
    call("cuDevSmResourceSplitByCount", |driver| {
        if count.is_null() || from.is_null() {
            return Err(1);
        }
        let most = if out.is_null() { None } else { Some(unsafe { *count }) };
        let split = |greens: &mut green::Greens| {
            greens.split(unsafe { &*from }, driver.options.capability.0, flags, least, most)
        };
        let (groups, left) = driver.greens(split)?;
        unsafe { give(count, groups.len() as c_uint) };
        if !out.is_null() {
            // SAFETY: room for as many groups as the caller said.
            unsafe { std::ptr::copy_nonoverlapping(groups.as_ptr(), out, groups.len()) };
        }
        if !rest.is_null() {
            unsafe { give(rest, left) };
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevResourceGenerateDesc(
    out: *mut usize,
    resources: *const Resource,
    count: c_uint,
) -> c_int {
    call("cuDevResourceGenerateDesc", |driver| {
        if resources.is_null() {
            return Err(1);
        }
        let resources = unsafe { std::slice::from_raw_parts(resources, count as usize) };
        unsafe { give(out, driver.new_description(resources)?) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGreenCtxCreate(out: *mut usize, description: usize, device: c_int, flags: c_uint) -> c_int {
    call("cuGreenCtxCreate", |driver| {
        if flags != 1 {
            return Err(1);
        }
        unsafe { give(out, driver.new_green(description, device)?) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGreenCtxDestroy(green: usize) -> c_int {
    call("cuGreenCtxDestroy", |driver| driver.free_green(green))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxFromGreenCtx(out: *mut usize, green: usize) -> c_int {
    call("cuCtxFromGreenCtx", |driver| {
        if !driver.greens(|greens| greens.is_live(green)) {
            fault("a context of no green context");
        }
        unsafe { give(out, green) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGreenCtxStreamCreate(
    out: *mut usize,
    green: usize,
    flags: c_uint,
    priority: c_int,
) -> c_int {
    call("cuGreenCtxStreamCreate", |driver| {
        if flags != 1 {
            return Err(1);
        }
        if !driver.greens(|greens| greens.is_live(green)) {
            fault("a stream in a green context that is not there");
        }
        unsafe { give(out, driver.new_stream(green, priority)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostRegister_v2(address: u64, bytes: usize, flags: c_uint) -> c_int {
    call("cuMemHostRegister_v2", |driver| {
        driver.current()?;
        if flags & !15 != 0 {
            return Err(1);
        }
        if flags & 2 == 0 {
            fault("host memory that the GPU cannot see");
        }
        driver.memory.register(address, bytes)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostUnregister(address: u64) -> c_int {
    call("cuMemHostUnregister", |driver| {
        driver.current()?;
        driver.drain();
        driver.let_go(&driver.memory.unregister(address));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocPitch_v2(
    out: *mut u64,
    pitch: *mut usize,
    row_bytes: usize,
    rows: usize,
    element_bytes: c_uint,
) -> c_int {
    call("cuMemAllocPitch_v2", |driver| {
        driver.current()?;
        let taken = driver.memory.take_rows(row_bytes, rows, element_bytes, driver.options.memory_bytes)?;
        unsafe {
            give(out, taken.0);
            give(pitch, taken.1);
        }
        Ok(())
    })
}

/// One side of `CUDA_MEMCPY2D_v2`.
#[repr(C)]
pub struct RowsSide {
    position: [usize; 2],
    memory: c_int,
    host: u64,
    device: u64,
    array: usize,
    pitch: usize,
}

/// `CUDA_MEMCPY2D_v2`
#[repr(C)]
pub struct CopyRows {
    from: RowsSide,
    to: RowsSide,
    extent: [usize; 2],
}

impl RowsSide {
    /// The first byte, and whether it is the host's pageable memory.
    fn first(&self, driver: &Driver) -> (u64, bool) {
        let base = if self.memory == 1 { self.host } else { self.device };
        let first = base + (self.position[1] * self.pitch + self.position[0]) as u64;
        (first, self.memory == 1 && !driver.memory.is_host(first))
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy2DAsync_v2(copy: *const CopyRows, stream: usize) -> c_int {
    call("cuMemcpy2DAsync_v2", |driver| {
        driver.current()?;
        let CopyRows { from, to, extent: [row_bytes, rows] } = unsafe { &*copy };
        let (row_bytes, rows) = (*row_bytes, *rows);
        let is_known = |side: &RowsSide| matches!(side.memory, 1 | 2) && side.array == 0;
        let is_wide = |side: &RowsSide| side.pitch >= row_bytes && side.pitch <= i32::MAX as usize;
        if !is_known(from) || !is_known(to) || !is_wide(from) || !is_wide(to) {
            return Err(1);
        }
        if row_bytes == 0 || rows == 0 {
            fault("a copy of nothing");
        }
        let ((first, is_read_now), (to_first, is_pageable)) = (from.first(driver), to.first(driver));
        // Pageable memory is read before the call returns, and written before it returns.
        let bytes = (rows - 1) * from.pitch + row_bytes;
        let data = is_read_now.then(|| unsafe { std::slice::from_raw_parts(first as *const u8, bytes) }.to_vec());
        let (from, to) = ((first, from.pitch), (to_first, to.pitch));
        let stream = driver.stream(stream)?;
        stream.push(Op::Rows(Rows { from, data, to, is_pageable, row_bytes, rows }));
        if is_pageable {
            stream.drain();
        }
        driver.alive()
    })
}
