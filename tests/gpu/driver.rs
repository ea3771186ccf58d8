//! The simulated driver against a real one: a script of driver calls, faulty ones among them, whose result codes are those that
//! tests/fakecuda answers with. In continuous integration it proves the table, on a GPU it proves the simulation.

use crate::report::{Outcome, Report};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::time::Instant;
use streaminfer::runtime::Pages;

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const OUT_OF_MEMORY: c_int = 2;
const INVALID_RESOURCE_TYPE: c_int = 914;
const INVALID_RESOURCE_CONFIGURATION: c_int = 915;
const INVALID_DEVICE: c_int = 101;
const ALREADY_REGISTERED: c_int = 712;
const INVALID_CONTEXT: c_int = 201;
const INVALID_IMAGE: c_int = 200;
const INVALID_PTX: c_int = 218;
const NOT_FOUND: c_int = 500;

/// Mapped host memory; a stream that does not wait for the default stream; the attribute for dynamic shared memory.
const DEVICE_MAP: c_uint = 2;
const NON_BLOCKING: c_uint = 1;
/// Registered for every context, and mapped.
const LENT: c_uint = 3;
const SHARED_BYTES_MAX: c_int = 8;

/// Multiprocessors, as a kind of resource.
const MULTIPROCESSORS: c_int = 1;

/// Some function.
type Opaque = unsafe extern "C" fn();

/// `CUdevResource`
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Resource {
    kind: c_int,
    private: [u8; 92],
    count: c_uint,
    rest: [u8; 44],
}

impl Default for Resource {
    fn default() -> Self {
        Resource { kind: 0, private: [0; 92], count: 0, rest: [0; 44] }
    }
}

/// A module of its own. Its entry is one that the simulated driver has a twin of, and is never launched.
const MODULE: &str = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry transfer_fetch()\n{\n\tret;\n}\n";
const NEWER: &str = ".version 7.0\n.target sm_999\n.address_size 64\n.visible .entry nothing()\n{\n\tret;\n}\n";

/// One side of `CUDA_MEMCPY2D_v2`.
#[derive(Clone, Copy)]
#[repr(C)]
struct CuRowsSide {
    position: [usize; 2],
    memory: c_int,
    host: usize,
    device: u64,
    array: usize,
    pitch: usize,
}

/// `CUDA_MEMCPY2D_v2`.
#[repr(C)]
struct CuCopyRows {
    from: CuRowsSide,
    to: CuRowsSide,
    extent: [usize; 2],
}

struct Script<'a> {
    library: &'a Library,
    report: Report,
}

/// Calls a function of the driver and compares its result: `call!(script, "what", "symbol"(value: type, ..) is CODE)`.
macro_rules! call {
    ($script:expr, $what:literal, $symbol:literal($($value:expr => $ty:ty),*) is $code:expr) => {{
        // SAFETY: the manual's signature; pointers are to places that outlive the call.
        let code = unsafe {
            match $script.library.get::<unsafe extern "C" fn($($ty),*) -> c_int>($symbol.as_bytes()) {
                Ok(function) => function($($value),*),
                Err(_) => -1,
            }
        };
        $script.judge(concat!($symbol, ": ", $what), code, $code);
    }};
}

impl Script<'_> {
    fn judge(&mut self, what: &str, code: c_int, expected: c_int) {
        let outcome = if code == expected {
            Outcome::Passed
        } else {
            Outcome::Failed(format!("{code}, and the simulated driver answers {expected}"))
        };
        self.report.add(what, "", "", outcome);
    }

    fn devices(&mut self) {
        let (mut number, mut name, mut bus) = (0, [0 as c_char; 64], [0 as c_char; 64]);
        call!(self, "flags that there are not", "cuInit"(1 => c_uint) is INVALID_VALUE);
        call!(self, "right", "cuInit"(0 => c_uint) is SUCCESS);
        call!(self, "right", "cuDriverGetVersion"(&raw mut number => *mut c_int) is SUCCESS);
        call!(self, "right", "cuDeviceGetCount"(&raw mut number => *mut c_int) is SUCCESS);
        call!(self, "no such device", "cuDeviceGet"(&raw mut number => *mut c_int, 999 => c_int) is INVALID_DEVICE);
        call!(self, "below zero", "cuDeviceGet"(&raw mut number => *mut c_int, -1 => c_int) is INVALID_DEVICE);
        call!(self, "no such attribute", "cuDeviceGetAttribute"(&raw mut number => *mut c_int, 99_999 => c_int, 0 => c_int) is INVALID_VALUE);
        call!(self, "no such device", "cuDeviceGetName"(name.as_mut_ptr() => *mut c_char, 64 => c_int, 999 => c_int) is INVALID_DEVICE);
        call!(self, "no such device", "cuDeviceGetPCIBusId"(bus.as_mut_ptr() => *mut c_char, 64 => c_int, 999 => c_int) is INVALID_DEVICE);
        call!(self, "right", "cuDeviceGetPCIBusId"(bus.as_mut_ptr() => *mut c_char, 64 => c_int, 0 => c_int) is SUCCESS);
        let mut text = std::ptr::null::<c_char>();
        call!(self, "no such code", "cuGetErrorName"(12_345 => c_int, &raw mut text => *mut *const c_char) is INVALID_VALUE);
        call!(self, "right", "cuGetErrorString"(2 => c_int, &raw mut text => *mut *const c_char) is SUCCESS);
    }

    /// Loads a library and makes the code of one of its kernels ready, and answers how that ended: drivers differ in when they look
    /// at what they load.
    fn load(&mut self, text: &str, entry: &CStr) -> (c_int, usize, usize) {
        let text = CString::new(text).expect("text without a zero");
        let (mut library, mut kernel, mut function) = (0usize, 0usize, 0usize);
        let none = std::ptr::null_mut::<c_void>();
        // SAFETY: the manual's signatures, text that ends with a zero, and no options.
        let code = unsafe {
            type Load = unsafe extern "C" fn(
                *mut usize,
                *const c_char,
                *mut c_void,
                *mut c_void,
                c_uint,
                *mut c_void,
                *mut c_void,
                c_uint,
            ) -> c_int;
            type Kernel = unsafe extern "C" fn(*mut usize, usize, *const c_char) -> c_int;
            type Function = unsafe extern "C" fn(*mut usize, usize) -> c_int;
            let load = self.library.get::<Load>("cuLibraryLoadData").expect("every driver has it");
            let find = self.library.get::<Kernel>("cuLibraryGetKernel").expect("every driver has it");
            let ready = self.library.get::<Function>("cuKernelGetFunction").expect("every driver has it");
            let mut code = load(&raw mut library, text.as_ptr(), none, none, 0, none, none, 0);
            if code == SUCCESS {
                code = find(&raw mut kernel, library, entry.as_ptr());
            }
            if code == SUCCESS {
                code = ready(&raw mut function, kernel);
            }
            code
        };
        (code, library, kernel)
    }

    fn libraries(&mut self) {
        let (code, ..) = self.load("rubbish", c"transfer_fetch");
        self.judge("a library: no PTX", code, INVALID_IMAGE);
        let (code, ..) = self.load(NEWER, c"nothing");
        self.judge("a library: for a GPU that there is not", code, INVALID_PTX);
        let (code, library, kernel) = self.load(MODULE, c"transfer_fetch");
        self.judge("a library: right", code, SUCCESS);
        let mut other = 0usize;
        call!(self, "no such entry", "cuLibraryGetKernel"(&raw mut other => *mut usize, library => usize, c"absent".as_ptr() => *const c_char) is NOT_FOUND);
        call!(self, "more than a block can have", "cuKernelSetAttribute"(SHARED_BYTES_MAX => c_int, 1 << 24 => c_int, kernel => usize, 0 => c_int) is INVALID_VALUE);
        call!(self, "right", "cuKernelSetAttribute"(SHARED_BYTES_MAX => c_int, 64 << 10 => c_int, kernel => usize, 0 => c_int) is SUCCESS);
        call!(self, "right", "cuLibraryUnload"(library => usize) is SUCCESS);
    }

    /// Splits of the multiprocessors, and what a split gave as a green context.
    fn partitions(&mut self) {
        // SAFETY: looked for, and not called.
        let has_them = unsafe { self.library.get::<Opaque>("cuGreenCtxStreamCreate") }.is_ok();
        if !has_them {
            self.report.note("partitions", "", "the driver has none", 0.0);
            return;
        }
        let (mut all, mut rest, mut group) = (Resource::default(), Resource::default(), [Resource::default(); 256]);
        let mut other = [Resource::default(); 256];
        let nothing = std::ptr::null_mut::<Resource>();
        call!(self, "no such kind", "cuDeviceGetDevResource"(0 => c_int, &raw mut all => *mut Resource, 0 => c_int) is INVALID_RESOURCE_TYPE);
        call!(self, "right", "cuDeviceGetDevResource"(0 => c_int, &raw mut all => *mut Resource, MULTIPROCESSORS => c_int) is SUCCESS);
        for (what, flags) in [("coarse", 0), ("fine", 1)] {
            let mut count = 0;
            call!(self, "how many", "cuDevSmResourceSplitByCount"(nothing => *mut Resource, &raw mut count => *mut c_uint, &raw const all => *const Resource, nothing => *mut Resource, flags => c_uint, 1 => c_uint) is SUCCESS);
            call!(self, "right", "cuDevSmResourceSplitByCount"(group.as_mut_ptr() => *mut Resource, &raw mut count => *mut c_uint, &raw const all => *const Resource, &raw mut rest => *mut Resource, flags => c_uint, 1 => c_uint) is SUCCESS);
            let text = format!("{count} groups of {}, {} of {} are left over", group[0].count, rest.count, all.count);
            self.report.note(&format!("{what} split"), "", &text, 0.0);
        }
        let mut one = 1;
        call!(self, "more than there are", "cuDevSmResourceSplitByCount"(other.as_mut_ptr() => *mut Resource, &raw mut one => *mut c_uint, &raw const all => *const Resource, nothing => *mut Resource, 1 => c_uint, 9999 => c_uint) is INVALID_RESOURCE_CONFIGURATION);
        one = 1;
        call!(self, "once more", "cuDevSmResourceSplitByCount"(other.as_mut_ptr() => *mut Resource, &raw mut one => *mut c_uint, &raw const all => *const Resource, nothing => *mut Resource, 1 => c_uint, 1 => c_uint) is SUCCESS);
        let mut mixed = [group[0], other[0]];
        let (mut description, mut green, mut context, mut stream) = (0usize, 0usize, 0usize, 0usize);
        call!(self, "of two splits", "cuDevResourceGenerateDesc"(&raw mut description => *mut usize, mixed.as_mut_ptr() => *mut Resource, 2 => c_uint) is SUCCESS);
        call!(self, "of one split", "cuDevResourceGenerateDesc"(&raw mut description => *mut usize, group.as_mut_ptr() => *mut Resource, 3 => c_uint) is SUCCESS);
        call!(self, "without its flag", "cuGreenCtxCreate"(&raw mut green => *mut usize, description => usize, 0 => c_int, 0 => c_uint) is INVALID_VALUE);
        call!(self, "right", "cuGreenCtxCreate"(&raw mut green => *mut usize, description => usize, 0 => c_int, 1 => c_uint) is SUCCESS);
        call!(self, "right", "cuCtxFromGreenCtx"(&raw mut context => *mut usize, green => usize) is SUCCESS);
        call!(self, "without its flag", "cuGreenCtxStreamCreate"(&raw mut stream => *mut usize, green => usize, 0 => c_uint, 0 => c_int) is INVALID_VALUE);
        call!(self, "right", "cuGreenCtxStreamCreate"(&raw mut stream => *mut usize, green => usize, NON_BLOCKING => c_uint, 0 => c_int) is SUCCESS);
        call!(self, "in a green context", "cuStreamSynchronize"(stream => usize) is SUCCESS);
        call!(self, "in a green context", "cuStreamDestroy_v2"(stream => usize) is SUCCESS);
        call!(self, "right", "cuGreenCtxDestroy"(green => usize) is SUCCESS);
    }

    fn memory(&mut self) {
        let (mut device, mut host, mut seen) = (0u64, 0usize, 0u64);
        call!(self, "nothing", "cuMemAlloc_v2"(&raw mut device => *mut u64, 0 => usize) is INVALID_VALUE);
        call!(self, "more than there is", "cuMemAlloc_v2"(&raw mut device => *mut u64, 1 << 50 => usize) is OUT_OF_MEMORY);
        call!(self, "right", "cuMemAlloc_v2"(&raw mut device => *mut u64, 4096 => usize) is SUCCESS);
        call!(self, "right", "cuMemHostAlloc"(&raw mut host => *mut usize, 4096 => usize, DEVICE_MAP => c_uint) is SUCCESS);
        call!(self, "right", "cuMemHostGetDevicePointer_v2"(&raw mut seen => *mut u64, host => usize, 0 => c_uint) is SUCCESS);
        let place = &raw const seen as usize;
        call!(self, "memory of the stack", "cuMemHostGetDevicePointer_v2"(&raw mut seen => *mut u64, place => usize, 0 => c_uint) is INVALID_VALUE);
        call!(self, "flags that there are not", "cuMemHostGetDevicePointer_v2"(&raw mut seen => *mut u64, host => usize, 1 => c_uint) is INVALID_VALUE);
        self.streams(device, host as u64);
        self.registered();
        self.rows(device, host);
        call!(self, "right", "cuMemFree_v2"(device => u64) is SUCCESS);
        call!(self, "right", "cuMemFreeHost"(host => usize) is SUCCESS);
    }

    /// Memory of this program's own.
    fn registered(&mut self) {
        let mut seen = 0u64;
        let pages = Pages::map(3 * 4096).expect("three pages");
        let (first, second) = (pages.address() as usize, pages.address() as usize + 4096);
        call!(self, "null", "cuMemHostRegister_v2"(0 => usize, 4096 => usize, LENT => c_uint) is INVALID_VALUE);
        call!(self, "nothing", "cuMemHostRegister_v2"(first => usize, 0 => usize, LENT => c_uint) is INVALID_VALUE);
        call!(self, "flags that there are not", "cuMemHostRegister_v2"(first => usize, 4096 => usize, 1 << 16 => c_uint) is INVALID_VALUE);
        call!(self, "before", "cuMemHostGetDevicePointer_v2"(&raw mut seen => *mut u64, first => usize, 0 => c_uint) is INVALID_VALUE);
        call!(self, "right", "cuMemHostRegister_v2"(first => usize, 8192 => usize, LENT => c_uint) is SUCCESS);
        call!(self, "registered already", "cuMemHostRegister_v2"(first => usize, 8192 => usize, LENT => c_uint) is ALREADY_REGISTERED);
        call!(self, "an overlap", "cuMemHostRegister_v2"(second => usize, 8192 => usize, LENT => c_uint) is ALREADY_REGISTERED);
        call!(self, "right", "cuMemHostRegister_v2"(first + 8192 => usize, 4096 => usize, LENT => c_uint) is SUCCESS);
        call!(self, "right", "cuMemHostGetDevicePointer_v2"(&raw mut seen => *mut u64, first => usize, 0 => c_uint) is SUCCESS);
        call!(self, "in the middle", "cuMemHostGetDevicePointer_v2"(&raw mut seen => *mut u64, second => usize, 0 => c_uint) is SUCCESS);
        call!(self, "right", "cuMemHostUnregister"(first => usize) is SUCCESS);
        call!(self, "right", "cuMemHostUnregister"(first + 8192 => usize) is SUCCESS);
        call!(self, "after", "cuMemHostGetDevicePointer_v2"(&raw mut seen => *mut u64, first => usize, 0 => c_uint) is INVALID_VALUE);
        call!(self, "once more", "cuMemHostRegister_v2"(first => usize, 4096 => usize, LENT => c_uint) is SUCCESS);
        call!(self, "right", "cuMemHostUnregister"(first => usize) is SUCCESS);
    }

    /// Rows of device memory; `linear` and `host` are of 4096 bytes.
    fn rows(&mut self, linear: u64, host: usize) {
        let (mut rows, mut pitch, mut stream) = (0u64, 0usize, 0usize);
        call!(self, "no bytes", "cuMemAllocPitch_v2"(&raw mut rows => *mut u64, &raw mut pitch => *mut usize, 0 => usize, 8 => usize, 4 => c_uint) is INVALID_VALUE);
        call!(self, "no rows", "cuMemAllocPitch_v2"(&raw mut rows => *mut u64, &raw mut pitch => *mut usize, 100 => usize, 0 => usize, 4 => c_uint) is INVALID_VALUE);
        call!(self, "elements of 5 bytes", "cuMemAllocPitch_v2"(&raw mut rows => *mut u64, &raw mut pitch => *mut usize, 100 => usize, 8 => usize, 5 => c_uint) is INVALID_VALUE);
        call!(self, "more than there is", "cuMemAllocPitch_v2"(&raw mut rows => *mut u64, &raw mut pitch => *mut usize, 1 << 20 => usize, 1 << 30 => usize, 4 => c_uint) is OUT_OF_MEMORY);
        call!(self, "right", "cuMemAllocPitch_v2"(&raw mut rows => *mut u64, &raw mut pitch => *mut usize, 100 => usize, 8 => usize, 4 => c_uint) is SUCCESS);
        self.judge(
            "cuMemAllocPitch_v2: the pitch is a multiple of 512",
            c_int::from(pitch == 0 || !pitch.is_multiple_of(512)),
            0,
        );
        call!(self, "right", "cuStreamCreateWithPriority"(&raw mut stream => *mut usize, NON_BLOCKING => c_uint, 0 => c_int) is SUCCESS);
        let device = |device, pitch| CuRowsSide { position: [0; 2], memory: 2, host: 0, device, array: 0, pitch };
        let outside = CuRowsSide { position: [0; 2], memory: 1, host, device: 0, array: 0, pitch: 128 };
        for (what, from, to, expected) in [
            ("to rows", outside, device(rows, pitch), SUCCESS),
            ("from rows", device(rows, pitch), outside, SUCCESS),
            ("to rows without gaps", outside, device(linear, 100), SUCCESS),
            ("rows longer than their distance", outside, device(rows, 64), INVALID_VALUE),
            (
                "rows of the host longer than their distance",
                CuRowsSide { pitch: 99, ..outside },
                device(rows, pitch),
                INVALID_VALUE,
            ),
        ] {
            let copy = CuCopyRows { from, to, extent: [100, 8] };
            // SAFETY: the manual's signature and struct; both sides are memory of the driver's that is large enough.
            let code = unsafe {
                type Copy = unsafe extern "C" fn(*const CuCopyRows, usize) -> c_int;
                let copy_rows = self.library.get::<Copy>(b"cuMemcpy2DAsync_v2");
                copy_rows.map_or(-1, |copy_rows| copy_rows(&raw const copy, stream))
            };
            self.judge(&format!("cuMemcpy2DAsync_v2: {what}"), code, expected);
        }
        call!(self, "right", "cuStreamSynchronize"(stream => usize) is SUCCESS);
        call!(self, "right", "cuStreamDestroy_v2"(stream => usize) is SUCCESS);
        call!(self, "right", "cuMemFree_v2"(rows => u64) is SUCCESS);
    }

    fn streams(&mut self, device: u64, mapped: u64) {
        let (mut stream, mut least, mut greatest) = (0usize, 0, 0);
        call!(self, "right", "cuCtxGetStreamPriorityRange"(&raw mut least => *mut c_int, &raw mut greatest => *mut c_int) is SUCCESS);
        self.report.note("priorities", "", &format!("from {least} to {greatest}"), 0.0);
        call!(self, "right", "cuStreamCreateWithPriority"(&raw mut stream => *mut usize, NON_BLOCKING => c_uint, 0 => c_int) is SUCCESS);
        call!(self, "right", "cuMemsetD8Async"(device => u64, 7 => u8, 4096 => usize, stream => usize) is SUCCESS);
        call!(self, "right", "cuStreamSynchronize"(stream => usize) is SUCCESS);
        call!(self, "idle", "cuStreamQuery"(stream => usize) is SUCCESS);
        call!(self, "an address between two numbers", "cuStreamWaitValue64_v2"(stream => usize, mapped + 4 => u64, 0 => u64, 0 => c_uint) is INVALID_VALUE);
        call!(self, "right", "cuStreamWaitValue64_v2"(stream => usize, mapped => u64, 0 => u64, 0 => c_uint) is SUCCESS);
        call!(self, "right", "cuStreamSynchronize"(stream => usize) is SUCCESS);
        let (mut graph, mut ready) = (0usize, 0usize);
        call!(self, "flags that there are not", "cuGraphCreate"(&raw mut graph => *mut usize, 1 => c_uint) is INVALID_VALUE);
        call!(self, "right", "cuGraphCreate"(&raw mut graph => *mut usize, 0 => c_uint) is SUCCESS);
        call!(self, "without a node", "cuGraphInstantiateWithFlags"(&raw mut ready => *mut usize, graph => usize, 0 => u64) is SUCCESS);
        let mut other = 0usize;
        call!(self, "with priorities of the nodes", "cuGraphInstantiateWithFlags"(&raw mut other => *mut usize, graph => usize, 8 => u64) is SUCCESS);
        call!(self, "right", "cuGraphExecDestroy"(other => usize) is SUCCESS);
        call!(self, "right", "cuGraphUpload"(ready => usize, stream => usize) is SUCCESS);
        call!(self, "right", "cuGraphLaunch"(ready => usize, stream => usize) is SUCCESS);
        call!(self, "right", "cuStreamSynchronize"(stream => usize) is SUCCESS);
        call!(self, "right", "cuGraphExecDestroy"(ready => usize) is SUCCESS);
        call!(self, "right", "cuGraphDestroy"(graph => usize) is SUCCESS);
        call!(self, "right", "cuStreamDestroy_v2"(stream => usize) is SUCCESS);
    }
}

/// The whole script; gives the number of failures. No engine is open.
pub fn run(is_verbose: bool) -> usize {
    let (start, report) = (Instant::now(), Report::new("driver", is_verbose));
    // SAFETY: loading the driver runs its constructors, as the library under test does.
    let library = match unsafe { Library::new("libcuda.so.1") } {
        Ok(library) => library,
        Err(error) => {
            let mut report = report;
            report.add("libcuda.so.1", "", "", Outcome::Failed(error.to_string()));
            return report.close(0.0);
        }
    };
    let mut script = Script { library: &library, report };
    let (mut context, mut popped, mut nothing) = (0usize, 0usize, 0u64);
    script.devices();
    call!(script, "no context", "cuMemAlloc_v2"(&raw mut nothing => *mut u64, 16 => usize) is INVALID_CONTEXT);
    call!(script, "right", "cuDevicePrimaryCtxRetain"(&raw mut context => *mut usize, 0 => c_int) is SUCCESS);
    call!(script, "right", "cuCtxPushCurrent_v2"(context => usize) is SUCCESS);
    script.libraries();
    script.partitions();
    script.memory();
    call!(script, "right", "cuCtxPopCurrent_v2"(&raw mut popped => *mut usize) is SUCCESS);
    call!(script, "right", "cuDevicePrimaryCtxRelease_v2"(0 => c_int) is SUCCESS);
    let report = script.report;
    // The driver's threads may outlive this: it stays.
    std::mem::forget(library);
    report.close(start.elapsed().as_secs_f64())
}
