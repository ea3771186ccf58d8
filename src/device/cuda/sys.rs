//! The CUDA driver's functions, resolved at run time: our own table over `libloading`, in the types of the CUDA 13 headers.
//!
//! `libcuda.so.1` is looked for by the system's loader, never in the working directory, and never closed. Every
//! function of [`Functions`] must be there; those of [`Green`] are there together or not at all. A result is a number, so that a code that
//! is not known here is a value like any other.

use crate::error::{Result, ensure, fail};
use crate::kernels::entry::TensorMap;
use libloading::os::unix::Library;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::path::{Path, PathBuf};

mod types;

pub use types::*;

macro_rules! table {
    ($(#[$about:meta])* $table:ident; $($(#[$doc:meta])* fn $name:ident = $symbol:literal($($argument:ident: $ty:ty),*);)*) => {
        $(#[$about])*
        #[derive(Debug)]
        pub struct $table {
            $($name: unsafe extern "C" fn($($ty),*) -> CuResult,)*
        }

        impl $table {
            /// The symbols of the table.
            #[cfg(test)]
            pub const SYMBOLS: &[&str] = &[$($symbol),*];

            /// All functions, or the symbol of one that is missing.
            fn resolve(library: &Library) -> std::result::Result<Self, &'static str> {
                // SAFETY: each symbol is the driver's function of that name, whose type stands in the driver's header.
                unsafe {
                    Ok($table { $($name: *library.get($symbol).map_err(|_| $symbol)?,)* })
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
    /// The functions that every driver has.
    Functions;
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
    /// A device's address on the PCI bus, in text.
    fn device_bus = "cuDeviceGetPCIBusId"(out: *mut c_char, bytes: c_int, device: CuDevice);
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
    /// Loads machine code, or compiles PTX, for all contexts.
    fn library_load = "cuLibraryLoadData"(
        out: *mut CuLibrary, image: *const c_void, options: *mut c_int, values: *mut *mut c_void, count: c_uint,
        library_options: *mut c_int, library_values: *mut *mut c_void, library_count: c_uint
    );
    /// Unloads a library.
    fn library_unload = "cuLibraryUnload"(library: CuLibrary);
    /// A library's kernel.
    fn library_kernel = "cuLibraryGetKernel"(out: *mut CuKernel, library: CuLibrary, name: *const c_char);
    /// A kernel as a function of the current context, whose code is loaded by then.
    fn kernel_function = "cuKernelGetFunction"(out: *mut CuFunction, kernel: CuKernel);
    /// Changes a kernel's attribute in all contexts of a device.
    fn kernel_set = "cuKernelSetAttribute"(attribute: c_int, value: c_int, kernel: CuKernel, device: CuDevice);
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
    /// The numerically largest and smallest priorities of streams: the least and the greatest.
    fn priority_range = "cuCtxGetStreamPriorityRange"(least: *mut c_int, greatest: *mut c_int);
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
    /// Changes a launch's attribute.
    fn graph_set_kernel = "cuGraphKernelNodeSetAttribute"(
        node: CuNode, attribute: c_int, value: *const CuLaunchValue
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
    /// Describes a tensor for the tensor memory accelerator.
    fn tensor_map = "cuTensorMapEncodeTiled"(
        out: *mut TensorMap, dtype: c_int, rank: c_uint, address: *mut c_void, extents: *const u64, strides: *const u64,
        extents_of_box: *const c_uint, steps: *const c_uint, interleave: c_int, swizzle: c_int, promotion: c_int, fill: c_int
    );
    /// Copies rows, in the stream's order.
    fn copy_rows = "cuMemcpy2DAsync_v2"(copy: *const CuCopyRows, stream: CuStream);
}

table! {
    /// What partitions of a device's multiprocessors are made with: green contexts, which the driver need not have.
    Green;
    /// What a device has of a kind.
    fn device_resource = "cuDeviceGetDevResource"(device: CuDevice, out: *mut CuResource, kind: c_int);
    /// Splits multiprocessors into groups.
    fn split = "cuDevSmResourceSplitByCount"(
        out: *mut CuResource, count: *mut c_uint, from: *const CuResource, rest: *mut CuResource, flags: c_uint,
        multiprocessors_min: c_uint
    );
    /// Describes groups of one split together.
    fn describe_resources = "cuDevResourceGenerateDesc"(
        out: *mut CuDescription, resources: *mut CuResource, count: c_uint
    );
    /// Makes a green context.
    fn green_new = "cuGreenCtxCreate"(out: *mut CuGreen, description: CuDescription, device: CuDevice, flags: c_uint);
    /// Destroys a green context.
    fn green_free = "cuGreenCtxDestroy"(green: CuGreen);
    /// A green context as a context.
    fn green_context = "cuCtxFromGreenCtx"(out: *mut CuContext, green: CuGreen);
    /// Makes a stream in a green context.
    fn green_stream = "cuGreenCtxStreamCreate"(out: *mut CuStream, green: CuGreen, flags: c_uint, priority: c_int);
}

/// The driver's functions.
#[derive(Debug)]
pub struct Table {
    functions: Functions,
    green: std::result::Result<Green, &'static str>,
    _library: ManuallyDrop<Library>,
}

impl Deref for Table {
    type Target = Functions;

    fn deref(&self) -> &Functions {
        &self.functions
    }
}

/// The library's name.
pub const LIBRARY: &str = "libcuda.so.1";

/// The oldest driver, by the CUDA version that it is for: an older one does not read the kernels, whose PTX is of that version.
pub const VERSION_MIN: c_int = 13_000;

/// The CUDA version of a driver that may lack anything else: "13.0".
fn version_of(library: &Library) -> String {
    let mut version = 0;
    // SAFETY: cuDriverGetVersion has this type, and may be called before cuInit.
    unsafe {
        if let Ok(get) = library.get::<unsafe extern "C" fn(*mut c_int) -> CuResult>("cuDriverGetVersion") {
            get(&raw mut version);
        }
    }
    version_text(version)
}

fn version_text(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
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
        Table::of(library)
    }

    fn of(library: Library) -> Result<Table> {
        let functions = Functions::resolve(&library).map_err(|symbol| {
            fail!(
                NoDevice,
                "{LIBRARY} has no {symbol}: its driver is for CUDA {}, and this library needs one for {} or newer",
                version_of(&library),
                version_text(VERSION_MIN)
            )
        })?;
        let green = Green::resolve(&library);
        Ok(Table { functions, green, _library: ManuallyDrop::new(library) })
    }

    /// What partitions are made with; `Unsupported` with what an older driver lacks.
    pub fn green(&self) -> Result<&Green> {
        self.green.as_ref().map_err(|symbol| lacks(symbol, &version_of(&self._library)))
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

/// Why there are no partitions.
fn lacks(symbol: &str, version: &str) -> crate::error::Error {
    fail!(
        Unsupported,
        "partitions of multiprocessors need a newer driver; {LIBRARY} has no {symbol}, for its driver is for CUDA {version}"
    )
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
        version >= VERSION_MIN,
        NoDevice,
        "the NVIDIA driver is for CUDA {}, and this library needs one for {} or newer",
        version_text(version),
        version_text(VERSION_MIN)
    );
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_without_green_contexts_is_said_to_be_too_old() {
        // SAFETY: this process has it already.
        let library = unsafe { Library::new("libc.so.6") }.unwrap();
        let symbol = Green::resolve(&library).unwrap_err();
        let error = lacks(symbol, &version_text(13_000));
        assert_eq!(error.status, crate::error::Status::Unsupported);
        assert!(error.message.contains("cuDeviceGetDevResource") && error.message.contains("13.0"), "{error}");
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
        let all = [Functions::SYMBOLS, Green::SYMBOLS].concat();
        let mut symbols = all.clone();
        symbols.sort_unstable();
        symbols.dedup();
        assert_eq!(symbols.len(), all.len());
    }
}
