//! Plan to program: layouts, tactics, packed constants, memory. Pure functions; nothing here touches a device.

pub mod arena;
pub mod host;
