//go:build !streaminfer_debug

package streaminfer_test

const guarded = false
