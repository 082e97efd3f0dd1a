#!/usr/bin/env bash
# Builds the images with docker, podman or buildah, one after the other; `make images` calls it.
#
#   scripts/images.sh [worker] [gateway] [train]    without a name: all three
#   scripts/images.sh --engine                      only say which engine it takes
#   scripts/images.sh --name IMAGE                  only say what that image is called
#
# From the environment, all of it optional:
#   ENGINE        docker, podman or buildah, or a path to one; otherwise the first that answers
#   DEVICE        cpu (the default) or cuda: the torch that worker and train get
#   TORCH_INDEX   the package index that has this torch, if the usual one has not
#   PYTHON_IMAGE  the image below all stages, with Python 3.11; the Dockerfiles name the usual one
#   TAG           of every image; otherwise DEVICE, and latest for the gateway, which has no torch
#   BUILD_ARGS    further arguments for the engine's build, split at blanks, such as
#                 "--pull-never --isolation chroot --volume /etc/pip.conf:/etc/pip.conf:ro"
set -euo pipefail
case $0 in */*) cd "${0%/*}/.." ;; esac

device=${DEVICE:-cpu}
all=(worker gateway train)

fail() {
    echo "images: $*" >&2
    exit 2
}

# A command line without its daemon is no engine, so each is asked, not only looked for.
engine() {
    local candidate
    for candidate in ${ENGINE:-docker podman buildah}; do
        case ${candidate##*/} in
            docker | podman | buildah) ;;
            *) fail "ENGINE is docker, podman or buildah, not $candidate" ;;
        esac
        if "$candidate" info > /dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    fail "none of these answers: ${ENGINE:-docker podman buildah}; install one, or start its daemon"
}

name() {
    case $1 in
        gateway) echo "tectum-gateway:${TAG:-latest}" ;;
        worker | train) echo "tectum-$1:${TAG:-$device}" ;;
        *) fail "there is no image $1, only: ${all[*]}" ;;
    esac
}

size() {
    local bytes
    if [ "${engine##*/}" = buildah ]; then
        "$engine" images --format '{{.Size}}' "$1"
    else
        bytes=$("$engine" image inspect --format '{{.Size}}' "$1")
        echo "$((bytes / 1000000)) MB"
    fi
}

build() {
    local image=$1 arguments=() extra=()
    arguments=(--file "docker/$image.Dockerfile" --tag "$(name "$image")")
    # Podman's own image format has no place for HEALTHCHECK; layers are kept for the next build.
    [ "${engine##*/}" = docker ] || arguments+=(--format docker --layers)
    [ -z "${PYTHON_IMAGE:-}" ] || arguments+=(--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE")
    if [ "$image" != gateway ]; then
        arguments+=(--build-arg "DEVICE=$device" --build-arg "TORCH_INDEX=${TORCH_INDEX:-}")
    fi
    read -r -d '' -a extra <<< "${BUILD_ARGS:-}" || true
    "$engine" build "${arguments[@]}" ${extra[@]+"${extra[@]}"} .
}

case $device in cpu | cuda) ;; *) fail "DEVICE is cpu or cuda, not $device" ;; esac
case ${1:-} in
    --engine) engine && exit ;;
    --name) name "${2:-}" && exit ;;
esac

wanted=("$@")
[ $# -gt 0 ] || wanted=("${all[@]}")
for image in "${wanted[@]}"; do name "$image" > /dev/null; done
engine=$(engine)

built=()
for image in "${wanted[@]}"; do
    started=$SECONDS
    build "$image"
    took=$((SECONDS - started))
    built+=("$(printf '%-24s %10s %4d min %02d s' \
        "$(name "$image")" "$(size "$(name "$image")")" $((took / 60)) $((took % 60)))")
done
printf '%s\n' "" "${built[@]}"
