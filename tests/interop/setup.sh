#!/usr/bin/env bash
# Installs what the interoperability run needs below one folder, and nothing outside it:
#
#   ./setup.sh FOLDER
#
# Wants python3 (>= 3.10) with venv, and any npm: it only installs, Node itself is among the packages.
# Does nothing when the folder already has these versions.
set -euo pipefail

NODE=24.21.0                  # the conformance suite needs node >= 22
CONFORMANCE=0.2.0-alpha.12    # asked for by version: what is tagged 'latest' is older and has fewer revisions
TS_SDK=2.4.0                  # @modelcontextprotocol/client and @modelcontextprotocol/server
SERVER_EVERYTHING=2026.8.31
PY_SDK=2.3.0                  # mcp
# Older Python SDKs, each in an environment of its own beside that one: servers of all of them are in use. Their
# requirements have no upper bounds and break with what came later, so what they need is pinned as it was in their time.
PY_SDKS_BEFORE=(
  "mcp==1.9.4 pydantic==2.11.7 starlette==0.46.2 sse-starlette==2.3.6 uvicorn==0.34.3 anyio==4.9.0"
  "mcp==1.20.0 pydantic==2.12.3 starlette==0.49.1 sse-starlette==3.0.2 uvicorn==0.38.0 anyio==4.11.0"
  "mcp==1.30.0 pydantic==2.14.4 starlette==1.10.0 sse-starlette==3.7.0 uvicorn==0.54.0 anyio==4.16.0"
)
# What the README shows to users of LangChain; on the newest SDK that it takes.
LANGCHAIN="mcp==1.30.0 pydantic==2.14.4 starlette==1.10.0 sse-starlette==3.7.0 uvicorn==0.54.0 anyio==4.16.0 \
langchain-mcp-adapters==0.3.2 langchain-core==1.8.3"
LITELLM=1.108.7               # its proxy: what the REST dialect is held against
INSTALL_SECONDS=240           # of one environment, which takes about ten
LITELLM_INSTALL_SECONDS=900   # of LiteLLM's, which has two hundred packages and takes a minute or two

folder=${1:?usage: setup.sh FOLDER}
case $(uname -m) in
  x86_64) arch=x64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) echo "setup.sh: there is no node package for $(uname -m)" >&2; exit 1 ;;
esac
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

# Two runs may share the folder; the second waits until the first has installed.
exec 9>"$folder/lock"
flock 9

# An environment of Python packages: made anew unless FOLDER/NAME has exactly these.
python_env() { # python_env NAME PACKAGE...; it may take $seconds
  local dir=$folder/$1
  shift
  if [ "$(cat "$dir/has" 2>/dev/null)" = "$*" ] && "$dir/bin/python" -c 'import mcp' 2>/dev/null; then
    return
  fi
  # --clear: a folder from another Python, or one half made, is not repaired but made anew.
  python3 -m venv --clear "$dir"
  timeout "$seconds" "$dir/bin/python" -m pip install -q --disable-pip-version-check --no-cache-dir "$@"
  "$dir/bin/python" -c 'import mcp'
  echo "$*" >"$dir/has"
}
seconds=$INSTALL_SECONDS
python_env venv "mcp[cli]==$PY_SDK"
for packages in "${PY_SDKS_BEFORE[@]}"; do
  version=${packages#mcp==}
  # shellcheck disable=SC2086 # a word is a package
  python_env "venv-${version%% *}" $packages
done
# shellcheck disable=SC2086 # a word is a package
python_env venv-langchain $LANGCHAIN
seconds=$LITELLM_INSTALL_SECONDS
python_env venv-litellm "litellm[proxy]==$LITELLM"

wanted="node $NODE $arch, conformance $CONFORMANCE, client and server $TS_SDK, everything $SERVER_EVERYTHING, mcp $PY_SDK"
if [ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ] && "$folder/bin/node" -e 0; then
  exit 0
fi
rm -f "$folder/installed"

npm_into() { # npm_into DIR PACKAGE...
  local dir=$1
  shift
  mkdir -p "$dir"
  [ -f "$dir/package.json" ] || echo '{"private":true,"type":"module"}' >"$dir/package.json"
  # No package here needs its install script, so none is run.
  (cd "$dir" && npm install --no-audit --no-fund --ignore-scripts --loglevel=error --save-exact "$@")
}
npm_into "$folder/node" "node-linux-$arch@$NODE"
mkdir -p "$folder/bin"
ln -sfn "../node/node_modules/node-linux-$arch/bin/node" "$folder/bin/node"
npm_into "$folder/npm" "@modelcontextprotocol/conformance@$CONFORMANCE" \
  "@modelcontextprotocol/client@$TS_SDK" "@modelcontextprotocol/server@$TS_SDK" \
  "@modelcontextprotocol/server-everything@$SERVER_EVERYTHING"

echo "$wanted" >"$folder/installed"
