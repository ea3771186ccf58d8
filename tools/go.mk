# Package streaminfer for Go, its examples, and the proof that its module zip works elsewhere.
GO_FOLDERS := go examples/go tests/gomodule benches/go
GO_WITH := STREAMINFER_LIBRARY=$(CURDIR)/$(LIBRARY) STREAMINFER_MODELS=$(CURDIR)/$(MODELS)
GO_MUST := $(GO_WITH) STREAMINFER_REQUIRE=1

# The library of the pinned wheel, once there is one.
ORT = $(firstword $(wildcard $(CURDIR)/.cache/venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*))

.PHONY: demo test-go test-go-memory test-go-linked test-go-module bench-go bench-go-ort bench-tail
demo: build $(DEMO_MODELS) ## two real models at work from Go: files named by type, sentences found by meaning, latencies
	cd examples/go && $(GO) build -o ../../target/demo ./demo
	$(GO_WITH) target/demo -models $(MODELS)

test-go: build $(DEMO_MODELS) $(MODELS)/mlp.onnx ## the Go tests: on the fake and on the library, with the race detector, with cgo checks
	@unformatted=$$($$($(GO) env GOROOT)/bin/gofmt -l $(GO_FOLDERS)); [ -z "$$unformatted" ] || { echo "not formatted: $$unformatted"; exit 1; }
	cd go && CGO_ENABLED=0 $(GO) vet ./... && GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./... && $(GO) vet ./...
	cd go && $(GO_MUST) $(GO) test ./...
	cd go && $(GO_MUST) $(GO) test -race . ./fake ./pipeline ./trace
	cd go && $(GO_MUST) GOEXPERIMENT=cgocheck2 $(GO) test .
	cd go && $(GO) vet -tags streaminfer_debug . ./internal/capi && $(GO_MUST) $(GO) test -tags streaminfer_debug .
	cd go && CGO_ENABLED=0 $(GO) test . ./fake ./pipeline ./trace
	cd examples/go && $(GO) vet ./... && $(GO_MUST) $(GO) test ./...
	cd benches/go && $(GO) vet ./... && $(GO_MUST) $(GO) test ./...
	cd benches/go/onnxruntime && $(GO) vet . && $(GO_MUST) ONNXRUNTIME_LIBRARY=$(ORT) $(GO) test .
	$(GO_WITH) sh -c 'cd examples/go && $(GO) build -o ../../target/readme ./readme' && $(GO_WITH) target/readme

# Collections without pause clobber what they free. STREAMINFER_CANCELS=1000000 gives up more requests than 20,000.
test-go-memory: build ## the Go tests under collections without pause, and with the address sanitizer (gcc's or clang's)
	cd go && $(GO_MUST) GOGC=1 GODEBUG=clobberfree=1 $(GO) test -tags streaminfer_gc .
	cd go && $(GO_MUST) $(GO) test -asan .

test-go-linked: ## the Go tests with the library linked at build time, as installed and described by pkg-config
	$(MAKE) install DESTDIR= PREFIX=$(CURDIR)/target/prefix
	cd go && STREAMINFER_REQUIRE=1 PKG_CONFIG_PATH=$(CURDIR)/target/prefix/lib/pkgconfig \
		LD_LIBRARY_PATH=$(CURDIR)/target/prefix/lib $(GO) test -tags streaminfer_pkgconfig ./...

test-go-module: build ## the module zip, unpacked elsewhere, built and run
	cd tests/gomodule && $(GO) vet ./... && $(GO_MUST) $(GO) test ./...

bench-go: build $(MODELS)/mlp.onnx ## the border between Go and the library: one call, one request
	cd go && $(GO_MUST) $(GO) test -run '^$$' -bench . -benchtime 2s -count 3 .
	cd benches/go && $(GO_MUST) $(GO) test -run '^$$' -bench . ./crossing

bench-go-ort: build $(MODELS)/mlp.onnx ## from Go, beside onnxruntime_go on the CPU: what a call costs and allocates, the tail of 64 goroutines
	cd benches/go/onnxruntime && $(GO_WITH) $(GO) run . -ort $(ORT) -models $(CURDIR)/$(MODELS)

# Cells that the file has are not run again. FULL=1 runs those of pool and bound workers on to 270,336 samples.
TAIL := target/bench-tail$(if $(FULL),-full).jsonl
bench-tail: build $(MODELS)/mlp.onnx $(MODELS)/minilm.onnx ## the tail under concurrency: ways to share a device, closed and open loops, overload; some twelve minutes
	cd benches/go && $(GO) build -o ../../target/tail ./tail
	$(GO_WITH) target/tail -models $(MODELS) -out $(TAIL) $(if $(FULL),-full)
