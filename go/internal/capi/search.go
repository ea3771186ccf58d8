// Package capi is the shared library as a backend: the C ABI of streaminfer.h, called through a table of function
// pointers that is filled when the library is opened (or, with the build tag streaminfer_pkgconfig, linked).
//
// streaminfer.h is a copy of the project's include/streaminfer.h, because a Go module ships only what lies below its
// go.mod; a test keeps the two equal.
package capi

import (
	"os"
	"path/filepath"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// abiVersion is the header's SI_ABI_VERSION, for builds without cgo too.
const abiVersion = "1"

// soname is the name that an installed library has for the system's loader.
const soname = backend.LibraryName + "." + abiVersion

// candidates lists the paths at which to look for the library, in order. A path that was asked for, by option or by
// STREAMINFER_LIBRARY, is the only one: falling back to another library would hide the mistake. Either may name the
// library's directory.
func candidates(option string) []string {
	for _, asked := range []string{option, os.Getenv("STREAMINFER_LIBRARY")} {
		if asked == "" {
			continue
		}
		if info, err := os.Stat(asked); err == nil && info.IsDir() {
			return within(asked)
		}
		return []string{asked}
	}
	var paths []string
	if executable, err := os.Executable(); err == nil {
		if resolved, err := filepath.EvalSymlinks(executable); err == nil {
			executable = resolved
		}
		directory := filepath.Dir(executable)
		paths = append(within(directory), within(filepath.Join(directory, "..", "lib"))...)
	}
	return append(paths, soname, backend.LibraryName) // without a slash: the system's loader searches
}

func within(directory string) []string {
	return []string{filepath.Join(directory, soname), filepath.Join(directory, backend.LibraryName)}
}
