// Package minilm turns sentences into vectors whose inner product says how close their meanings are, with the model
// all-MiniLM-L6-v2.
package minilm

import (
	"context"
	"math"

	streaminfer "github.com/streaminfer/streaminfer/go"

	"github.com/streaminfer/streaminfer/examples/go/wordpiece"
)

// Size is the number of a vector's components.
const Size = 384

// lengths are the numbers of tokens that requests are prepared for; a sentence takes the shortest that holds it.
var lengths = []int64{16, 32, 64, 128}

// Buckets are the shapes of the requests: one sentence each.
func Buckets() []streaminfer.Bucket {
	buckets := make([]streaminfer.Bucket, len(lengths))
	for i, length := range lengths {
		shape := []int64{1, length}
		buckets[i].Shapes = streaminfer.Shapes{"input_ids": shape, "attention_mask": shape, "token_type_ids": shape}
	}
	return buckets
}

// Embedder computes vectors with a session of its own: make one for each goroutine.
type Embedder struct {
	tokenizer *wordpiece.Tokenizer
	session   *streaminfer.Session
	lanes     []lane
	ids       []int64
}

// lane is one bucket's view of the session.
type lane struct {
	bucket           streaminfer.Bucket
	ids, mask, types streaminfer.View[int64]
	vector           streaminfer.View[float32]
}

// NewEmbedder makes an embedder over all-MiniLM-L6-v2, loaded with Buckets. Close it when done.
func NewEmbedder(model *streaminfer.Model, tokenizer *wordpiece.Tokenizer) (*Embedder, error) {
	session, err := model.NewSession(streaminfer.SessionOptions{})
	if err != nil {
		return nil, err
	}
	e := &Embedder{tokenizer: tokenizer, session: session}
	for _, bucket := range Buckets() {
		l, err := newLane(session, bucket)
		if err != nil {
			session.Close()
			return nil, err
		}
		e.lanes = append(e.lanes, l)
	}
	return e, nil
}

func newLane(session *streaminfer.Session, bucket streaminfer.Bucket) (l lane, err error) {
	l.bucket = bucket
	if err = session.Use(bucket); err != nil {
		return l, err
	}
	if l.ids, err = streaminfer.Input[int64](session, "input_ids"); err != nil {
		return l, err
	}
	if l.mask, err = streaminfer.Input[int64](session, "attention_mask"); err != nil {
		return l, err
	}
	if l.types, err = streaminfer.Input[int64](session, "token_type_ids"); err != nil {
		return l, err
	}
	l.vector, err = streaminfer.Output[float32](session, "sentence_embedding")
	return l, err
}

// Embed appends the vector of text, of length 1, to vector.
func (e *Embedder) Embed(ctx context.Context, vector []float32, text string) ([]float32, error) {
	e.ids = e.tokenizer.Encode(e.ids[:0], text)
	l := &e.lanes[0]
	for i := range e.lanes {
		if l = &e.lanes[i]; len(e.ids) <= len(l.ids.Data) {
			break
		}
	}
	if err := e.session.Use(l.bucket); err != nil {
		return vector, err
	}
	clear(l.ids.Data)
	clear(l.mask.Data)
	clear(l.types.Data)
	for i, id := range e.ids {
		l.ids.Data[i], l.mask.Data[i] = id, 1
	}
	if err := e.session.Run(ctx); err != nil {
		return vector, err
	}
	var square float64
	for _, v := range l.vector.Data {
		square += float64(v) * float64(v)
	}
	scale := float32(1 / math.Sqrt(max(square, math.SmallestNonzeroFloat32)))
	for _, v := range l.vector.Data {
		vector = append(vector, v*scale)
	}
	return vector, nil
}

// Close frees the session.
func (e *Embedder) Close() error { return e.session.Close() }
