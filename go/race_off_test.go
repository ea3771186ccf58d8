//go:build !race

package streaminfer_test

const raceEnabled = false
