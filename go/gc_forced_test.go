//go:build streaminfer_gc

package streaminfer_test

import "runtime"

// Collections follow each other without pause while the tests run: whatever is reachable by C alone is gone by then.
func init() {
	go func() {
		for {
			runtime.GC()
		}
	}()
}
