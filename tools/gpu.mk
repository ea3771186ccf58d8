# What is carried to a machine with a GPU and a driver, where there is neither cargo nor the network. FATBIN=1 also embeds machine code,
# so that the driver there compiles nothing; nvcc takes minutes of CPU for it, once per change of the kernels.
BUNDLE := target/gpu-bundle
IMAGES := $(CURDIR)/target/images
# Unless NVCC names one, the one of PyPI that `make kernels` uses; it is looked for when it is there.
ifdef NVCC
IMAGES_NVCC := $(NVCC)
else
IMAGES_NVCC = $$(ls $(CURDIR)/$(NVCC_VENV)/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
images: $(NVCC_VENV)/done
endif
ifdef FATBIN
export STREAMINFER_IMAGES := $(IMAGES)
build: images
endif

.PHONY: images gpu-bundle
images: ## compile kernels/*.cu to machine code in target/images, which a build with FATBIN=1 embeds
	$(PYTHON) tools/kernels.py "$(IMAGES_NVCC)" --images $(IMAGES)

BUNDLED_MODELS := $(addprefix $(MODELS)/,magika.onnx ppocr-det.onnx ppocr-rec.onnx ppocr-cls.onnx silero.onnx \
	silero-ifless.onnx silero-sequence.onnx skills.onnx)
gpu-bundle: build $(BUNDLED_MODELS) ## what is carried to a GPU, in target/gpu-bundle: its run-tests and run-bench say how
	$(CARGO) test --quiet --no-run --test gpu --test runtime --test memory --test allocation
	$(PYTHON) tools/gpu/bundle.py $(BUNDLE) --release $(RELEASE) --debug target/debug --models $(MODELS) --go $(GO) \
		$(if $(FATBIN),--images $(IMAGES))
