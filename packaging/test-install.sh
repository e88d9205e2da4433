#!/usr/bin/env bash
# Installs a package in clean Debian systems that boot in containers without a
# network, and looks at what comes of it: a service that runs, fetches its
# models, and transcribes; an upgrade, a removal, and a purge that leaves
# nothing. What is done inside is packaging/test-inside.sh.
#
# usage: packaging/test-install.sh PACKAGE [SUITE...]     (root; bookworm trixie)
set -euo pipefail
cd "$(dirname "$0")/.."
package=$(realpath "$1"); shift
suites=("$@"); [ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)
models=${FRIEND_LITE_TEST_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/friend-lite/models}
arch=$(dpkg --print-architecture)
work=$PWD/target/deb-test
. packaging/functions.sh

for program in debootstrap systemd-nspawn; do
    command -v $program >/dev/null || { echo "install $program first (debootstrap, systemd-container)" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 1; }
mkdir -p "$work"

next_package "$package" "$work/next.deb"

for suite in "${suites[@]}"; do
    clean_system "$suite" "$arch"
    root=$work/$suite
    rm -rf "$root" && cp -a "$work/$suite-$arch-clean" "$root"
    mkdir "$root/test"
    cp "$package" "$root/test/this.deb"
    cp "$work/next.deb" "$root/test/next.deb"
    cp packaging/functions.sh "$root/test/functions"
    cp packaging/test-inside.sh "$root/test/"
    cat >"$root/etc/systemd/system/test.service" <<'UNIT'
[Unit]
Description=The test of the package
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /test/test-inside.sh
StandardOutput=file:/test/out
StandardError=file:/test/out
ExecStopPost=/bin/systemctl --no-block --force poweroff
[Install]
WantedBy=default.target
UNIT
    ln -s /etc/systemd/system/test.service "$root/etc/systemd/system/multi-user.target.wants/test.service"
    echo "== $suite"
    timeout "${LIMIT:-900}" systemd-nspawn -q -D "$root" --register=no --keep-unit --private-network \
        --bind-ro="$models:/usr/share/friend-lite/models" -b </dev/null >"$work/$suite-console.log" 2>&1 || true
    cat "$root/test/out"
    grep -q '^all is well$' "$root/test/out" || { echo "FAILED on $suite" >&2; exit 1; }
    rm -rf "$root"
done
