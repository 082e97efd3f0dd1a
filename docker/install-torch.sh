#!/bin/sh
# Installs torch for a device: install-torch.sh cpu|cuda [INDEX]
set -eu
device=$1
index=${2:-}
case $device in
    cpu | cuda) ;;
    *)
        echo "DEVICE is cpu or cuda, not $device" >&2
        exit 1
        ;;
esac
# The index need hold torch alone: what torch itself needs comes from where the rest comes from.
if [ -n "$index" ]; then
    pip install --constraint constraints.txt --no-deps --index-url "$index" torch
fi
pip install --constraint constraints.txt torch
found=$(python -c 'import torch; print("cuda" if torch.version.cuda else "cpu")')
if [ "$found" != "$device" ]; then
    echo "this is a $found build of torch; give an index with $device builds as TORCH_INDEX" >&2
    exit 1
fi
