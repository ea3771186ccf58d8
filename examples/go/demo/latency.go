package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/streaminfer/streaminfer/examples/go/magika"
	"github.com/streaminfer/streaminfer/examples/go/minilm"
)

// worker does one request after another; each goroutine has its own.
type worker interface {
	request() error
	Close() error
}

type typeWorker struct {
	*magika.Detector
	stage   *stage
	random  *rand.Rand
	content [4096]byte
}

func (w *typeWorker) request() error {
	for i := range w.content {
		w.content[i] = byte(w.random.Uint32())
	}
	_, err := w.Content(w.stage.ctx, bytes.NewReader(w.content[:]), int64(len(w.content)))
	return err
}

type meaningWorker struct {
	*minilm.Embedder
	stage  *stage
	random *rand.Rand
	vector []float32
}

func (w *meaningWorker) request() (err error) {
	w.vector, err = w.Embed(w.stage.ctx, w.vector[:0], sentences[w.random.IntN(len(sentences))])
	return err
}

// measure prints how long requests take while 1, 2, 4 and 16 goroutines ask as fast as they get answers.
func (s *stage) measure(duration time.Duration) error {
	fmt.Print("\nHOW LONG DOES A REQUEST TAKE? Each goroutine has its own session and asks again at once; microseconds.\n\n")
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "MODEL\tGOROUTINES\tREQUESTS/S\tP50\tP90\tP99\tREQUESTS\t")
	for _, model := range []struct {
		name string
		make func(*rand.Rand) (worker, error)
	}{
		{"magika", func(r *rand.Rand) (worker, error) {
			detector, err := magika.NewDetector(s.types, s.rules)
			return &typeWorker{Detector: detector, stage: s, random: r}, err
		}},
		{"MiniLM-L6", func(r *rand.Rand) (worker, error) {
			embedder, err := minilm.NewEmbedder(s.meanings, s.tokenizer)
			return &meaningWorker{Embedder: embedder, stage: s, random: r}, err
		}},
	} {
		for _, goroutines := range []int{1, 2, 4, 16} {
			latencies, elapsed, err := closedLoop(goroutines, duration, model.make)
			if err != nil {
				return err
			}
			fmt.Fprintf(table, "%s\t%d\t%.0f\t%s\t%s\t%s\t%d\t\n", model.name, goroutines,
				float64(len(latencies))/elapsed.Seconds(), percentile(latencies, 50), percentile(latencies, 90),
				percentile(latencies, 99), len(latencies))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Println("\n~ stands before a percentile that fewer than 100 requests lie above.")
	return nil
}

// closedLoop lets the goroutines work for a while, after a warm-up, and returns the sorted latencies.
func closedLoop(goroutines int, duration time.Duration, make func(*rand.Rand) (worker, error)) ([]time.Duration, time.Duration, error) {
	var workers []worker
	for i := range goroutines {
		w, err := make(rand.New(rand.NewPCG(1, uint64(i))))
		if err != nil {
			return nil, 0, err
		}
		defer w.Close()
		workers = append(workers, w)
	}
	var mu sync.Mutex
	var all []time.Duration
	var failures []error
	run := func(until time.Time) {
		var group sync.WaitGroup
		for _, w := range workers {
			group.Go(func() {
				var mine []time.Duration
				var err error
				for now := time.Now(); err == nil && now.Before(until); {
					err = w.request()
					after := time.Now()
					mine = append(mine, after.Sub(now))
					now = after
				}
				mu.Lock()
				defer mu.Unlock()
				all, failures = append(all, mine...), append(failures, err)
			})
		}
		group.Wait()
	}
	run(time.Now().Add(duration / 10))
	all = nil
	started := time.Now()
	run(started.Add(duration))
	elapsed := time.Since(started)
	slices.Sort(all)
	return all, elapsed, errors.Join(failures...)
}

// percentile is the latency that p of 100 requests do not exceed.
func percentile(sorted []time.Duration, p int) string {
	if len(sorted) == 0 {
		return "-"
	}
	above := len(sorted) * (100 - p) / 100
	text := fmt.Sprintf("%d", sorted[len(sorted)-1-above].Microseconds())
	if above < 100 {
		return "~" + text
	}
	return text
}
