// Demo shows two real models at work through the shared library: it names files by type from several goroutines, finds
// sentences by meaning, and says how long requests take as more goroutines ask at once.
//
//	demo [-models FOLDER] [-seconds S] [FILE...]
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"

	"github.com/streaminfer/streaminfer/examples/go/magika"
	"github.com/streaminfer/streaminfer/examples/go/minilm"
	"github.com/streaminfer/streaminfer/examples/go/wordpiece"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("demo: ")
	models := flag.String("models", ".cache/models", "folder of the models")
	seconds := flag.Float64("seconds", 2, "time to measure for each number of goroutines")
	flag.Parse()
	if err := demo(*models, flag.Args(), time.Duration(*seconds*float64(time.Second))); err != nil {
		log.Fatal(err)
	}
}

// stage is what all parts of the demo need.
type stage struct {
	ctx       context.Context
	rules     *magika.Rules
	tokenizer *wordpiece.Tokenizer
	types     *streaminfer.Model
	meanings  *streaminfer.Model
}

func demo(models string, files []string, duration time.Duration) error {
	began := time.Now()
	engine, err := streaminfer.Open(streaminfer.EngineOptions{})
	if err != nil {
		return err
	}
	defer engine.Close()
	s, err := open(engine, models)
	if err != nil {
		return err
	}
	devices, err := streaminfer.Devices(streaminfer.EngineOptions{})
	if err != nil {
		return err
	}
	stats, err := engine.Stats()
	if err != nil {
		return err
	}
	fmt.Printf("Two models, %.0f MB of weights, loaded in %.2f s on %s (%d processors).\n", float64(stats.WeightsBytes)/1e6,
		time.Since(began).Seconds(), devices[0].Name, devices[0].Processors)

	if len(files) == 0 {
		files = someFiles(models)
	}
	if err := s.nameFiles(files); err != nil {
		return err
	}
	if err := s.searchSentences(); err != nil {
		return err
	}
	return s.measure(duration)
}

func open(engine *streaminfer.Engine, folder string) (s *stage, err error) {
	at := func(name string) string { return filepath.Join(folder, name) }
	s = &stage{ctx: context.Background()}
	if s.rules, err = magika.OpenRules(at("magika.config.json"), at("magika.types.json")); err != nil {
		return nil, err
	}
	if s.tokenizer, err = wordpiece.Open(at("minilm.tokenizer.json")); err != nil {
		return nil, err
	}
	s.types, err = engine.Load(at("magika.onnx"), streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{magika.Bucket}})
	if err != nil {
		return nil, err
	}
	s.meanings, err = engine.Load(at("minilm.onnx"), streaminfer.ModelOptions{Buckets: minilm.Buckets()})
	return s, err
}

// someFiles finds real files of many types: this project's own, the models, and what the machine has.
func someFiles(models string) []string {
	var files []string
	for _, pattern := range []string{"README.md", "Makefile", "Cargo.toml", "Cargo.lock", "src/lib.rs", "go/session.go", "include/*.h",
		"tools/fetch.py", "tools/setup.sh", "tests/abi/symbols.txt", ".ci/run", "target/release/libstreaminfer.so",
		"target/release/libstreaminfer.rlib", models + "/*.onnx", models + "/*.json", models + "/*.safetensors", "/bin/sh",
		"/usr/share/pixmaps/*.png", "/usr/share/man/man1/l*.gz", "/usr/share/zoneinfo/Europe/Berlin",
		"/usr/share/perl/*/strict.pm", "/etc/passwd", "/etc/ssl/certs/ca-certificates.crt"} {
		matches, _ := filepath.Glob(pattern)
		for _, path := range matches[:min(len(matches), 2)] {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && !slices.Contains(files, path) {
				files = append(files, path)
			}
		}
	}
	return files
}
