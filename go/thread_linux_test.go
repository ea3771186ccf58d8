package streaminfer_test

import "syscall"

// onFirstThread reports whether the caller runs on the process's first thread, which Go never ends.
func onFirstThread() bool { return syscall.Gettid() == syscall.Getpid() }
