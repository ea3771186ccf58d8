//go:build race || asan

package streaminfer_test

// isInstrumented: the race detector or the address sanitizer allocate, and slow down.
const isInstrumented = true
