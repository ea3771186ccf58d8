//go:build !linux

package streaminfer_test

func threadID() int { return 0 }

func onFirstThread() bool { return false }
