package streaminfer_test

import "syscall"

// threadID is the calling thread's number.
func threadID() int { return syscall.Gettid() }

// onFirstThread reports whether the caller runs on the process's first thread, which Go never ends.
func onFirstThread() bool { return threadID() == syscall.Getpid() }
