# What the tests of the package share; sourced by them, outside and inside.

step() { echo "-- $*"; }

# The same package once more, as if it were the next one.
next_package() {
    local package=$1 next=$2 tree
    tree=$(mktemp -d) && chmod 755 "$tree"
    dpkg-deb -R "$package" "$tree"
    sed -i 's/^\(Version: .*\)$/\1+next/' "$tree/DEBIAN/control"
    dpkg-deb --root-owner-group -b "$tree" "$next" >/dev/null
    rm -rf "$tree"
}

# A clean system in $work/SUITE-ARCH-clean, made once.
clean_system() {
    local suite=$1 arch=$2
    local clean=$work/$suite-$arch-clean
    [ ! -e "$clean.complete" ] || return 0
    echo "== making a clean $suite for $arch"
    rm -rf "$clean"
    # Without a mirror that is named, debootstrap takes its own.
    debootstrap --arch="$arch" --variant=minbase \
        --include=systemd,systemd-sysv,dbus,ca-certificates,libgomp1,libstdc++6,curl,iproute2 \
        "$suite" "$clean" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$clean.log" 2>&1
    touch "$clean.complete"
}

# What is on the disk, but for what installing anything leaves.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /test -o -path /var/lib/dpkg \
        -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/systemd -o -path /dev \) -prune -o -print | sort
}

people() { cut -d: -f1 /etc/passwd /etc/group | sort; }

# Compares what was before the installation with what is after the purge.
nothing_left() {
    # The backups that the tools for users keep of their files differ.
    diff <(grep -vE '^/etc/(passwd|group|shadow|gshadow)-$' /test/before) <(grep -vE '^/etc/(passwd|group|shadow|gshadow)-$' /test/after)
    diff /test/people-before /test/people-after
}

until_so() {
    local what=$1 seconds=$2; shift 2
    for _ in $(seq "$((seconds * 2))"); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.5; done
    echo "not in $seconds s: $what"; return 1
}

install() { apt-get install -y -qq -o Dpkg::Options::=--force-confold "$1" 2>&1 | grep -v '^\(Selecting\|(Reading\|Preparing\)' || true; }

conversations() {
    local token
    token=$(curl -sf -d username=admin@example.com -d "password=$password" http://127.0.0.1:8000/auth/jwt/login | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
    curl -sf -H "Authorization: Bearer $token" 'http://127.0.0.1:8000/api/conversations?view=list'
}
