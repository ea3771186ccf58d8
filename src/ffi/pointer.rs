//! Pointers from C. The types here stand in the exported signatures in place of raw pointers; cbindgen shows them as
//! the pointers that they are. Only the C side makes them, under the contract of the header, and only this file
//! follows them.

use crate::error::{Result, ensure, fail};
use crate::runtime::HostRange;
use std::ffi::{CStr, OsStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Bytes above which a `struct_size` cannot be honest.
const STRUCT_BYTES_MAX: usize = 4096;
/// Elements above which an array argument cannot be honest.
const ARRAY_COUNT_MAX: u32 = 1 << 16;
/// Bytes of a string argument.
const TEXT_BYTES_MAX: usize = 1 << 16;

/// A struct that crosses the border by pointer and begins with `struct_size`.
///
/// # Safety
/// `#[repr(C)]`; the first field is `struct_size: u32`; any initialised bytes are a valid value.
pub unsafe trait Versioned: Copy {
    /// The name in the header.
    const NAME: &'static str;
    /// Size in the first version that had it: no honest host passes less.
    const BYTES_FIRST: usize;
}

macro_rules! versioned {
    ($($name:ident: $bytes:literal),* $(,)?) => {
        $(
            // SAFETY: `repr(C)` structs of integers and nullable pointers whose first field is `struct_size`.
            unsafe impl $crate::ffi::pointer::Versioned for $name {
                const NAME: &'static str = stringify!($name);
                const BYTES_FIRST: usize = $bytes;
            }
            const _: () = assert!(std::mem::offset_of!($name, struct_size) == 0 && size_of::<$name>() >= $bytes);
        )*
    };
}
pub(super) use versioned;

fn check_place<T: Versioned>(pointer: *const T) -> Result<()> {
    ensure!(pointer.is_aligned(), InvalidArgument, "the pointer to {} is not aligned", T::NAME);
    Ok(())
}

fn check_size<T: Versioned>(bytes: u32) -> Result<usize> {
    let bytes = bytes as usize;
    ensure!(
        (T::BYTES_FIRST..=STRUCT_BYTES_MAX).contains(&bytes),
        InvalidArgument,
        "{}.struct_size is {bytes}; set it to sizeof({}), at least {}",
        T::NAME,
        T::NAME,
        T::BYTES_FIRST
    );
    Ok(bytes)
}

/// A nullable struct, borrowed for the call.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct In<T>(*const T);

impl<T: Versioned> In<T> {
    /// Copies as much of the struct as both sides know; fields that the host does not know are zero. `None` for null.
    pub fn read(self) -> Result<Option<T>> {
        if self.0.is_null() {
            return Ok(None);
        }
        check_place(self.0)?;
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the contract of the header: a non-null pointer leads to `struct_size` readable bytes, of which the
        // first four are `struct_size`; no more than those are read, and no more than a `T` written.
        unsafe {
            let given = check_size::<T>(self.0.cast::<u32>().read())?;
            std::ptr::copy_nonoverlapping(self.0.cast::<u8>(), value.as_mut_ptr().cast(), given.min(size_of::<T>()));
            let surplus = given.saturating_sub(size_of::<T>());
            let unknown = std::slice::from_raw_parts(self.0.cast::<u8>().wrapping_add(given - surplus), surplus);
            ensure!(
                unknown.iter().all(|&byte| byte == 0),
                InvalidArgument,
                "{} sets a field that this version of the library does not know",
                T::NAME
            );
            Ok(Some(value.assume_init()))
        }
    }

    /// Like [`In::read`], for an argument that must not be null.
    pub fn required(self, name: &str) -> Result<T> {
        self.read()?.ok_or_else(|| fail!(InvalidArgument, "{name} is null"))
    }

    /// Reads `count` structs that stand one behind the other, each with the same `struct_size`.
    pub fn read_array(self, count: u32, name: &str) -> Result<Vec<T>> {
        ensure!(count <= ARRAY_COUNT_MAX, InvalidArgument, "{name} has {count} elements; at most {ARRAY_COUNT_MAX}");
        ensure!(count == 0 || !self.0.is_null(), InvalidArgument, "{name} is null but its count is {count}");
        let mut values = Vec::with_capacity(count as usize);
        let mut at = self.0.cast::<u8>();
        let mut stride = None;
        for index in 0..count {
            let element = In(at.cast::<T>());
            values.push(element.read().map_err(|e| e.within(format_args!("{name}[{index}]")))?.expect("not null"));
            // SAFETY: `read` has found these four bytes readable.
            let bytes = unsafe { at.cast::<u32>().read() } as usize;
            ensure!(*stride.get_or_insert(bytes) == bytes, InvalidArgument, "{name}[{index}] has another struct_size");
            at = at.wrapping_add(bytes);
        }
        Ok(values)
    }
}

impl<T: Versioned> In<T> {
    /// Reads one of the structs that stand one behind the other, each with the same `struct_size`. There are more than `index` of
    /// them.
    pub fn read_element(self, index: u32, name: &str) -> Result<T> {
        ensure!(index < ARRAY_COUNT_MAX, InvalidArgument, "{name} has more than {ARRAY_COUNT_MAX} elements");
        ensure!(!self.0.is_null(), InvalidArgument, "{name} is null");
        check_place(self.0)?;
        // SAFETY: the contract of the header: the first four bytes of each element are its `struct_size`.
        let size_at = |index: usize, bytes: usize| unsafe {
            self.0.cast::<u8>().wrapping_add(index * bytes).cast::<u32>().read_unaligned()
        };
        let bytes = check_size::<T>(size_at(0, 0))?;
        let index = index as usize;
        ensure!(size_at(index, bytes) as usize == bytes, InvalidArgument, "{name}[{index}] has another struct_size");
        let element = In(self.0.cast::<u8>().wrapping_add(index * bytes).cast::<T>());
        element.required(name).map_err(|error| error.within(format_args!("{name}[{index}]")))
    }
}

/// A struct owned by the caller, to be filled in.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T: Versioned> Out<T> {
    /// Checks the argument before anything is done on its behalf.
    pub fn check(self, name: &str) -> Result<Self> {
        ensure!(!self.0.is_null(), InvalidArgument, "{name} is null");
        check_place(self.0)?;
        // SAFETY: the contract of the header: the first four bytes are `struct_size`.
        check_size::<T>(unsafe { self.0.cast::<u32>().read() })?;
        Ok(self)
    }

    /// Writes as much of `value` as the host knows and zeroes what only the host knows. `struct_size` stays.
    pub fn write(self, value: &T) -> Result<()> {
        let place = self.check(T::NAME)?.0.cast::<u8>();
        // SAFETY: checked above; the contract of the header gives `struct_size` writable bytes. The first four are not
        // touched, and no more than a `T` is read.
        unsafe {
            let given = place.cast::<u32>().read() as usize;
            let known = given.min(size_of::<T>());
            std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast::<u8>().add(4), place.add(4), known - 4);
            place.add(known).write_bytes(0, given - known);
        }
        Ok(())
    }
}

/// Writes a plain output, which must not be null.
pub fn place<'a, T>(out: Option<&'a mut MaybeUninit<T>>, name: &str) -> Result<&'a mut MaybeUninit<T>> {
    out.ok_or_else(|| fail!(InvalidArgument, "{name} is null"))
}

/// A nullable zero-terminated string, borrowed for the call.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Text(*const c_char);

impl Text {
    fn bytes<'a>(self, name: &str) -> Result<Option<&'a [u8]>> {
        if self.0.is_null() {
            return Ok(None);
        }
        // SAFETY: the contract of the header: a non-null string is zero-terminated, and stays for the call.
        let bytes = unsafe { CStr::from_ptr(self.0) }.to_bytes();
        ensure!(bytes.len() <= TEXT_BYTES_MAX, InvalidArgument, "{name} is longer than {TEXT_BYTES_MAX} bytes");
        Ok(Some(bytes))
    }

    /// The string; `None` for null. It must be UTF-8.
    pub fn read(self, name: &str) -> Result<Option<String>> {
        let text = self.bytes(name)?.map(std::str::from_utf8).transpose();
        Ok(text.map_err(|_| fail!(InvalidArgument, "{name} is not UTF-8"))?.map(str::to_owned))
    }

    /// The path; `None` for null. Any bytes will do.
    pub fn read_path(self, name: &str) -> Result<Option<PathBuf>> {
        Ok(self.bytes(name)?.map(|bytes| PathBuf::from(OsStr::from_bytes(bytes))))
    }
}

/// Plain elements borrowed for the call, their number in another argument.
#[repr(transparent)]
pub struct Many<T>(*const T);

impl<T> Clone for Many<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Many<T> {}

impl<T: Copy> Many<T> {
    /// A copy of `count` elements.
    pub fn read(self, count: usize, name: &str) -> Result<Vec<T>> {
        ensure!(count == 0 || !self.0.is_null(), InvalidArgument, "{name} is null but its count is {count}");
        ensure!(self.0.is_aligned(), InvalidArgument, "{name} is not aligned");
        let fits = count.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= isize::MAX as usize);
        ensure!(fits, InvalidArgument, "{name} cannot have {count} elements");
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|_| fail!(OutOfMemory, "no memory for {count} elements of {name}"))?;
        if count > 0 {
            // SAFETY: the contract of the header: `count` readable elements; null, alignment and size are checked.
            values.extend_from_slice(unsafe { std::slice::from_raw_parts(self.0, count) });
        }
        Ok(values)
    }
}

impl<T> Many<T> {
    /// The elements themselves, for the call.
    pub fn elements<'a>(self, count: usize, name: &str) -> Result<&'a [T]> {
        ensure!(!self.0.is_null(), InvalidArgument, "{name} is null");
        ensure!(self.0.is_aligned(), InvalidArgument, "{name} is not aligned");
        let fits = count.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= isize::MAX as usize);
        ensure!(fits, InvalidArgument, "{name} cannot have {count} elements");
        // SAFETY: the contract of the header: `count` readable elements that nobody writes during the call; null, alignment and
        // size are checked.
        Ok(unsafe { std::slice::from_raw_parts(self.0, count) })
    }

    /// Whether there is nothing at all.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }
}

impl Many<std::ffi::c_void> {
    /// A copy of `count` bytes of unspecified type.
    pub fn read_bytes(self, count: usize, name: &str) -> Result<Vec<u8>> {
        Many(self.0.cast::<u8>()).read(count, name)
    }

    /// Whether the `bytes` bytes are these; null is `None`.
    pub fn are(self, bytes: u64, expected: Option<&[u8]>) -> bool {
        let Some(expected) = expected else { return self.0.is_null() };
        // SAFETY: the contract of the header: as many readable bytes as the other argument says.
        let given = || unsafe { std::slice::from_raw_parts(self.0.cast::<u8>(), expected.len()) };
        !self.0.is_null() && bytes == expected.len() as u64 && given() == expected
    }
}

/// Room for plain elements, owned by the caller, their number in another argument.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct ManyOut<T>(*mut T);

impl<T: Copy> ManyOut<T> {
    /// The room as a slice of `count` places.
    pub fn places<'a>(self, count: usize, name: &str) -> Result<&'a mut [MaybeUninit<T>]> {
        ensure!(!self.0.is_null(), InvalidArgument, "{name} is null");
        ensure!(self.0.is_aligned(), InvalidArgument, "{name} is not aligned");
        let fits = count.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= isize::MAX as usize);
        ensure!(fits, InvalidArgument, "{name} cannot have {count} elements");
        // SAFETY: the contract of the header: writable room for `count` elements that nobody else touches during the
        // call; null, alignment and size are checked.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0.cast(), count) })
    }
}

impl ManyOut<u8> {
    /// The room as bytes that are there, whatever they hold.
    pub fn bytes<'a>(self, count: usize, name: &str) -> Result<&'a mut [u8]> {
        let places = self.places(count, name)?;
        // SAFETY: as for `places`; memory of a C program is initialised as far as bytes go.
        Ok(unsafe { std::slice::from_raw_parts_mut(places.as_mut_ptr().cast(), count) })
    }
}

/// Memory of the host's that outlives the call.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Lent(*mut c_void);

impl Lent {
    /// Whether there is none.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// So many bytes of it. They may be null or not there: a device finds out.
    pub fn lend(self, bytes: usize) -> HostRange {
        // SAFETY: the contract of the header: the host keeps the memory while it is registered, and leaves it to the library while a request
        // runs that is attached to it.
        unsafe { HostRange::new(self.0.cast(), bytes) }
    }
}
