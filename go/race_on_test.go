//go:build race

package streaminfer_test

const raceEnabled = true
