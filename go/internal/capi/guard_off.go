//go:build linux && amd64 && !streaminfer_debug

package capi

// engineFlags asks for nothing: a guard costs two system calls a request.
const engineFlags = 0
