package streaminfer

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// Copies between a dense tensor and a view with the strides of a larger bucket, against one element at a time.
func TestStridedCopies(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		const size = 4
		rank := random.IntN(5)
		view := backend.View{DType: uint32(DTypeFloat32), Shape: make([]int64, rank), Strides: make([]int64, rank)}
		step := int64(size)
		for axis := rank - 1; axis >= 0; axis-- {
			view.Shape[axis] = int64(random.IntN(5))
			view.Strides[axis] = step
			step *= view.Shape[axis] + int64(random.IntN(2)) // the bucket's extent, which may be larger
		}
		count := elementCount(view.Shape)
		if count > 0 {
			last := int64(size)
			for axis := range view.Shape {
				last += (view.Shape[axis] - 1) * view.Strides[axis]
			}
			view.Data = bytes.Repeat([]byte{0xee}, int(last))
		}
		dense := make([]byte, count*size)
		for i := range dense {
			dense[i] = byte(random.IntN(200))
		}
		want := slices.Clone(view.Data)
		for n := range count {
			offset, rest := int64(0), n
			for axis := rank - 1; axis >= 0; axis-- {
				offset += rest % view.Shape[axis] * view.Strides[axis]
				rest /= view.Shape[axis]
			}
			copy(want[offset:offset+size], dense[n*size:])
		}
		copyIn(&view, dense)
		if !bytes.Equal(view.Data, want) {
			t.Fatalf("shape %v, strides %v: the input is wrong", view.Shape, view.Strides)
		}
		back := bytes.Repeat([]byte{0xdd}, len(dense))
		copyOut(back, &view)
		if !bytes.Equal(back, dense) {
			t.Fatalf("shape %v, strides %v: the output is wrong", view.Shape, view.Strides)
		}
	}
}

func TestTensorsOfSlices(t *testing.T) {
	values := []int32{-1, 2, 1 << 20}
	tensor := NewTensor("n", values, 3)
	for i, want := range values {
		if got := element(&tensor, i); got != int64(want) {
			t.Errorf("element %d is %d, not %d", i, got, want)
		}
	}
	room := NewTensor("y", make([]float32, 0, 7))
	if len(room.Data) != 0 || cap(room.Data) != 28 || room.DType != DTypeFloat32 {
		t.Errorf("%d of %d bytes of %v", len(room.Data), cap(room.Data), room.DType)
	}
	small := NewTensor("s", []int8{-3})
	if element(&small, 0) != -3 || len(NewTensor("none", []int64(nil)).Data) != 0 {
		t.Error("small")
	}
}

func TestHistogram(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	var all []time.Duration
	var h, first, second Histogram
	for i := range 50_000 {
		d := time.Duration(random.Uint64() >> (24 + random.UintN(40)))
		if cell := cellOf(d); floorOf(cell) > d || cell+1 < cells && floorOf(cell+1) <= d {
			t.Fatalf("%d lies in the cell from %d to %d", d, floorOf(cell), floorOf(cell+1))
		}
		all = append(all, d)
		h.Add(d)
		if i%2 == 0 {
			first.Add(d)
		} else {
			second.Add(d)
		}
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999} {
		exact, got := all[int(q*float64(len(all)))], h.Quantile(q)
		if got < exact || float64(got) > 1.126*float64(exact)+1 {
			t.Errorf("quantile %v is %d, exactly %d", q, got, exact)
		}
	}
	first.Merge(&second)
	if first != h {
		t.Error("the halves together are not the whole")
	}
	h.Add(-5)
	if h.Quantile(0) > 1 || h.Quantile(1) != h.Max || h.Mean() > h.Max || (&Histogram{}).Mean() != 0 {
		t.Error(h.Quantile(0), h.Quantile(1), h.Max, h.Mean())
	}
}
