#!/bin/sh
# Builds the S3 server that the tests run against: MinIO at a pinned version, into .tools/ at the root of the repository.
# Idempotent: does nothing when that version is there. Without Go it says so and succeeds; the tests then skip, aloud.
set -eu

module=github.com/minio/minio
version=v0.0.0-20260212201848-7aac2a2c5b7c

tools=$(cd "$(dirname "$0")/.." && pwd)/.tools
binary=$tools/minio

if ! command -v go >/dev/null 2>&1; then
    if [ -x "$binary" ]; then
        exit 0
    fi
    echo "build_minio: Go is not installed, so there is no MinIO and its tests will be skipped" \
        "(https://go.dev/dl; 1.21 or later)" >&2
    exit 0
fi

if [ -x "$binary" ] && go version -m "$binary" 2>/dev/null | grep -q "$module[[:space:]]*$version"; then
    exit 0
fi

echo "build_minio: building $module@$version into $tools (some minutes, about 2 GB of downloads and cache)" >&2
mkdir -p "$tools"
GOBIN=$tools go install "$module@$version"
