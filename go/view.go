package streaminfer

import (
	"fmt"
	"unsafe"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// View is one input or output of a [Session] in the current bucket, in the memory that the device itself reads or
// writes. Its address never changes while the Session lives.
//
// Data must not be touched while a request is in flight or the Session is draining, nor after Close: then its memory
// belongs to the device or to nobody.
type View[T Element] struct {
	// Data holds the elements in row-major order, padding of the bucket included.
	Data []T
	// Shape is the extent of each dimension, Strides the step of each in elements.
	Shape, Strides []int64

	// A View keeps its Session reachable, so that the net under a forgotten Close does not catch what is in use.
	session *Session
	memory  touched
}

// Write copies elements into the view and returns how many, the smaller of both lengths. Unlike writing Data itself, it is
// seen by the race detector: programs built with -race report a view that is touched while a request is in flight.
func (v View[T]) Write(from []T) int {
	v.memory.write()
	return copy(v.Data, from)
}

// Read copies elements out of the view and returns how many, the smaller of both lengths. The race detector sees it, as
// it sees Write.
func (v View[T]) Read(into []T) int {
	v.memory.read()
	return copy(into, v.Data)
}

// Touch tells the race detector that Data is about to be read and written directly. It does nothing in other programs.
func (v View[T]) Touch() { v.memory.write() }

// Input returns the named input of s for writing. T must be the input's element type.
//
// Errors: StatusInvalidArgument for an unknown name, StatusShapeMismatch for another element type, StatusDraining,
// StatusBusy.
func Input[T Element](s *Session, name string) (View[T], error) {
	return viewOf[T](s, "input", name, s.model.inputs, 0, backend.Context.Input, (*shadow).input)
}

// Output returns the named output of s for reading. Where an extent depends on data, the Shape is that of the last
// request: fetch the view again after Run. Errors as for [Input].
func Output[T Element](s *Session, name string) (View[T], error) {
	return viewOf[T](s, "output", name, s.model.outputs, len(s.model.inputs), backend.Context.Output, (*shadow).output)
}

func viewOf[T Element](s *Session, op, name string, tensors []TensorInfo, first int,
	get func(backend.Context, int, *backend.View) error, memory func(*shadow) touched) (View[T], error) {
	index, err := indexOf(op, tensors, op, name)
	if err != nil {
		return View[T]{}, err
	}
	if err := s.enter(op); err != nil {
		return View[T]{}, err
	}
	defer s.leave()
	var raw backend.View
	if err := get(s.context, index, &raw); err != nil {
		return View[T]{}, failure(op, ExecutedNo, err)
	}
	if _, err := s.settled(op); err != nil { // the device has ended what was given up, as the race detector is to know
		return View[T]{}, err
	}
	s.seen[first+index].note(raw.Data)
	has, want := DType(raw.DType), dtypeOf[T]()
	if has != want {
		return View[T]{}, refusal(op, StatusShapeMismatch, "%s %q holds %v, not %v", op, name, has, want)
	}
	size := int64(has.Size())
	for axis := range raw.Strides {
		raw.Strides[axis] /= size
	}
	data := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(raw.Data))), int64(len(raw.Data))/size)
	return View[T]{Data: data, Shape: raw.Shape, Strides: raw.Strides, session: s, memory: memory(&s.shadow)}, nil
}

func indexOf(op string, tensors []TensorInfo, kind, name string) (int, error) {
	for index := range tensors {
		if tensors[index].Name == name {
			return index, nil
		}
	}
	return 0, refusal(op, StatusInvalidArgument, "the model has no %s %q; it has %s", kind, name, names(tensors))
}

func names(tensors []TensorInfo) string {
	list := make([]string, len(tensors))
	for i := range tensors {
		list[i] = tensors[i].Name
	}
	return fmt.Sprintf("%q", list)
}
