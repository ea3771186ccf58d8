package capi

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a call costs hangs on its arguments: one that takes a pointer is annotated, so that what Go passes stays on its stack, and
// one that takes numbers alone is not, because the annotations cost more than they then save. The calls of a session and of a
// ticket, of which there are several in each request, take numbers alone: cgo inspects pointers.
func TestCallsAreAnnotatedByTheirArguments(t *testing.T) {
	table, err := os.ReadFile("table.h")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(text)
	}
	calls := regexp.MustCompile(`(?m)^(?:SHIM|static inline uint32_t) (call_\w+)\(([^)]*)\)`).FindAllStringSubmatch(string(table), -1)
	if len(calls) < 40 {
		t.Fatalf("%d calls are found in table.h", len(calls))
	}
	for _, call := range calls {
		name, parameters := call[1], call[2]
		pointers := strings.Contains(parameters, "*")
		for _, directive := range []string{"noescape", "nocallback"} {
			if annotated := strings.Contains(source.String(), "\n#cgo "+directive+" "+name+"\n"); annotated != pointers {
				t.Errorf("%s: takes pointers: %v, has #cgo %s: %v", name, pointers, directive, annotated)
			}
		}
		hot := strings.Contains(parameters, "scratch_at s") || strings.Contains(parameters, "slot_at s")
		if hot && pointers && name != "call_completion" { // which is made once
			t.Errorf("%s takes a pointer, into which cgo looks each time", name)
		}
	}
}
