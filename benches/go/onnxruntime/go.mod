module github.com/streaminfer/streaminfer/benches/go/onnxruntime

go 1.26

require (
	github.com/streaminfer/streaminfer/go v0.0.0
	github.com/yalue/onnxruntime_go v1.27.0
)

replace github.com/streaminfer/streaminfer/go => ../../../go
