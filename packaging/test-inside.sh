#!/usr/bin/env bash
# The test of the package, inside a clean system that has just booted; see
# packaging/test-install.sh.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive HOME=/root
state=/var/lib/friend-lite
trap 'echo "FAILED in line $LINENO"; journalctl -u friend-lite --no-pager | tail -40' ERR

. /test/functions

files >/test/before
people >/test/people-before

step "install"
install /test/this.deb
dpkg-query -W friend-lite
until_so "the service is active" 60 systemctl is-active friend-lite
systemctl show friend-lite -p User -p NRestarts -p Result

step "the unit"
systemd-analyze verify --man=no friend-lite.service
systemd-analyze security friend-lite --no-pager | tail -1
journalctl -u friend-lite --no-pager -o cat | grep -E 'runs in|listening on|password' | sed 's/\(password: \).*/\1(hidden)/'

step "first run"
friend-lite first-run | sed 's/\(password: \).*/\1(hidden)/'
password=$(friend-lite first-run | sed -n 's/^password: *//p')

step "speech recorded before the models are here is transcribed after"
until_so "the models are here" 300 sh -c '! friend-lite status --json | grep -qE "\"stage\": \"(missing|fetching|failed)\""'
ADMIN_PASSWORD=$password friend-lite stream /usr/share/doc/friend-lite/examples/jfk.wav --speed 0 >/test/said 2>&1 || { cat /test/said; false; }
grep -i 'your country' /test/said
friend-lite status

step "what root does belongs to the service"
printf 'a password\n' | friend-lite user add guest@example.com --password-stdin
[ -z "$(find $state ! -user friend-lite)" ] || { find $state ! -user friend-lite; false; }

step "doctor"
friend-lite doctor

step "upgrade"
echo '# a line of the owner' >>/etc/friend-lite/config.toml
before=$(systemctl show friend-lite -p MainPID --value)
install /test/next.deb
dpkg-query -W friend-lite
until_so "the service is active again" 60 systemctl is-active friend-lite
[ "$before" != "$(systemctl show friend-lite -p MainPID --value)" ]
grep -q 'a line of the owner' /etc/friend-lite/config.toml
until_so "it answers" 60 curl -sf http://127.0.0.1:8000/readiness
conversations | grep -qi 'your country'
friend-lite first-run | grep "^password: *$password$" >/dev/null

step "a backup"
[ "$(systemctl is-enabled friend-lite-backup.timer || true)" = disabled ]
systemctl enable -q --now friend-lite-backup.timer
systemctl start friend-lite-backup.service
[ -n "$(ls -A $state-backup)" ]
friend-lite backup
[ -z "$(find $state-backup ! -user friend-lite)" ] || { find $state-backup ! -user friend-lite; false; }
# A purge leaves backups, so that this one is taken away by hand.
find $state-backup -mindepth 1 -delete

step "a broken configuration is told, and not tried again and again"
cp /etc/friend-lite/config.toml /test/config
echo 'nonsense = 1' >>/etc/friend-lite/config.toml
systemctl restart friend-lite || true
sleep 3
journalctl -u friend-lite --no-pager -o cat | grep -m1 nonsense
systemctl is-failed friend-lite
friend-lite doctor --quick | head -3 || true
cp /test/config /etc/friend-lite/config.toml
systemctl reset-failed friend-lite
systemctl start friend-lite
until_so "the service is active once more" 60 systemctl is-active friend-lite

step "remove"
apt-get remove -y -qq friend-lite >/dev/null 2>&1
[ "$(systemctl is-active friend-lite || true)" = inactive ]
[ ! -e /usr/bin/friend-lite ] && [ ! -e /usr/lib/friend-lite ]
[ -e $state/friend-lite.db ] && [ -e /etc/friend-lite/config.toml ]

step "purge"
apt-get purge -y -qq friend-lite >/dev/null 2>&1
files >/test/after
people >/test/people-after
nothing_left
[ -z "$(journalctl -u friend-lite --no-pager | grep -E 'SIGSYS|status=31|illegal instruction' || true)" ]
echo "all is well"
