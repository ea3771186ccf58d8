// Package magika names the type of a file by its content, with Google's Magika model standard_v3_3: the features and the
// rules around the model are those of the magika package from PyPI, and so are the answers.
package magika

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"unicode/utf8"
)

// Rules are what surrounds the model: which bytes it is shown, and what its scores mean.
type Rules struct {
	config config
	kinds  map[string]kind
}

type config struct {
	Begin     int                `json:"beg_size"`
	Middle    int                `json:"mid_size"`
	End       int                `json:"end_size"`
	Offsets   bool               `json:"use_inputs_at_offsets"`
	Threshold float64            `json:"medium_confidence_threshold"`
	SizeMin   int                `json:"min_file_size_for_dl"`
	Padding   int32              `json:"padding_token"`
	Block     int                `json:"block_size"`
	Labels    []string           `json:"target_labels_space"`
	Own       map[string]float64 `json:"thresholds"`
	Overwrite map[string]string  `json:"overwrite_map"`
}

type kind struct {
	Group       string `json:"group"`
	Description string `json:"description"`
	Text        bool   `json:"is_text"`
}

// Verdict is the type of a file.
type Verdict struct {
	// Label is Magika's short name for the type, such as "python".
	Label       string
	Group       string
	Description string
	// Score is the model's, or 1 where the model was not needed.
	Score float32
}

// OpenRules reads the model's configuration and the table of types.
func OpenRules(configPath, typesPath string) (*Rules, error) {
	r := &Rules{}
	for path, into := range map[string]any{configPath: &r.config, typesPath: &r.kinds} {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, into); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if c := r.config; c.Middle != 0 || c.Offsets || c.Begin >= c.Block || c.End >= c.Block || c.Begin < c.SizeMin {
		return nil, fmt.Errorf("%s: features of this kind are not known here", configPath)
	}
	return r, nil
}

// Features fills the model's input with bytes of the file: the first and the last ones, without the white space around
// them, each padded to its size. Files too short for the model get their verdict at once.
func (r *Rules) Features(file io.ReaderAt, size int64, features []int32) (verdict Verdict, decided bool, err error) {
	c := &r.config
	if size == 0 {
		return r.verdict("empty", 1), true, nil
	}
	block := make([]byte, min(size, int64(c.Block)))
	if _, err := file.ReadAt(block, 0); err != nil && err != io.EOF {
		return Verdict{}, false, err
	}
	head := trimLeft(block)
	if size < int64(c.SizeMin) || len(head) < c.SizeMin {
		if utf8.Valid(block) {
			return r.verdict("txt", 1), true, nil
		}
		return r.verdict("unknown", 1), true, nil
	}
	for i := range features {
		features[i] = c.Padding
	}
	for i, b := range head[:min(len(head), c.Begin)] {
		features[i] = int32(b)
	}
	if _, err := file.ReadAt(block, size-int64(len(block))); err != nil && err != io.EOF {
		return Verdict{}, false, err
	}
	tail := trimRight(block)
	tail = tail[max(0, len(tail)-c.End):]
	for i, b := range tail {
		features[c.Begin+c.End-len(tail)+i] = int32(b)
	}
	return Verdict{}, false, nil
}

// Judge turns the model's scores into a verdict. A score below the label's threshold only tells text from other.
func (r *Rules) Judge(scores []float32) Verdict {
	best := 0
	for i, score := range scores {
		if score > scores[best] {
			best = i
		}
	}
	label := r.config.Labels[best]
	threshold, own := r.config.Own[label]
	if !own {
		threshold = r.config.Threshold
	}
	if other, ok := r.config.Overwrite[label]; ok {
		label = other
	}
	if float64(scores[best]) < threshold {
		if r.kinds[label].Text {
			label = "txt"
		} else {
			label = "unknown"
		}
	}
	return r.verdict(label, scores[best])
}

func (r *Rules) verdict(label string, score float32) Verdict {
	k := r.kinds[label]
	return Verdict{Label: label, Group: k.Group, Description: k.Description, Score: score}
}

// isSpace is Python's idea of white space in bytes.
func isSpace(b byte) bool { return b == ' ' || b >= '\t' && b <= '\r' }

func trimLeft(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	return b
}

func trimRight(b []byte) []byte {
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}
