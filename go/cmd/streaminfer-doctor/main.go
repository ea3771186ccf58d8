// Command streaminfer-doctor reads a trace that trace.Trace.Write wrote and says in words what is wrong and what to change.
//
//	streaminfer-doctor trace.json
//
// It exits with 0 if there is no problem, 1 if there is, 2 if the trace cannot be read. "-" is the standard input. The library's own
// program says the same: streaminfer doctor trace.json.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/streaminfer/streaminfer/go/trace"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: streaminfer-doctor TRACE")
		os.Exit(2)
	}
	code, err := examine(os.Args[1], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "streaminfer-doctor:", err)
	}
	os.Exit(code)
}

func examine(name string, out io.Writer) (code int, err error) {
	in := os.Stdin
	if name != "-" {
		if in, err = os.Open(name); err != nil {
			return 2, err
		}
		defer in.Close()
	}
	t, err := trace.Read(in)
	if err != nil {
		return 2, err
	}
	for _, finding := range trace.Diagnose(t) {
		if finding.Severity == trace.Problem {
			code = 1
		}
		fmt.Fprintln(out, finding)
	}
	fmt.Fprintf(out, "%d events and %d requests examined\n", len(t.Events), len(t.Spans))
	return code, nil
}
