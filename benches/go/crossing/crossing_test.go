package crossing

import (
	"bytes"
	_ "embed"
	"testing"
	"unsafe"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// affine is a model of y = 2 x + 1 for float32 [n, 4].
//
//go:embed testdata/affine.onnx
var affine []byte

const rows = 10_000_000 / 16 // of 4 float32: 10 MB

func TestCopiesAreCopies(t *testing.T) {
	in := bytes.Repeat([]byte("streaminfer "), 1000)
	if out := ByBytes(in); len(out) != len(in) || !bytes.Equal(out[:64], in[:64]) {
		t.Error(out[:64])
	}
	if out := ByString(string(in)); len(out) != len(in) || !bytes.Equal(out[:64], in[:64]) {
		t.Error(out[:64])
	}
}

// BenchmarkCrossing is 10 MB in and 10 MB out, without what is computed in between: the producer's last write before and
// the consumer's first read after are the same in all of them, so they are left out, too.
func BenchmarkCrossing(b *testing.B) {
	in := make([]byte, rows*16)
	text := unsafe.String(unsafe.SliceData(in), len(in))
	b.Run("CString, GoBytes", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ByString(text)
		}
	})
	b.Run("CBytes, GoBytes", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ByBytes(in)
		}
	})
	engine, err := streaminfer.Open(streaminfer.EngineOptions{Device: "host"})
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	model, err := engine.LoadBytes(affine, streaminfer.ModelOptions{
		Buckets: []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": {rows, 4}}}}})
	if err != nil {
		b.Fatal(err)
	}
	session, err := model.NewSession(streaminfer.SessionOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("views, fetched anew", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x, err := streaminfer.Input[float32](session, "x")
			if err != nil {
				b.Fatal(err)
			}
			y, err := streaminfer.Output[float32](session, "y")
			if err != nil {
				b.Fatal(err)
			}
			if len(x.Data) != rows*4 || len(y.Data) != rows*4 {
				b.Fatal(len(x.Data), len(y.Data))
			}
		}
	})
	x, _ := streaminfer.Input[float32](session, "x")
	y, _ := streaminfer.Output[float32](session, "y")
	own := make([]float32, rows*4)
	b.Run("views, copied once each way as Pool.Infer does", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			copy(x.Data, own)
			copy(own, y.Data)
		}
	})
}
