#!/bin/sh
# Builds ovyolo._nms with AddressSanitizer and UndefinedBehaviorSanitizer into a temporary folder and runs the kernel
# tests against it. Usage: tests/sanitize.sh [pytest arguments]; PYTHON names the interpreter, CC the compiler (gcc).
# Exit status: that of the tests; 0 with a line that says "skipped" where the compiler lacks the runtimes.
set -eu

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python3}
compiler=${CC:-gcc}

if ! command -v "$compiler" >/dev/null 2>&1; then
    echo "sanitize: skipped: no compiler '$compiler' here"
    exit 0
fi
asan=$("$compiler" -print-file-name=libasan.so)
ubsan=$("$compiler" -print-file-name=libubsan.so)
case $asan$ubsan in
    /*/*) ;;
    *) asan= ;;
esac
if [ -z "$asan" ] || [ ! -e "$asan" ] || [ ! -e "$ubsan" ]; then
    echo "sanitize: skipped: '$compiler' has no libasan and libubsan"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
echo "sanitize: copying sources and building with $compiler in a temporary folder"
mkdir "$work/tests"
cp -R "$root/ovyolo" "$root/setup.py" "$root/pyproject.toml" "$work/"
for name in README.md LICENSE; do
    if [ -e "$root/$name" ]; then cp "$root/$name" "$work/"; fi
done
cp -R "$root/tests/reference" "$root"/tests/conftest.py "$root"/tests/test_nms_*.py "$work/tests/"
rm -f "$work"/ovyolo/_nms.c "$work"/ovyolo/_nms*.so
cd "$work"
if ! CC=$compiler OVYOLO_BUILD=sanitize "$python" setup.py -q build_ext --inplace >build.log 2>&1; then
    cat build.log
    echo "sanitize: the build failed"
    exit 1
fi
if ! grep -q __asan_init "$work"/ovyolo/_nms*.so || ! grep -q __ubsan_handle "$work"/ovyolo/_nms*.so; then
    echo "sanitize: the build holds no sanitizer"
    exit 1
fi

data=$root/../shared/data
if [ -z "${OVYOLO_SHARED_DATA:-}" ] && [ -d "$data" ]; then
    OVYOLO_SHARED_DATA=$data
    export OVYOLO_SHARED_DATA
fi
echo "sanitize: running the kernel tests under ASan and UBSan"
# The interpreter never frees some memory on purpose, so leaks are not looked for. --capture=sys lets reports through.
status=0
ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:abort_on_error=0 \
UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
LD_PRELOAD="$asan $ubsan" \
    "$python" -m pytest -q -p no:cacheprovider --capture=sys tests/test_nms_*.py "$@" || status=$?
if [ "$status" -ne 0 ]; then
    echo "sanitize: FAILED (status $status)"
    exit "$status"
fi
echo "sanitize: passed"
