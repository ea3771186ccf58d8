package main

import (
	"context"
	"fmt"
	"log"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

func main() {
	engine := must(streaminfer.Open(streaminfer.EngineOptions{}))
	defer engine.Close()
	model := must(engine.Load(".cache/models/mlp.onnx", streaminfer.ModelOptions{
		Buckets: []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"input": {1, 784}}}}}))
	session := must(model.NewSession(streaminfer.SessionOptions{})) // one for each worker
	defer session.Close()
	input := must(streaminfer.Input[float32](session, "input")) // the memory that the device reads
	logits := must(streaminfer.Output[float32](session, "logits"))
	for i := range input.Data {
		input.Data[i] = float32(i%28) / 28
	}
	if err := session.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(logits.Data)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
