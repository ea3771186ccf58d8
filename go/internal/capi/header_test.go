package capi

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"
)

// The module carries a copy of the header. Inside the project it must be the project's.
func TestHeaderIsTheProjects(t *testing.T) {
	const original = "../../../include/streaminfer.h"
	want, err := os.ReadFile(original)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("outside the project")
	}
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("streaminfer.h")
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE_HEADER") == "1" && !bytes.Equal(have, want) {
		if err := os.WriteFile("streaminfer.h", want, 0o644); err != nil {
			t.Fatal(err)
		}
		have = want
	}
	if !bytes.Equal(have, want) {
		t.Errorf("streaminfer.h differs from %s: run UPDATE_HEADER=1 go test ./internal/capi", original)
	}
}

func TestVersionIsTheHeaders(t *testing.T) {
	header, err := os.ReadFile("streaminfer.h")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(header, []byte("\n#define SI_ABI_VERSION "+abiVersion+"\n")) {
		t.Errorf("the header has another ABI version than %s", abiVersion)
	}
}
