//go:build linux && amd64 && streaminfer_pkgconfig

package capi

/*
#cgo pkg-config: streaminfer
#include "table.h"

char *table_load(const char *path, table *out) {
	(void)path;
#define FILL(name) out->name = name;
	EXPORTS(FILL)
	return NULL;
}
*/
import "C"

// linked says whether the library was linked at build time.
const linked = true
