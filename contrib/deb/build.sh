#!/usr/bin/env bash
# A Debian package of a static binary: contrib/deb/build.sh BINARY OUT_DIRECTORY [amd64|arm64]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?usage: build.sh BINARY OUT_DIRECTORY [ARCHITECTURE]}")
out=${2:?usage: build.sh BINARY OUT_DIRECTORY [ARCHITECTURE]}
architecture=${3:-amd64}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../../Cargo.toml" | head -1)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

install -Dm755 "$binary" "$tree/usr/bin/trunkline"
install -Dm644 -t "$tree/usr/lib/systemd/system" "$here"/../systemd/trunkline.{service,socket}
# The service runs as a user of its own, who reads it; secrets belong into /etc/trunkline/environment.
install -Dm644 "$here/config.json" "$tree/etc/trunkline/config.json"
doc=$tree/usr/share/doc/trunkline
mkdir -p "$doc"
cat >"$doc/copyright" <<COPYRIGHT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: trunkline

Files: *
Copyright: The Trunkline authors
License: Apache-2.0
 On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.
COPYRIGHT
cat <<CHANGELOG | gzip -9n >"$doc/changelog.gz"
trunkline ($version) unstable; urgency=medium

  * Version $version.

 -- The Trunkline authors <trunkline@example.org>  $(date -R -u -d "@${SOURCE_DATE_EPOCH:-0}")
CHANGELOG
# What it says of itself, where this machine can run it.
if "$binary" --version >/dev/null 2>&1; then
  mkdir -p "$tree/usr/share/man/man1"
  "$binary" man | gzip -9n >"$tree/usr/share/man/man1/trunkline.1.gz"
  while read -r shell file; do
    mkdir -p "$(dirname "$tree/usr/share/$file")"
    "$binary" completions "$shell" >"$tree/usr/share/$file"
  done <<COMPLETIONS
bash bash-completion/completions/trunkline
zsh zsh/vendor-completions/_trunkline
fish fish/vendor_completions.d/trunkline.fish
COMPLETIONS
fi
for folder in nginx caddy prometheus grafana; do
  install -Dm644 -t "$tree/usr/share/doc/trunkline/examples/$folder" "$here/../$folder"/*
done
mkdir -p "$tree/DEBIAN"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: trunkline
Version: $version
Architecture: $architecture
Maintainer: The Trunkline authors <trunkline@example.org>
Section: net
Priority: optional
Installed-Size: $(du -sk --apparent-size "$tree/usr" | cut -f1)
Description: MCP gateway
 REST, SSE and Streamable HTTP in front of many MCP servers: one static
 binary, with keys, limits, and servers of every revision behind one address.
CONTROL
echo /etc/trunkline/config.json >"$tree/DEBIAN/conffiles"
install -m755 "$here/postinst" "$here/prerm" "$here/postrm" "$tree/DEBIAN/"
mkdir -p "$out"
package=$out/trunkline_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$tree" "$package" >/dev/null
echo "$package  $(stat -c %s "$package") bytes  sha256 $(sha256sum "$package" | cut -d' ' -f1)"
