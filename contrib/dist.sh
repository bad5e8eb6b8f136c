#!/usr/bin/env bash
# The static release binaries, stripped: contrib/dist.sh [TARGET_DIRECTORY]
#
# Each goes to TARGET_DIRECTORY/dist/trunkline-VERSION-MACHINE-linux/; path, size and SHA-256 are printed.
# A machine for which the toolchain here cannot build is named with the command that would.
set -euo pipefail
cd "$(dirname "$0")/.."
target_dir=${1:-target}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# No larger than this, so that it fits small flash disks.
bytes_max=8000000

build() { # build MACHINE [LINKER]
  local machine=$1 linker=${2:-} target=$1-unknown-linux-gnu
  local variable=CARGO_TARGET_${machine^^}_UNKNOWN_LINUX_GNU_LINKER
  local command=(env RUSTFLAGS="-C target-feature=+crt-static")
  [ -z "$linker" ] || command+=("$variable=$linker" "CC_${machine}_unknown_linux_gnu=$linker")
  command+=(cargo rustc --release --locked --bin trunkline --target "$target" --target-dir "$target_dir")
  # Relative relocations, packed: 165 KB less; and functions that are the same once. The C library in it must
  # know the former (glibc 2.36), and the linker both: Rust's own does, which is the usual one for x86_64.
  [ "$machine" != x86_64 ] || command+=(-- -C 'link-arg=-Wl,-z,pack-relative-relocs,--icf=all')
  if { [ -n "$linker" ] && ! command -v "$linker" >/dev/null; } ||
    [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    echo "$machine: not built: this toolchain cannot. Where it can:"
    echo "  rustup target add $target && apt-get install gcc-${machine}-linux-gnu && ${command[*]@Q}"
    return
  fi
  "${command[@]}"
  local out=$target_dir/dist/trunkline-$version-$machine-linux
  mkdir -p "$out"
  # cp keeps what is run at the moment.
  cp --remove-destination "$target_dir/$target/release/trunkline" "$out/trunkline"
  local size
  size=$(stat -c %s "$out/trunkline")
  [ "$machine" != "$(uname -m)" ] || "$out/trunkline" --version >/dev/null
  echo "$out/trunkline  $size bytes  sha256 $(sha256sum "$out/trunkline" | cut -d' ' -f1)"
  if [ "$size" -gt "$bytes_max" ]; then
    echo "$out/trunkline is larger than $bytes_max bytes" >&2
    return 1
  fi
}

build x86_64
build aarch64 aarch64-linux-gnu-gcc
