"""The pinhole camera, in OpenCV's convention.

Camera frame: x right, y down, z forward; metres. Pixel (u, v) has its centre at integer
coordinates, u to the right and v down, so the centre of an S×S image is at (S−1)/2. Pure numpy; the
renderer is told the same view and checked against it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# N points


@dataclass(frozen=True, slots=True)
class View:
    """A camera on a sphere around a point it looks at, its horizon level."""

    look_at: tuple[float, float, float]
    """The point in the image centre, metres, world frame."""
    distance: float
    """From the camera to that point, metres."""
    azimuth: float
    """Direction of gaze around the vertical, degrees from +x towards +y."""
    elevation: float
    """Direction of gaze above the horizon, degrees in (−90, 90); negative looks down."""


def forward(view: View) -> NDArray[np.float64]:
    """Unit vector of gaze, world frame, float64[3]."""
    azimuth, elevation = np.radians([view.azimuth, view.elevation])
    level = np.cos(elevation)
    return np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])


def position(view: View) -> NDArray[np.float64]:
    """Centre of projection, world frame, float64[3], metres."""
    return np.array(view.look_at) - view.distance * forward(view)


def extrinsics(view: View) -> NDArray[np.float64]:
    """World → camera, float64[4, 4], so that x_camera = E · x_world in homogeneous coordinates."""
    gaze = forward(view)
    right = np.cross(gaze, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(gaze, right), gaze])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = -rotation @ position(view)
    return matrix


def intrinsics(size: int, field_of_view: float) -> NDArray[np.float64]:
    """(fx, fy, cx, cy) in pixels, float64[4], of a square image.

    Args:
        size: side of the image, pixels.
        field_of_view: full vertical angle, degrees.
    """
    focal = size / 2 / np.tan(np.radians(field_of_view) / 2)
    centre = (size - 1) / 2
    return np.array([focal, focal, centre, centre])


def project(
    points: ArrayLike, intrinsic: ArrayLike, extrinsic: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where points appear.

    Args:
        points: float[N, 3], metres, world frame.
        intrinsic: float[4], see `intrinsics`.
        extrinsic: float[4, 4], see `extrinsics`.

    Returns:
        float64[N, 2] pixels (u, v), and float64[N] depth along the gaze in metres; a point at
        negative depth is behind the camera.
    """
    matrix = np.asarray(extrinsic, np.float64)
    fx, fy, cx, cy = np.asarray(intrinsic, np.float64)
    x, y, z = (np.asarray(points, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]).T
    return np.stack([fx * x / z + cx, fy * y / z + cy], axis=1), z
