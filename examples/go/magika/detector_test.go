package magika

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

func loadModel(t *testing.T) *streaminfer.Model {
	t.Helper()
	engine, err := streaminfer.Open(streaminfer.EngineOptions{})
	if err != nil {
		_, missing := errors.AsType[*streaminfer.LibraryError](err)
		if missing && os.Getenv("STREAMINFER_REQUIRE") != "1" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	model, err := engine.Load(filepath.Join(models(), "magika.onnx"), streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{Bucket}})
	if err != nil {
		t.Fatal(err)
	}
	return model
}

// The labels and scores are those of magika 1.0.3 from PyPI.
func TestFilesHaveTheirTypes(t *testing.T) {
	rules := openRules(t)
	model := loadModel(t)
	want := map[string]struct {
		label string
		score float64
	}{
		"../../../LICENSE-APACHE":                        {"txt", 0.9976},
		"../wordpiece/testdata/golden.jsonl":             {"jsonl", 0.8185},
		filepath.Join(models(), "minilm.tokenizer.json"): {"json", 0.8688},
		filepath.Join(models(), "magika.onnx"):           {"onnx", 0.9999},
		"../go.sum":                                      {"sum", 0.9978},
		"../../../Cargo.toml":                            {"toml", 0},
		"../../../src/error.rs":                          {"rust", 0},
		"../../../tools/setup.sh":                        {"shell", 0},
		"../../../tools/fetch.py":                        {"python", 0},
		"..":                                             {"directory", 1},
	}
	var group sync.WaitGroup
	for range 4 {
		detector, err := NewDetector(model, rules)
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			defer detector.Close()
			for path, expected := range want {
				got, err := detector.File(context.Background(), path)
				if err != nil || got.Label != expected.label {
					t.Errorf("%s is %s (%v), not %s: %v", path, got.Label, got.Score, expected.label, err)
				}
				if expected.score != 0 && math.Abs(float64(got.Score)-expected.score) > 1e-4 {
					t.Errorf("%s scores %v, not %v", path, got.Score, expected.score)
				}
			}
		})
	}
	group.Wait()
}
