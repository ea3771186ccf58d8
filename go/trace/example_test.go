package trace_test

import (
	"fmt"
	"time"

	"github.com/streaminfer/streaminfer/go/trace"
)

func ExampleDiagnose() {
	// A trace comes from Engine.Trace, or from a file by Read.
	t := &trace.Trace{Process: trace.Process{GoMaxProcs: 4, Throttled: 3 * time.Second, ThrottledPeriods: 120}}
	for _, finding := range trace.Diagnose(t) {
		fmt.Println(finding.Name)
		fmt.Println(finding.What)
	}
	// Output:
	// CPU throttling
	// the control group's CPU quota stopped the process for 3s in 120 periods
}
