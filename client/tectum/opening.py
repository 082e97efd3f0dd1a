"""How a live stream is opened: what it may be asked, checked, and its first message."""

from dataclasses import dataclass

from tectum import requests
from tectum.calls import (
    LONGEST_WAIT,
    Defaults,
    InferenceOptions,
    check_names,
    credentials,
    request_options,
    timeout,
)
from tectum.conversation import Conversation, Slot
from tectum.durations import duration
from tectum.errors import invalid
from tectum.reopening import Outage, patience
from tectum.sending import sending
from tectum.v1 import stream_pb2
from tectum.vocabulary import Priority, VectorKindName, VectorTypeName


class StreamOptions(InferenceOptions, total=False):
    """What a stream shall answer, and how. At least one of `embed` and `latent_actions`.

    Of the options every call takes, `priority` is CONTROL unless said otherwise, `timeout` is
    how many seconds to wait for the worker to accept the stream (no client's default applies),
    and `retries` is not used: see `reconnect`.
    """

    embed: bool
    """Answer with each frame's vector."""
    latent_actions: bool
    """Answer with the latent action from one model interval earlier."""
    decode_actions: bool
    """With each latent action, decode the robot's own actions."""
    kind: VectorKindName | None
    """What kind of vector. None: the first of joint, pooled and tokens that the model has."""
    dtype: VectorTypeName
    """Element type for vectors to travel in. Left out: float32."""
    dimensions: int | None
    """Keep only the first so many of a vector, renormalised. None: all."""
    lifespan: float | None
    """Seconds a frame stays useful after it was captured, at most 60. None: 1 s."""
    depth: int
    """How many frames may wait, at most 16: the newest, here until they can be sent and at the
    worker until it takes them; one more supersedes the oldest, and they are answered in order. As
    many OK answers wait here for who reads them, the newest, too. More than one is for frames that
    come in bursts: where the worker or the reader is slower than the camera, answers are as much
    older. Left out: 1, only the newest waits."""
    own_clock: bool
    """Whether frames' `captured_at` is on this computer's clock, `time.time()`: how far the
    worker's lies from it is then found out, at the beginning and now and then, so that ages are
    right whatever the clocks say. False: it is on the worker's already. Left out: True."""
    send: str
    """How pixels travel. `raw`: as they are. `shared`: where this is the worker's host and the
    worker gives shared memory (`TECTUM_SHARED_MEMORY_BYTES`), frames no larger than the first lie
    there and are not sent, once it is given; else as they are. `resized`: brought to the
    model's size here, as the worker would do it, also once a model is reloaded that reads pictures
    otherwise. `jpeg:90`: as JPEG of that quality, 1 to 100, which loses something; needs Pillow
    (`tectum[jpeg]`). What a newer frame replaces costs nothing. Pictures that are files travel as
    they are. Left out: raw.
    """
    reconnect: float
    """Once the worker has accepted the stream: seconds to go on trying to open it anew where it is
    lost, because the worker drains, dies, cannot be reached, or is silent: for 15 s on the wire, or
    about frames it has for 10 s beyond their lifespan. It goes on with the newest frame; those
    that were under way have no answer (`lost`). Left out: 0, its loss is raised."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A stream with everything decided, before it has a transport."""

    setup: stream_pb2.StreamPerceptionRequest
    """The first message."""
    conversation: Conversation
    metadata: tuple[tuple[str, str], ...]
    patience: float
    """Seconds to wait for the worker to accept the stream."""


def opening(options: StreamOptions, defaults: Defaults) -> Opening:
    """Decide everything about a stream.

    Raises:
        InvalidInput: an option lies outside what it allows.
    """
    check_names(options, StreamOptions)
    request_id, metadata = credentials(options, defaults)
    lifespan = options.get("lifespan")
    within = timeout(options.get("timeout"))
    return Opening(
        setup=setup(options, defaults),
        conversation=Conversation(
            request_id,
            defaults.max_message_bytes,
            options.get("own_clock", True),
            sending(options.get("send", "raw")),
            slot=Slot(requests.depth(options.get("depth", 1))),
            outage=Outage(patience(options.get("reconnect", 0.0))),
            lifespan=1.0 if lifespan is None else lifespan,
        ),
        metadata=metadata,
        patience=LONGEST_WAIT[Priority.CONTROL] if within is None else within,
    )


def setup(options: StreamOptions, defaults: Defaults) -> stream_pb2.StreamPerceptionRequest:
    """The stream's first message.

    Raises:
        InvalidInput: an option lies outside what it allows, or nothing is asked for.
    """
    embed, latent_actions = options.get("embed", False), options.get("latent_actions", False)
    for name in ("embed", "latent_actions", "decode_actions"):
        if not isinstance(found := options.get(name, False), bool):
            raise invalid(name, f"found {found!r:.60}; allowed: True or False")
    if not (embed or latent_actions):
        raise invalid("embed", "nothing is asked for; allowed: embed, latent_actions, or both")
    if options.get("decode_actions", False) and not latent_actions:
        raise invalid("decode_actions", "allowed: only together with latent_actions")
    priority = options.get("priority", Priority.CONTROL)
    message = stream_pb2.StreamSetup(
        options=request_options(options, defaults, priority),
        embed=embed,
        vector=requests.vector_options(
            options.get("kind"), options.get("dtype", "float32"), options.get("dimensions")
        ),
        latent_actions=latent_actions,
        decode_actions=options.get("decode_actions", False),
        tell_input=sending(options.get("send", "raw")).resizes,
        depth=requests.depth(options.get("depth", 1)),
    )
    lifespan = options.get("lifespan")
    if lifespan is not None:
        message.lifespan.CopyFrom(duration(requests.lifespan(lifespan), "lifespan"))
    return stream_pb2.StreamPerceptionRequest(setup=message)
