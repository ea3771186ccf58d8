package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// The README shows this program: what a reader copies is what CI has run.
func TestReadmeShowsThisProgram(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("outside the project")
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(program)+"```\n") {
		t.Error("README.md does not show examples/go/readme/main.go")
	}
}
