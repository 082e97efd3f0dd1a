"""Meta-World's scripted expert at work: one attempt at one episode, without pictures.

Each attempt has a simulation of its own, so nothing can pass from one to the next. What is needed
to draw the pictures afterwards is kept beside what is recorded; `stage` knows how.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP
from metaworld.policies.policy import Policy
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from numpy.typing import NDArray

from tabletop.families import FAMILIES, Family
from tabletop.layouts import Layout, draw_layout
from tabletop.nuisances import Point, draw_start
from tabletop.plan import EpisodeKey, generator
from tabletop.wandering import WANDERING_STEPS, draw_wandering

# T control steps, Q generalised positions, B bodies

MAX_STEPS = 160
"""An expert that has not succeeded by then got stuck."""
MIN_STEPS = 15
"""Earlier success is an accident: the hand touched the object as it was placed."""
STEPS_AFTER_SUCCESS = 5


@dataclass(frozen=True, slots=True)
class Rollout:
    """An attempt that is kept. Row t is what held before action t, and the action."""

    layout: Layout
    states: NDArray[np.float32]
    """float32[T, 4]: hand x, y, z in metres, gripper opening from 0 (shut) to 1."""
    actions: NDArray[np.float32]
    """float32[T, 4] in [−1, 1]: hand displacement (1 = one centimetre), closing effort."""
    successes: NDArray[np.bool_]
    """bool[T]: the task is done after action t."""
    joints: NDArray[np.float64]
    """float64[T, Q]: the simulator's generalised positions."""
    body_positions: NDArray[np.float64]
    """float64[B, 3]: where the layout put each body in its parent's frame, metres."""
    body_rotations: NDArray[np.float64]
    """float64[B, 4]: quaternions, likewise."""


def new_environment(family: Family) -> SawyerXYZEnv:
    """A fresh simulation of a family's scene."""
    return ALL_V3_ENVIRONMENTS[family.environment]()


def laid_out(family: Family, layout: Layout, hand: Point) -> SawyerXYZEnv:
    """A fresh simulation with the object and the hand in their places, once it is reset."""
    environment = new_environment(family)
    _set_layout(environment, family, layout)
    environment.hand_init_pos = np.array(hand)
    return environment


def attempt_episode(
    key: EpisodeKey, attempt: int, noise: float, wander: float = 0.0
) -> Rollout | None:
    """Let the expert try once.

    Args:
        key: which episode.
        attempt: which try; layout, hand start and noise differ between tries.
        noise: standard deviation of the Gaussian noise on each displacement command.
        wander: share of stretches in which the hand goes anywhere; above 0 it need not succeed.

    Returns:
        The rollout, or None if it did not succeed within MIN_STEPS..MAX_STEPS; with wandering, it
        ends after WANDERING_STEPS.
    """
    family = FAMILIES[key.family]
    layout = draw_layout(family, key, attempt)
    environment = laid_out(family, layout, draw_start(key, attempt))
    new_expert: Callable[[], Policy] = ENV_POLICY_MAP[family.environment]
    expert = new_expert()
    random = generator(key, attempt, "noise")
    last = WANDERING_STEPS if wander else MAX_STEPS + STEPS_AFTER_SUCCESS
    wanders, displacements = draw_wandering(key, attempt, wander, last)

    observation, _ = environment.reset()
    bodies = environment.model.body_pos.copy(), environment.model.body_quat.copy()
    states, actions, successes, joints = [], [], [], []
    remaining = None
    for step in range(last):
        states.append(observation[:4].astype(np.float32))  # a copy: some experts write into theirs
        joints.append(environment.data.qpos.copy())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the experts' gains exceed 1 by design
            command = np.array(expert.get_action(observation), np.float32)
        if wanders[step]:
            command[:3] = displacements[step]
        command[:3] += noise * random.standard_normal(3, np.float32)
        action = np.clip(command, -1, 1)
        observation, _, _, _, information = environment.step(action)
        done = bool(information["success"])
        actions.append(action)
        successes.append(done)
        if done and remaining is None:
            if step + 1 < MIN_STEPS:
                return None
            remaining = STEPS_AFTER_SUCCESS
        elif remaining is not None:
            remaining -= 1
        if remaining == 0 or (wander and step + 1 == last):
            return Rollout(
                layout,
                np.stack(states),
                np.stack(actions),
                np.array(successes),
                np.stack(joints),
                *bodies,
            )
    return None


def _set_layout(environment: SawyerXYZEnv, family: Family, layout: Layout) -> None:
    """Freeze the layout vector, and show the goal: some experts read it from the observation.

    These are the attributes that Meta-World's `set_task` sets; it takes them as a pickle alone.
    """
    state = vars(environment)
    state.pop("sawyer_observation_space", None)  # cached; the next use makes it anew
    state.update(
        _set_task_called=True,
        _freeze_rand_vec=True,
        _last_rand_vec=np.array(family.layout_vector(layout.x, layout.y)),
        _partially_observable=False,
    )
