//go:build !race && !asan

package streaminfer_test

const isInstrumented = false
