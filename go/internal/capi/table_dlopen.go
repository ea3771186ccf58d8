//go:build linux && amd64 && !streaminfer_pkgconfig

package capi

/*
#cgo LDFLAGS: -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include "table.h"

static const char *const names[] = {
#define NAME(name) #name,
	EXPORTS(NAME)
};
_Static_assert(sizeof names == sizeof(table), "one name for each pointer");

// The library stays loaded for good, even if it is refused: it may have started threads.
char *table_load(const char *path, table *out) {
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		return strdup(dlerror());
	}
	void **pointers = (void **)out;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (!(pointers[i] = dlsym(library, names[i]))) {
			char *reason = NULL;
			return asprintf(&reason, "it has no %s", names[i]) < 0 ? NULL : reason;
		}
	}
	return NULL;
}
*/
import "C"

// linked says whether the library was linked at build time.
const linked = false
