//! Machines of several memory nodes: which one a GPU hangs on, and memory and threads there.
//!
//! What the kernel says is read from /sys. With one node, or where the kernel does not know the device's, nothing is done.

use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;

/// Where the kernel describes the machine.
pub const SYS: &str = "/sys";

/// `MPOL_PREFERRED`: from the node if it has some, else from elsewhere.
const PREFERRED: i32 = 1;
/// Nodes that a mask has room for, the most that a kernel is built for.
const NODES_MAX: usize = 1024;
/// Bits of a word of a mask.
const WORD_BITS: usize = usize::BITS as usize;

/// Memory and the CPUs next to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The kernel's number.
    pub index: usize,
    /// Its CPUs.
    pub cpus: Vec<usize>,
}

/// The numbers of a list like `0-3,8,10-11`. What cannot be read is left out.
fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    // No range is honest that is longer than a machine.
    let ranges = text.split(',').filter_map(range).filter(|range| *range.end() < 1 << 16);
    ranges.flatten().collect()
}

/// The node of the PCI device with this address ("0000:3b:00.0"), if the machine has several and the kernel knows which.
pub fn node_of(sys: &Path, pci: &str) -> Option<Node> {
    let read = |path: String| fs::read_to_string(sys.join(path)).ok();
    if list(&read("devices/system/node/online".into())?).len() < 2 {
        return None;
    }
    let number = read(format!("bus/pci/devices/{}/numa_node", pci.to_ascii_lowercase()))?;
    // -1: the kernel does not know.
    let index = number.trim().parse::<usize>().ok().filter(|&index| index < NODES_MAX)?;
    let cpus = list(&read(format!("devices/system/node/node{index}/cpulist"))?);
    Some(Node { index, cpus })
}

/// How this thread's memory is placed.
struct Policy {
    mode: i32,
    nodes: [usize; NODES_MAX / WORD_BITS],
}

impl Policy {
    /// That of this thread; `None` where the kernel does not say.
    fn current() -> Option<Policy> {
        let mut policy = Policy { mode: 0, nodes: [0; NODES_MAX / WORD_BITS] };
        // SAFETY: the kernel writes a number and at most as many bits as said.
        let code = unsafe {
            let (mode, nodes) = (&raw mut policy.mode, policy.nodes.as_mut_ptr());
            libc::syscall(libc::SYS_get_mempolicy, mode, nodes, NODES_MAX, 0, 0)
        };
        (code == 0).then_some(policy)
    }

    /// Makes it this thread's.
    fn set(&self) -> bool {
        // The kernel takes one bit less than it is told.
        // SAFETY: the kernel reads that many bits.
        unsafe { libc::syscall(libc::SYS_set_mempolicy, self.mode, self.nodes.as_ptr(), NODES_MAX) == 0 }
    }
}

/// Puts the thread's own policy back, whatever happens.
struct Restore(Policy);

impl Drop for Restore {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Runs `take` so that memory which it takes comes from the node if that has some. Where the kernel does not allow that (containers
/// may not), it comes from where it comes.
pub fn near<T>(node: Option<&Node>, take: impl FnOnce() -> T) -> T {
    let placed = node.and_then(|node| {
        let before = Policy::current()?;
        let mut wanted = Policy { mode: PREFERRED, nodes: [0; NODES_MAX / WORD_BITS] };
        wanted.nodes[node.index / WORD_BITS] |= 1 << (node.index % WORD_BITS);
        wanted.set().then_some(Restore(before))
    });
    let taken = take();
    drop(placed);
    taken
}

/// Lets this thread run on the node's CPUs only, as far as it may. Answers whether it does.
pub fn run_on(node: &Node) -> bool {
    let mut allowed = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let bytes = size_of::<libc::cpu_set_t>();
    // SAFETY: the kernel writes at most as many bytes as said; a set is bits, for which zeros are a value.
    let allowed = unsafe {
        if libc::sched_getaffinity(0, bytes, allowed.as_mut_ptr()) != 0 {
            return false;
        }
        allowed.assume_init()
    };
    let mut wanted = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let mut count = 0;
    for &cpu in node.cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the CPU is one that a set has room for.
        unsafe {
            if libc::CPU_ISSET(cpu, &allowed) {
                libc::CPU_SET(cpu, &mut *wanted.as_mut_ptr());
                count += 1;
            }
        }
    }
    // SAFETY: the set was written above.
    count > 0 && unsafe { libc::sched_setaffinity(0, bytes, wanted.as_ptr()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of two nodes as the kernel describes it, with a GPU at an address.
    fn machine(name: &str, online: &str, node: &str) -> std::path::PathBuf {
        let sys = std::env::temp_dir().join(format!("streaminfer-numa-{}-{name}", std::process::id()));
        let device = sys.join("bus/pci/devices/0000:3b:00.0");
        fs::create_dir_all(&device).unwrap();
        fs::create_dir_all(sys.join("devices/system/node/node1")).unwrap();
        fs::write(sys.join("devices/system/node/online"), online).unwrap();
        fs::write(sys.join("devices/system/node/node1/cpulist"), "24-27,72,74-75\n").unwrap();
        fs::write(device.join("numa_node"), node).unwrap();
        sys
    }

    #[test]
    fn a_gpus_node_is_what_the_kernel_says_if_there_are_several() {
        let two = machine("two", "0-1\n", "1\n");
        let node = Node { index: 1, cpus: vec![24, 25, 26, 27, 72, 74, 75] };
        assert_eq!(node_of(&two, "0000:3B:00.0"), Some(node), "the driver writes capital letters");
        assert_eq!(node_of(&two, "0000:3c:00.0"), None, "no such device");
        for (name, online, node) in [("one", "0\n", "1\n"), ("unknown", "0-1\n", "-1\n"), ("odd", "0-1\n", "x\n")] {
            let sys = machine(name, online, node);
            assert_eq!(node_of(&sys, "0000:3b:00.0"), None, "{name}");
            fs::remove_dir_all(sys).unwrap();
        }
        fs::remove_dir_all(two).unwrap();
        assert_eq!(node_of(Path::new("/nonexistent"), "0000:3b:00.0"), None);
    }

    #[test]
    fn lists_of_numbers_are_read_and_nonsense_is_left_out() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(list("x,3,5-4,0-99999999999,7-"), [3]);
    }

    #[test]
    fn memory_is_taken_near_the_node_and_the_thread_is_as_before() {
        let mode = || Policy::current().map(|policy| (policy.mode, policy.nodes));
        let before = mode();
        let node = Node { index: 0, cpus: vec![] };
        let inside = near(Some(&node), mode);
        assert_eq!(mode(), before);
        assert_eq!(near(None, mode), before);
        // A kernel that allows it has done as told.
        let may = before.is_some() && Policy { mode: 0, nodes: [0; NODES_MAX / WORD_BITS] }.set();
        assert!(!may || inside.is_some_and(|(mode, nodes)| mode == PREFERRED && nodes[0] == 1), "{inside:?}");
    }

    #[test]
    fn a_thread_runs_on_the_nodes_cpus_or_where_it_ran() {
        let allowed = || {
            let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
            // SAFETY: as above.
            unsafe {
                assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()), 0);
                let set = set.assume_init();
                (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect::<Vec<_>>()
            }
        };
        let thread = std::thread::spawn(move || {
            let all = allowed();
            assert!(!run_on(&Node { index: 0, cpus: vec![] }), "no CPU");
            assert_eq!(allowed(), all);
            assert!(run_on(&Node { index: 0, cpus: vec![all[0], 1 << 20] }));
            assert_eq!(allowed(), [all[0]]);
        });
        thread.join().unwrap();
    }
}
