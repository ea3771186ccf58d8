// Classify names files by type, from as many goroutines as there are processors.
//
//	classify MODELS FILE...
//
// MODELS is the folder with magika.onnx, magika.config.json and magika.types.json (make models).
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	streaminfer "github.com/streaminfer/streaminfer/go"

	"github.com/streaminfer/streaminfer/examples/go/magika"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: classify MODELS FILE...")
	}
	if err := classify(os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

func classify(models string, paths []string) error {
	rules, err := magika.OpenRules(filepath.Join(models, "magika.config.json"), filepath.Join(models, "magika.types.json"))
	if err != nil {
		return err
	}
	engine, err := streaminfer.Open(streaminfer.EngineOptions{})
	if err != nil {
		return err
	}
	defer engine.Close()
	model, err := engine.Load(filepath.Join(models, "magika.onnx"),
		streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{magika.Bucket}})
	if err != nil {
		return err
	}
	lines := make([]string, len(paths))
	next := make(chan int)
	var group sync.WaitGroup
	for range min(runtime.NumCPU(), len(paths)) {
		detector, err := magika.NewDetector(model, rules)
		if err != nil {
			return err
		}
		group.Go(func() {
			for i := range next {
				verdict, err := detector.File(context.Background(), paths[i])
				lines[i] = fmt.Sprintf("%s: %s", paths[i], verdict.Label)
				if err != nil {
					lines[i] = err.Error()
				}
			}
		})
	}
	for i := range paths {
		next <- i
	}
	close(next)
	group.Wait()
	for _, line := range lines {
		fmt.Println(line)
	}
	return nil
}
