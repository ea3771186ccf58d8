//go:build linux && amd64 && cgo && !streaminfer_pkgconfig

package streaminfer_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// tried opens an engine that must not open, and returns what the error says was tried.
func tried(t *testing.T, option string) []streaminfer.LibraryAttempt {
	t.Helper()
	engine, err := streaminfer.Open(streaminfer.EngineOptions{Library: option})
	if err == nil {
		engine.Close()
		t.Fatal("opened")
	}
	failure, ok := errors.AsType[*streaminfer.LibraryError](err)
	if !ok {
		t.Fatalf("%v is no *LibraryError", err)
	}
	for _, attempt := range failure.Tried {
		if !strings.Contains(err.Error(), attempt.Path) || attempt.Reason == "" {
			t.Errorf("the message does not tell of %+v: %v", attempt, err)
		}
	}
	return failure.Tried
}

func TestMissingLibraryNamesEveryPath(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "nowhere.so")
	t.Setenv("STREAMINFER_LIBRARY", "")
	if attempts := tried(t, nowhere); len(attempts) != 1 || attempts[0].Path != nowhere {
		t.Errorf("by option: %v", attempts)
	}
	t.Setenv("STREAMINFER_LIBRARY", nowhere)
	if attempts := tried(t, ""); len(attempts) != 1 || attempts[0].Path != nowhere {
		t.Errorf("by environment: %v", attempts)
	}
	folder := t.TempDir()
	t.Setenv("STREAMINFER_LIBRARY", folder)
	if attempts := tried(t, ""); len(attempts) != 2 || filepath.Dir(attempts[1].Path) != folder {
		t.Errorf("a folder: %v", attempts)
	}
	if _, err := streaminfer.Devices(streaminfer.EngineOptions{}); err == nil {
		t.Error("devices without a library")
	}
}

// Without a path that was asked for, the executable's folder, its ../lib and the system's loader are searched: seen by
// a copy of this test's binary that lies in an empty folder.
func TestLibraryIsSearched(t *testing.T) {
	if os.Getenv("STREAMINFER_TEST_SEARCH") == "1" {
		engine, err := streaminfer.Open(streaminfer.EngineOptions{})
		if err == nil {
			engine.Close()
		}
		_, _ = os.Stdout.WriteString(errorText(err))
		os.Exit(0)
	}
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(folder, "bin", "program")
	for _, name := range []string{"bin", "lib"} {
		if err := os.Mkdir(filepath.Join(folder, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	search := func() string {
		command := exec.Command(program, "-test.run=^TestLibraryIsSearched$")
		command.Env = append(os.Environ(), "STREAMINFER_TEST_SEARCH=1", "STREAMINFER_LIBRARY=")
		output, err := command.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(output)
	}
	text, last := search(), 0
	for _, path := range []string{folder + "/bin/libstreaminfer.so.1:", folder + "/bin/libstreaminfer.so:",
		folder + "/lib/libstreaminfer.so.1:", folder + "/lib/libstreaminfer.so:", "\tlibstreaminfer.so.1:", "\tlibstreaminfer.so:"} {
		at := strings.Index(text, path)
		if at < last {
			t.Errorf("%q is not tried in its turn: %s", path, text)
		}
		last = at
	}
	real := os.Getenv("STREAMINFER_LIBRARY")
	if real == "" {
		return
	}
	if real, err = filepath.Abs(real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, filepath.Join(folder, "lib", "libstreaminfer.so")); err != nil {
		t.Fatal(err)
	}
	if text := search(); text != "opened" {
		t.Errorf("the library beside the program is not found: %s", text)
	}
}

func errorText(err error) string {
	if err == nil {
		return "opened"
	}
	return err.Error()
}

func TestUnusableLibraries(t *testing.T) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		if os.Getenv("STREAMINFER_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	folder := t.TempDir()
	build := func(name, source string) string {
		path := filepath.Join(folder, name+".so")
		command := exec.Command(compiler, "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", path)
		command.Stdin = strings.NewReader(source)
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		return path
	}
	table, err := os.ReadFile("internal/capi/table.h")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(table), "#define EXPORTS(X)")
	list, _, _ = strings.Cut(list, "typedef")
	exports := "#define EXPORTS(X)" + list +
		"#define STUB(name) unsigned name(unsigned id) { return ANSWER(#name, id); }\nEXPORTS(STUB)\n"

	garbage := filepath.Join(folder, "garbage.so")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no library"), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ path, reason string }{
		{garbage, "invalid ELF header"},
		{build("empty", ""), "it has no si_abi_version"},
		{build("future", "#define ANSWER(name, id) 999\n"+exports), "ABI version 999"},
		{build("old", "#define ANSWER(name, id) (name[3] == 'a' ? 1 : 4)\n"+exports), "different versions"},
	} {
		attempts := tried(t, test.path)
		if len(attempts) != 1 || !strings.Contains(attempts[0].Reason, test.reason) {
			t.Errorf("%v does not say %q", attempts, test.reason)
		}
	}
}
