//! The state of the simulated driver: handles, faults on demand, the ledger.

use crate::green::{Greens, Resource};
use crate::kernel::Kernel;
use crate::memory::Memory;
use crate::stream::{Node, Stream};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use streaminfer::kernels::entry::{self, Entry};

/// `CUresult`.
pub type Code = c_int;

/// The handle of a device's primary context.
const CONTEXT: usize = 0xC0DE_0000;

/// A misuse: the process ends with a sentence.
pub fn fault(what: &str) -> ! {
    eprintln!("fakecuda: {what}");
    std::process::abort()
}

/// The numerically largest and smallest priority of a stream.
pub const PRIORITIES: (c_int, c_int) = (0, -5);

/// What the environment says.
pub struct Options {
    pub devices: c_int,
    pub version: c_int,
    pub capability: (c_int, c_int),
    pub memory_bytes: usize,
    seed: u64,
    fail: Option<Fail>,
    log: Option<String>,
}

/// Which call fails, and how.
struct Fail {
    symbol: String,
    nth: usize,
    /// `None` hangs.
    code: Option<Code>,
    sticky: bool,
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

impl Options {
    fn read() -> Self {
        let capability = std::env::var("FAKECUDA_CAPABILITY").unwrap_or_else(|_| "9.0".into());
        let (major, minor) = capability.split_once('.').unwrap_or(("9", "0"));
        let fail = std::env::var("FAKECUDA_FAIL").ok().map(|text| {
            let parts: Vec<&str> = text.split(':').collect();
            Fail {
                symbol: parts[0].to_owned(),
                nth: parts[1].parse().expect("the number of a call"),
                code: parts[2].parse().ok(),
                sticky: parts.get(3) == Some(&"sticky"),
            }
        });
        Options {
            devices: number("FAKECUDA_DEVICES", 1),
            version: number("FAKECUDA_VERSION", 13_000),
            capability: (major.parse().unwrap_or(9), minor.parse().unwrap_or(0)),
            memory_bytes: number("FAKECUDA_MEMORY_MB", 4096usize) << 20,
            seed: number("FAKECUDA_SEED", 1),
            fail,
            log: std::env::var("FAKECUDA_LOG").ok(),
        }
    }
}

/// A node of a graph, and how many nodes it has been told to follow.
struct Link {
    node: Arc<Node>,
    edges: usize,
    context: usize,
    priority: Option<c_int>,
}

/// Something that belongs to a context and has a priority.
struct Seated<T> {
    what: Arc<T>,
    context: usize,
    /// `None` if it is the stream's that decides.
    priority: Option<c_int>,
}

#[derive(Default)]
struct Handles {
    libraries: HashMap<usize, String>,
    kernels: HashMap<usize, Kernel>,
    streams: HashMap<usize, Seated<Stream>>,
    graphs: HashMap<usize, Vec<Link>>,
    execs: HashMap<usize, Seated<Vec<Node>>>,
    greens: Greens,
    /// Nodes of graphs, by handle.
    nodes: HashMap<usize, (usize, usize)>,
    calls: HashMap<&'static str, usize>,
    /// How many streams there have been of each priority, and whether in a green context.
    priorities: HashMap<(bool, c_int), usize>,
}

pub struct Driver {
    pub options: Options,
    pub memory: Memory,
    handles: Mutex<Handles>,
    /// How often the context has been taken; held while its last release looks at what is left.
    retained: Mutex<usize>,
    next: AtomicUsize,
    kernels: AtomicU64,
    /// The fatal result after which the device is dead.
    dead: AtomicI32,
    /// A call that gives something back was made to fail: what is left is nobody's fault.
    excused: AtomicBool,
}

pub fn driver() -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(|| Driver {
        options: Options::read(),
        memory: Memory::default(),
        handles: Mutex::default(),
        retained: Mutex::new(0),
        next: AtomicUsize::new(0x1000),
        kernels: AtomicU64::new(0),
        dead: AtomicI32::new(0),
        excused: AtomicBool::new(false),
    })
}

thread_local! {
    static CURRENT: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// The process that has started the driver; 0: none has.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// This process starts the driver.
pub fn note_start() {
    let _ = OWNER.compare_exchange(0, std::process::id(), SeqCst, SeqCst);
}

/// This thread calls the driver, which works in the process that has started it, and in no child of that one.
pub fn note_call(name: &str) {
    let owner = OWNER.load(SeqCst);
    if owner != 0 && owner != std::process::id() {
        fault(&format!("{name} is called in a child of the process that has started the driver"));
    }
    CALLS.set(CALLS.get() + 1);
}

/// How often it has.
pub fn calls_of_thread() -> usize {
    CALLS.get()
}

/// The thread's current context is no longer current.
pub fn pop() -> Option<usize> {
    CURRENT.with_borrow_mut(Vec::pop)
}

impl Driver {
    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retained(&self) -> MutexGuard<'_, usize> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self) -> usize {
        self.next.fetch_add(16, SeqCst)
    }

    /// Counts a call, and says whether it is to fail.
    pub fn admit(&self, name: &'static str) -> Result<(), Code> {
        let count = {
            let mut handles = self.handles();
            let count = handles.calls.entry(name).or_insert(0);
            *count += 1;
            *count
        };
        if name == "cuGraphLaunch" && *self.retained() == 0 {
            fault("a launch after the context was released");
        }
        if let Some(fail) = self.options.fail.as_ref().filter(|fail| fail.symbol == name)
            && (count == fail.nth || (fail.sticky && count > fail.nth))
        {
            let code = fail.code.unwrap_or(999);
            if ["Destroy", "Free", "Unregister", "Unload", "Push", "Release"].iter().any(|what| name.contains(what)) {
                self.excused.store(true, SeqCst);
            }
            if matches!(code, 700 | 714..=719) {
                self.dead.store(code, SeqCst);
            }
            return Err(code);
        }
        match self.dead.load(SeqCst) {
            0 => Ok(()),
            code => {
                let mut handles = self.handles();
                *handles.calls.entry("after the end").or_insert(0) += 1;
                Err(code)
            }
        }
    }

    /// The fatal result, if the device is dead.
    pub fn alive(&self) -> Result<(), Code> {
        match self.dead.load(SeqCst) {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// Counts a kernel that runs; whether it is the one that fails.
    pub fn kernel_fails(&self) -> bool {
        let count = self.kernels.fetch_add(1, SeqCst) + 1;
        let Some(fail) = self.options.fail.as_ref().filter(|fail| fail.symbol == "kernel") else { return false };
        if count != fail.nth as u64 {
            return false;
        }
        match fail.code {
            Some(code) => self.dead.store(code, SeqCst),
            None => {
                while self.alive().is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            }
        }
        true
    }

    pub fn device(&self, index: c_int) -> Result<(), Code> {
        if (0..self.options.devices).contains(&index) { Ok(()) } else { Err(101) }
    }

    pub fn retain(&self, device: c_int) -> Result<usize, Code> {
        self.device(device)?;
        *self.retained() += 1;
        Ok(CONTEXT + device as usize)
    }

    /// The last release finds everything given back.
    pub fn release(&self, device: c_int) -> Result<(), Code> {
        self.device(device)?;
        let mut retained = self.retained();
        *retained -= 1;
        if *retained > 0 {
            return Ok(());
        }
        let handles = self.handles();
        let left = [
            ("memory areas", self.memory.count()),
            ("libraries", handles.libraries.len()),
            ("green contexts", handles.greens.count()),
            ("streams", handles.streams.len()),
            ("graphs", handles.graphs.len()),
            ("ready graphs", handles.execs.len()),
        ];
        for (what, count) in left {
            if count > 0 && !self.excused.load(SeqCst) {
                fault(&format!("{count} {what} are left when the context is released"));
            }
        }
        if let Some(path) = &self.options.log {
            let mut lines: Vec<String> = handles.calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
            lines.push(format!("kernels {}", self.kernels.load(SeqCst)));
            lines.extend(handles.priorities.iter().map(|((is_green, priority), count)| {
                format!("{}stream of priority {priority} {count}", if *is_green { "green " } else { "" })
            }));
            lines.sort();
            std::fs::write(path, lines.join("\n") + "\n").expect("a log");
        }
        Ok(())
    }

    pub fn push(&self, context: usize) -> Result<(), Code> {
        // It may be current to one thread at a time only, and so is never to be.
        if self.handles().greens.is_live(context) {
            fault("a green context is made current");
        }
        if context < CONTEXT || context >= CONTEXT + self.options.devices as usize || *self.retained() == 0 {
            fault("no context is made current");
        }
        CURRENT.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    }

    /// The thread's context.
    pub fn current(&self) -> Result<usize, Code> {
        CURRENT.with_borrow(|stack| stack.last().copied()).ok_or(201)
    }

    pub fn load_library(&self, text: &str) -> Result<usize, Code> {
        if !text.contains(".version") {
            return Err(200);
        }
        let target = text.lines().find_map(|line| line.strip_prefix(".target sm_")).unwrap_or("");
        let capability = self.options.capability.0 * 10 + self.options.capability.1;
        let fits = match target.strip_suffix('a') {
            Some(exact) => exact.parse() == Ok(capability),
            None => target.parse::<c_int>().is_ok_and(|needed| needed <= capability),
        };
        if !fits {
            return Err(218);
        }
        let library = self.handle();
        self.handles().libraries.insert(library, text.to_owned());
        Ok(library)
    }

    pub fn unload_library(&self, library: usize) -> Result<(), Code> {
        let mut handles = self.handles();
        if handles.libraries.remove(&library).is_none() {
            fault("no library is unloaded");
        }
        handles.kernels.retain(|_, kernel| kernel.library != library);
        Ok(())
    }

    pub fn kernel(&self, library: usize, name: &str) -> Result<usize, Code> {
        let mut handles = self.handles();
        let Some(text) = handles.libraries.get(&library) else { fault("a kernel of no library") };
        if !text.contains(&format!(".visible .entry {name}(")) {
            return Err(500);
        }
        let Some(entry) = entry::find(name) else { fault(&format!("{name} has no twin")) };
        let kernel = Kernel::new(library, entry, text);
        let handle = self.handle();
        handles.kernels.insert(handle, kernel);
        Ok(handle)
    }

    pub fn allow_shared(&self, kernel: usize, bytes: u32) -> Result<(), Code> {
        match self.handles().kernels.get_mut(&kernel) {
            Some(kernel) => kernel.allow_shared(bytes, self.options.capability),
            None => fault("shared memory for no kernel"),
        }
    }

    /// The entry, and whether its code waits for the launch before.
    pub fn check_launch(&self, kernel: usize, grid: [u32; 3], block: [u32; 3], shared: u32) -> (Entry, bool) {
        let handles = self.handles();
        let Some(kernel) = handles.kernels.get(&kernel) else { fault("a launch of no kernel") };
        kernel.check_launch(grid, block, shared);
        (kernel.entry, kernel.waits)
    }

    /// Runs `work` on what is known of multiprocessors and green contexts.
    pub fn greens<T>(&self, work: impl FnOnce(&mut Greens) -> T) -> T {
        work(&mut self.handles().greens)
    }

    pub fn new_description(&self, resources: &[Resource]) -> Result<usize, Code> {
        let handle = self.handle();
        self.greens(|greens| greens.describe(handle, resources)).map(|()| handle)
    }

    /// A green context keeps its device's primary context.
    pub fn new_green(&self, description: usize, device: c_int) -> Result<usize, Code> {
        self.device(device)?;
        let handle = self.handle();
        self.greens(|greens| greens.create(handle, description, device))?;
        *self.retained() += 1;
        Ok(handle)
    }

    pub fn free_green(&self, green: usize) -> Result<(), Code> {
        let is_excused = self.excused.load(SeqCst);
        let device = self.greens(|greens| greens.destroy(green, is_excused));
        self.release(device)
    }

    /// A context that work may be for: the thread's current one or a green one.
    pub fn check_context(&self, context: usize) -> Result<(), Code> {
        if context != self.current()? && !self.handles().greens.is_live(context) {
            fault("work for a context that is neither current nor a green one");
        }
        Ok(())
    }

    pub fn new_stream(&self, context: usize, priority: c_int) -> usize {
        if priority > PRIORITIES.0 || priority < PRIORITIES.1 {
            fault(&format!("a stream with priority {priority}"));
        }
        let handle = self.handle();
        let stream = Arc::new(Stream::start(self.options.seed ^ handle as u64));
        let mut handles = self.handles();
        let is_green = handles.greens.is_live(context);
        *handles.priorities.entry((is_green, priority)).or_default() += 1;
        handles.greens.count_stream(context, 1);
        handles.streams.insert(handle, Seated { what: stream, context, priority: Some(priority) });
        handle
    }

    pub fn stream(&self, handle: usize) -> Result<Arc<Stream>, Code> {
        match self.handles().streams.get(&handle) {
            Some(stream) => Ok(stream.what.clone()),
            None => fault("a stream is used that is not there"),
        }
    }

    pub fn free_stream(&self, handle: usize) -> Result<(), Code> {
        let mut handles = self.handles();
        let stream = handles.streams.remove(&handle);
        let Some(stream) = stream else { fault("a stream is destroyed that is not there") };
        handles.greens.count_stream(stream.context, -1);
        drop(handles);
        stream.what.stop();
        Ok(())
    }

    /// Waits for all streams, as freeing memory does.
    pub fn drain(&self) {
        let streams: Vec<Arc<Stream>> = self.handles().streams.values().map(|stream| stream.what.clone()).collect();
        streams.iter().for_each(|stream| stream.drain());
    }

    pub fn new_graph(&self) -> usize {
        let handle = self.handle();
        self.handles().graphs.insert(handle, Vec::new());
        handle
    }

    /// Adds a node. What it follows may be said later, by an edge.
    pub fn add_node(&self, graph: usize, after: &[usize], node: Node, context: usize) -> Result<usize, Code> {
        self.check_context(context)?;
        let handle = self.handle();
        let mut handles = self.handles();
        let Some(nodes) = handles.graphs.get_mut(&graph) else { fault("a node of no graph") };
        nodes.push(Link { node: Arc::new(node), edges: 0, context, priority: None });
        let position = nodes.len() - 1;
        handles.nodes.insert(handle, (graph, position));
        drop(handles);
        after.iter().for_each(|&before| self.follow(graph, before, handle));
        Ok(handle)
    }

    /// An edge: this library makes straight lines only.
    fn follow(&self, graph: usize, before: usize, node: usize) {
        let mut handles = self.handles();
        let position = |node: usize| handles.nodes.get(&node).filter(|(owner, _)| *owner == graph).map(|place| place.1);
        let (Some(before), Some(position)) = (position(before), position(node)) else { fault("an edge of no nodes") };
        if before + 1 != position {
            fault("a node does not follow the one before");
        }
        handles.graphs.get_mut(&graph).expect("the owner of nodes")[position].edges += 1;
    }

    /// An edge between two kernels of which the second waits in its code.
    pub fn overlap(&self, graph: usize, before: usize, node: usize) {
        self.follow(graph, before, node);
        let handles = self.handles();
        let kernel = |node: usize| {
            let (_, position) = handles.nodes[&node];
            match &*handles.graphs[&graph][position].node {
                Node::Kernel { entry, waits, .. } => Some((entry.name, *waits)),
                Node::Copy { .. } => None,
            }
        };
        match (kernel(before), kernel(node)) {
            (Some(_), Some((_, true))) => {}
            (Some(_), Some((name, false))) => fault(&format!("{name} may start early and does not wait")),
            _ => fault("a programmatic edge at a node that is no kernel"),
        }
    }

    /// A launch's priority.
    pub fn prefer(&self, node: usize, priority: c_int) -> Result<(), Code> {
        if priority > PRIORITIES.0 || priority < PRIORITIES.1 {
            return Err(1);
        }
        let mut handles = self.handles();
        let Some(&(graph, position)) = handles.nodes.get(&node) else { fault("an attribute of no node") };
        let link = &mut handles.graphs.get_mut(&graph).expect("the owner of nodes")[position];
        if matches!(*link.node, Node::Copy { .. }) {
            return Err(1);
        }
        link.priority = Some(priority);
        Ok(())
    }

    /// A ready graph: all its nodes are for one context and, with priorities of their own, have the same.
    pub fn instantiate(&self, graph: usize, own_priorities: bool) -> Result<usize, Code> {
        let exec = self.handle();
        let mut handles = self.handles();
        let Some(nodes) = handles.graphs.get(&graph) else { fault("no graph is made ready") };
        if nodes.iter().enumerate().any(|(position, link)| link.edges != usize::from(position > 0)) {
            fault("a graph that is no straight line");
        }
        let is_kernel = |link: &&Link| matches!(*link.node, Node::Kernel { .. });
        let copy = |link: &Link| match &*link.node {
            Node::Kernel { entry, arguments, waits } => {
                Node::Kernel { entry: *entry, arguments: arguments.clone(), waits: *waits }
            }
            &Node::Copy { from, to, bytes } => Node::Copy { from, to, bytes },
        };
        let (context, kernels) = (nodes.first().map_or(0, |link| link.context), nodes.iter().filter(is_kernel));
        let priorities: Vec<c_int> = kernels.map(|link| link.priority.unwrap_or(0)).collect();
        if nodes.iter().any(|link| link.context != context) || priorities.windows(2).any(|pair| pair[0] != pair[1]) {
            fault("a graph for several contexts or of several priorities");
        }
        let priority = priorities.first().copied().filter(|_| own_priorities);
        let what = Arc::new(nodes.iter().map(copy).collect());
        handles.greens.count_exec(context, 1);
        handles.execs.insert(exec, Seated { what, context, priority });
        Ok(exec)
    }

    pub fn free_graph(&self, graph: usize) -> Result<(), Code> {
        let mut handles = self.handles();
        if handles.graphs.remove(&graph).is_none() {
            fault("a graph is destroyed that is not there");
        }
        handles.nodes.retain(|_, (owner, _)| *owner != graph);
        Ok(())
    }

    pub fn exec(&self, exec: usize) -> Result<Arc<Vec<Node>>, Code> {
        match self.handles().execs.get(&exec) {
            Some(exec) => Ok(exec.what.clone()),
            None => fault("a ready graph is used that is not there"),
        }
    }

    /// A ready graph and the stream that it is to run on, which is in the nodes' context and has their priority.
    pub fn launch(&self, exec: usize, stream: usize) -> Result<(Arc<Vec<Node>>, Arc<Stream>), Code> {
        let (nodes, queue) = (self.exec(exec)?, self.stream(stream)?);
        let handles = self.handles();
        let (exec, stream) = (&handles.execs[&exec], &handles.streams[&stream]);
        if !nodes.is_empty() && exec.context != stream.context {
            fault("a graph is launched into another context than its nodes are for");
        }
        if exec.priority.is_some() && exec.priority != stream.priority {
            fault("a graph and the stream that it is launched into have different priorities");
        }
        Ok((nodes, queue))
    }

    /// A range is unregistered: no graph that may still be launched refers to it.
    pub fn let_go(&self, range: &std::ops::Range<u64>) {
        let refers = |node: &Node| match node {
            Node::Copy { from, to, .. } => range.contains(from) || range.contains(to),
            Node::Kernel { arguments, .. } => arguments
                .windows(8)
                .step_by(4)
                .any(|bytes| range.contains(&u64::from_le_bytes(bytes.try_into().expect("eight bytes")))),
        };
        let is_used = self.handles().execs.values().any(|exec| exec.what.iter().any(refers));
        if is_used && !self.excused.load(SeqCst) {
            fault(&format!("{:#x} is unregistered while a ready graph refers to it", range.start));
        }
    }

    pub fn free_exec(&self, exec: usize) -> Result<(), Code> {
        let mut handles = self.handles();
        let removed = handles.execs.remove(&exec);
        match removed {
            Some(Seated { what: nodes, context, .. }) => {
                handles.greens.count_exec(context, -1);
                drop(handles);
                // Its last kernel has told the host of the end; the stream notices that a moment later.
                let start = std::time::Instant::now();
                while Arc::strong_count(&nodes) > 1 && self.alive().is_ok() {
                    if start.elapsed().as_secs() > 5 {
                        fault("a graph is destroyed that runs");
                    }
                    std::thread::yield_now();
                }
                Ok(())
            }
            None => fault("a ready graph is destroyed that is not there"),
        }
    }
}
