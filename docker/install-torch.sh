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
if [ -n "$index" ]; then
    pip install --constraint constraints.txt --index-url "$index" torch
else
    pip install --constraint constraints.txt torch
fi
found=$(python -c 'import torch; print("cuda" if torch.version.cuda else "cpu")')
if [ "$found" != "$device" ]; then
    echo "this is a $found build of torch; give an index with $device builds as TORCH_INDEX" >&2
    exit 1
fi
