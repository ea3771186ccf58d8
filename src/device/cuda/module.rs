//! The kernels' images and the functions in them.
//!
//! A family's image is loaded when the first program needs one of its entries: machine code if the library was built with some for this
//! GPU, else portable PTX, which the driver compiles and keeps in its cache on disk. Images are loaded as libraries of the driver's, whose
//! kernels run in any context of the GPU: a launch says in which, and a partition of multiprocessors is a context.

use super::gpu::{Current, Gpu};
use super::sys::{CuKernel, CuLibrary, FUNCTION_SHARED_BYTES_MAX, JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES};
use crate::device::ImageInfo;
use crate::device::host::clock;
use crate::device::host::process::Lock;
use crate::error::{Result, fail};
use crate::kernels::entry::Entry;
use std::collections::HashMap;
use std::ffi::{CString, c_void};

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// Bytes of what the compiler in the driver may say.
const LOG_BYTES: usize = 4096;
/// Dynamic shared memory that a block gets without asking: 48 KiB, less the kernel's own variables, of which none has more than 16 KiB.
const SHARED_BYTES_DEFAULT: u32 = 32 << 10;

/// A kernel that can be launched as long as its GPU is open.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    pub(super) handle: CuKernel,
    /// Whether its code waits for the launch before, so that it may be started while that one runs.
    pub(super) waits: bool,
}

// SAFETY: a handle that any thread may use.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// A loaded image.
struct Module {
    handle: usize,
    waits: bool,
    /// Where the driver writes what its compiler says: it compiles once more for a context that it meets later.
    _log: Vec<u8>,
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, Module>,
    images: Vec<ImageInfo>,
    functions: HashMap<&'static str, Function>,
    /// Dynamic shared memory that a function has been allowed.
    shared_bytes: HashMap<&'static str, u32>,
}

/// The modules of one GPU.
#[derive(Default)]
pub struct Modules {
    loaded: Lock<Loaded>,
}

impl Modules {
    /// The function of an entry, ready for blocks with so much dynamic shared memory.
    pub fn function(&self, gpu: &Gpu, entry: &Entry, shared_bytes: u32) -> Result<Function> {
        gpu.ensure_here()?;
        let mut loaded = self.loaded.lock()?;
        let allowed = loaded.shared_bytes.get(entry.name).copied().unwrap_or(SHARED_BYTES_DEFAULT);
        if let Some(&function) = loaded.functions.get(entry.name)
            && shared_bytes <= allowed
        {
            return Ok(function);
        }
        let current = gpu.enter()?;
        if !loaded.modules.contains_key(entry.family) {
            let (module, image) = load(&current, entry)?;
            loaded.images.push(image);
            loaded.modules.insert(entry.family, module);
        }
        let module = &loaded.modules[entry.family];
        let function = Function { handle: kernel(&current, module.handle as CuLibrary, entry)?, waits: module.waits };
        if shared_bytes > allowed {
            // SAFETY: a kernel of a loaded library.
            let code = unsafe {
                let (table, attribute) = (current.table(), FUNCTION_SHARED_BYTES_MAX);
                table.kernel_set(attribute, shared_bytes as i32, function.handle, current.device())
            };
            current.check(code, "cuKernelSetAttribute").map_err(|error| error.within(entry.name))?;
            loaded.shared_bytes.insert(entry.name, shared_bytes);
        }
        loaded.functions.insert(entry.name, function);
        Ok(function)
    }

    /// What has been loaded, in order of family.
    pub fn images(&self) -> Vec<ImageInfo> {
        let mut images = self.loaded.lock().map_or_else(|_| Vec::new(), |loaded| loaded.images.clone());
        images.sort_by_key(|image| image.family);
        images
    }

    /// Unloads everything; nothing is launched any more.
    pub fn unload(&self, current: &Current<'_>) {
        let Ok(loaded) = self.loaded.lock().map(|mut loaded| std::mem::take(&mut *loaded)) else { return };
        for module in loaded.modules.into_values() {
            // SAFETY: loaded here once, and its functions are used no more.
            let code = unsafe { current.table().library_unload(module.handle as CuLibrary) };
            let _ = current.check(code, "cuLibraryUnload");
        }
    }
}

/// The images of a family, best first.
fn images(family: &str) -> impl Iterator<Item = &'static [u8]> {
    IMAGES.iter().filter(move |(name, _)| *name == family).map(|(_, image)| *image)
}

/// Whether the entries of an image wait in their code: those compiled for compute capability 9.0 and newer do (`await_launch` in
/// kernels/numbers.cuh; tools/kernels.py checks each). Of machine code the driver takes what was compiled for its GPU.
fn waits(image: &[u8], capability: (u32, u32)) -> bool {
    let Some(text) = image.starts_with(b"//").then(|| String::from_utf8_lossy(image)) else {
        return capability >= (9, 0);
    };
    let target = text.lines().find_map(|line| line.strip_prefix(".target sm_"));
    let number = target.map(|target| target.trim_end_matches(|c: char| !c.is_ascii_digit()));
    number.and_then(|number| number.parse().ok()).is_some_and(|number: u32| number >= 90)
}

/// A library's kernel, whose code is on the GPU: the driver may put that off until it is needed, and then the first request
/// would wait for it.
fn kernel(current: &Current<'_>, library: CuLibrary, entry: &Entry) -> Result<CuKernel> {
    let name = CString::new(entry.name).map_err(|_| fail!(Internal, "an entry's name holds a zero"))?;
    let (mut kernel, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: a loaded library, a C string, and the driver stores a handle.
    let code = unsafe { current.table().library_kernel(&raw mut kernel, library, name.as_ptr()) };
    current.check(code, "cuLibraryGetKernel").map_err(|error| error.within(entry.name))?;
    // SAFETY: the kernel was found; the driver stores a handle.
    let code = unsafe { current.table().kernel_function(&raw mut function, kernel) };
    current.check(code, "cuKernelGetFunction").map_err(|error| error.within(entry.name))?;
    Ok(kernel)
}

/// The best image of the entry's family that this GPU can run.
fn load(current: &Current<'_>, entry: &Entry) -> Result<(Module, ImageInfo)> {
    let family = entry.family;
    let mut last = fail!(Internal, "the library holds no image of the kernels '{family}'");
    for image in images(family) {
        let start = clock::monotonic_ns();
        match load_image(current, image, entry) {
            Ok((library, log)) => {
                let load_ns = clock::monotonic_ns() - start;
                let waits = waits(image, current.capability());
                let module = Module { handle: library as usize, waits, _log: log };
                return Ok((module, ImageInfo { family, is_compiled: image.starts_with(b"//"), load_ns }));
            }
            Err(error) => last = error.within(format_args!("kernels '{family}'")),
        }
    }
    Err(last)
}

/// Loads an image and, since the driver may not look at it before, one of its entries.
fn load_image(current: &Current<'_>, image: &'static [u8], entry: &Entry) -> Result<(CuLibrary, Vec<u8>)> {
    let mut log = vec![0u8; LOG_BYTES];
    let mut options = [JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_BYTES as *mut c_void];
    let (mut library, none) = (std::ptr::null_mut(), std::ptr::null_mut());
    let table = current.table();
    // SAFETY: the image is machine code with its header, or PTX that ends with a zero; the log has as many bytes as said, and lives
    // as long as the library.
    let code = unsafe {
        let (image, count) = (image.as_ptr().cast(), options.len() as u32);
        table.library_load(
            &raw mut library,
            image,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
            count,
            none,
            none.cast(),
            0,
        )
    };
    let loaded = current.check(code, "cuLibraryLoadData").and_then(|()| {
        kernel(current, library, entry).inspect_err(|_| {
            // SAFETY: loaded above, and nothing of it is used.
            let _ = current.check(unsafe { table.library_unload(library) }, "cuLibraryUnload");
        })
    });
    match loaded {
        Ok(_) => Ok((library, log)),
        Err(mut error) => {
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(0);
            let text = String::from_utf8_lossy(&log[..end]);
            if !text.trim().is_empty() {
                error.message = format!("{}: {}", error.message, text.trim());
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::entry;

    #[test]
    fn only_images_for_newer_gpus_wait_in_their_code() {
        assert!(!waits(b"// x\n.version 9.0\n.target sm_80\n", (9, 0)));
        assert!(waits(b"// x\n.version 9.0\n.target sm_90a\n", (9, 0)));
        assert!(!waits(b"\x50\xed\x55\xba", (8, 9)) && waits(b"\x50\xed\x55\xba", (9, 0)));
    }

    #[test]
    fn every_entry_has_an_image_that_ends_with_a_zero_if_it_is_text() {
        for entry in entry::entries() {
            let mut count = 0;
            for image in images(entry.family) {
                count += 1;
                assert!(!image.starts_with(b"//") || image.ends_with(b"\0"), "{}", entry.family);
            }
            assert!(count > 0, "{} has no image", entry.name);
        }
    }
}
