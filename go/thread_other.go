//go:build !linux

package streaminfer

// threadID is 0 where threads cannot be told apart without cgo.
func threadID() int { return 0 }
