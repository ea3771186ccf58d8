package streaminfer

import (
	"testing"
	"time"
)

// A quantile is an upper bound of durations of any length.
func TestQuantileOfLongDurations(t *testing.T) {
	for d := time.Minute; d < 1000*time.Hour; d = d * 3 / 2 {
		var h Histogram
		for range 1000 {
			h.Add(d)
		}
		h.Add(1000 * time.Hour)
		for _, q := range []float64{0, 0.5, 0.99} {
			if got := h.Quantile(q); got < d || d < 17*time.Minute && got > d*9/8 {
				t.Errorf("quantile %v of %v is %v", q, d, got)
			}
		}
	}
}
