package main

import (
	"fmt"
	"slices"
)

// A claim about P99 stands on the first number of samples, a headline on the second.
const (
	samplesP99 = 10_000
	headline   = 270_336
)

// plan lists the cells of a run, closed loops before the open ones that are relative to their peak.
func plan(o *options) []cell {
	cells := hostCells(o.full)
	if o.device != "host" {
		cells = gpuCells(o.full)
	}
	for i := range cells {
		cells[i].settings = o.settings()
	}
	return slices.DeleteFunc(cells, func(c cell) bool {
		return o.only != "" && c.Model != o.only || o.selected != nil && !o.selected.MatchString(c.String())
	})
}

// hostCells are of small models: the host is shared by what computes and what measures.
func hostCells(full bool) (cells []cell) {
	samples := func(way string) int {
		if full && (way == "pool" || way == "bound") {
			return headline
		}
		return 0
	}
	ways := []string{"pool", "bound", "shared", "request", "batch"}
	for _, way := range ways {
		for _, goroutines := range []int{1, 4, 16, 64, 1024} {
			cells = append(cells, cell{Model: "mlp", Way: way, Loop: "closed", Goroutines: goroutines, Samples: samples(way)})
		}
	}
	for _, way := range ways {
		for _, goroutines := range []int{1, 4, 16, 64, 1024} {
			cells = append(cells, cell{Model: "mlp", Way: way, Loop: "open", Load: 0.5, Goroutines: goroutines, Samples: samples(way)})
		}
	}
	// Twice as much as the pool can do, half and all of it, each request to be answered within fifty service times.
	for _, load := range []float64{0.5, 1, 2} {
		cells = append(cells, cell{Model: "mlp", Way: "pool", Loop: "open", Load: load, Goroutines: 1024, Deadline: 50})
	}
	for _, way := range ways {
		cells = append(cells, cell{Model: "minilm", Way: way, Loop: "closed", Goroutines: 16})
	}
	return append(cells, loadCells("mlp")...)
}

// loadCells are those that show how a service lives at four fifths of its peak, at twice its peak, and after that. Twice the peak
// of batches is only asked of a GPU: the host would be busy with making the requests alone.
func loadCells(model string) []cell {
	return []cell{
		{Model: model, Way: "pool", Loop: "open", Load: 0.8, Goroutines: 1024, Samples: samplesP99},
		{Model: model, Way: "batch", Loop: "open", Load: 0.8, Goroutines: 1024, Samples: samplesP99},
		{Model: model, Way: "pool", Loop: "open", Load: 2, Goroutines: 1024, Deadline: 50, Samples: samplesP99},
		{Model: model, Way: "pool", Loop: "recovery", Load: 2, Goroutines: 1024, Deadline: 50},
	}
}

// gpuCells are those that something is asked of first, so that a budget that is too small leaves out the others.
func gpuCells(full bool) (cells []cell) {
	add := func(model, way string, samples int, goroutines ...int) {
		for _, count := range goroutines {
			cells = append(cells, cell{Model: model, Way: way, Loop: "closed", Goroutines: count, Samples: samples})
		}
	}
	samples := samplesP99
	if full {
		samples = headline
	}
	const bert = "bert-base"
	add(bert, "pool", samples, 16)
	add(bert, "bound", samples, 16)
	add(bert, "pool", 0, 1, 4, 64, 1024)
	add(bert, "batch", 0, 16, 64, 1024)
	cells = append(cells, loadCells(bert)...)
	// Fewer times: a batch's are long, and all that may wait in fifty of them would be more than there are goroutines.
	cells = append(cells, cell{Model: bert, Way: "batch", Loop: "open", Load: 2, Goroutines: 1024, Deadline: 8})
	cells = append(cells, cell{Model: bert, Way: "batch", Loop: "recovery", Load: 2, Goroutines: 1024, Deadline: 8})
	add(bert, "shared", 0, 16)
	add(bert, "request", 0, 16)
	add(bert, "bound", 0, 1, 4, 64, 1024)
	for _, model := range []string{"minilm", "mlp"} {
		for _, way := range []string{"pool", "bound", "shared", "batch"} {
			add(model, way, 0, 16)
		}
	}
	return cells
}

// peak is the most requests per second that closed loops have reached: of batches, or of the pool.
func peak(had map[cell]result, c cell) (most float64) {
	way := "pool"
	if c.Way == "batch" {
		way = "batch"
	}
	for k, r := range had {
		if k.Model == c.Model && k.settings == c.settings && k.Way == way && k.Loop == "closed" {
			most = max(most, r.Rate)
		}
	}
	return most
}

func (c cell) String() string {
	text := fmt.Sprintf("%s %s %s", c.Model, c.Way, c.Loop)
	if c.Load > 0 {
		text += fmt.Sprintf(" %.0f%%", 100*c.Load)
	}
	if c.Deadline > 0 {
		text += " in time"
	}
	return fmt.Sprintf("%s %d", text, c.Goroutines)
}
