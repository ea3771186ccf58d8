package fake

import (
	"encoding/binary"
	"math"
	"slices"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// padding is a backend.Padding with its value as it lies in memory.
type padding struct {
	backend.Padding
	filler []byte
}

// pad takes the paddings of a model after the checks of the library.
func (m *model) pad(paddings []backend.Padding) error {
	for i, p := range paddings {
		if p.Kind != uint32(streaminfer.PaddingBatch) && p.Kind != uint32(streaminfer.PaddingMasked) {
			return status(streaminfer.StatusInvalidArgument, "paddings[%d]: there is no kind %d", i, p.Kind)
		}
		info := &m.Model.Inputs[p.Input]
		if info.RankOpen || p.Axis < 0 || p.Axis >= len(info.Shape) || info.Shape[p.Axis] != streaminfer.Dynamic {
			return status(streaminfer.StatusInvalidArgument, "paddings[%d]: input %q has no open axis %d", i, info.Name, p.Axis)
		}
		for _, other := range paddings[:i] {
			if other.Input == p.Input && other.Axis == p.Axis {
				return status(streaminfer.StatusInvalidArgument, "paddings[%d]: axis %d of input %q is declared twice", i, p.Axis, info.Name)
			}
			if other.Dimension == p.Dimension && (other.Kind != p.Kind ||
				p.Kind == uint32(streaminfer.PaddingBatch) && other.Input == p.Input) {
				return status(streaminfer.StatusInvalidArgument,
					"paddings[%d]: dimension %d has two kinds, or is the batch along two axes of %q", i, p.Dimension, info.Name)
			}
		}
		filler, exact := encode(info.DType, p.Value)
		if !exact {
			return status(streaminfer.StatusInvalidArgument, "paddings[%d]: %v is no value of %q, which is %v", i, p.Value, info.Name, info.DType)
		}
		m.paddings = append(m.paddings, padding{p, filler})
	}
	return nil
}

// encode writes a number as an element. exact says whether a type of integers has that number.
func encode(dtype streaminfer.DType, value float64) (element []byte, exact bool) {
	switch dtype {
	case streaminfer.DTypeFloat32:
		return binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(value))), true
	case streaminfer.DTypeFloat16:
		return binary.LittleEndian.AppendUint16(nil, uint16(streaminfer.ToFloat16(float32(value)))), true
	case streaminfer.DTypeBFloat16:
		return binary.LittleEndian.AppendUint16(nil, uint16(streaminfer.ToBFloat16(float32(value)))), true
	}
	low, high := 0., 1.
	switch dtype {
	case streaminfer.DTypeInt64:
		low, high = math.MinInt64, 1<<63-1024
	case streaminfer.DTypeInt32:
		low, high = math.MinInt32, math.MaxInt32
	case streaminfer.DTypeInt8:
		low, high = math.MinInt8, math.MaxInt8
	case streaminfer.DTypeUint8:
		high = math.MaxUint8
	}
	if !(value >= low && value <= high && value == math.Trunc(value)) {
		return nil, false
	}
	return integer(dtype, int64(value)), true
}

// integer writes a whole number as an element.
func integer(dtype streaminfer.DType, value int64) []byte {
	return binary.LittleEndian.AppendUint64(nil, uint64(value))[:dtype.Size()]
}

// paddingOf returns the padding of an axis, nil if it is none.
func (m *model) paddingOf(input, axis int) *padding {
	for i := range m.paddings {
		if m.paddings[i].Input == input && m.paddings[i].Axis == axis {
			return &m.paddings[i]
		}
	}
	return nil
}

// isEven reports whether the axes of each padding dimension have one extent.
func (m *model) isEven(shapes [][]int64) bool {
	for i, p := range m.paddings {
		for _, other := range m.paddings[:i] {
			if other.Dimension == p.Dimension && shapes[other.Input][other.Axis] != shapes[p.Input][p.Axis] {
				return false
			}
		}
	}
	return true
}

// waste is how many elements of a bucket a request of these shapes leaves unused; it does not fit below zero.
func (m *model) waste(wanted backend.Bucket, b *bucket) int64 {
	waste := int64(0)
	for i, shape := range wanted.Shapes {
		if len(shape) != len(b.inputs[i]) || !slices.Equal(wanted.Values[i], b.values[i]) {
			return -1
		}
		for axis, extent := range shape {
			prepared := b.inputs[i][axis]
			if extent != prepared && (extent < 1 || extent > prepared || m.paddingOf(i, axis) == nil) {
				return -1
			}
		}
		waste += count(b.inputs[i]) - count(shape)
	}
	if !m.isEven(wanted.Shapes) {
		return -1
	}
	return waste
}

// smallest is the index of the bucket that a request of these shapes wastes least of, below zero if it fits into none.
func (m *model) smallest(wanted backend.Bucket, buckets []bucket) int {
	best, least := -1, int64(0)
	for i := range buckets {
		if waste := m.waste(wanted, &buckets[i]); waste >= 0 && (best < 0 || waste < least) {
			best, least = i, waste
		}
	}
	return best
}

// fill writes the padding values to what a request of this shape leaves unused of an input.
func (m *model) fill(input int, shape, prepared []int64, memory []byte) {
	if slices.Equal(shape, prepared) {
		return
	}
	var at [rankMax]int64
	size := m.Model.Inputs[input].DType.Size()
	for offset := 0; offset < int(count(prepared))*size; offset += size {
		for axis := range shape {
			if at[axis] >= shape[axis] {
				copy(memory[offset:], m.paddingOf(input, axis).filler)
				break
			}
		}
		for axis := len(prepared) - 1; axis >= 0; axis-- {
			if at[axis]++; at[axis] < prepared[axis] {
				break
			}
			at[axis] = 0
		}
	}
}
