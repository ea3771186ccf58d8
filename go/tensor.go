package streaminfer

import (
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// Tensor is memory of the caller's that a [Pool] copies an input from or an output to. [NewTensor] makes one from a slice.
type Tensor struct {
	// Name is that of the input or output; empty means the one at the same position.
	Name  string
	DType DType
	// Shape is the extent of each dimension; nil, for an input, means the shape that the model fixes. Of an output, Infer
	// writes it, into the memory that it has where that suffices.
	Shape []int64
	// Data holds the elements in row-major order, little-endian, without gaps. Of an output, Infer cuts it to the result's
	// length; its capacity is the room that the result has.
	Data []byte
}

// NewTensor describes a slice as a tensor. The slice is not copied: it must not be written during a call that reads it. The
// shape is.
func NewTensor[T Element](name string, data []T, shape ...int64) Tensor {
	dtype := dtypeOf[T]()
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(data))), cap(data)*dtype.Size())
	return Tensor{Name: name, DType: dtype, Shape: slices.Clone(shape), Data: bytes[:len(data)*dtype.Size()]}
}

// copyIn fills an input. The view is the device's, with gaps where a request is smaller than its bucket.
func copyIn(view *backend.View, from []byte) {
	each(view, func(strided []byte, at int) { copy(strided, from[at:]) })
}

// copyOut reads an output.
func copyOut(to []byte, view *backend.View) {
	each(view, func(strided []byte, at int) { copy(to[at:], strided) })
}

// each visits a view's runs of consecutive elements in row-major order, with the position of each in a copy without gaps.
func each(view *backend.View, visit func(run []byte, at int)) {
	if len(view.Data) == 0 {
		return
	}
	run, axes := int64(DType(view.DType).Size()), len(view.Shape)
	for axes > 0 && (view.Strides[axes-1] == run || view.Shape[axes-1] == 1) {
		axes--
		run *= view.Shape[axes]
	}
	var index [rankMax]int64
	for at, offset := int64(0), int64(0); ; at += run {
		visit(view.Data[offset:offset+run], int(at))
		axis := axes - 1
		for ; axis >= 0; axis-- {
			index[axis]++
			offset += view.Strides[axis]
			if index[axis] < view.Shape[axis] {
				break
			}
			offset -= view.Strides[axis] * view.Shape[axis]
			index[axis] = 0
		}
		if axis < 0 {
			return
		}
	}
}

// rankMax is the highest rank of a tensor, SI_RANK_MAX.
const rankMax = 12

func elementCount(shape []int64) int64 {
	count := int64(1)
	for _, extent := range shape {
		count *= extent
	}
	return count
}

// element reads the i-th value of a tensor of integers.
func element(t *Tensor, i int) int64 {
	switch t.DType {
	case DTypeInt64:
		return int64(binary.LittleEndian.Uint64(t.Data[8*i:]))
	case DTypeInt32:
		return int64(int32(binary.LittleEndian.Uint32(t.Data[4*i:])))
	case DTypeInt8:
		return int64(int8(t.Data[i]))
	default:
		return int64(t.Data[i])
	}
}

// find returns the tensor for the index-th input or output, nil if there is none among them.
func find(tensors []Tensor, index int, name string) *Tensor {
	if index < len(tensors) && (tensors[index].Name == name || tensors[index].Name == "") {
		return &tensors[index]
	}
	for i := range tensors {
		if tensors[i].Name == name {
			return &tensors[i]
		}
	}
	return nil
}
