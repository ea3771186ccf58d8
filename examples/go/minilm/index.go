package minilm

import (
	"cmp"
	"slices"
)

// Index finds the sentences that are closest in meaning.
type Index struct {
	sentences []string
	vectors   []float32
}

// Hit is a sentence found, with its cosine to the query.
type Hit struct {
	Sentence string
	Score    float32
}

// Add puts a sentence with its vector into the index.
func (x *Index) Add(sentence string, vector []float32) {
	x.sentences = append(x.sentences, sentence)
	x.vectors = append(x.vectors, vector...)
}

// Search returns the best hits for a query's vector, best first.
func (x *Index) Search(query []float32, count int) []Hit {
	hits := make([]Hit, len(x.sentences))
	for i, sentence := range x.sentences {
		hits[i].Sentence = sentence
		for j, v := range x.vectors[i*Size : (i+1)*Size] {
			hits[i].Score += v * query[j]
		}
	}
	slices.SortFunc(hits, func(a, b Hit) int { return cmp.Compare(b.Score, a.Score) })
	return hits[:min(count, len(hits))]
}
