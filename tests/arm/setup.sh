#!/usr/bin/env bash
# Makes a folder in which the aarch64 build of LiteRT runs on another processor, under
# QEMU's user-mode emulation:
#
#     PYTHON=.venv/bin/python tests/arm/setup.sh FOLDER
#
# with the version of LiteRT that PYTHON has. Needs Debian's apt, pip and a network. Packages
# and wheels come from wherever this machine's apt and pip are told to look. A second call
# does nothing.
set -euo pipefail

target=$(realpath -m "${1:?usage: setup.sh FOLDER}")
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
marker=$target/.complete

main() {
    # Outside the folder, so asked each time: the folder may come from another machine.
    command -v qemu-aarch64 >/dev/null || install_qemu
    litert=$("$python" -c 'from importlib.metadata import version; print(version("ai-edge-litert"))')
    wanted="litert $litert, $(cat "$0" "$here/count.c" | cksum)"
    [[ -e $marker && $(<"$marker") == "$wanted" ]] && return
    [[ -e $marker || ! -e $target ]] || fail "$target exists and was not made by setup.sh"
    mkdir -p "$(dirname "$target")"
    # Made beside its place and moved at the end, so that it is whole or not there.
    work=$(mktemp -d "$target.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    python_for_arm
    processor_for_arm
    wheels_for_arm
    instruction_counter
    echo "$wanted" >"$work/.complete"
    chmod 755 "$work"
    rm -rf "$target"
    mv -T "$work" "$target"
}

install_qemu() {
    local root=()
    ((EUID == 0)) || root=(sudo -n)
    have apt-get "to install qemu-user"
    # The package that is not "-static": a static program cannot load a plugin.
    try "cannot install Debian's package qemu-user" "${root[@]}" sh -c \
        'apt-cache show qemu-user >/dev/null 2>&1 || apt-get update -q
         DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends qemu-user'
}

# Python and the C++ library for aarch64: an apt of its own, with no package installed,
# finds, downloads and verifies what they need; unpacked, they run without being set up.
python_for_arm() {
    have apt-get "to download Debian's arm64 packages"
    have dpkg-deb "to unpack Debian's arm64 packages"
    local apt=$work/apt
    mkdir -p "$apt"/{lists,cache/archives}/partial
    : >"$apt/status"
    local options=(-q -y -o APT::Architecture=arm64 -o APT::Architectures=arm64
        -o APT::Sandbox::User= -o Dir::State="$apt" -o Dir::State::lists="$apt/lists"
        -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
        -o Dir::Etc::PreferencesParts=/dev/null -o Acquire::Retries=2)
    try "cannot read Debian's arm64 package lists" apt-get "${options[@]}" update
    # It succeeds without a network too, with nothing but warnings.
    compgen -G "$apt/lists/*_Packages*" >/dev/null ||
        fail "cannot read Debian's arm64 package lists: no network, or no source that has them"
    try "cannot download Debian's python3 for arm64" \
        apt-get "${options[@]}" install --download-only --no-install-recommends \
        python3-minimal libpython3-stdlib libstdc++6
    local deb
    for deb in "$apt"/cache/archives/*.deb; do
        try "cannot unpack $(basename "$deb")" dpkg-deb -x "$deb" "$work"
    done
    rm -rf "$apt"
}

# The runtime looks there for what the processor can do, and would find this machine's.
processor_for_arm() {
    local core cpu=$work/sys/devices/system/cpu
    mkdir -p "$work/proc" "$cpu"
    for core in 0 1; do
        printf '%s\n' "processor : $core" "BogoMIPS : 50.00" \
            "Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp" \
            "CPU implementer : 0x41" "CPU architecture: 8" "CPU variant : 0x3" \
            "CPU part : 0xd0b" "CPU revision : 1" ""
    done >"$work/proc/cpuinfo"
    echo 1 >"$cpu/kernel_max"
    echo 0-1 | tee "$cpu/possible" "$cpu/present" >"$cpu/online"
}

wheels_for_arm() {
    local platform platforms=() version
    for platform in manylinux2014 manylinux_2_{17..34}; do
        platforms+=(--platform "${platform}_aarch64")
    done
    version=$(readlink "$work/usr/bin/python3")
    try "cannot get pip's ai-edge-litert $litert for aarch64" \
        "$python" -m pip --disable-pip-version-check install -q --target "$work/wheels" \
        --no-compile --no-warn-conflicts --only-binary=:all: --implementation cp \
        --python-version "${version#python}" "${platforms[@]}" "ai-edge-litert==$litert"
}

# Without it files are checked and timed all the same.
instruction_counter() {
    if ! command -v cc >/dev/null; then
        echo "setup.sh: no C compiler (cc), so instructions are not counted" >&2
        return
    fi
    try "cannot compile count.c" cc -O2 -shared -fPIC -o "$work/count.so" "$here/count.c"
}

have() { command -v "$1" >/dev/null || fail "$1 is missing, $2"; }

# Runs a command; when it fails, its first line that says "error" is the reason, or its last.
try() {
    local what=$1 output reason
    shift
    output=$("$@" 2>&1 </dev/null) && return
    reason=$(grep -m 1 -E '^(E:|ERROR:)' <<<"$output" || tail -n 1 <<<"$output")
    fail "$what: $reason"
}

fail() {
    echo "setup.sh: $*" >&2
    exit 1
}

main
