#!/bin/sh
# Prints the Python for .venv: that of .venv if there is one that works, else the newest suitable one
# on PATH, each tried by running it. $1: the only one to consider, from `make PYTHON=...`.
minors="14 13 12 11"
suitable='import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 14) and sys.maxsize > 2**32))'
candidates=${1:-".venv/bin/python $(for minor in $minors; do echo "python3.$minor"; done) python3 python"}
for candidate in $candidates; do
    "$candidate" -c "$suitable" 2>/dev/null || continue
    needed='import ensurepip, venv'
    [ "$candidate" = .venv/bin/python ] && needed='import pip'
    if "$candidate" -c "$needed" 2>/dev/null; then
        echo "$candidate"
        exit
    fi
    without="$without $candidate"
done
if [ -n "$without" ]; then
    echo "set-up:$without cannot make an environment (no venv with pip): install that part" \
        "(Debian, Ubuntu: apt install python3-venv) and run make again." >&2
elif [ -n "$1" ]; then
    found=$("$1" -c 'import platform; print(platform.python_version(), platform.architecture()[0])' 2>/dev/null)
    echo "set-up: PYTHON=$1 is ${found:-no Python that runs}, expected a 64-bit Python 3.11 to 3.14;" \
        "leave PYTHON out to take the newest on PATH." >&2
else
    echo "set-up: no 64-bit Python 3.11 to 3.14 that runs, looked for" $candidates \
        "on PATH; install one, or name it: make PYTHON=/path/to/python3.12 serve" >&2
fi
exit 1
