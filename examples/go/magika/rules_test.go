package magika

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func models() string {
	if folder := os.Getenv("STREAMINFER_MODELS"); folder != "" {
		return folder
	}
	return "../../../.cache/models"
}

func openRules(t testing.TB) *Rules {
	t.Helper()
	rules, err := OpenRules(filepath.Join(models(), "magika.config.json"), filepath.Join(models(), "magika.types.json"))
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("STREAMINFER_REQUIRE") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestFeatures(t *testing.T) {
	rules := openRules(t)
	long := "\n\t " + strings.Repeat("ab", 4000) + "zz \r\n\v\f"
	for _, test := range []struct {
		name, content, label string
		first, last          rune // of the features: the first of the beginning, the last of the end
		beginning, end       int  // features that are no padding
	}{
		{name: "empty", content: "", label: "empty"},
		{name: "too short", content: "abc", label: "txt"},
		{name: "too short and no text", content: "\xff\xfe", label: "unknown"},
		{name: "white space", content: strings.Repeat(" ", 5000), label: "txt"},
		{name: "seven letters in white space", content: "   abcdefg ", first: 'a', last: 'g', beginning: 8, end: 10},
		{name: "six letters in white space", content: "   abcdef", label: "txt"},
		{name: "short", content: " 0123456789 ", first: '0', last: '9', beginning: 11, end: 11},
		{name: "long", content: long, first: 'a', last: 'z', beginning: 1024, end: 1024},
	} {
		features := make([]int32, 2048)
		verdict, decided, err := rules.Features(bytes.NewReader([]byte(test.content)), int64(len(test.content)), features)
		if err != nil || decided != (test.label != "") || verdict.Label != test.label {
			t.Errorf("%s: %+v, %v, %v", test.name, verdict, decided, err)
			continue
		}
		if decided {
			continue
		}
		filled := func(part []int32) (count int) {
			for _, f := range part {
				if f != 256 {
					count++
				}
			}
			return count
		}
		if features[0] != test.first || features[2047] != test.last ||
			filled(features[:1024]) != test.beginning || filled(features[1024:]) != test.end {
			t.Errorf("%s: %d..%d, %d and %d", test.name, features[0], features[2047], filled(features[:1024]), filled(features[1024:]))
		}
	}
}

func TestJudge(t *testing.T) {
	rules := openRules(t)
	for _, test := range []struct {
		best, want string
		score      float32
	}{
		{"python", "python", 0.5},
		{"python", "txt", 0.49},
		{"elf", "unknown", 0.3},
		{"markdown", "txt", 0.7}, // has a threshold of its own
		{"markdown", "markdown", 0.76},
		{"randombytes", "unknown", 0.99},
		{"randomtxt", "txt", 0.99},
	} {
		scores := make([]float32, len(rules.config.Labels))
		for i, label := range rules.config.Labels {
			if label == test.best {
				scores[i] = test.score
			}
		}
		if got := rules.Judge(scores); got.Label != test.want || got.Score != test.score {
			t.Errorf("%s at %v became %+v, not %s", test.best, test.score, got, test.want)
		}
	}
}
