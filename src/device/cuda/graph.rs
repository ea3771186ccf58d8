//! Streams, and graphs of one straight line of nodes.

use super::gpu::{Current, Gpu};
use super::module::Function;
use super::partition::Partition;
use super::sys::{
    CuAddress, CuContext, CuCopyNode, CuCopyRows, CuCopySide, CuEdge, CuExec, CuGraph, CuKernelNode, CuLaunchValue,
    CuNode, CuStream, DEPENDENCY_PROGRAMMATIC, GRAPH_NODE_PRIORITY, LAUNCH_PRIORITY, MEMORY_DEVICE, MEMORY_HOST,
    PORT_PROGRAMMATIC, STREAM_NON_BLOCKING, WAIT_VALUE_GEQ,
};
use crate::device::Priority;
use crate::error::Result;
use crate::kernels::entry::Geometry;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// A stream of its own: no other stream waits for it, the default one included.
pub struct Stream {
    gpu: Arc<Gpu>,
    handle: CuStream,
    seat: Seat,
    /// Goes after the stream.
    _partition: Option<Arc<Partition>>,
}

/// Where work runs, and before what.
#[derive(Clone, Copy)]
struct Seat {
    /// The context that nodes name.
    context: CuContext,
    priority: i32,
}

// SAFETY: a handle that any thread may use.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// A new stream, on the multiprocessors of a partition or on all.
    pub fn new(gpu: &Arc<Gpu>, priority: Priority, partition: Option<&Arc<Partition>>) -> Result<Self> {
        let current = gpu.enter()?;
        let priority = level(&current, priority)?;
        let handle = match partition {
            Some(partition) => partition.stream(&current, priority)?,
            None => {
                let mut handle = null_mut();
                // SAFETY: the driver stores a handle.
                let code = unsafe { current.table().stream_new(&raw mut handle, STREAM_NON_BLOCKING, priority) };
                current.check(code, "cuStreamCreateWithPriority")?;
                handle
            }
        };
        let context = partition.map_or(gpu.context(), |partition| partition.context());
        let (seat, partition) = (Seat { context, priority }, partition.cloned());
        Ok(Stream { gpu: gpu.clone(), handle, seat, _partition: partition })
    }

    /// The handle, as a name.
    pub fn name(&self) -> usize {
        self.handle as usize
    }

    /// Waits until all its work is done. It blocks the thread: for loading and preparing only.
    pub fn synchronize(&self, current: &Current<'_>) -> Result<()> {
        // SAFETY: the stream lives.
        current.check(unsafe { current.table().stream_synchronize(self.handle) }, "cuStreamSynchronize")
    }

    /// Copies to the device; returns once the host's bytes are no longer needed.
    pub fn upload(&self, current: &Current<'_>, to: CuAddress, from: &[u8]) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: the host's bytes live until the stream is synchronised; the caller owns the device's.
        let code = unsafe { current.table().copy_to_device(to, from.as_ptr().cast(), from.len(), self.handle) };
        current.check(code, "cuMemcpyHtoDAsync")?;
        self.synchronize(current)
    }

    /// Sets device memory to zero, in the stream's order.
    pub fn clear(&self, current: &Current<'_>, at: CuAddress, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller owns the memory.
        current.check(unsafe { current.table().memory_set(at, 0, bytes, self.handle) }, "cuMemsetD8Async")
    }

    /// Copies rows between the host and the device, and returns when they are there. Blocks the thread.
    ///
    /// # Safety
    /// Both ends are memory that the copy may access until this returns.
    pub unsafe fn copy_rows(&self, current: &Current<'_>, copy: &CuCopyRows) -> Result<()> {
        // SAFETY: the caller's; the driver copies the description.
        current.check(unsafe { current.table().copy_rows(copy, self.handle) }, "cuMemcpy2DAsync")?;
        self.synchronize(current)
    }

    /// What follows starts once the number at `at`, in mapped memory, is at least `value`.
    pub fn wait_for(&self, current: &Current<'_>, at: CuAddress, value: u64) -> Result<()> {
        // SAFETY: the number lives in mapped memory; the caller keeps it.
        let code = unsafe { current.table().stream_wait_value(self.handle, at, value, WAIT_VALUE_GEQ) };
        current.check(code, "cuStreamWaitValue64")
    }

    /// Starts a graph.
    pub fn launch(&self, current: &Current<'_>, replay: &Replay) -> Result<()> {
        // SAFETY: stream and graph live; nobody else launches this graph.
        current.check(unsafe { current.table().exec_launch(replay.exec, self.handle) }, "cuGraphLaunch")
    }
}

/// What the driver calls a priority: the ends of its range and its middle. It knows at least one level.
fn level(current: &Current<'_>, priority: Priority) -> Result<i32> {
    let (mut least, mut greatest) = (0, 0);
    // SAFETY: the driver stores two numbers.
    let code = unsafe { current.table().priority_range(&raw mut least, &raw mut greatest) };
    current.check(code, "cuCtxGetStreamPriorityRange")?;
    Ok(match priority {
        Priority::Low => least,
        Priority::Normal => greatest.midpoint(least),
        Priority::High => greatest,
    })
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(current) = self.gpu.enter() {
            // SAFETY: made here, and used no more.
            let _ = current.check(unsafe { current.table().stream_free(self.handle) }, "cuStreamDestroy");
        }
    }
}

/// A graph that is ready to run.
pub struct Replay {
    gpu: Arc<Gpu>,
    exec: CuExec,
}

// SAFETY: a handle that any thread may use, one at a time; its lane sees to that.
unsafe impl Send for Replay {}
// SAFETY: as above.
unsafe impl Sync for Replay {}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Ok(current) = self.gpu.enter() {
            // SAFETY: made here, and used no more.
            let _ = current.check(unsafe { current.table().exec_free(self.exec) }, "cuGraphExecDestroy");
        }
    }
}

/// One end of a copy.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// Page-locked host memory.
    Host(*mut u8),
    /// Device memory.
    Device(CuAddress),
}

/// A graph in the making, for one stream: each node waits for the one before.
pub struct Line<'a> {
    current: &'a Current<'a>,
    seat: Seat,
    graph: CuGraph,
    last: Option<Node>,
}

/// The node that the next one follows.
#[derive(Clone, Copy)]
struct Node {
    handle: CuNode,
    is_kernel: bool,
}

impl<'a> Line<'a> {
    /// An empty graph, to be run on `stream`.
    pub fn new(current: &'a Current<'a>, stream: &Stream) -> Result<Self> {
        let mut graph = null_mut();
        // SAFETY: the driver stores a handle.
        current.check(unsafe { current.table().graph_new(&raw mut graph, 0) }, "cuGraphCreate")?;
        Ok(Line { current, seat: stream.seat, graph, last: None })
    }

    fn after(&self) -> (*const CuNode, usize) {
        self.last.as_ref().map_or((null(), 0), |node| (&raw const node.handle, 1))
    }

    /// Adds a launch. `arguments` are the bytes of the kernel's one parameter.
    ///
    /// A launch whose code waits for the kernel before gets a programmatic edge: its blocks may start while that kernel still runs.
    pub fn kernel(&mut self, function: Function, geometry: &Geometry, arguments: &[u8]) -> Result<()> {
        let mut parameters = [arguments.as_ptr().cast_mut().cast::<c_void>()];
        let node = CuKernelNode {
            function: null_mut(),
            grid: geometry.grid,
            block: [geometry.block, 1, 1],
            shared_bytes: geometry.shared_bytes,
            parameters: parameters.as_mut_ptr(),
            extra: null_mut(),
            kernel: function.handle,
            context: self.seat.context,
        };
        let before = self.last.filter(|before| before.is_kernel && function.waits);
        let (after, count) = if before.is_some() { (null(), 0) } else { self.after() };
        let mut handle = null_mut();
        // SAFETY: the function takes one parameter of that many bytes, which the driver copies; the node before is the graph's.
        let code = unsafe {
            self.current.table().graph_add_kernel(&raw mut handle, self.graph, after, count, &raw const node)
        };
        self.current.check(code, "cuGraphAddKernelNode")?;
        self.prefer(handle)?;
        if let Some(before) = before {
            self.overlap(before.handle, handle)?;
        }
        self.last = Some(Node { handle, is_kernel: true });
        Ok(())
    }

    /// Gives a launch the stream's priority: nodes have their own.
    fn prefer(&self, node: CuNode) -> Result<()> {
        let value = CuLaunchValue { priority: self.seat.priority, rest: [0; 60] };
        // SAFETY: a node of the graph; the driver copies the value.
        let code = unsafe { self.current.table().graph_set_kernel(node, LAUNCH_PRIORITY, &raw const value) };
        self.current.check(code, "cuGraphKernelNodeSetAttribute")
    }

    /// Lets a kernel start once every block of the one before has; its code waits for that one's end.
    fn overlap(&self, before: CuNode, node: CuNode) -> Result<()> {
        let edge = CuEdge { from_port: PORT_PROGRAMMATIC, kind: DEPENDENCY_PROGRAMMATIC, ..CuEdge::default() };
        // SAFETY: two nodes of the graph; the driver copies the edge.
        let code = unsafe {
            let table = self.current.table();
            table.graph_add_edges(self.graph, &raw const before, &raw const node, &raw const edge, 1)
        };
        self.current.check(code, "cuGraphAddDependencies")
    }

    /// Adds a copy by the copy engine.
    pub fn copy(&mut self, from: End, to: End, bytes: usize) -> Result<()> {
        let side = |end: End| CuCopySide {
            position: [0; 4],
            memory: if matches!(end, End::Host(_)) { MEMORY_HOST } else { MEMORY_DEVICE },
            host: if let End::Host(address) = end { address.cast() } else { null_mut() },
            device: if let End::Device(address) = end { address } else { 0 },
            array: null_mut(),
            reserved: null_mut(),
            pitch: bytes,
            height: 1,
        };
        let node = CuCopyNode { from: side(from), to: side(to), extent: [bytes, 1, 1] };
        let (after, count) = self.after();
        let mut handle = null_mut();
        // SAFETY: the driver copies the description; both ends live as long as the graph runs, the caller's duty.
        let code = unsafe {
            let table = self.current.table();
            table.graph_add_copy(&raw mut handle, self.graph, after, count, &raw const node, self.seat.context)
        };
        self.current.check(code, "cuGraphAddMemcpyNode")?;
        self.last = Some(Node { handle, is_kernel: false });
        Ok(())
    }

    /// Makes the graph ready and puts it onto the device.
    pub fn finish(self, gpu: &Arc<Gpu>, stream: &Stream) -> Result<Replay> {
        let table = self.current.table();
        let mut exec = null_mut();
        // SAFETY: a graph made here; the driver stores a handle.
        let code = unsafe { table.graph_instantiate(&raw mut exec, self.graph, GRAPH_NODE_PRIORITY) };
        self.current.check(code, "cuGraphInstantiateWithFlags")?;
        let replay = Replay { gpu: gpu.clone(), exec };
        // SAFETY: graph and stream live.
        self.current.check(unsafe { table.exec_upload(replay.exec, stream.handle) }, "cuGraphUpload")?;
        Ok(replay)
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        // SAFETY: made here; what was made ready from it does not need it.
        let _ = self.current.check(unsafe { self.current.table().graph_free(self.graph) }, "cuGraphDestroy");
    }
}
