//! The simulated driver finds what it is there to find: launches planted here that a GPU would refuse end the process with a sentence.

use super::*;
use libloading::os::unix::Library;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

/// The simulated driver, called directly.
struct Raw {
    library: Library,
}

type Handle = *mut c_void;

/// `CUDA_KERNEL_NODE_PARAMS_v2`
#[repr(C)]
struct KernelNode {
    function: Handle,
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    parameters: *mut *mut c_void,
    extra: Handle,
    kernel: Handle,
    context: Handle,
}

macro_rules! calls {
    ($($name:ident($($argument:ident: $ty:ty),*) = $symbol:literal;)*) => {
        impl Raw {
            $(#[allow(clippy::too_many_arguments, reason = "the driver's own signatures")]
            fn $name(&self, $($argument: $ty),*) -> c_int {
                // SAFETY: the driver's function of that name has this type, and what the tests give it is valid or what is tested.
                unsafe {
                    let call = self.library.get::<unsafe extern "C" fn($($ty),*) -> c_int>($symbol.as_bytes());
                    (*call.unwrap())($($argument),*)
                }
            })*
        }
    };
}

calls! {
    init(flags: c_uint) = "cuInit";
    retain(out: *mut Handle, device: c_int) = "cuDevicePrimaryCtxRetain";
    push(context: Handle) = "cuCtxPushCurrent_v2";
    load(
        out: *mut Handle, image: *const c_void, options: *mut c_int, values: *mut Handle, count: c_uint, library_options: *mut c_int,
        library_values: *mut Handle, library_count: c_uint
    ) = "cuLibraryLoadData";
    kernel(out: *mut Handle, library: Handle, name: *const i8) = "cuLibraryGetKernel";
    set(attribute: c_int, value: c_int, kernel: Handle, device: c_int) = "cuKernelSetAttribute";
    graph(out: *mut Handle, flags: c_uint) = "cuGraphCreate";
    node(out: *mut Handle, graph: Handle, after: *const Handle, count: usize, node: *const KernelNode) =
        "cuGraphAddKernelNode_v2";
}

/// A call that has to succeed and its result.
fn given<T>(mut out: T, call: impl FnOnce(*mut T) -> c_int) -> T {
    assert_eq!(call(&raw mut out), 0);
    out
}

/// What is tested is done with all this.
struct Bench {
    raw: Raw,
    context: Handle,
}

impl Bench {
    fn new() -> Bench {
        // SAFETY: the simulated driver, which LD_LIBRARY_PATH leads to.
        let raw = Raw { library: unsafe { Library::new("libcuda.so.1") }.unwrap() };
        assert_eq!(raw.init(0), 0);
        let context = given(null_mut(), |out| raw.retain(out, 0));
        assert_eq!(raw.push(context), 0);
        Bench { raw, context }
    }

    fn kernel(&self, family: &str, name: &str) -> Handle {
        let path = format!("{}/kernels/ptx/{family}.compute_80.ptx", env!("CARGO_MANIFEST_DIR"));
        let (text, name) = (CString::new(fs::read(path).unwrap()).unwrap(), CString::new(name).unwrap());
        let library = given(null_mut(), |out| {
            self.raw.load(out, text.as_ptr().cast(), null_mut(), null_mut(), 0, null_mut(), null_mut(), 0)
        });
        given(null_mut(), |out| self.raw.kernel(out, library, name.as_ptr().cast()))
    }

    /// A graph of one launch, which is not run. Its arguments are zero.
    fn graph(&self, kernel: Handle, threads: c_uint, shared_bytes: c_uint) {
        let graph = given(null_mut(), |out| self.raw.graph(out, 0));
        let mut arguments = [0u64; 512];
        let mut parameters = [arguments.as_mut_ptr().cast::<c_void>()];
        let node = KernelNode {
            function: null_mut(),
            grid: [1; 3],
            block: [threads, 1, 1],
            shared_bytes,
            parameters: parameters.as_mut_ptr(),
            extra: null_mut(),
            kernel,
            context: self.context,
        };
        given(null_mut(), |out| self.raw.node(out, graph, null(), 0, &raw const node));
    }
}

/// What the environment names, done as it may be or not.
pub fn launches() -> Result<()> {
    let bench = Bench::new();
    let raw = &bench.raw;
    let (what, is_wrong) = (env::var("LAUNCH").unwrap(), env::var("WRONG").is_ok());
    let more = u32::from(is_wrong);
    match what.as_str() {
        // `.maxntid 256`
        "threads" => bench.graph(bench.kernel("map", "copy"), 256 + more * 256, 0),
        // 128 bytes are the kernel's own.
        "shared" => bench.graph(bench.kernel("rows", "softmax_block"), 512, (48 << 10) - 128 + more),
        "allowed" => {
            let most: c_int = env::var("MOST").unwrap().parse().unwrap();
            let kernel = bench.kernel("rows", "softmax_block");
            assert_eq!(raw.set(8, most - 128 + 1, kernel, 0), 1, "more than a block can have");
            assert_eq!(raw.set(8, most - 128, kernel, 0), 0);
            bench.graph(kernel, 512, (most - 128) as u32 + more);
        }
        other => panic!("no launch {other}"),
    }
    Ok(())
}

#[test]
fn launches_that_a_gpu_refuses_are_found() {
    let found = |what: &str, environment: &[(&str, &str)], sentence: &str| {
        let environment = [environment, &[("LAUNCH", what)]].concat();
        succeed("launches", &environment);
        let output = play("launches", &[&environment[..], &[("WRONG", "1")]].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{what}: {text}");
        assert!(text.contains("fakecuda:") && text.contains(sentence), "{what}: {text}");
    };
    found("threads", &[], "may have 256 threads");
    found("shared", &[], "beside 128 of its own");
    for (capability, bytes) in [("8.0", "166912"), ("8.9", "101376"), ("10.0", "232448"), ("12.0", "101376")] {
        found("allowed", &[("FAKECUDA_CAPABILITY", capability), ("MOST", bytes)], "beside 128 of its own");
    }
}

#[test]
fn every_capability_takes_what_is_launched() {
    for capability in ["8.0", "8.6", "12.0"] {
        succeed("many", &[("FAKECUDA_CAPABILITY", capability)]);
        succeed("rows", &[("FAKECUDA_CAPABILITY", capability)]);
    }
}

/// Rows as long as they are kept in shared memory, beside which kernels have some of their own.
pub fn rows() -> Result<()> {
    let gpu = gpu()?;
    for elements in [11_000, 12_000, 12_288, 12_289] {
        for model in [models::softmax(elements), models::normalized(elements)] {
            let model = gpu.load_bytes(model, &ModelOptions::default())?;
            let mut context = prepared(&model, &ContextOptions::default())?;
            context.input_mut::<f32>(0)?.fill(3.0);
            context.run()?;
            let got = context.output::<f32>(0)?;
            assert!(
                got.iter().all(|y| (y - 1.0 / elements as f32).abs() < 1e-6 || *y == 0.0),
                "{elements}: {}",
                got[0]
            );
        }
    }
    Ok(())
}
