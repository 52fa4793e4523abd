#!/bin/sh
# Fetches from Debian the peers that `python -m benches` measures where they are there, and the programs that it runs.
# Idempotent. What cannot be had is said; the table then says NOT MEASURED. JuiceFS is in no distribution: put it on the
# path yourself.
set -u

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
