#!/bin/sh
# Packages of Debian 12. deps.sh build: what building and the demo need; deps.sh: what tests, benches and
# static checks need too. Nothing missing: silent, exit 0. Missing, and root on Debian: installs them.
# Otherwise: prints the missing ones, exit 1.
set -u

packages='
    gcc make pkg-config git libc6-dev python3
    libsodium-dev libsecp256k1-dev libevent-dev liblmdb-dev libmsgpack-dev libmicrohttpd-dev
    libcurl4-openssl-dev libjansson-dev libhiredis-dev libsystemd-dev libyaml-dev
'
[ "${1:-}" = build ] || packages="$packages
    libcmocka-dev python3-pytest curl redis-server wrk gnuplot-nox openssh-server openssh-client
    chromium fonts-dejavu-core zsh fish libopenmpi-dev openmpi-bin
    clang libclang-rt-14-dev clang-format clang-tidy cppcheck mandoc
"

missing=''
# shellcheck disable=SC2086  # a list of words on purpose
have=" $(dpkg-query -W -f '${Package} ${db:Status-Status} ' $packages 2>/dev/null)"
for package in $packages; do
    case $have in
    *" $package installed "*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" -eq 0 ] && [ -f /etc/debian_version ] && command -v apt-get >/dev/null; then
    echo "installing:$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # a list of words on purpose
    apt-get update -q >&2 && apt-get install -q -y --no-install-recommends $missing >&2 && exit 0
    echo "could not install:$missing" >&2
    exit 1
fi
echo "these packages of Debian 12 are missing (apt-get install):$missing"
exit 1
