// Search finds the lines of a text that are closest in meaning to what is asked.
//
//	search MODELS TEXT QUERY...
//
// MODELS is the folder with minilm.onnx and minilm.tokenizer.json (make models), TEXT a file with one sentence a line.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	streaminfer "github.com/streaminfer/streaminfer/go"

	"github.com/streaminfer/streaminfer/examples/go/minilm"
	"github.com/streaminfer/streaminfer/examples/go/wordpiece"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 4 {
		log.Fatal("usage: search MODELS TEXT QUERY...")
	}
	if err := search(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatal(err)
	}
}

func search(models, text string, queries []string) error {
	tokenizer, err := wordpiece.Open(filepath.Join(models, "minilm.tokenizer.json"))
	if err != nil {
		return err
	}
	engine, err := streaminfer.Open(streaminfer.EngineOptions{})
	if err != nil {
		return err
	}
	defer engine.Close()
	model, err := engine.Load(filepath.Join(models, "minilm.onnx"), streaminfer.ModelOptions{Buckets: minilm.Buckets()})
	if err != nil {
		return err
	}
	embedder, err := minilm.NewEmbedder(model, tokenizer)
	if err != nil {
		return err
	}
	file, err := os.Open(text)
	if err != nil {
		return err
	}
	defer file.Close()
	ctx := context.Background()
	var index minilm.Index
	var vector []float32
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if vector, err = embedder.Embed(ctx, vector[:0], lines.Text()); err != nil {
			return err
		}
		index.Add(lines.Text(), vector)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	for _, query := range queries {
		if vector, err = embedder.Embed(ctx, vector[:0], query); err != nil {
			return err
		}
		fmt.Println(query)
		for _, hit := range index.Search(vector, 3) {
			fmt.Printf("  %.2f  %s\n", hit.Score, hit.Sentence)
		}
	}
	return nil
}
