#!/bin/sh
# Fetches the sources of the Debian packages named, into .tools/sources, from where this system's own packages come from.
# Lists and settings of the system stay as they are. Does nothing for what is there; where it fails, it says so and
# succeeds: the tests that build them then skip, aloud.
set -eu

sources=$(cd "$(dirname "$0")/../.." && pwd)/.tools/sources
mkdir -p "$sources"
for package in "$@"; do
    set -- "$sources/${package}"_*.orig.tar.*
    [ -e "$1" ] || missing="${missing:-} $package"
done
[ -n "${missing:-}" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "fetch_sources: no apt-get to fetch the sources of$missing with; their tests will be skipped" >&2
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Component: main' |
    while read -r origin uri release component; do
        case $origin/$release in
            */*-*) continue ;; # updates of the release, which are elsewhere
            Debian/* | Ubuntu/*) ;;
            *) continue ;;
        esac
        keys=/usr/share/keyrings/$(echo "$origin" | tr A-Z a-z)-archive-keyring.gpg
        [ -e "$keys" ] && trust="[signed-by=$keys]" || trust=
        echo "deb-src $trust $uri $release $component"
    done | sort -u >"$work/list"

own_apt() {
    apt-get -qq -o Dir::Etc::SourceList="$work/list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$work/lists" \
        -o Dir::Cache="$work/cache" -o APT::Sandbox::User= "$@"
}
cd "$sources"
echo "fetching the sources of$missing"
# shellcheck disable=SC2086
if ! { own_apt update && own_apt source --download-only $missing; } >"$work/log" 2>&1; then
    echo "fetch_sources: the sources of$missing could not be fetched; their tests will be skipped" >&2
    tail -n 3 "$work/log" >&2
fi
