#!/usr/bin/env bash
# Installs what the interoperability run needs below one folder, and nothing outside it:
#
#   ./setup.sh FOLDER
#
# Wants python3 (>= 3.11) with venv, and any npm: it only installs, Node itself is among the packages. nginx, Caddy and Prometheus
# are the distribution's: fetched and unpacked where apt-get is, which needs no root, else those of the PATH.
# Does nothing when the folder already has these versions.
set -euo pipefail

NODE=24.21.0                  # the conformance suite needs node >= 22
CONFORMANCE=0.2.0-alpha.12    # asked for by version: what is tagged 'latest' is older and has fewer revisions
TS_SDK=2.4.0                  # @modelcontextprotocol/client and @modelcontextprotocol/server
SERVER_EVERYTHING=2026.8.31
OIDC_PROVIDER=9.13.3          # oidc-provider: the authorization server that users and servers of the identity checks have
MCP_REMOTE=0.15.1             # mcp-remote: a client with OAuth, between a host over stdio and a server that wants a token
INSPECTOR=2.12.0              # @modelcontextprotocol/inspector, for its command line
PLAYWRIGHT=1.65.1             # playwright-core, which brings no browser
AXE=4.14.1                    # axe-core: accessibility of the console
CHROMIUM=153.0.0              # @sparticuz/chromium: a headless Chromium as a package of npm, with what it needs
PY_SDK=2.3.0                  # mcp
# Older Python SDKs, each in an environment of its own beside that one: servers of all of them are in use. Their
# requirements have no upper bounds and break with what came later, so what they need is pinned as it was in their time.
PY_SDKS_BEFORE=(
  "mcp==1.9.4 pydantic==2.11.7 starlette==0.46.2 sse-starlette==2.3.6 uvicorn==0.34.3 anyio==4.9.0"
  "mcp==1.20.0 pydantic==2.12.3 starlette==0.49.1 sse-starlette==3.0.2 uvicorn==0.38.0 anyio==4.11.0"
  "mcp==1.30.0 pydantic==2.14.4 starlette==1.10.0 sse-starlette==3.7.0 uvicorn==0.54.0 anyio==4.16.0"
)
# What the README shows to users of LangChain, on the newest SDK that it takes.
LANGCHAIN="mcp==1.30.0 pydantic==2.14.4 starlette==1.10.0 sse-starlette==3.7.0 uvicorn==0.54.0 anyio==4.16.0 \
langchain-mcp-adapters==0.3.2 langchain-core==1.8.3"
LITELLM=1.108.7               # its proxy: what the REST dialect is held against
OTLP="opentelemetry-proto==1.45.2 protobuf==7.36.2"  # the official protobufs: what spans are read with
SCHEMATHESIS=4.32.5           # what /openapi.json is held against; openapi.py wants exactly this one
DEBIAN="nginx caddy prometheus" # packages of the distribution, which pins the versions: setup.sh prints them
INSTALL_SECONDS=1800          # of one environment, which takes about ten; LiteLLM's has two hundred packages and takes a minute or two
APT_SECONDS=300               # of its lists, and of its packages

folder=${1:?usage: setup.sh FOLDER}
case $(uname -m) in
  x86_64) arch=x64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) echo "setup.sh: there is no node package for $(uname -m)" >&2; exit 1 ;;
esac
for program in curl flock npm openssl python3; do
  command -v "$program" >/dev/null || { echo "setup.sh: $program is missing" >&2; exit 1; }
done
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

# Two runs may share the folder; the second waits until the first has installed.
exec 9>"$folder/lock"
flock 9

# An environment of Python packages: made anew unless FOLDER/NAME has exactly these.
python_env() { # python_env NAME MODULE PACKAGE...: MODULE is to be had
  local dir=$folder/$1 module=$2
  shift 2
  if [ "$(cat "$dir/has" 2>/dev/null)" = "$*" ] && "$dir/bin/python" -c "import $module" 2>/dev/null; then
    return
  fi
  # --clear: a folder from another Python, or one half made, is not repaired but made anew.
  python3 -m venv --clear --without-pip "$dir"
  timeout "$INSTALL_SECONDS" "$folder/venv-pip/bin/python" -m pip --python "$dir/bin/python" \
    install -q --disable-pip-version-check --no-cache-dir "$@"
  "$dir/bin/python" -c "import $module"
  echo "$*" >"$dir/has"
}

# The programs of $DEBIAN, unpacked below FOLDER/debian, with links in FOLDER/bin. Where they cannot be had there is no
# link, and the checks that need them fail.
debian_programs() {
  local dir=$folder/debian program path release
  release="$DEBIAN of $(. /etc/os-release && echo "$PRETTY_NAME")"
  if [ "$(cat "$dir/has" 2>/dev/null)" = "$release" ] && have_all; then
    return
  fi
  rm -rf "$dir"
  mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
  unpacked "$dir" || echo "setup.sh: apt-get fetches no package here: $DEBIAN are those of the PATH" >&2
  rm -rf "$dir/lists" "$dir/cache" "$dir"/*.deb
  for program in nginx caddy prometheus promtool; do
    path=$(PATH=$dir/usr/sbin:$dir/usr/bin:$PATH:/usr/sbin command -v $program) || {
      echo "setup.sh: there is no $program: the checks that need it will fail" >&2
      continue
    }
    ln -sfn "$path" "$folder/bin/$program"
  done
  if have_all; then
    echo "$release" >"$dir/has"
  fi
}

have_all() { runs nginx -v && runs caddy version && runs prometheus --version && runs promtool --version; }

unpacked() { # unpacked DIR: apt-get has its lists and its cache there, so that it writes nowhere else
  local package apt=(apt-get -qq -o Dir::State::Lists="$1/lists" -o Dir::Cache="$1/cache")
  apt+=(-o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3)
  command -v apt-get dpkg-deb >/dev/null || return
  timeout "$APT_SECONDS" "${apt[@]}" update || true # one source of several may be out of reach
  # shellcheck disable=SC2086 # a word is a package
  (cd "$1" && timeout "$APT_SECONDS" "${apt[@]}" download $DEBIAN) || return
  for package in "$1"/*.deb; do
    dpkg-deb --extract "$package" "$1" || return
    dpkg-deb --show --showformat='${Package} ${Version}\n' "$package"
  done
}

# Chromium out of its package, which runs without anything of the machine but its C library.
unpacked_chromium() { # unpacked_chromium DIR
  local dir=$1 packed=$1/node_modules/@sparticuz/chromium/bin out=$1/chromium archive
  if [ "$(cat "$out/has" 2>/dev/null)" = "$CHROMIUM" ]; then
    return
  fi
  if [ "$arch" != x64 ]; then
    echo "setup.sh: there is no Chromium for $arch: the checks that need it take one of the PATH" >&2
    return
  fi
  rm -rf "$out"
  mkdir -p "$out"
  brotli() {
    "$folder/bin/node" -e 'const { createReadStream } = require("node:fs");
      createReadStream(process.argv[1]).pipe(require("node:zlib").createBrotliDecompress()).pipe(process.stdout)' "$1"
  }
  brotli "$packed/chromium.br" >"$out/chromium"
  chmod +x "$out/chromium"
  for archive in al2023 fonts swiftshader; do
    brotli "$packed/$archive.tar.br" | tar -x -C "$out" -f -
  done
  cat >"$out/fonts.conf" <<FONTS
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>$out/fonts</dir><cachedir>$out/fonts-cache</cachedir></fontconfig>
FONTS
  cat >"$folder/bin/chromium" <<PROGRAM
#!/bin/sh
LD_LIBRARY_PATH='$out/lib' FONTCONFIG_FILE='$out/fonts.conf' exec '$out/chromium' "\$@"
PROGRAM
  chmod +x "$folder/bin/chromium"
  runs chromium --version
  echo "$CHROMIUM" >"$out/has"
}

runs() { "$folder/bin/$1" "$2" >/dev/null 2>&1; }

npm_into() { # npm_into DIR PACKAGE...
  local dir=$1
  shift
  if [ "$(cat "$dir/has" 2>/dev/null)" = "$*" ]; then
    return
  fi
  rm -f "$dir/has"
  mkdir -p "$dir"
  [ -f "$dir/package.json" ] || echo '{"private":true,"type":"module"}' >"$dir/package.json"
  # No package here needs its install script, so none is run.
  (cd "$dir" && timeout "$INSTALL_SECONDS" npm install --no-audit --no-fund --ignore-scripts --loglevel=error --save-exact "$@")
  echo "$*" >"$dir/has"
}

python_envs() {
  local packages version
  python_env venv mcp "mcp[cli]==$PY_SDK"
  for packages in "${PY_SDKS_BEFORE[@]}"; do
    version=${packages#mcp==}
    # shellcheck disable=SC2086 # a word is a package
    python_env "venv-${version%% *}" mcp $packages
  done
  # shellcheck disable=SC2086 # a word is a package
  python_env venv-langchain mcp $LANGCHAIN
  # shellcheck disable=SC2086 # a word is a package
  python_env venv-otlp opentelemetry.proto $OTLP
  python_env venv-schemathesis schemathesis "schemathesis==$SCHEMATHESIS"
}

npm_packages() {
  npm_into "$folder/node" "node-linux-$arch@$NODE"
  ln -sfn "../node/node_modules/node-linux-$arch/bin/node" "$folder/bin/node"
  "$folder/bin/node" -e 0
  npm_into "$folder/npm" "@modelcontextprotocol/conformance@$CONFORMANCE" \
    "@modelcontextprotocol/client@$TS_SDK" "@modelcontextprotocol/server@$TS_SDK" \
    "@modelcontextprotocol/server-everything@$SERVER_EVERYTHING"
  npm_into "$folder/identity" "oidc-provider@$OIDC_PROVIDER" "mcp-remote@$MCP_REMOTE"
  npm_into "$folder/inspector" "@modelcontextprotocol/inspector@$INSPECTOR"
  npm_into "$folder/browser" "playwright-core@$PLAYWRIGHT" "axe-core@$AXE" "@sparticuz/chromium@$CHROMIUM"
  unpacked_chromium "$folder/browser"
}

mkdir -p "$folder/bin"
# The pip of all environments, which is faster than one in each.
"$folder/venv-pip/bin/python" -m pip --version >/dev/null 2>&1 || python3 -m venv --clear "$folder/venv-pip"
# At once, as most of their time is waiting for the network. LiteLLM's environment is as large as all others.
jobs=()
trap 'kill "${jobs[@]}" 2>/dev/null || true' EXIT
for job in python_envs npm_packages debian_programs; do
  (exec 9>&- && "$job") &
  jobs+=($!)
done
(exec 9>&- && python_env venv-litellm mcp "litellm[proxy]==$LITELLM") &
jobs+=($!)
for job in "${jobs[@]}"; do wait "$job"; done
