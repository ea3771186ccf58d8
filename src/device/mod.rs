//! What a device must do, and the devices.

pub mod host;
