# The examples in C and Rust, built as strangers would build theirs.
INSTALLED := target/prefix

.PHONY: examples
examples: $(MODELS)/magika.onnx $(MODELS)/magika.config.json ## the story in C and in Rust, with a real model; both must agree
	@$(MAKE) --no-print-directory install DESTDIR= PREFIX=$(CURDIR)/$(INSTALLED)
	$(CC) -std=c99 -O2 -Wall -Wextra -pedantic -Werror examples/c/classify.c -o target/classify-c \
		-I$(INSTALLED)/include -L$(INSTALLED)/lib -lstreaminfer -Wl,-rpath,$(CURDIR)/$(INSTALLED)/lib
	$(CARGO) build --release --example classify
	target/classify-c $(MODELS) Cargo.toml build.rs Makefile examples/c/classify.c >target/classify-c.txt
	$(RELEASE)/examples/classify $(MODELS) Cargo.toml build.rs Makefile examples/c/classify.c >target/classify-rust.txt
	@cat target/classify-c.txt
	cmp target/classify-c.txt target/classify-rust.txt
