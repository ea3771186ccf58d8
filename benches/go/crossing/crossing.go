// Package crossing is what a binding that copies does with a tensor, to be measured against views that do not.
package crossing

/*
#include <stdlib.h>
#include <string.h>

// The library's side: it takes a tensor in memory of its own and gives one back, as long as the first.
static void *take_and_give(const void *in, size_t bytes) {
	void *out = malloc(bytes);
	if (out) {
		memcpy(out, in, 64 < bytes ? 64 : bytes); // what it computes is not the matter here
	}
	return out;
}
*/
import "C"

import "unsafe"

// ByString passes a tensor as C.CString does, which copies it and adds a zero, and gets one back by C.GoBytes, which
// copies it, too.
func ByString(in string) []byte {
	text := C.CString(in)
	defer C.free(unsafe.Pointer(text))
	out := C.take_and_give(unsafe.Pointer(text), C.size_t(len(in)))
	defer C.free(out)
	return C.GoBytes(out, C.int(len(in)))
}

// ByBytes is ByString with C.CBytes.
func ByBytes(in []byte) []byte {
	memory := C.CBytes(in)
	defer C.free(memory)
	out := C.take_and_give(memory, C.size_t(len(in)))
	defer C.free(out)
	return C.GoBytes(out, C.int(len(in)))
}
