# The examples in C and Rust, built as strangers would build theirs: C against the installed library that pkg-config describes.
INSTALLED := $(CURDIR)/target/prefix
EXAMPLE_FILES := Cargo.toml Makefile README.md build.rs examples/c/classify.c tools/fetch.py .cache/models/magika.onnx

.PHONY: examples
examples: build $(MODELS)/magika.onnx $(MODELS)/magika.config.json ## the story in C and in Rust, with a real model; both must agree
	@$(MAKE) --no-print-directory install DESTDIR= PREFIX=$(INSTALLED)
	$(CC) -std=c11 -O2 -Wall -Wextra -pedantic -Werror examples/c/classify.c -o target/classify \
		$$(PKG_CONFIG_PATH=$(INSTALLED)/lib/pkgconfig pkg-config --cflags --libs streaminfer) -Wl,-rpath,$(INSTALLED)/lib
	$(CARGO) build --quiet --example classify
	target/classify $(MODELS) $(EXAMPLE_FILES) >target/classify.c.txt
	target/debug/examples/classify $(MODELS) $(EXAMPLE_FILES) >target/classify.rust.txt
	@cat target/classify.c.txt
	cmp target/classify.c.txt target/classify.rust.txt
