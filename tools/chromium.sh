#!/usr/bin/env bash
# Prints the path of a Chromium for the browser tests, installing Debian's if that is possible without asking.
# Prints nothing, and still succeeds, if there is none: the tests then skip and say why.
set -uo pipefail

find_chromium() {
    local name path
    for name in "${CHROMIUM:-}" chromium google-chrome google-chrome-stable chromium-browser; do
        path=$(command -v "$name" 2>/dev/null) || continue
        # Ubuntu's package of that name is a wrapper that asks for a snap.
        if "$path" --version >/dev/null 2>&1; then
            printf '%s\n' "$path"
            return 0
        fi
    done
    return 1
}

find_chromium && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    printf '==> Installing chromium with apt-get for the browser tests\n' >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
        >/dev/null 2>&1
    find_chromium && exit 0
fi
printf '==> No Chromium here: the browser tests will be skipped (on Debian: apt-get install chromium)\n' >&2
exit 0
