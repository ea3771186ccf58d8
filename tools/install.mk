# Installs what a C host needs, as cargo-c would lay it out; DESTDIR stages it for packagers.
PREFIX ?= /usr/local
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
ABI := $(shell sed -n 's/^\#define SI_ABI_VERSION //p' include/streaminfer.h)
INTO = $(DESTDIR)$(PREFIX)

.PHONY: install
install: build ## the library, its header and pkg-config file, and the command line, into PREFIX (default /usr/local)
	install -d $(INTO)/bin $(INTO)/include $(INTO)/lib/pkgconfig
	install -m 755 $(PROGRAM) $(INTO)/bin/streaminfer
	install -m 644 include/streaminfer.h $(INTO)/include/streaminfer.h
	install -m 755 $(LIBRARY) $(INTO)/lib/libstreaminfer.so.$(VERSION)
	ln -sf libstreaminfer.so.$(VERSION) $(INTO)/lib/libstreaminfer.so.$(ABI)
	ln -sf libstreaminfer.so.$(ABI) $(INTO)/lib/libstreaminfer.so
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' tools/streaminfer.pc.in >$(INTO)/lib/pkgconfig/streaminfer.pc
