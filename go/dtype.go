package streaminfer

import (
	"math"
	"strconv"
)

// DType is an element type. The numbers are those of the C ABI.
type DType uint32

// The element types.
const (
	DTypeFloat32  DType = 1
	DTypeFloat16  DType = 2
	DTypeBFloat16 DType = 3
	DTypeInt64    DType = 4
	DTypeInt32    DType = 5
	DTypeInt8     DType = 6
	DTypeUint8    DType = 7
	DTypeBool     DType = 8
)

// String returns the name used in messages, on the command line and in JSON.
func (d DType) String() string {
	switch d {
	case DTypeFloat32:
		return "float32"
	case DTypeUint8:
		return "uint8"
	case DTypeInt8:
		return "int8"
	case DTypeInt32:
		return "int32"
	case DTypeInt64:
		return "int64"
	case DTypeBool:
		return "bool"
	case DTypeFloat16:
		return "float16"
	case DTypeBFloat16:
		return "bfloat16"
	}
	return "dtype " + strconv.Itoa(int(d))
}

// Size returns the bytes of one element, 0 for a type that is none of ours.
func (d DType) Size() int {
	switch d {
	case DTypeInt64:
		return 8
	case DTypeFloat32, DTypeInt32:
		return 4
	case DTypeFloat16, DTypeBFloat16:
		return 2
	case DTypeUint8, DTypeInt8, DTypeBool:
		return 1
	}
	return 0
}

// Float16 is an IEEE 754 binary16 number as it lies in memory.
type Float16 uint16

// BFloat16 is the upper half of a float32 as it lies in memory.
type BFloat16 uint16

// Element is a Go type whose memory is that of one [DType].
type Element interface {
	float32 | Float16 | BFloat16 | int64 | int32 | int8 | uint8 | bool
}

func dtypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case float32:
		return DTypeFloat32
	case Float16:
		return DTypeFloat16
	case BFloat16:
		return DTypeBFloat16
	case int64:
		return DTypeInt64
	case int32:
		return DTypeInt32
	case int8:
		return DTypeInt8
	case uint8:
		return DTypeUint8
	default:
		return DTypeBool
	}
}

// Float32 widens without loss.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }

// ToBFloat16 rounds to the nearest, ties to even; a NaN stays one.
func ToBFloat16(f float32) BFloat16 {
	bits := math.Float32bits(f)
	if f != f {
		return BFloat16(bits>>16 | 0x40)
	}
	return BFloat16((bits + 0x7fff + bits>>16&1) >> 16)
}

// Float32 widens without loss.
func (h Float16) Float32() float32 {
	sign := uint32(h>>15) << 31
	exponent, fraction := uint32(h>>10)&0x1f, uint32(h)&0x3ff
	switch {
	case exponent == 0x1f:
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	case exponent != 0:
		return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
	default: // zero or subnormal: fraction * 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	}
}

// ToFloat16 rounds to the nearest, ties to even; what is too large becomes an infinity, a NaN stays one.
func ToFloat16(f float32) Float16 {
	bits := math.Float32bits(f)
	sign, magnitude := Float16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case magnitude > 0x7f800000:
		return sign | 0x7e00
	case magnitude >= 0x477ff000: // rounds to 65536 or more
		return sign | 0x7c00
	case magnitude < 0x38800000: // subnormal: adding 0.5 rounds to a multiple of 2^-24
		return sign | Float16(math.Float32bits(math.Float32frombits(magnitude)+0.5)-0x3f000000)
	default:
		return sign | Float16((magnitude-0x38000000+0xfff+magnitude>>13&1)>>13)
	}
}
