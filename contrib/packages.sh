#!/usr/bin/env bash
# The npm and the PyPI package of a static binary: contrib/packages.sh BINARY OUT_DIRECTORY
# Nothing is published. tests/interop/packages.sh installs and runs what is built.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?usage: packages.sh BINARY OUT_DIRECTORY}")
mkdir -p "${2:?usage: packages.sh BINARY OUT_DIRECTORY}"
out=$(realpath "$2")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../Cargo.toml" | head -1)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
install -Dm755 "$binary" "$tree/bin/trunkline"
sed "s/\"version\": \".*\"/\"version\": \"$version\"/" "$here/npm/package.json" >"$tree/package.json"
cp "$here/../LICENSE" "$tree/"
(cd "$tree" && npm pack --silent --pack-destination "$out" >/dev/null)
package=$out/trunkline-$version.tgz
echo "$package  $(stat -c %s "$package") bytes  sha256 $(sha256sum "$package" | cut -d' ' -f1)"
python3 "$here/pypi/wheel.py" "$binary" "$version" "$out"
