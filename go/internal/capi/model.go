//go:build linux && amd64

package capi

/*
#include "table.h"

#cgo noescape call_load
#cgo nocallback call_load
#cgo noescape call_load_bytes
#cgo nocallback call_load_bytes
#cgo noescape call_add_bucket
#cgo nocallback call_add_bucket
#cgo noescape call_describe
#cgo nocallback call_describe
#cgo noescape call_model_input
#cgo nocallback call_model_input
#cgo noescape call_model_output
#cgo nocallback call_model_output
#cgo noescape call_model_free
#cgo nocallback call_model_free
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unsafe"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

type model struct {
	*library
	handle C.si_model
	// dtypes of the inputs, to write down values of shape inputs.
	dtypes []C.uint32_t
}

// invalid is a mistake that C could not be told of.
func invalid(format string, args ...any) error {
	return &backend.Error{Status: C.SI_INVALID_ARGUMENT, Message: fmt.Sprintf(format, args...)}
}

func (e *engine) Load(path string, options *backend.ModelOptions) (backend.Model, error) {
	if strings.IndexByte(path, 0) >= 0 {
		return nil, invalid("the path %q contains a zero byte", path)
	}
	var memory arena
	defer memory.free()
	m := &model{library: e.library}
	var failure C.si_error
	status := C.call_load(e.table, e.handle, memory.text(path), memory.modelOptions(options), &m.handle, &failure)
	return m.loaded(failed(status, &failure))
}

func (e *engine) LoadBytes(data []byte, options *backend.ModelOptions) (backend.Model, error) {
	var memory arena
	defer memory.free()
	m := &model{library: e.library}
	var failure C.si_error
	status := C.call_load_bytes(e.table, e.handle, (*C.uint8_t)(unsafe.SliceData(data)), C.size_t(len(data)),
		memory.modelOptions(options), &m.handle, &failure)
	return m.loaded(failed(status, &failure))
}

func (m *model) loaded(err error) (backend.Model, error) {
	if err != nil {
		return nil, err
	}
	inputs, err := m.Inputs()
	if err != nil {
		_ = m.Free()
		return nil, err
	}
	for _, input := range inputs {
		m.dtypes = append(m.dtypes, C.uint32_t(input.DType))
	}
	return m, nil
}

func (a *arena) modelOptions(options *backend.ModelOptions) *C.si_model_options {
	raw := (*C.si_model_options)(a.alloc(C.sizeof_si_model_options))
	*raw = C.si_model_options{struct_size: C.sizeof_si_model_options, precision: C.uint32_t(options.Precision),
		multiprocessors: C.uint32_t(options.Multiprocessors)}
	if count := len(options.Paddings); count > 0 {
		raw.padding_count = C.uint32_t(count)
		raw.paddings = (*C.si_padding)(a.alloc(C.size_t(count) * C.sizeof_si_padding))
		for i, p := range options.Paddings {
			unsafe.Slice(raw.paddings, count)[i] = C.si_padding{struct_size: C.sizeof_si_padding,
				kind: C.uint32_t(p.Kind), dimension: C.uint32_t(p.Dimension), input_index: C.uint32_t(p.Input),
				axis: C.uint32_t(p.Axis), value: C.double(p.Value)}
		}
	}
	if count := len(options.Overridable); count > 0 {
		raw.overridable_count = C.uint32_t(count)
		raw.overridables = (**C.char)(a.alloc(C.size_t(count) * C.size_t(unsafe.Sizeof(uintptr(0)))))
		for i, name := range options.Overridable {
			unsafe.Slice(raw.overridables, count)[i] = a.text(name)
		}
	}
	return raw
}

func (m *model) Inputs() ([]backend.Tensor, error) {
	info, err := m.describe()
	if err != nil {
		return nil, err
	}
	return m.tensors(int(info.input_count), func(index C.uint32_t, out *C.si_tensor_info, e *C.si_error) C.si_result {
		return C.call_model_input(m.table, m.handle, index, out, e)
	})
}

func (m *model) Outputs() ([]backend.Tensor, error) {
	info, err := m.describe()
	if err != nil {
		return nil, err
	}
	return m.tensors(int(info.output_count), func(index C.uint32_t, out *C.si_tensor_info, e *C.si_error) C.si_result {
		return C.call_model_output(m.table, m.handle, index, out, e)
	})
}

func (m *model) Multiprocessors() (int, error) {
	info, err := m.describe()
	return int(info.multiprocessors), err
}

func (m *model) describe() (C.si_model_info, error) {
	info := C.si_model_info{struct_size: C.sizeof_si_model_info}
	var failure C.si_error
	err := failed(C.call_describe(m.table, m.handle, &info, &failure), &failure)
	return info, err
}

func (m *model) tensors(count int, get func(C.uint32_t, *C.si_tensor_info, *C.si_error) C.si_result) ([]backend.Tensor, error) {
	tensors := make([]backend.Tensor, count)
	for index := range tensors {
		info := C.si_tensor_info{struct_size: C.sizeof_si_tensor_info}
		var failure C.si_error
		if err := failed(get(C.uint32_t(index), &info, &failure), &failure); err != nil {
			return nil, err
		}
		t := backend.Tensor{Name: C.GoString(info.name), DType: uint32(info.dtype),
			RankOpen:   info.flags&C.SI_TENSOR_RANK_OPEN != 0,
			ShapeInput: info.flags&C.SI_TENSOR_SHAPE_INPUT != 0,
			Shape:      make([]int64, info.rank), DimNames: make([]string, info.rank)}
		for axis := range t.Shape {
			t.Shape[axis] = int64(info.dims[axis])
			if name := info.dim_names[axis]; name != nil {
				t.DimNames[axis] = C.GoString(name)
			}
		}
		tensors[index] = t
	}
	return tensors, nil
}

func (m *model) AddBucket(b backend.Bucket) error {
	var memory arena
	defer memory.free()
	raw, err := m.bucket(&memory, b)
	if err != nil {
		return err
	}
	var failure C.si_error
	return failed(C.call_add_bucket(m.table, m.handle, raw, &failure), &failure)
}

func (m *model) Free() error {
	var failure C.si_error
	return failed(C.call_model_free(m.table, m.handle, &failure), &failure)
}

// bucket writes a bucket down as C has it.
func (m *model) bucket(memory *arena, b backend.Bucket) (*C.si_bucket, error) {
	raw := (*C.si_bucket)(memory.alloc(C.sizeof_si_bucket))
	return raw, m.writeBucket(memory, raw, b)
}

func (m *model) writeBucket(memory *arena, raw *C.si_bucket, b backend.Bucket) error {
	count := len(b.Shapes)
	*raw = C.si_bucket{struct_size: C.sizeof_si_bucket, input_count: C.uint32_t(count),
		inputs: (*C.si_bucket_input)(memory.alloc(C.size_t(count) * C.sizeof_si_bucket_input))}
	for i, shape := range b.Shapes {
		to := &unsafe.Slice(raw.inputs, count)[i]
		if err := writeShape(to, shape); err != nil {
			return err
		}
		if size := len(b.Values[i]) * int(dtypeBytes(m.dtypes[i])); size > 0 {
			to.value, to.value_bytes = memory.alloc(C.size_t(size)), C.uint64_t(size)
			encode(unsafe.Slice((*byte)(to.value), size), b.Values[i], m.dtypes[i])
		}
	}
	return nil
}

func writeShape(to *C.si_bucket_input, shape []int64) error {
	if len(shape) > C.SI_RANK_MAX {
		return invalid("a shape has rank %d, the highest is %d", len(shape), C.SI_RANK_MAX)
	}
	to.struct_size, to.rank = C.sizeof_si_bucket_input, C.uint32_t(len(shape))
	for axis, extent := range shape {
		to.dims[axis] = C.int64_t(extent)
	}
	return nil
}

// encode writes the values of a shape input in its element type.
func encode(to []byte, values []int64, dtype C.uint32_t) {
	for i, v := range values {
		switch dtypeBytes(dtype) {
		case 8:
			binary.LittleEndian.PutUint64(to[8*i:], uint64(v))
		case 4:
			binary.LittleEndian.PutUint32(to[4*i:], uint32(v))
		case 2:
			binary.LittleEndian.PutUint16(to[2*i:], uint16(v))
		default:
			to[i] = byte(v)
		}
	}
}
