// Package fake runs models written in Go behind the API of package streaminfer, so that a service's tests need neither
// the shared library nor a device. It obeys the same contract: asynchronous requests in order, one in flight per
// session, buckets and padding, draining, binding, links, events, and the same statuses for the same mistakes. What only a look into
// an ONNX file or at a device shows it takes on trust: that rows of a batch are independent, that masked padding changes nothing,
// that precisions and multiprocessors are to be had. A model that it does not know is StatusNotFound.
//
//	engine := fake.NewEngine(fake.Model{
//		Name:    "double.onnx",
//		Inputs:  []streaminfer.TensorInfo{{Name: "x", DType: streaminfer.DTypeFloat32, Shape: []int64{4}}},
//		Outputs: []streaminfer.TensorInfo{{Name: "y", DType: streaminfer.DTypeFloat32, Shape: []int64{4}}},
//		Run: func(call *fake.Call) error {
//			for i, x := range fake.In[float32](call, "x") {
//				fake.Out[float32](call, "y")[i] = 2 * x
//			}
//			return nil
//		},
//	})
package fake

import (
	"fmt"
	"unsafe"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// Model is a model written in Go.
type Model struct {
	// Name is how the model is found: the last element of the path given to Engine.Load, or the bytes given to
	// Engine.LoadBytes.
	Name string
	// Inputs and Outputs describe the tensors. Where an output leaves an extent open, its DimNames must name the open
	// extent of an input that it equals; loading a model where they do not is StatusMalformed.
	Inputs, Outputs []streaminfer.TensorInfo
	// Admit, if not nil, is asked at each submit; an error refuses the request. A Status is such an error:
	// return streaminfer.StatusAgain to play a busy device.
	Admit func() error
	// Run computes the outputs. It is called on the session's own goroutine, or one of the batch's; an error fails the request, and so
	// do a panic and runtime.Goexit, with StatusPanicked.
	Run func(*Call) error
}

// Call is one request as a Model sees it.
type Call struct {
	lane   *lane
	bucket *bucket
}

// Shape returns the extents of an input or output in the bucket of the request: a model computes whole buckets, also for requests
// that are smaller along paddable axes. Of a batch they are those of its rows.
func (c *Call) Shape(name string) []int64 {
	if index := find(c.lane.model.Model.Inputs, name); index >= 0 {
		return c.bucket.inputs[index]
	}
	return c.bucket.outputs[mustFind(c.lane.model.Model.Outputs, name)]
}

// In returns the elements of an input. It panics, like an index out of range, if there is no such input of type T.
func In[T streaminfer.Element](c *Call, name string) []T {
	index := mustFind(c.lane.model.Model.Inputs, name)
	return elements[T](c.lane.inputs[index], c.lane.model.Model.Inputs[index], c.Shape(name))
}

// Out returns the elements of an output, to be written. It panics if there is no such output of type T.
func Out[T streaminfer.Element](c *Call, name string) []T {
	index := mustFind(c.lane.model.Model.Outputs, name)
	return elements[T](c.lane.outputs[index], c.lane.model.Model.Outputs[index], c.Shape(name))
}

func elements[T streaminfer.Element](memory []byte, info streaminfer.TensorInfo, shape []int64) []T {
	if dtype := streaminfer.NewTensor[T]("", nil).DType; dtype != info.DType {
		panic(fmt.Sprintf("fake: tensor %q holds %v, not %v", info.Name, info.DType, dtype))
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(memory))), count(shape))
}

func count(shape []int64) int64 {
	product := int64(1)
	for _, extent := range shape {
		product *= extent
	}
	return product
}

func find(tensors []streaminfer.TensorInfo, name string) int {
	for index := range tensors {
		if tensors[index].Name == name {
			return index
		}
	}
	return -1
}

func mustFind(tensors []streaminfer.TensorInfo, name string) int {
	index := find(tensors, name)
	if index < 0 {
		panic(fmt.Sprintf("fake: no tensor %q", name))
	}
	return index
}
