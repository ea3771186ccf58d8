package wordpiece_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/streaminfer/streaminfer/examples/go/wordpiece"
)

func open(t testing.TB) *wordpiece.Tokenizer {
	t.Helper()
	path := filepath.Join(models(), "minilm.tokenizer.json")
	tokenizer, err := wordpiece.Open(path)
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("STREAMINFER_REQUIRE") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer
}

func models() string {
	if folder := os.Getenv("STREAMINFER_MODELS"); folder != "" {
		return folder
	}
	return "../../../.cache/models"
}

// golden.jsonl holds the answers of PyPI tokenizers; golden.py beside it says how they came about.
func TestEqualToTokenizers(t *testing.T) {
	tokenizer := open(t)
	golden, err := os.Open("testdata/golden.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	lines := bufio.NewScanner(golden)
	count, truncated := 0, 0
	for ; lines.Scan(); count++ {
		var text string
		var want []int64
		if err := json.Unmarshal(lines.Bytes(), &[]any{&text, &want}); err != nil {
			t.Fatal(err)
		}
		if got := tokenizer.Encode(nil, text); !slices.Equal(got, want) {
			t.Errorf("line %d: %q\ngot  %v\nwant %v", count+1, text, got, want)
		}
		if len(want) == 128 {
			truncated++
		}
	}
	if count != 1000 || truncated < 10 {
		t.Errorf("%d sentences, %d of them truncated", count, truncated)
	}
}

func BenchmarkEncode(b *testing.B) {
	tokenizer := open(b)
	var ids []int64
	for b.Loop() {
		ids = tokenizer.Encode(ids[:0], "The quick brown fox jumps over the lazy dog, unbelievably often.")
	}
}
