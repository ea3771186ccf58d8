package magika

import (
	"context"
	"io"
	"os"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// Bucket is the shape of one request: the features of one file.
var Bucket = streaminfer.Bucket{Shapes: streaminfer.Shapes{"bytes": {1, 2048}}}

// Detector names types with a session of its own: make one for each goroutine.
type Detector struct {
	rules   *Rules
	session *streaminfer.Session
	bytes   streaminfer.View[int32]
	scores  streaminfer.View[float32]
}

// NewDetector makes a detector over a loaded Magika model. Close it when done.
func NewDetector(model *streaminfer.Model, rules *Rules) (*Detector, error) {
	session, err := model.NewSession(streaminfer.SessionOptions{})
	if err != nil {
		return nil, err
	}
	d := &Detector{rules: rules, session: session}
	if d.bytes, err = streaminfer.Input[int32](session, "bytes"); err == nil {
		d.scores, err = streaminfer.Output[float32](session, "target_label")
	}
	if err != nil {
		session.Close()
		return nil, err
	}
	return d, nil
}

// File names the type of the file at path.
func (d *Detector) File(ctx context.Context, path string) (Verdict, error) {
	file, err := os.Open(path)
	if err != nil {
		return Verdict{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return Verdict{}, err
	}
	if info.IsDir() {
		return d.rules.verdict("directory", 1), nil
	}
	return d.Content(ctx, file, info.Size())
}

// Content names the type of size bytes. The features are written where the model reads them, and the scores are read
// where it wrote them.
func (d *Detector) Content(ctx context.Context, content io.ReaderAt, size int64) (Verdict, error) {
	if verdict, decided, err := d.rules.Features(content, size, d.bytes.Data); decided || err != nil {
		return verdict, err
	}
	if err := d.session.Run(ctx); err != nil {
		return Verdict{}, err
	}
	return d.rules.Judge(d.scores.Data), nil
}

// Close frees the session.
func (d *Detector) Close() error { return d.session.Close() }
