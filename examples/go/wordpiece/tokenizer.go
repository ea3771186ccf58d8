// Package wordpiece splits text into the tokens of uncased BERT models, equal to the tokenizers package from PyPI: the
// vocabulary and special tokens come from the model's tokenizer.json.
package wordpiece

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// wordCharactersMax is the length from which a word is unknown without a look into the vocabulary.
const wordCharactersMax = 100

// Tokenizer is immutable: any number of goroutines may use it.
type Tokenizer struct {
	vocabulary map[string]int64
	// special tokens are recognised in the raw text, before anything else.
	special              map[string]int64
	unknown, first, last int64
	continuation         string
	longestPiece, idsMax int
}

// file is the part of tokenizer.json that matters here.
type file struct {
	Truncation struct {
		MaxLength int `json:"max_length"`
	} `json:"truncation"`
	AddedTokens []struct {
		ID      int64  `json:"id"`
		Content string `json:"content"`
	} `json:"added_tokens"`
	Normalizer struct {
		Type      string `json:"type"`
		Lowercase bool   `json:"lowercase"`
	} `json:"normalizer"`
	Model struct {
		Type         string           `json:"type"`
		Unknown      string           `json:"unk_token"`
		Continuation string           `json:"continuing_subword_prefix"`
		Vocabulary   map[string]int64 `json:"vocab"`
	} `json:"model"`
}

// Open reads a tokenizer.json of an uncased BERT model.
func Open(path string) (*Tokenizer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.Model.Type != "WordPiece" || f.Normalizer.Type != "BertNormalizer" || !f.Normalizer.Lowercase {
		return nil, fmt.Errorf("%s: %s over %s is not what an uncased BERT model has", path, f.Model.Type, f.Normalizer.Type)
	}
	t := &Tokenizer{vocabulary: f.Model.Vocabulary, special: map[string]int64{}, continuation: f.Model.Continuation,
		idsMax: f.Truncation.MaxLength}
	for _, added := range f.AddedTokens {
		t.special[added.Content] = added.ID
	}
	for piece := range t.vocabulary {
		t.longestPiece = max(t.longestPiece, len(piece))
	}
	for name, id := range map[string]*int64{f.Model.Unknown: &t.unknown, "[CLS]": &t.first, "[SEP]": &t.last} {
		known, ok := t.vocabulary[name]
		if !ok {
			return nil, fmt.Errorf("%s: the vocabulary has no %q", path, name)
		}
		*id = known
	}
	return t, nil
}

// Encode appends the tokens of text to ids, between [CLS] and [SEP], and at most as many as the model was trained with.
func (t *Tokenizer) Encode(ids []int64, text string) []int64 {
	start := len(ids)
	ids = append(ids, t.first)
	for text != "" {
		plain, special, rest := t.cutSpecial(text)
		for _, word := range words(normalize(plain)) {
			ids = t.appendPieces(ids, word)
		}
		if special >= 0 {
			ids = append(ids, special)
		}
		text = rest
	}
	if room := t.idsMax - 1; t.idsMax > 0 && len(ids)-start > room {
		ids = ids[:start+room]
	}
	return append(ids, t.last)
}

// cutSpecial cuts text around its first special token, which is -1 if there is none.
func (t *Tokenizer) cutSpecial(text string) (plain string, id int64, rest string) {
	plain, id = text, -1
	for content, known := range t.special {
		if at := strings.Index(plain, content); at >= 0 {
			plain, id, rest = text[:at], known, text[at+len(content):]
		}
	}
	return plain, id, rest
}

// normalize cleans the text, puts spaces around ideographs, strips accents and lowers the case.
func normalize(text string) string {
	var cleaned strings.Builder
	for _, r := range text {
		switch {
		case r == 0 || r == unicode.ReplacementChar || isControl(r):
		case unicode.IsSpace(r):
			cleaned.WriteByte(' ')
		case isCJK(r):
			cleaned.WriteByte(' ')
			cleaned.WriteRune(r)
			cleaned.WriteByte(' ')
		default:
			cleaned.WriteRune(r)
		}
	}
	return strings.Map(func(r rune) rune {
		if isNonspacingMark(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, norm.NFD.String(cleaned.String()))
}

// words splits at white space, and before and after every punctuation character.
func words(text string) (all []string) {
	start := 0
	flush := func(end int) {
		if end > start {
			all = append(all, text[start:end])
		}
	}
	for at, r := range text {
		size := len(string(r))
		switch {
		case unicode.IsSpace(r):
			flush(at)
			start = at + size
		case isPunctuation(r):
			flush(at)
			all = append(all, text[at:at+size])
			start = at + size
		}
	}
	flush(len(text))
	return all
}

// appendPieces appends the longest pieces of the vocabulary that make up the word, from the left, or the unknown token
// if that leads nowhere.
func (t *Tokenizer) appendPieces(ids []int64, word string) []int64 {
	if characters := strings.Count(word, "") - 1; characters > wordCharactersMax {
		return append(ids, t.unknown)
	}
	before, prefix := len(ids), ""
	for rest := word; rest != ""; prefix = t.continuation {
		id, length := t.longest(prefix, rest)
		if length == 0 {
			return append(ids[:before], t.unknown)
		}
		ids = append(ids, id)
		rest = rest[length:]
	}
	return ids
}

// longest finds the longest piece that text begins with, and its length without the prefix.
func (t *Tokenizer) longest(prefix, text string) (id int64, length int) {
	for end := min(len(text), t.longestPiece-len(prefix)); end > 0; end-- {
		if id, ok := t.vocabulary[prefix+text[:end]]; ok {
			return id, end
		}
	}
	return 0, 0
}
