//go:build linux && amd64 && streaminfer_debug

package capi

/*
#include "streaminfer.h"
*/
import "C"

// engineFlags has inputs of sessions be read-only while their request is in flight.
const engineFlags = C.SI_ENGINE_GUARD_INPUTS
