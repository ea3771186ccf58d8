package streaminfer

import (
	"math/bits"
	"time"
)

// Durations are counted in cells whose width is an eighth of the power of two below them, so a quantile is off by at most
// 12.5 %. The last one has all longer ones, too.
const (
	cellBits = 3
	cells    = (40 - cellBits + 1) << cellBits // up to 2^40 ns, 18 minutes
)

// Histogram counts durations. The zero value is empty. It is plain memory: copy it, and guard it like any other value.
type Histogram struct {
	// Count durations took Total together, the longest Max.
	Count      uint64
	Total, Max time.Duration
	cells      [cells]uint64
}

// Add counts one duration; one below zero, which clocks of two devices may yield, counts as zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.Count++
	h.Total += d
	h.Max = max(h.Max, d)
	h.cells[cellOf(d)]++
}

// Merge adds what another histogram has counted.
func (h *Histogram) Merge(other *Histogram) {
	h.Count += other.Count
	h.Total += other.Total
	h.Max = max(h.Max, other.Max)
	for cell, count := range other.cells {
		h.cells[cell] += count
	}
}

func cellOf(d time.Duration) int {
	octave := max(bits.Len64(uint64(d))-cellBits-1, 0)
	return min(octave<<cellBits+int(d>>octave), cells-1)
}

// floorOf is the shortest duration of a cell.
func floorOf(cell int) time.Duration {
	if cell < 2<<cellBits {
		return time.Duration(cell)
	}
	octave := cell>>cellBits - 1
	return time.Duration(cell-octave<<cellBits) << octave
}

// Quantile returns an upper bound of the duration that the given part of all were not longer than: 0.99 asks for the 99th
// percentile. It says something only where Count times 1-q is large enough, 100 or more.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.Count))
	for cell, count := range h.cells[:cells-1] {
		if rank < count {
			return min(floorOf(cell+1), h.Max)
		}
		rank -= count
	}
	return h.Max // the last cell has no end
}

// Mean returns the average, 0 of none.
func (h *Histogram) Mean() time.Duration {
	if h.Count == 0 {
		return 0
	}
	return h.Total / time.Duration(h.Count)
}
