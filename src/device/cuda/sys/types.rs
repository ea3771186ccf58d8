//! The driver's types and numbers, as the CUDA 13 headers have them.

use std::ffi::{c_int, c_uint, c_void};

/// `CUresult`.
pub type CuResult = c_int;
/// `CUdevice`.
pub type CuDevice = c_int;
/// `CUdeviceptr`.
pub type CuAddress = u64;
/// `CUcontext`.
pub type CuContext = *mut c_void;
/// `CUlibrary`.
pub type CuLibrary = *mut c_void;
/// `CUkernel`.
pub type CuKernel = *mut c_void;
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
/// `CUgreenCtx`.
pub type CuGreen = *mut c_void;
/// `CUdevResourceDesc`.
pub type CuDescription = *mut c_void;

/// `CUDA_SUCCESS`.
pub const SUCCESS: CuResult = 0;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub const OUT_OF_MEMORY: CuResult = 2;
/// `CUDA_ERROR_NO_DEVICE`.
pub const NO_DEVICE: CuResult = 100;
/// `CUDA_ERROR_NOT_READY`.
pub const NOT_READY: CuResult = 600;
/// `CUDA_ERROR_NOT_SUPPORTED`.
pub const NOT_SUPPORTED: CuResult = 801;
/// `CUDA_ERROR_UNKNOWN`.
pub const UNKNOWN: CuResult = 999;

/// `CU_TENSOR_MAP_DATA_TYPE_FLOAT16`.
pub const TENSOR_F16: c_int = 6;
/// `CU_TENSOR_MAP_DATA_TYPE_BFLOAT16`.
pub const TENSOR_BF16: c_int = 9;
/// `CU_TENSOR_MAP_INTERLEAVE_NONE`.
pub const TENSOR_INTERLEAVE_NONE: c_int = 0;
/// `CU_TENSOR_MAP_SWIZZLE_128B`.
pub const TENSOR_SWIZZLE_128: c_int = 3;
/// `CU_TENSOR_MAP_L2_PROMOTION_L2_256B`.
pub const TENSOR_PROMOTE_256: c_int = 3;
/// `CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE`: what lies outside is zero.
pub const TENSOR_FILL_ZERO: c_int = 0;
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
/// `CU_LAUNCH_ATTRIBUTE_PRIORITY`.
pub const LAUNCH_PRIORITY: c_int = 8;
/// `CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY`.
pub const GRAPH_NODE_PRIORITY: u64 = 8;
/// `CU_DEV_RESOURCE_TYPE_SM`.
pub const RESOURCE_MULTIPROCESSORS: c_int = 1;
/// `CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING`.
pub const SPLIT_FINELY: c_uint = 1;
/// `CU_GREEN_CTX_DEFAULT_STREAM`, without which there is no green context.
pub const GREEN_DEFAULT_STREAM: c_uint = 1;
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
    /// Null: the kernel says what to launch.
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
    /// What to launch.
    pub kernel: CuKernel,
    /// Where: the device's primary context, or that of a green context.
    pub context: CuContext,
}

/// `CUlaunchAttributeValue`, of a priority.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct CuLaunchValue {
    /// The priority.
    pub priority: c_int,
    /// What other attributes take.
    pub rest: [u8; 60],
}

/// `CUdevResource`, of multiprocessors. The driver keeps what it needs to know in what is private.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct CuResource {
    /// [`RESOURCE_MULTIPROCESSORS`].
    pub kind: c_int,
    /// The driver's.
    pub private: [u8; 92],
    /// How many there are.
    pub multiprocessors: c_uint,
    /// The rest of the largest resource.
    pub rest: [u8; 44],
}

impl CuResource {
    /// A place for the driver to write to.
    pub const EMPTY: CuResource = CuResource { kind: 0, private: [0; 92], multiprocessors: 0, rest: [0; 44] };
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
        assert_eq!((size_of::<CuLaunchValue>(), size_of::<CuResource>()), (64, 144));
        assert_eq!(std::mem::offset_of!(CuResource, multiprocessors), 96);
    }
}
