package fake

import (
	"os"
	"strconv"
	"syscall"
)

// thread is the calling thread's number.
func thread() int { return syscall.Gettid() }

// alive reports whether the thread still runs.
func alive(thread int) bool {
	_, err := os.Stat("/proc/self/task/" + strconv.Itoa(thread))
	return err == nil
}
