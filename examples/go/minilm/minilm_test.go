package minilm_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"

	"github.com/streaminfer/streaminfer/examples/go/minilm"
	"github.com/streaminfer/streaminfer/examples/go/wordpiece"
)

func open(t *testing.T) *minilm.Embedder {
	t.Helper()
	folder := os.Getenv("STREAMINFER_MODELS")
	if folder == "" {
		folder = "../../../.cache/models"
	}
	engine, err := streaminfer.Open(streaminfer.EngineOptions{})
	if err != nil {
		_, missing := errors.AsType[*streaminfer.LibraryError](err)
		if missing && os.Getenv("STREAMINFER_REQUIRE") != "1" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	tokenizer, err := wordpiece.Open(filepath.Join(folder, "minilm.tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	model, err := engine.Load(filepath.Join(folder, "minilm.onnx"), streaminfer.ModelOptions{Buckets: minilm.Buckets()})
	if err != nil {
		t.Fatal(err)
	}
	embedder, err := minilm.NewEmbedder(model, tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	return embedder
}

const (
	cat    = "The cat sleeps on the sofa."
	stocks = "Stock markets fell sharply on Monday."
	oven   = "Preheat the oven to two hundred degrees."
	mars   = "The spacecraft entered orbit around Mars after a journey of seven months, and it will look for traces of water."
)

func TestMeaningIsFound(t *testing.T) {
	embedder := open(t)
	var index minilm.Index
	for _, sentence := range []string{cat, stocks, oven, mars} {
		vector, err := embedder.Embed(context.Background(), nil, sentence)
		if err != nil {
			t.Fatal(err)
		}
		if length := dot(vector, vector); math.Abs(length-1) > 1e-5 {
			t.Errorf("the vector of %q has length %v", sentence, length)
		}
		index.Add(sentence, vector)
	}
	// The cosines are ONNX Runtime's for sentences without padding: what a bucket pads does not count.
	for _, want := range []struct {
		query, sentence string
		cosine          float64
	}{
		{"a pet is resting", cat, 0.28371},
		{"share prices went down", stocks, 0.54011},
		{"baking instructions", oven, 0.50651},
		{"a mission to another planet", mars, 0.33101},
	} {
		vector, err := embedder.Embed(context.Background(), nil, want.query)
		if err != nil {
			t.Fatal(err)
		}
		best := index.Search(vector, 1)[0]
		if best.Sentence != want.sentence || math.Abs(float64(best.Score)-want.cosine) > 1e-4 {
			t.Errorf("%q found %+v, not %+v", want.query, best, want)
		}
	}
}

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}
