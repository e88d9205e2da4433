#!/usr/bin/env bash
# Installs a package for another architecture in a clean Debian system under
# qemu's user emulation, and looks at what comes of it. No systemd runs there,
# so the service's own command is started as its unit starts it; the sandbox is
# the matter of packaging/test-install.sh. Emulated engines are some hundred
# times slower than real ones: a second of speech, and no language model.
#
# usage: packaging/test-emulated.sh PACKAGE [SUITE]     (root; bookworm)
set -euo pipefail

if [ "${1:-}" = --inside ]; then
    export DEBIAN_FRONTEND=noninteractive HOME=/root
    state=/var/lib/friend-lite
    trap 'echo "FAILED in line $LINENO"; tail -40 /test/log || true' ERR
    . /test/functions

    files >/test/before
    people >/test/people-before

    step "install"
    install /test/this.deb
    dpkg-query -W -f '${Package} ${Version} ${Architecture}\n' friend-lite
    for build in /usr/lib/friend-lite/*/; do echo "engines: $build"; done

    slow=(FRIEND_LITE__STT__MODEL=whisper-tiny FRIEND_LITE__STT__LANGUAGE=en FRIEND_LITE__STT__DEADLINE=30m
        FRIEND_LITE__ENGINES__START_TIMEOUT=10m)

    # What the unit says, without systemd.
    unit=/usr/lib/systemd/system/friend-lite.service
    [ -e $unit ] || unit=/lib/systemd/system/friend-lite.service
    read -r -a command <<<"$(sed -n 's/^ExecStart=//p' $unit)"
    user=$(sed -n 's/^User=//p' $unit)
    mkdir -p $state && chown "$user:" $state && chmod 700 $state
    # In the place of the shell that it is started from, so that it gets its signals.
    as_service() {
        exec setpriv --reuid "$user" --regid "$user" --clear-groups env -i PATH=/usr/bin:/bin \
            STATE_DIRECTORY=$state CONFIGURATION_DIRECTORY=/etc/friend-lite \
            FRIEND_LITE__MEMORY__ENABLED=false "${slow[@]}" "$@"
    }
    start() { as_service "${command[@]}" >>/test/log 2>&1 & pid=$!; until_so "it answers" 120 curl -sf http://127.0.0.1:8000/health; }
    stop() { kill "$pid" && wait "$pid"; }

    step "the service's own command, as its unit starts it: ${command[*]}"
    start
    grep -h -E 'runs in|listening on' /test/log | sed 's/^[^ ]* *//'
    password=$(friend-lite first-run | sed -n 's/^password: *//p')
    step "speech is transcribed"
    ADMIN_PASSWORD=$password friend-lite stream /test/short.wav --speed 0 --wait 3600 >/test/said 2>&1 || { cat /test/said; false; }
    cat /test/said
    grep -qi 'fellow' /test/said

    step "upgrade"
    echo '# a line of the owner' >>/etc/friend-lite/config.toml
    stop
    install /test/next.deb
    dpkg-query -W friend-lite
    grep -q 'a line of the owner' /etc/friend-lite/config.toml
    start
    conversations | grep -qi 'fellow'
    stop

    for cpu in cortex-a72 cortex-a76; do
        step "the engine that a $cpu gets"
        # An illegal instruction would end the engine, and with it the transcription.
        env QEMU_CPU=$cpu FRIEND_LITE__MODELS__DIR=/usr/share/friend-lite/models "${slow[@]}" RUST_LOG=info \
            friend-lite transcribe /test/short.wav >/test/heard 2>/test/heard-log || { cat /test/heard-log; false; }
        grep -h 'runs in' /test/heard-log | sed 's/^[^ ]* *//'
        cat /test/heard
        grep -qi 'fellow' /test/heard
        case $cpu in
            cortex-a72) grep -q '/armv8-a/friend-lite-whisper' /test/heard-log ;;
            cortex-a76) grep -q '/armv8.2-a+dotprod+fp16/friend-lite-whisper' /test/heard-log ;;
        esac
    done

    step "remove"
    apt-get remove -y -qq friend-lite >/dev/null 2>&1
    [ ! -e /usr/bin/friend-lite ] && [ ! -e /usr/lib/friend-lite ]
    [ -e $state/friend-lite.db ] && [ -e /etc/friend-lite/config.toml ]

    step "purge"
    apt-get purge -y -qq friend-lite >/dev/null 2>&1
    files >/test/after
    people >/test/people-after
    nothing_left
    echo "all is well"
    exit 0
fi

cd "$(dirname "$0")/.."
package=$(realpath "$1")
suite=${2:-bookworm}
models=${FRIEND_LITE_TEST_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/friend-lite/models}
arch=$(dpkg-deb -f "$package" Architecture)
work=$PWD/target/deb-test
. packaging/functions.sh

for program in debootstrap python3; do
    command -v $program >/dev/null || { echo "install $program first" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 1; }
# The kernel starts programs of the other architecture by itself then.
[ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
mkdir -p "$work"
next_package "$package" "$work/next-$arch.deb"
clean_system "$suite" "$arch"
root=$work/$suite-$arch
rm -rf "$root" && cp -a "$work/$suite-$arch-clean" "$root"
mkdir -p "$root/test" "$root/usr/share/friend-lite/models"
cp "$package" "$root/test/this.deb"
cp "$work/next-$arch.deb" "$root/test/next.deb"
cp packaging/functions.sh "$root/test/functions"
cp "$0" "$root/test/test.sh"
# "And so my fellow Americans"
python3 - tests/speech/jfk.wav "$root/test/short.wav" <<'PYTHON'
import sys, wave
with wave.open(sys.argv[1]) as source, wave.open(sys.argv[2], "wb") as short:
    short.setparams(source.getparams())
    short.writeframes(source.readframes(int(2.6 * source.getframerate())))
PYTHON
mount --bind "$models" "$root/usr/share/friend-lite/models"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
trap 'umount "$root/usr/share/friend-lite/models" "$root/proc" "$root/dev"' EXIT
echo "== $suite, $arch"
timeout "${LIMIT:-3600}" unshare --net --pid --fork --kill-child chroot "$root" /bin/bash -c 'ip link set lo up 2>/dev/null; exec bash /test/test.sh --inside'
