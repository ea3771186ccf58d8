package trace

import (
	"bufio"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// CountThreads counts the threads of this process, 0 where /proc does not tell. root is the root of the file system.
func CountThreads(root fs.FS) int {
	tasks, err := fs.ReadDir(root, "proc/self/task")
	if err != nil {
		return 0
	}
	return len(tasks)
}

// Throttling reads how often, and for how long, the control group's CPU quota has stopped this process. It is zero where
// there is no quota or nothing tells. root is the root of the file system.
func Throttling(root fs.FS) (periods int, stopped time.Duration) {
	group := "/"
	if text, err := fs.ReadFile(root, "proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				group = rest
			}
		}
	}
	// In a container its own group is the root; version 1 has a folder per controller, and counts nanoseconds.
	for _, folder := range []string{path.Join("sys/fs/cgroup", group), "sys/fs/cgroup", "sys/fs/cgroup/cpu"} {
		file, err := root.Open(path.Join(folder, "cpu.stat"))
		if err != nil {
			continue
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), " ")
			number, err := strconv.ParseInt(value, 10, 64)
			switch {
			case err != nil:
			case name == "nr_throttled":
				periods = int(number)
			case name == "throttled_usec":
				stopped = time.Duration(number) * time.Microsecond
			case name == "throttled_time":
				stopped = time.Duration(number)
			}
		}
		return periods, stopped
	}
	return 0, 0
}
