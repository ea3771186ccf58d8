//! How arguments lie in memory: each entry takes one struct by value, and the same bytes mean the same on both sides.
//!
//! [`arguments!`] defines the Rust struct; the C structs of `kernels/arguments.cuh` are generated from it, with an assertion for
//! every offset.

use std::fmt::Write;

/// A device address; 0 where there is nothing. Lowering may put anything else there that the device can tell apart and
/// replace: [`Arguments::addresses`] says where in the struct the addresses stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Address(pub u64);

impl Address {
    /// Where there is nothing.
    pub const NONE: Address = Address(0);

    /// Whether there is nothing.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Something that arguments are made of.
pub trait Field: Sized {
    /// Bytes, padding included.
    const BYTES: usize;
    /// Writes exactly [`Field::BYTES`] bytes.
    fn put(&self, bytes: &mut [u8]);
    /// Reads exactly [`Field::BYTES`] bytes.
    fn get(bytes: &[u8]) -> Self;
    /// Adds the positions of the addresses in a field that lies at `base`.
    fn addresses(base: usize, found: &mut Vec<usize>);
    /// The type's name in C; declares it first if it is a struct.
    fn declare(declarations: &mut Declarations) -> String;
    /// What follows the field's name in C.
    fn suffix() -> String {
        String::new()
    }
}

/// C structs, each declared once and before its first use.
#[derive(Debug, Default)]
pub struct Declarations {
    names: Vec<String>,
    /// The text so far.
    pub text: String,
}

impl Declarations {
    /// Whether a struct has not been declared; from now on it has.
    pub fn is_new(&mut self, name: &str) -> bool {
        let is_new = !self.names.iter().any(|known| known == name);
        if is_new {
            self.names.push(name.to_owned());
        }
        is_new
    }

    /// Declares a struct of `bytes` bytes with fields (type, name, suffix, offset), unless it has been declared.
    pub fn add(&mut self, name: &str, bytes: usize, fields: &[(String, &str, String, usize)]) {
        if !self.is_new(name) {
            return;
        }
        let text = &mut self.text;
        let _ = writeln!(text, "\nstruct {name} {{");
        for (ty, field, suffix, _) in fields {
            let _ = writeln!(text, "    {ty} {field}{suffix};");
        }
        let _ = writeln!(text, "}};\nstatic_assert(sizeof({name}) == {bytes});");
        for (_, field, _, offset) in fields {
            let _ = writeln!(text, "static_assert(offsetof({name}, {field}) == {offset});");
        }
    }
}

macro_rules! number {
    ($($ty:ty => $c:literal),*) => {
        $(impl Field for $ty {
            const BYTES: usize = size_of::<$ty>();
            fn put(&self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                <$ty>::from_le_bytes(bytes.try_into().expect("one number"))
            }
            fn addresses(_: usize, _: &mut Vec<usize>) {}
            fn declare(_: &mut Declarations) -> String {
                $c.to_owned()
            }
        })*
    };
}

number!(u32 => "uint32_t", i32 => "int32_t", u64 => "uint64_t", f32 => "float");

impl Field for Address {
    const BYTES: usize = 8;
    fn put(&self, bytes: &mut [u8]) {
        self.0.put(bytes);
    }
    fn get(bytes: &[u8]) -> Self {
        Address(u64::get(bytes))
    }
    fn addresses(base: usize, found: &mut Vec<usize>) {
        found.push(base);
    }
    fn declare(_: &mut Declarations) -> String {
        "void*".to_owned()
    }
}

impl<T: Field, const N: usize> Field for [T; N] {
    const BYTES: usize = T::BYTES * N;
    fn put(&self, bytes: &mut [u8]) {
        for (element, bytes) in self.iter().zip(bytes.chunks_exact_mut(T::BYTES)) {
            element.put(bytes);
        }
    }
    fn get(bytes: &[u8]) -> Self {
        std::array::from_fn(|index| T::get(&bytes[index * T::BYTES..(index + 1) * T::BYTES]))
    }
    fn addresses(base: usize, found: &mut Vec<usize>) {
        (0..N).for_each(|index| T::addresses(base + index * T::BYTES, found));
    }
    fn declare(declarations: &mut Declarations) -> String {
        T::declare(declarations)
    }
    fn suffix() -> String {
        format!("[{N}]{}", T::suffix())
    }
}

/// The argument struct of an entry.
pub trait Arguments: Field {
    /// The struct's bytes, as they are handed to the launch.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::BYTES];
        self.put(&mut bytes);
        bytes
    }

    /// The struct with every number 0.
    fn zero() -> Self {
        Self::get(&vec![0; Self::BYTES])
    }

    /// Positions of the addresses, 8 bytes each, ascending.
    fn address_positions() -> Vec<usize> {
        let mut found = Vec::new();
        Self::addresses(0, &mut found);
        found
    }
}

impl<T: Field> Arguments for T {}

/// Defines a struct that is passed to the device by value.
macro_rules! arguments {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $ty,)*
        }

        impl $crate::kernels::entry::Field for $name {
            const BYTES: usize = size_of::<$name>();
            fn put(&self, bytes: &mut [u8]) {
                $({
                    let start = std::mem::offset_of!($name, $field);
                    let end = start + <$ty as $crate::kernels::entry::Field>::BYTES;
                    $crate::kernels::entry::Field::put(&self.$field, &mut bytes[start..end]);
                })*
            }
            fn get(bytes: &[u8]) -> Self {
                $name {
                    $($field: {
                        let start = std::mem::offset_of!($name, $field);
                        let end = start + <$ty as $crate::kernels::entry::Field>::BYTES;
                        <$ty as $crate::kernels::entry::Field>::get(&bytes[start..end])
                    },)*
                }
            }
            fn addresses(base: usize, found: &mut Vec<usize>) {
                $(<$ty as $crate::kernels::entry::Field>::addresses(
                    base + std::mem::offset_of!($name, $field),
                    found,
                );)*
            }
            fn declare(declarations: &mut $crate::kernels::entry::Declarations) -> String {
                let fields = [
                    $((
                        <$ty as $crate::kernels::entry::Field>::declare(declarations),
                        stringify!($field),
                        <$ty as $crate::kernels::entry::Field>::suffix(),
                        std::mem::offset_of!($name, $field),
                    ),)*
                ];
                declarations.add(stringify!($name), size_of::<$name>(), &fields);
                stringify!($name).to_owned()
            }
        }
    };
}

pub(super) use arguments;

#[cfg(test)]
mod tests {
    use super::*;

    arguments! {
        /// A pair.
        pub struct Pair {
            /// First.
            pub small: u32,
            /// Second.
            pub at: Address,
        }
    }
    arguments! {
        /// Pairs.
        pub struct Pairs {
            /// Some.
            pub pairs: [Pair; 2],
            /// A factor.
            pub factor: f32,
        }
    }

    #[test]
    fn a_struct_survives_its_bytes() {
        let pair = |small, at| Pair { small, at: Address(at) };
        let pairs = Pairs { pairs: [pair(7, 1 << 40), pair(8, 3)], factor: -0.5 };
        let bytes = pairs.encode();
        assert_eq!((bytes.len(), Pairs::get(&bytes)), (40, pairs));
        assert_eq!(Pairs::address_positions(), [8, 24]);
        assert_eq!(u64::get(&bytes[8..16]), 1 << 40);
        assert!(Pairs::zero().pairs[1].at.is_none());
    }

    #[test]
    fn structs_are_declared_once_and_in_order() {
        let mut declarations = Declarations::default();
        Pairs::declare(&mut declarations);
        Pair::declare(&mut declarations);
        let text = declarations.text;
        assert_eq!(text.matches("struct Pair {").count(), 1);
        assert!(text.contains("    Pair pairs[2];\n    float factor;\n};\nstatic_assert(sizeof(Pairs) == 40);"));
        assert!(text.contains("static_assert(offsetof(Pair, at) == 8);"));
        assert!(text.find("struct Pair {").unwrap() < text.find("struct Pairs {").unwrap());
    }
}
