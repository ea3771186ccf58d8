// Command onnxruntime measures this module beside github.com/yalue/onnxruntime_go, ONNX Runtime's binding for Go, on the CPU in one
// run: what a call costs around a model that computes next to nothing, what it allocates, and the latencies of 64 goroutines.
//
//	onnxruntime -ort libonnxruntime.so -models FOLDER
//
// The two take turns, round by round, so that what else the machine does hits both; each figure is the median of its rounds.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// model is a file with one input and one output.
type model struct {
	name, path string
	shape      []int64
	// in and out are the elements of the input and the output.
	in, out int
}

// peer is one way to run a model. Each goroutine has a number, and tensors of its own.
type peer interface {
	name() string
	// run is one request of a goroutine: from numbers in Go's memory, or in the library's, to where its output can be read.
	run(goroutine int) error
	output(goroutine int) []float32
	input(goroutine int) []float32
	close() error
}

func main() {
	library := flag.String("ort", "", "path of libonnxruntime.so")
	models := flag.String("models", "", "folder with mlp.onnx")
	affine := flag.String("affine", "../crossing/testdata/affine.onnx", "path of affine.onnx")
	rounds := flag.Int("rounds", 9, "rounds, of which the median is reported")
	span := flag.Duration("time", time.Second, "time of a round")
	flag.Parse()
	if err := compare(*library, *affine, filepath.Join(*models, "mlp.onnx"), *rounds, *span); err != nil {
		fmt.Fprintln(os.Stderr, "onnxruntime:", err)
		os.Exit(1)
	}
}

func compare(library, affine, mlp string, rounds int, span time.Duration) error {
	end, err := initialize(library)
	if err != nil {
		return err
	}
	defer end()
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%s, GOMAXPROCS %d, one compute thread a session, %d rounds of %v in turns, load %.4s\n",
		runtime.Version(), runtime.GOMAXPROCS(0), rounds, span, load)
	for _, cell := range []struct {
		model      model
		goroutines int
	}{
		{model{"affine [1, 4]", affine, []int64{1, 4}, 4, 4}, 1},
		{model{"MLP [1, 784]", mlp, []int64{1, 784}, 784, 10}, 1},
		{model{"MLP [1, 784]", mlp, []int64{1, 784}, 784, 10}, 64},
	} {
		if err := report(cell.model, cell.goroutines, rounds, span); err != nil {
			return fmt.Errorf("%s: %w", cell.model.name, err)
		}
	}
	return nil
}

// report measures and prints one model at one number of goroutines.
func report(m model, goroutines, rounds int, span time.Duration) error {
	peers, err := peersOf(m, goroutines)
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range peers {
			_ = p.close()
		}
	}()
	if err := agree(peers); err != nil {
		return err
	}
	all := make([][]figures, len(peers))
	for round := range rounds + 1 {
		for i, p := range peers {
			f, err := measure(p, goroutines, span)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name(), err)
			}
			if round > 0 { // the first warms up
				all[i] = append(all[i], f)
			}
		}
	}
	fmt.Printf("\n%s, %d goroutine(s)\n%-36s %10s %10s %10s %10s %12s\n", m.name, goroutines, "", "P50 us", "P99 us", "us/call", "calls/s", "allocs/call")
	for i, p := range peers {
		of := func(get func(figures) float64) float64 {
			values := make([]float64, len(all[i]))
			for k, f := range all[i] {
				values[k] = get(f)
			}
			slices.Sort(values)
			return values[len(values)/2]
		}
		fmt.Printf("%-36s %10.2f %10.2f %10.3f %10.0f %12.2f\n", p.name(), of(func(f figures) float64 { return f.p50 }),
			of(func(f figures) float64 { return f.p99 }), of(func(f figures) float64 { return f.mean }),
			of(func(f figures) float64 { return f.rate }), of(func(f figures) float64 { return f.allocations }))
	}
	return nil
}
