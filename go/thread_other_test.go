//go:build !linux

package streaminfer_test

func onFirstThread() bool { return false }
