"""Pictures: a family's scene, dressed for an episode and drawn step by step.

The stage owns a compiled scene, its graphics context and the scene as it was before anyone painted
it. It moves bodies to where a rollout had them and simulates nothing. Distractors are added to the
list of shapes to draw, never to the physics.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray

from tabletop.camera import forward, intrinsics, position
from tabletop.families import Family
from tabletop.nuisances import FIELD_OF_VIEW, Colour, Distractor, Nuisances, Surface
from tabletop.patterns import gradient, paint, whitened
from tabletop.simulator import Rollout, new_environment

# T frames, S side of the picture in pixels

_VISIBLE_GROUPS = 3  # MuJoCo draws geom groups 0..2; Meta-World keeps collision shapes in group 4
_MOST_SHAPES = 500
_FURNITURE = ("basic_floor", "table_wood", "wall_metal")
_ROBOT_BODIES = ("controller_box", "pedestal", "torso", "right_", "head", "screen", "hand", "rail")
_FINGERS = ("leftpad_geom", "rightpad_geom")
_ARM_COLOUR = (0.5, 0.1, 0.1)  # what Meta-World paints the arm; its other parts are grey or black
_GEOMETRY = {
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
}


class Stage:
    """Draws the episodes of one family."""

    def __init__(self, family: Family, size: int) -> None:
        """Compile the scene and open an off-screen graphics context.

        Args:
            family: whose scene.
            size: S, pixels.
        """
        self._size = size
        self._model = new_environment(family).model
        # Software rendering is ten times faster without these; they must be set before the context.
        self._model.vis.quality.offsamples = 0
        self._model.vis.quality.shadowsize = 0
        self._model.vis.global_.offwidth = self._model.vis.global_.offheight = size
        self._model.vis.global_.fovy = FIELD_OF_VIEW
        self._data = mujoco.MjData(self._model)
        self._pristine_textures = self._model.tex_data.copy()
        self._parts = _object_parts(self._model)
        self._arm = _arm_shapes(self._model)

        self._window = mujoco.GLContext(size, size)
        self._window.make_current()
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(self._model, _MOST_SHAPES)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0  # goal markers would give the task away
        self._viewport = mujoco.MjrRect(0, 0, size, size)

    def film(self, rollout: Rollout, nuisances: Nuisances) -> NDArray[np.uint8]:
        """The pictures of a rollout, uint8[T, S, S, 3] RGB.

        Raises:
            RuntimeError: the renderer's camera is not where `camera` says it is.
        """
        self.set(rollout.body_positions, rollout.body_rotations, nuisances)
        return np.stack([self.picture(joints, nuisances) for joints in rollout.joints])

    def set(
        self,
        body_positions: NDArray[np.float64],
        body_rotations: NDArray[np.float64],
        nuisances: Nuisances,
    ) -> None:
        """Dress the scene and put its bodies where a layout has them, for pictures to come."""
        self._window.make_current()
        self._dress(nuisances)
        self._model.body_pos[:] = body_positions
        self._model.body_quat[:] = body_rotations

    def picture(self, joints: NDArray[np.float64], nuisances: Nuisances) -> NDArray[np.uint8]:
        """The scene as it was set, at these joints: uint8[S, S, 3] RGB.

        Raises:
            RuntimeError: the renderer's camera is not where `camera` says it is.
        """
        frame = np.empty((self._size, self._size, 3), np.uint8)
        self._draw(joints, _free_camera(nuisances), nuisances, frame)
        self._check_camera(nuisances)
        return frame

    def close(self) -> None:
        """Give back the graphics context."""
        self._context.free()
        self._window.free()

    def _draw(
        self,
        joints: NDArray[np.float64],
        camera: mujoco.MjvCamera,
        nuisances: Nuisances,
        frame: NDArray[np.uint8],
    ) -> None:
        """Draw one step into `frame`."""
        self._data.qpos[:] = joints
        # Places of bodies, then of lights: also before the very first frame, which else is dark.
        mujoco.mj_forward(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            self._options,
            None,
            camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        for distractor in nuisances.distractors:
            self._add(distractor)
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(frame, None, self._viewport, self._context)
        frame[:] = frame[::-1].copy()  # OpenGL counts rows from below

    def _add(self, distractor: Distractor) -> None:
        cosine, sine = np.cos(distractor.turn), np.sin(distractor.turn)
        # MuJoCo wants (radius, half height) for a cylinder and three half extents for the others.
        size = np.array(distractor.size)
        if distractor.shape == "cylinder":
            size = size[[0, 2, 2]]
        mujoco.mjv_initGeom(
            self._scene.geoms[self._scene.ngeom],
            _GEOMETRY[distractor.shape],
            size,
            np.array(distractor.position),
            np.array([cosine, -sine, 0, sine, cosine, 0, 0, 0, 1]),
            np.array([*distractor.colour, 1], np.float32),
        )
        self._scene.ngeom += 1

    def _dress(self, nuisances: Nuisances) -> None:
        """Paint everything; whatever an earlier episode painted is painted over."""
        model = self._model
        for number, part in enumerate(self._parts):
            part[:3] = nuisances.parts[number % len(nuisances.parts)]
        for shape in self._arm:
            model.geom_rgba[shape, :3] = nuisances.arm
        for name, colour in zip(_FINGERS, nuisances.fingers, strict=True):
            model.geom(name).rgba[:3] = colour
        model.geom_rgba[model.geom_bodyid == model.body("pedestal").id, :3] = nuisances.pedestal
        model.material("wall_metal").rgba[:3] = nuisances.rim
        self._cover("table_wood", "T_table", nuisances.table)
        self._cover("basic_floor", "T_floor", nuisances.floor)
        self._paint_sky(*nuisances.sky)

        model.vis.headlight.ambient[:] = nuisances.ambient
        model.vis.headlight.diffuse[:] = nuisances.headlight
        for number, light in enumerate(nuisances.lights):
            model.light_dir[number] = light.direction
            model.light_diffuse[number] = light.diffuse

    def _cover(self, material: str, texture: str, surface: Surface) -> None:
        """Give a material the surface's pattern, or a tint over its own texture."""
        number = self._model.texture(texture).id
        pixels = self._texture(number)
        if surface.pattern == "original":
            pixels[:] = whitened(self._texture(number, self._pristine_textures))
            tint: Colour = surface.first
        else:
            pixels[:] = paint(surface, len(pixels))
            tint = (1.0, 1.0, 1.0)
        self._model.material(material).rgba[:3] = tint
        mujoco.mjr_uploadTexture(self._model, self._context, number)

    def _paint_sky(self, horizon: Colour, above: Colour) -> None:
        """Six faces below one another: four sides fade, top and bottom are plain."""
        number = int(np.flatnonzero(self._model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)[0])
        faces = self._texture(number)
        side = faces.shape[1]
        faces[:] = np.tile(gradient(horizon, above, side, side), (6, 1, 1))
        faces[2 * side : 3 * side] = gradient(above, above, side, side)
        faces[3 * side : 4 * side] = gradient(horizon, horizon, side, side)
        mujoco.mjr_uploadTexture(self._model, self._context, number)

    def _texture(self, number: int, store: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """A writable view of a texture's pixels, uint8[height, width, 3]."""
        model = self._model
        height, width = int(model.tex_height[number]), int(model.tex_width[number])
        begin = int(model.tex_adr[number])
        store = model.tex_data if store is None else store
        return store[begin : begin + height * width * 3].reshape(height, width, 3)

    def _check_camera(self, nuisances: Nuisances) -> None:
        """Compare the renderer's camera, the mean of its two eyes, with the recorded one."""
        left, right = self._scene.camera[0], self._scene.camera[1]
        place = (left.pos + right.pos) / 2
        focal = self._size / 2 * left.frustum_near / left.frustum_top
        if not (
            np.allclose(place, position(nuisances.view), atol=1e-4)
            and np.allclose(left.forward, forward(nuisances.view), atol=1e-4)
            and np.isclose(focal, intrinsics(self._size, FIELD_OF_VIEW)[0], rtol=1e-4)
        ):
            raise RuntimeError(
                f"the renderer looks from {place} to {left.forward} with focal length {focal}, "
                f"recorded is {nuisances.view}"
            )


def _free_camera(nuisances: Nuisances) -> mujoco.MjvCamera:
    """MuJoCo's free camera counts its angles as `View` does."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = nuisances.view.look_at
    camera.distance = nuisances.view.distance
    camera.azimuth = nuisances.view.azimuth
    camera.elevation = nuisances.view.elevation
    return camera


def _arm_shapes(model: mujoco.MjModel) -> NDArray[np.int64]:
    """The shapes that Meta-World paints in the arm's colour."""
    painted = np.all(np.isclose(model.geom_rgba[:, :3], _ARM_COLOUR), axis=1)
    return np.flatnonzero(painted & (model.geom_matid < 0))


def _object_parts(model: mujoco.MjModel) -> list[NDArray[np.float32]]:
    """Writable colours of the object: one view per visible material or uncovered shape."""
    parts: list[NDArray[np.float32]] = []
    seen: set[int] = set()
    for shape in range(model.ngeom):
        material = int(model.geom_matid[shape])
        body = model.body(model.geom_bodyid[shape]).name
        if model.geom_group[shape] >= _VISIBLE_GROUPS or body.startswith(_ROBOT_BODIES):
            continue
        if material < 0:
            if model.geom_rgba[shape, 3] > 0:
                parts.append(model.geom_rgba[shape])
        elif material not in seen and model.material(material).name not in _FURNITURE:
            seen.add(material)
            parts.append(model.mat_rgba[material])
    return parts
