package streaminfer

import "syscall"

// threadID is the calling thread's number.
func threadID() int { return syscall.Gettid() }
