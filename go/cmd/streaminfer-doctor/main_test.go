package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/streaminfer/streaminfer/go/trace"
)

func TestExamine(t *testing.T) {
	write := func(name string, record *trace.Trace) string {
		path := filepath.Join(t.TempDir(), name)
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := record.Write(file); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sick := &trace.Trace{Process: trace.Process{Throttled: time.Second, ThrottledPeriods: 7}}
	for path, want := range map[string]struct {
		code int
		text string
	}{
		write("well.json", &trace.Trace{}): {0, "0 events and 0 requests examined"},
		write("sick.json", sick):           {1, "PROBLEM: CPU throttling"},
		"/nowhere":                         {2, ""},
	} {
		var out strings.Builder
		code, err := examine(path, &out)
		if code != want.code || (err != nil) != (code == 2) || !strings.Contains(out.String(), want.text) {
			t.Errorf("%s: %d, %v, %q", path, code, err, out.String())
		}
	}
}
