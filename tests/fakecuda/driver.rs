//! The state of the simulated driver: handles, faults on demand, the ledger.

use crate::memory::Memory;
use crate::stream::{Node, Stream};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize};
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
}

#[derive(Default)]
struct Handles {
    modules: HashMap<usize, String>,
    functions: HashMap<usize, (usize, Entry, u32)>,
    streams: HashMap<usize, Arc<Stream>>,
    graphs: HashMap<usize, Vec<Link>>,
    execs: HashMap<usize, Arc<Vec<Node>>>,
    /// Nodes of graphs, by handle.
    nodes: HashMap<usize, (usize, usize)>,
    calls: HashMap<&'static str, usize>,
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
            ("modules", handles.modules.len()),
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
            lines.sort();
            std::fs::write(path, lines.join("\n") + "\n").expect("a log");
        }
        Ok(())
    }

    pub fn push(&self, context: usize) -> Result<(), Code> {
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

    pub fn load_module(&self, text: &str) -> Result<usize, Code> {
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
        let module = self.handle();
        self.handles().modules.insert(module, text.to_owned());
        Ok(module)
    }

    pub fn unload_module(&self, module: usize) -> Result<(), Code> {
        let mut handles = self.handles();
        if handles.modules.remove(&module).is_none() {
            fault("no module is unloaded");
        }
        handles.functions.retain(|_, (owner, ..)| *owner != module);
        Ok(())
    }

    pub fn function(&self, module: usize, name: &str) -> Result<usize, Code> {
        let mut handles = self.handles();
        let Some(text) = handles.modules.get(&module) else { fault("a function of no module") };
        if !text.contains(&format!(".visible .entry {name}(")) {
            return Err(500);
        }
        let Some(entry) = entry::find(name) else { fault(&format!("{name} has no twin")) };
        let function = self.handle();
        handles.functions.insert(function, (module, entry, 48 << 10));
        Ok(function)
    }

    pub fn allow_shared(&self, function: usize, bytes: u32) -> Result<(), Code> {
        match self.handles().functions.get_mut(&function) {
            Some((.., allowed)) => *allowed = bytes,
            None => fault("shared memory for no function"),
        }
        Ok(())
    }

    pub fn check_launch(&self, function: usize, grid: [u32; 3], block: [u32; 3], shared: u32) -> Result<Entry, Code> {
        let handles = self.handles();
        let Some(&(_, entry, allowed)) = handles.functions.get(&function) else { fault("a launch of no function") };
        let threads: u64 = block.iter().map(|&extent| u64::from(extent)).product();
        let fits = grid[0] < 1 << 31 && grid[1] < 1 << 16 && grid[2] < 1 << 16 && !grid.contains(&0);
        if !fits || threads == 0 || threads > 1024 || shared > allowed {
            fault(&format!("{} is launched with {grid:?} blocks of {block:?} threads and {shared} bytes", entry.name));
        }
        Ok(entry)
    }

    /// Whether the code of a function waits for the launch before.
    pub fn waits(&self, function: usize) -> bool {
        let handles = self.handles();
        let Some((module, entry, _)) = handles.functions.get(&function) else { return false };
        let text = &handles.modules[module];
        let body = text.split_once(&format!(".visible .entry {}(", entry.name)).map_or("", |(_, rest)| rest);
        let body = body.split_once(".visible .entry ").map_or(body, |(body, _)| body);
        body.contains("griddepcontrol.wait")
    }

    pub fn new_stream(&self) -> usize {
        let handle = self.handle();
        let stream = Stream::start(self.options.seed ^ handle as u64);
        self.handles().streams.insert(handle, Arc::new(stream));
        handle
    }

    pub fn stream(&self, handle: usize) -> Result<Arc<Stream>, Code> {
        match self.handles().streams.get(&handle) {
            Some(stream) => Ok(stream.clone()),
            None => fault("a stream is used that is not there"),
        }
    }

    pub fn free_stream(&self, handle: usize) -> Result<(), Code> {
        let stream = self.handles().streams.remove(&handle);
        let Some(stream) = stream else { fault("a stream is destroyed that is not there") };
        stream.stop();
        Ok(())
    }

    /// Waits for all streams, as freeing memory does.
    pub fn drain(&self) {
        let streams: Vec<Arc<Stream>> = self.handles().streams.values().cloned().collect();
        streams.iter().for_each(|stream| stream.drain());
    }

    pub fn new_graph(&self) -> usize {
        let handle = self.handle();
        self.handles().graphs.insert(handle, Vec::new());
        handle
    }

    /// Adds a node. What it follows may be said later, by an edge.
    pub fn add_node(&self, graph: usize, after: &[usize], node: Node) -> Result<usize, Code> {
        let handle = self.handle();
        let mut handles = self.handles();
        let Some(nodes) = handles.graphs.get_mut(&graph) else { fault("a node of no graph") };
        nodes.push(Link { node: Arc::new(node), edges: 0 });
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

    pub fn instantiate(&self, graph: usize) -> Result<usize, Code> {
        let exec = self.handle();
        let mut handles = self.handles();
        let Some(nodes) = handles.graphs.get(&graph) else { fault("no graph is made ready") };
        if nodes.iter().enumerate().any(|(position, link)| link.edges != usize::from(position > 0)) {
            fault("a graph that is no straight line");
        }
        let copy = |link: &Link| match &*link.node {
            Node::Kernel { entry, arguments, waits } => {
                Node::Kernel { entry: *entry, arguments: arguments.clone(), waits: *waits }
            }
            &Node::Copy { from, to, bytes } => Node::Copy { from, to, bytes },
        };
        let nodes = nodes.iter().map(copy).collect();
        handles.execs.insert(exec, Arc::new(nodes));
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
            Some(nodes) => Ok(nodes.clone()),
            None => fault("a ready graph is used that is not there"),
        }
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
        let is_used = self.handles().execs.values().any(|nodes| nodes.iter().any(refers));
        if is_used && !self.excused.load(SeqCst) {
            fault(&format!("{:#x} is unregistered while a ready graph refers to it", range.start));
        }
    }

    pub fn free_exec(&self, exec: usize) -> Result<(), Code> {
        let removed = self.handles().execs.remove(&exec);
        match removed {
            Some(nodes) => {
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
