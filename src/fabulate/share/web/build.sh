#!/bin/sh
# Bundle the page into ../static, with the hash of the sources it was made of, and the runtime of onnxruntime-web that it
# computes by, compressed, with its hash. Needs node, xz and gzip; `make web` calls it.
set -eu
export LC_ALL=C  # the order of files
cd "$(dirname "$0")"
[ -d node_modules ] || npm install --silent --no-package-lock --no-audit --no-fund
node_modules/.bin/tsc --noEmit
mkdir -p ../static
node_modules/.bin/esbuild main.ts --bundle --minify --format=esm --target=es2022 --log-level=warning --outfile=../static/page.js
node_modules/.bin/esbuild page.css --minify --log-level=warning --outfile=../static/page.css
cp index.html icon.svg ../static/
runtime=node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm
hash=$(sha256sum "$runtime" | cut -c1-64)
[ "$(cut -c1-64 ../static/runtime.sha256 2>/dev/null)" = "$hash" ] || {
  xz --keep --stdout -9 --extreme "$runtime" >../static/runtime.wasm.xz
  echo "$hash  onnxruntime-web $(node -p 'require("./node_modules/onnxruntime-web/package.json").version')" >../static/runtime.sha256
}
cat ./*.ts ../../studio/web/dom.ts page.css index.html icon.svg package.json | sha256sum | cut -c1-64 >../static/sources.sha256
