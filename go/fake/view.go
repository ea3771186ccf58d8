package fake

import (
	"slices"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/internal/backend"
)

func (l *lane) Shape(b backend.Bucket) error {
	if err := l.quiet(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if err := l.model.check(b); err != nil {
		return err
	}
	index := l.model.smallest(b, l.buckets)
	if index < 0 {
		return status(streaminfer.StatusNoBucket, "no prepared bucket holds the shapes %v", b.Shapes)
	}
	for _, link := range l.links {
		if !slices.Equal(b.Shapes[link.input], l.buckets[index].inputs[link.input]) {
			return status(streaminfer.StatusNoBucket, "input %q is linked, so it cannot be padded", l.model.Model.Inputs[link.input].Name)
		}
	}
	l.choose(index, b)
	return nil
}

// choose selects a bucket for requests of shapes that fit: it fills what they leave unused, and puts the values of shape inputs in
// place.
func (l *lane) choose(index int, b backend.Bucket) {
	prepared := &l.buckets[index]
	if l.shapes.inputs == nil {
		l.shapes = bucket{inputs: make([][]int64, len(b.Shapes)), outputs: make([][]int64, len(l.outputs))}
	}
	for i, shape := range b.Shapes {
		l.shapes.inputs[i] = append(l.shapes.inputs[i][:0], shape...)
		if l.isLinked(i) {
			continue
		}
		l.model.fill(i, shape, prepared.inputs[i], l.inputs[i])
		for k, value := range b.Values[i] {
			dtype := l.model.Model.Inputs[i].DType
			copy(l.inputs[i][k*dtype.Size():], integer(dtype, value))
		}
	}
	l.model.outputShapes(l.shapes.inputs, l.shapes.outputs)
	l.bucket = index
}

func (l *lane) Input(index int, view *backend.View) error {
	return l.view(func(prepared *bucket) error {
		if l.isLinked(index) {
			return status(streaminfer.StatusWrongState, "input %d is linked", index)
		}
		describe(view, &l.model.Model.Inputs[index], l.shapes.inputs[index], prepared.inputs[index], l.inputs[index])
		return nil
	})
}

func (l *lane) Output(index int, view *backend.View) error {
	return l.view(func(prepared *bucket) error {
		describe(view, &l.model.Model.Outputs[index], l.shapes.outputs[index], prepared.outputs[index], l.outputs[index])
		return nil
	})
}

// view calls describe with the selected bucket, if the memory is the host's.
func (l *lane) view(describe func(prepared *bucket) error) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if err := l.settled(); err != nil {
		return err
	}
	return describe(&l.buckets[l.bucket])
}

// describe says where a tensor of that shape lies, dense under the shape that its memory is prepared for.
func describe(view *backend.View, info *streaminfer.TensorInfo, shape, prepared []int64, memory []byte) {
	view.DType, view.Shape = uint32(info.DType), append(view.Shape[:0], shape...)
	view.Strides = append(view.Strides[:0], shape...)
	step := int64(info.DType.Size())
	bytes := step // from the first element's begin to the last one's end
	for axis := len(shape) - 1; axis >= 0; axis-- {
		view.Strides[axis] = step
		bytes += (shape[axis] - 1) * step
		step *= max(prepared[axis], 1)
	}
	if slices.Contains(shape, 0) {
		bytes = 0
	}
	view.Data = memory[:bytes]
}
