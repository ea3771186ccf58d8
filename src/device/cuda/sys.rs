//! The CUDA driver's functions, resolved at run time: our own table over `libloading`, in the types of the CUDA 13 headers.
//!
//! `libcuda.so.1` is looked for by the system's loader, never in the working directory, and never closed. Every
//! function of the table must be there. A result is a number, so that a code that is not known here is a value like any other.

use crate::error::{Result, ensure, fail};
use libloading::os::unix::Library;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

/// `CUresult`.
pub type CuResult = c_int;
/// `CUdevice`.
pub type CuDevice = c_int;
/// `CUdeviceptr`.
pub type CuAddress = u64;
/// `CUcontext`.
pub type CuContext = *mut c_void;
/// `CUmodule`.
pub type CuModule = *mut c_void;
/// `CUfunction`.
pub type CuFunction = *mut c_void;
/// `CUstream`.
pub type CuStream = *mut c_void;
/// `CUgraph`.
pub type CuGraph = *mut c_void;
/// `CUgraphNode`.
pub type CuNode = *mut c_void;
/// `CUgraphExec`.
pub type CuExec = *mut c_void;

/// `CUDA_SUCCESS`.
pub const SUCCESS: CuResult = 0;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub const OUT_OF_MEMORY: CuResult = 2;
/// `CUDA_ERROR_NO_DEVICE`.
pub const NO_DEVICE: CuResult = 100;
/// `CUDA_ERROR_NOT_READY`.
pub const NOT_READY: CuResult = 600;

/// `CU_STREAM_NON_BLOCKING`.
pub const STREAM_NON_BLOCKING: c_uint = 1;
/// `CU_STREAM_WAIT_VALUE_GEQ`.
pub const WAIT_VALUE_GEQ: c_uint = 0;
/// `CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP`.
pub const HOST_PORTABLE_MAPPED: c_uint = 3;
/// `CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP`.
pub const REGISTER_PORTABLE_MAPPED: c_uint = 3;
/// `CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED`.
pub const ALREADY_REGISTERED: CuResult = 712;
/// `CU_MEMORYTYPE_HOST`.
pub const MEMORY_HOST: c_int = 1;
/// `CU_MEMORYTYPE_DEVICE`.
pub const MEMORY_DEVICE: c_int = 2;
/// `CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC`.
pub const PORT_PROGRAMMATIC: u8 = 1;
/// `CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC`.
pub const DEPENDENCY_PROGRAMMATIC: u8 = 1;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
pub const FUNCTION_SHARED_BYTES_MAX: c_int = 8;
/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`.
pub const ATTRIBUTE_MULTIPROCESSORS: c_int = 16;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`.
pub const ATTRIBUTE_CAPABILITY_MAJOR: c_int = 75;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR`.
pub const ATTRIBUTE_CAPABILITY_MINOR: c_int = 76;
/// `CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN`.
pub const ATTRIBUTE_SHARED_BYTES_MAX: c_int = 97;
/// `CU_JIT_ERROR_LOG_BUFFER`.
pub const JIT_ERROR_LOG: c_int = 5;
/// `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`.
pub const JIT_ERROR_LOG_BYTES: c_int = 6;

/// `CUuuid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CuUuid {
    /// The identifier's bytes in reading order.
    pub bytes: [u8; 16],
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CuKernelNode {
    /// What to launch.
    pub function: CuFunction,
    /// Blocks along x, y, z.
    pub grid: [c_uint; 3],
    /// Threads of a block along x, y, z.
    pub block: [c_uint; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: c_uint,
    /// One address per parameter.
    pub parameters: *mut *mut c_void,
    /// Null.
    pub extra: *mut *mut c_void,
    /// Null.
    pub kernel: *mut c_void,
    /// Null: the function's own.
    pub context: CuContext,
}

/// `CUgraphEdgeData`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CuEdge {
    /// When the node before lets go; 0: when it has ended.
    pub from_port: u8,
    /// 0: the whole node behind waits.
    pub to_port: u8,
    /// [`DEPENDENCY_PROGRAMMATIC`] if the node behind waits in its code.
    pub kind: u8,
    /// Zeros.
    pub reserved: [u8; 5],
}

/// One side of [`CuCopyNode`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CuCopySide {
    /// Position in bytes, rows, slices; level of detail.
    pub position: [usize; 4],
    /// [`MEMORY_HOST`] or [`MEMORY_DEVICE`].
    pub memory: c_int,
    /// If in host memory.
    pub host: *mut c_void,
    /// If in device memory.
    pub device: CuAddress,
    /// Null.
    pub array: *mut c_void,
    /// Null.
    pub reserved: *mut c_void,
    /// Bytes from row to row.
    pub pitch: usize,
    /// Rows of a slice.
    pub height: usize,
}

/// `CUDA_MEMCPY3D_v2`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CuCopyNode {
    /// Where from.
    pub from: CuCopySide,
    /// Where to.
    pub to: CuCopySide,
    /// Bytes of a row, rows, slices.
    pub extent: [usize; 3],
}

/// One side of [`CuCopyRows`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CuRowsSide {
    /// Position in bytes, and in rows.
    pub position: [usize; 2],
    /// [`MEMORY_HOST`] or [`MEMORY_DEVICE`].
    pub memory: c_int,
    /// If in host memory.
    pub host: *mut c_void,
    /// If in device memory.
    pub device: CuAddress,
    /// Null.
    pub array: *mut c_void,
    /// Bytes from row to row.
    pub pitch: usize,
}

/// `CUDA_MEMCPY2D_v2`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CuCopyRows {
    /// Where from.
    pub from: CuRowsSide,
    /// Where to.
    pub to: CuRowsSide,
    /// Bytes of a row, rows.
    pub extent: [usize; 2],
}

macro_rules! table {
    ($($(#[$doc:meta])* fn $name:ident = $symbol:literal($($argument:ident: $ty:ty),*);)*) => {
        /// The driver's functions.
        #[derive(Debug)]
        pub struct Table {
            $($name: unsafe extern "C" fn($($ty),*) -> CuResult,)*
            _library: ManuallyDrop<Library>,
        }

        impl Table {
            /// The symbols of the table.
            #[cfg(test)]
            pub const SYMBOLS: &[&str] = &[$($symbol),*];

            fn resolve(library: Library) -> Result<Table> {
                // SAFETY: each symbol is the driver's function of that name, whose type stands in the driver's header.
                unsafe {
                    Ok(Table { $($name: symbol(&library, $symbol)?,)* _library: ManuallyDrop::new(library) })
                }
            }

            $($(#[$doc])*
            ///
            /// # Safety
            /// As the driver's reference manual says: pointers and handles are valid.
            #[allow(clippy::too_many_arguments, reason = "the driver's own signatures")]
            pub unsafe fn $name(&self, $($argument: $ty),*) -> CuResult {
                // SAFETY: the caller's.
                unsafe { (self.$name)($($argument),*) }
            })*
        }
    };
}

table! {
    /// Starts the driver.
    fn init = "cuInit"(flags: c_uint);
    /// The CUDA version that the driver supports: 1000 major + 10 minor.
    fn driver_version = "cuDriverGetVersion"(out: *mut c_int);
    /// A result's name.
    fn error_name = "cuGetErrorName"(code: CuResult, out: *mut *const c_char);
    /// A result in words.
    fn error_text = "cuGetErrorString"(code: CuResult, out: *mut *const c_char);
    /// How many devices there are.
    fn device_count = "cuDeviceGetCount"(out: *mut c_int);
    /// A device by index.
    fn device = "cuDeviceGet"(out: *mut CuDevice, index: c_int);
    /// A device's name.
    fn device_name = "cuDeviceGetName"(out: *mut c_char, bytes: c_int, device: CuDevice);
    /// A device's identifier, or that of its MIG slice.
    fn device_uuid = "cuDeviceGetUuid_v2"(out: *mut CuUuid, device: CuDevice);
    /// A device's memory.
    fn device_memory = "cuDeviceTotalMem_v2"(out: *mut usize, device: CuDevice);
    /// A property of a device.
    fn device_attribute = "cuDeviceGetAttribute"(out: *mut c_int, attribute: c_int, device: CuDevice);
    /// Takes the device's primary context.
    fn context_retain = "cuDevicePrimaryCtxRetain"(out: *mut CuContext, device: CuDevice);
    /// Gives the device's primary context back.
    fn context_release = "cuDevicePrimaryCtxRelease_v2"(device: CuDevice);
    /// Makes a context the thread's current one.
    fn context_push = "cuCtxPushCurrent_v2"(context: CuContext);
    /// Makes the thread's former context current again.
    fn context_pop = "cuCtxPopCurrent_v2"(out: *mut CuContext);
    /// Loads machine code, or compiles PTX.
    fn module_load = "cuModuleLoadDataEx"(
        out: *mut CuModule, image: *const c_void, count: c_uint, options: *mut c_int, values: *mut *mut c_void
    );
    /// Unloads a module.
    fn module_unload = "cuModuleUnload"(module: CuModule);
    /// A module's function.
    fn module_function = "cuModuleGetFunction"(out: *mut CuFunction, module: CuModule, name: *const c_char);
    /// Changes a function's attribute.
    fn function_set = "cuFuncSetAttribute"(function: CuFunction, attribute: c_int, value: c_int);
    /// Takes device memory.
    fn memory_allocate = "cuMemAlloc_v2"(out: *mut CuAddress, bytes: usize);
    /// Gives device memory back.
    fn memory_free = "cuMemFree_v2"(address: CuAddress);
    /// Takes page-locked host memory.
    fn host_allocate = "cuMemHostAlloc"(out: *mut *mut c_void, bytes: usize, flags: c_uint);
    /// Gives page-locked host memory back.
    fn host_free = "cuMemFreeHost"(address: *mut c_void);
    /// The device's address of mapped host memory.
    fn host_address = "cuMemHostGetDevicePointer_v2"(out: *mut CuAddress, address: *mut c_void, flags: c_uint);
    /// Copies to the device, in the stream's order.
    fn copy_to_device = "cuMemcpyHtoDAsync_v2"(to: CuAddress, from: *const c_void, bytes: usize, stream: CuStream);
    /// Sets device memory, in the stream's order.
    fn memory_set = "cuMemsetD8Async"(to: CuAddress, value: u8, bytes: usize, stream: CuStream);
    /// Makes a stream.
    fn stream_new = "cuStreamCreateWithPriority"(out: *mut CuStream, flags: c_uint, priority: c_int);
    /// Destroys a stream.
    fn stream_free = "cuStreamDestroy_v2"(stream: CuStream);
    /// Waits until a stream is idle.
    fn stream_synchronize = "cuStreamSynchronize"(stream: CuStream);
    /// Whether a stream is idle.
    fn stream_query = "cuStreamQuery"(stream: CuStream);
    /// Lets a stream wait for a word of memory.
    fn stream_wait_value = "cuStreamWaitValue64_v2"(stream: CuStream, at: CuAddress, value: u64, flags: c_uint);
    /// Makes an empty graph.
    fn graph_new = "cuGraphCreate"(out: *mut CuGraph, flags: c_uint);
    /// Adds a launch to a graph.
    fn graph_add_kernel = "cuGraphAddKernelNode_v2"(
        out: *mut CuNode, graph: CuGraph, after: *const CuNode, after_count: usize, node: *const CuKernelNode
    );
    /// Adds a copy to a graph.
    fn graph_add_copy = "cuGraphAddMemcpyNode"(
        out: *mut CuNode, graph: CuGraph, after: *const CuNode, after_count: usize, node: *const CuCopyNode,
        context: CuContext
    );
    /// Adds edges between nodes of a graph.
    fn graph_add_edges = "cuGraphAddDependencies_v2"(
        graph: CuGraph, from: *const CuNode, to: *const CuNode, edges: *const CuEdge, count: usize
    );
    /// Makes a graph ready to run.
    fn graph_instantiate = "cuGraphInstantiateWithFlags"(out: *mut CuExec, graph: CuGraph, flags: u64);
    /// Destroys a graph.
    fn graph_free = "cuGraphDestroy"(graph: CuGraph);
    /// Puts a ready graph onto the device ahead of its first launch.
    fn exec_upload = "cuGraphUpload"(exec: CuExec, stream: CuStream);
    /// Runs a ready graph.
    fn exec_launch = "cuGraphLaunch"(exec: CuExec, stream: CuStream);
    /// Destroys a ready graph.
    fn exec_free = "cuGraphExecDestroy"(exec: CuExec);

    /// Page-locks memory of the host's own and maps it.
    fn host_register = "cuMemHostRegister_v2"(address: *mut c_void, bytes: usize, flags: c_uint);
    /// Ends that.
    fn host_unregister = "cuMemHostUnregister"(address: *mut c_void);
    /// Takes rows of device memory, each of which begins where elements of so many bytes are accessed best.
    fn memory_allocate_rows = "cuMemAllocPitch_v2"(
        out: *mut CuAddress, pitch: *mut usize, row_bytes: usize, rows: usize, element_bytes: c_uint
    );
    /// Copies rows, in the stream's order.
    fn copy_rows = "cuMemcpy2DAsync_v2"(copy: *const CuCopyRows, stream: CuStream);
}

/// The library's name.
pub const LIBRARY: &str = "libcuda.so.1";

/// # Safety
/// `T` is the type of the function called `name`.
unsafe fn symbol<T: Copy>(library: &Library, name: &str) -> Result<T> {
    // SAFETY: the caller's.
    match unsafe { library.get::<T>(name) } {
        Ok(symbol) => Ok(*symbol),
        Err(_) => {
            // SAFETY: cuDriverGetVersion has this type, and may be called before cuInit.
            let version = unsafe {
                let mut version = 0;
                if let Ok(get) = library.get::<unsafe extern "C" fn(*mut c_int) -> CuResult>("cuDriverGetVersion") {
                    get(&raw mut version);
                }
                version
            };
            Err(fail!(
                NoDevice,
                "{LIBRARY} has no {name}: its driver is for CUDA {}.{}, and this library needs one for 12.4 or newer",
                version / 1000,
                version % 1000 / 10
            ))
        }
    }
}

/// Directories of a search path that depend on the working directory and hold a file called like the driver's library.
fn planted(search_path: &str) -> Option<PathBuf> {
    let relative = search_path.split([':', ';']).map(Path::new).filter(|directory| directory.is_relative());
    relative.map(|directory| Path::new(".").join(directory).join(LIBRARY)).find(|library| library.exists())
}

impl Table {
    /// Loads the driver's library and resolves every function.
    pub fn load() -> Result<Table> {
        if let Ok(search_path) = std::env::var("LD_LIBRARY_PATH")
            && let Some(found) = planted(&search_path)
        {
            return Err(fail!(
                NoDevice,
                "LD_LIBRARY_PATH leads to {} through the working directory; the driver is not loaded from there",
                found.display()
            ));
        }
        // SAFETY: the driver's library, found by the loader under its soname; its constructors are the driver's.
        let library = unsafe { Library::new(LIBRARY) };
        let library = library.map_err(|error| fail!(NoDevice, "there is no NVIDIA driver: {error}"))?;
        Table::resolve(library)
    }

    /// A result's name and meaning.
    pub fn describe(&self, code: CuResult) -> String {
        let (mut name, mut words) = (std::ptr::null(), std::ptr::null());
        // SAFETY: the driver stores static strings, or null for a code that it does not know.
        unsafe {
            self.error_name(code, &raw mut name);
            self.error_text(code, &raw mut words);
        }
        // SAFETY: as above.
        let text = |text: *const c_char| (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy());
        match (text(name), text(words)) {
            (Some(name), Some(words)) => format!("{name} ({code}): {words}"),
            _ => format!("CUDA error {code}"),
        }
    }

    /// An error unless the driver has answered with success.
    pub fn check(&self, code: CuResult, what: &str) -> Result<()> {
        if code == SUCCESS {
            return Ok(());
        }
        let mut error = match code {
            OUT_OF_MEMORY => fail!(OutOfMemory, "{what}: {}", self.describe(code)),
            NO_DEVICE => fail!(NoDevice, "{what}: {}", self.describe(code)),
            _ => fail!(Driver, "{what}: {}", self.describe(code)),
        };
        error.native = code;
        Err(error)
    }
}

/// Starts the driver once.
pub fn start(table: Table) -> Result<Table> {
    // SAFETY: no memory is involved.
    let code = unsafe { table.init(0) };
    if code != SUCCESS {
        let mut error = fail!(NoDevice, "the NVIDIA driver does not start: {}", table.describe(code));
        error.native = code;
        return Err(error);
    }
    let mut version = 0;
    // SAFETY: the driver stores a number.
    table.check(unsafe { table.driver_version(&raw mut version) }, "cuDriverGetVersion")?;
    ensure!(
        version >= 12_040,
        NoDevice,
        "the NVIDIA driver is for CUDA {}.{}, and this library needs one for 12.4 or newer",
        version / 1000,
        version % 1000 / 10
    );
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_have_the_drivers_layout() {
        assert_eq!(size_of::<CuKernelNode>(), 72);
        assert_eq!(size_of::<CuEdge>(), 8);
        assert_eq!(size_of::<CuCopySide>(), 88);
        assert_eq!(size_of::<CuCopyNode>(), 200);
        assert_eq!(size_of::<CuCopyRows>(), 128);
        assert_eq!(std::mem::offset_of!(CuCopyRows, extent), 112);
        assert_eq!(std::mem::offset_of!(CuKernelNode, parameters), 40);
    }

    #[test]
    fn a_library_in_the_working_directory_is_seen() {
        let name = format!("target/planted-{}", std::process::id());
        std::fs::create_dir_all(&name).unwrap();
        std::fs::write(format!("{name}/{LIBRARY}"), b"").unwrap();
        assert!(planted(&format!("/usr/lib:{name}")).is_some());
        std::fs::remove_dir_all(&name).unwrap();
        assert_eq!(planted(&format!("/usr/lib:{name}:")), None);
    }

    #[test]
    fn symbols_are_unique() {
        let mut symbols = Table::SYMBOLS.to_vec();
        symbols.sort_unstable();
        symbols.dedup();
        assert_eq!(symbols.len(), Table::SYMBOLS.len());
    }
}
