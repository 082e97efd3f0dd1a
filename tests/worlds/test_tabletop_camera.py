"""The pinhole camera: OpenCV's axes, pixels and signs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabletop.camera import View, extrinsics, forward, intrinsics, position, project

coordinates = st.floats(-2, 2)
views = st.builds(
    View,
    st.tuples(coordinates, coordinates, coordinates),
    st.floats(0.5, 3),
    st.floats(-360, 360),
    st.floats(-85, 85),
)


@given(views)
def test_extrinsics_are_a_rigid_motion(view: View) -> None:
    matrix = extrinsics(view)

    rotation = matrix[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert matrix[3].tolist() == [0, 0, 0, 1]


@given(views, st.integers(1, 200), st.floats(20, 90))
def test_the_point_looked_at_is_the_centre_of_the_picture(
    view: View, half: int, angle: float
) -> None:
    size = 2 * half

    pixels, depth = project([view.look_at], intrinsics(size, angle), extrinsics(view))

    assert np.allclose(pixels, (size - 1) / 2, atol=1e-6)
    assert depth[0] == pytest.approx(view.distance)


@given(views)
def test_the_camera_itself_is_the_origin_of_its_frame(view: View) -> None:
    assert np.allclose(extrinsics(view) @ [*position(view), 1], [0, 0, 0, 1], atol=1e-9)


@given(views)
def test_up_in_the_world_is_up_in_the_picture(view: View) -> None:
    above = np.add(view.look_at, (0, 0, 0.1))

    pixels, _ = project([view.look_at, above], intrinsics(96, 45), extrinsics(view))

    assert pixels[1, 1] < pixels[0, 1]
    assert pixels[1, 0] == pytest.approx(pixels[0, 0])


def test_looking_along_y_has_x_to_the_right() -> None:
    view = View((0.0, 1.0, 0.0), distance=1.0, azimuth=90.0, elevation=0.0)

    pixels, _ = project([(0.1, 1.0, 0.0)], intrinsics(100, 90), extrinsics(view))

    assert np.allclose(forward(view), [0, 1, 0])
    # Focal length 50 pixels, a tenth of a metre at one metre: five pixels right of the centre.
    assert np.allclose(pixels, [[49.5 + 5, 49.5]])


def test_half_the_angle_reaches_the_edge_of_the_picture() -> None:
    view = View((0.0, 0.0, 0.0), distance=2.0, azimuth=0.0, elevation=0.0)
    edge = (0.0, 0.0, 2 * np.tan(np.radians(20)))

    pixels, _ = project([edge], intrinsics(96, 40), extrinsics(view))

    assert pixels[0, 1] == pytest.approx(-0.5)  # the upper border of the first row's pixels


def test_a_point_behind_the_camera_has_negative_depth() -> None:
    view = View((0.0, 0.0, 0.0), distance=1.0, azimuth=0.0, elevation=0.0)

    _, depth = project([(-3.0, 0.0, 0.0)], intrinsics(96, 45), extrinsics(view))

    assert depth[0] == pytest.approx(-2)
