package streaminfer_test

import (
	"math"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

func TestHalfPrecisionRoundTrips(t *testing.T) {
	for bits := range 1 << 16 {
		half, brain := streaminfer.Float16(bits), streaminfer.BFloat16(bits)
		if f := half.Float32(); f == f && streaminfer.ToFloat16(f) != half {
			t.Fatalf("float16 %#x became %v and %#x", bits, f, streaminfer.ToFloat16(f))
		}
		if f := brain.Float32(); f == f && streaminfer.ToBFloat16(f) != brain {
			t.Fatalf("bfloat16 %#x became %v and %#x", bits, f, streaminfer.ToBFloat16(f))
		}
	}
}

func TestHalfPrecisionRounds(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, test := range []struct {
		value, half, brain float32
	}{
		{1 + 0x1p-11, 1, 1},                        // a tie goes to even: down
		{1 + 3*0x1p-11, 1 + 2*0x1p-10, 1},          // and up
		{1 + 0x1p-11 + 0x1p-20, 1 + 0x1p-10, 1},    // above a tie
		{65519, 65504, 65536}, {65520, inf, 65536}, // the largest float16 and half a step beyond
		{-1e30, -inf, -1.0014848e30}, {3.4e38, inf, inf}, // beyond bfloat16's largest
		{0x1p-24, 0x1p-24, 0x1p-24}, {0x1p-25, 0, 0x1p-25}, {3 * 0x1p-26, 0x1p-24, 3 * 0x1p-26}, // subnormal
		{inf, inf, inf},
	} {
		if got := streaminfer.ToFloat16(test.value).Float32(); got != test.half {
			t.Errorf("float16(%v) = %v, not %v", test.value, got, test.half)
		}
		if got := streaminfer.ToBFloat16(test.value).Float32(); math.Abs(float64(got-test.brain)) > math.Abs(float64(test.brain))/128 {
			t.Errorf("bfloat16(%v) = %v, not %v", test.value, got, test.brain)
		}
	}
	if h, b := streaminfer.ToFloat16(nan).Float32(), streaminfer.ToBFloat16(nan).Float32(); h == h || b == b {
		t.Errorf("NaN became %v and %v", h, b)
	}
}

func TestDTypesHaveSizesAndNames(t *testing.T) {
	sizes := map[streaminfer.DType]int{}
	for d := streaminfer.DTypeFloat32; d <= streaminfer.DTypeBool; d++ {
		if sizes[d] = d.Size(); sizes[d] == 0 {
			t.Errorf("%v has no size", d)
		}
	}
	if unknown := streaminfer.DType(99); unknown.Size() != 0 || unknown.String() != "dtype 99" {
		t.Errorf("%v has size %d", unknown, unknown.Size())
	}
}
