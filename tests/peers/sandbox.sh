#!/bin/bash
# Makes the file system that Lambda's runtime emulator expects, visible to it alone, and becomes the emulator.
# Runs as root in mount and PID namespaces of its own (emulator.py makes them), so nothing is left on the host.
#
#   sandbox.sh STAGE PYTHON [argument of the emulator]...
#
# STAGE holds what to see: opt/ (extensions), var/ (the function under task/), tmp/, and the program `rie`.
# PYTHON is the prefix of a Python installation. It appears at /var/lang, where Lambda keeps its runtimes: the emulator
# runs functions and extensions as user 993, which may not walk into a home directory.
set -euo pipefail
stage=$1 python=$2
shift 2

# Everything is first bound below /mnt: the sources may themselves lie in a place that is about to be covered.
mount --bind "$python" "$stage/var/lang"
mount --rbind "$stage" /mnt
for place in opt var tmp; do
    mount --rbind "/mnt/$place" "/$place"
done

cd /var/task
exec /mnt/rie "$@"
