#!/bin/sh
# Bundle the page into ../static, with the hash of the sources it was made of. Needs node; `make web` calls it.
set -eu
export LC_ALL=C  # the order of files
cd "$(dirname "$0")"
[ -d node_modules ] || npm install --silent --no-package-lock --no-audit --no-fund
node_modules/.bin/tsc --noEmit
node_modules/.bin/esbuild main.ts --bundle --minify --format=esm --target=es2022 --log-level=warning --outfile=../static/app.js
node_modules/.bin/esbuild studio.css --minify --log-level=warning --outfile=../static/studio.css
cp index.html icon.svg ../static/
cat ./*.ts studio.css index.html icon.svg package.json | sha256sum | cut -c1-64 >../static/sources.sha256
