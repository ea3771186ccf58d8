package streaminfer_test

import (
	"os"
	"path/filepath"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
	"github.com/streaminfer/streaminfer/go/trace"
)

// Each engine of a process writes a trace file of its own.
func TestTraceFilesOfSeveralEngines(t *testing.T) {
	directory := t.TempDir()
	t.Setenv("STREAMINFER_TRACE", "api=full")
	t.Setenv("STREAMINFER_TRACE_FILE", filepath.Join(directory, "v1.trace.json"))
	var engines []*streaminfer.Engine
	for sessions := range 3 { // one more in each
		engine := fake.NewEngine(fakes(nil)...)
		model, err := engine.Load(affine, streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{batch(1)}})
		if err != nil {
			t.Fatal(err)
		}
		for range sessions + 1 {
			if _, err := model.NewSession(streaminfer.SessionOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if engines = append(engines, engine); sessions == 0 {
			continue // it is closed last
		}
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := engines[0].Close(); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"v1.trace.json", "v1.trace.2.json", "v1.trace.3.json"} {
		file, err := os.Open(filepath.Join(directory, name))
		if err != nil {
			t.Fatal(err)
		}
		read, err := trace.Read(file)
		file.Close()
		if err != nil || read.Counts[trace.Create] != uint64(i+1) {
			t.Errorf("%s has %v: %v", name, read.Counts, err)
		}
	}
}
