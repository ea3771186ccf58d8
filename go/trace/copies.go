package trace

import (
	"fmt"
	"time"
)

// The bounds from which on copies from and to pageable memory are a finding.
const (
	// copyBytesMin: CUDA sends up to 64 KiB together with the command and does not stage them, so smaller copies lose little.
	copyBytesMin = 64 << 10
	// copiesMin: page-locking takes longer than a copy and pays by being used again; what is copied fewer times is filled once, at the start.
	copiesMin = 10
	// copiedBytesMin: on an H100 pageable copies of 1 to 64 MiB lost between 4 and 18 ms for every 64 MiB, and registering the slice took
	// 1 to 12 ms (benches/results/h100.jsonl, cell memory). What moves less would not have won its page-locking back.
	copiedBytesMin = 64 << 20
)

// pageable finds copies between device memory and memory that is not page-locked.
func pageable(t *Trace) []Finding {
	all := of(t, CopyPageable)
	var large []Event
	var bytes int64
	var took time.Duration
	for _, e := range all {
		if e.Bytes >= copyBytesMin {
			large, bytes, took = append(large, e), bytes+e.Bytes, took+e.Took
		}
	}
	counted := int64(t.Counts[CopyPageable])
	recorded := max(int64(len(all)), 1)
	each := max((counted+recorded-1)/recorded, 1) // each recorded copy stands for so many, rounded up
	if int64(len(large))*each < copiesMin || bytes*each < copiedBytesMin {
		return nil
	}
	return []Finding{{Problem, "pageable copies",
		fmt.Sprintf("%d copies between device memory and slices that are not page-locked; %d of them that were recorded, of %d KiB or more each, "+
			"moved %d KiB in %v (%s)", counted, len(large), copyBytesMin>>10, bytes>>10, took, where(large)),
		"A GPU's driver copies these once more, through memory of its own: Register the slice once, or fill the Elements of NewPinned, " +
			"and copy from and to that"}}
}
