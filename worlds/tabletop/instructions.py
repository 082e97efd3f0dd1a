"""What the arm is told: paraphrases per family, some of them held out for the test split.

The words of a held-out sentence all occur in that family's training sentences, the sentence itself
in none: what is tested is a new arrangement of known words, not a new word. The two families of a
same-scene pair share the noun and most of the other words. No sentence belongs to two families.
"""

from dataclasses import dataclass

from tabletop.families import FAMILIES
from tabletop.plan import EpisodeKey, generator


@dataclass(frozen=True, slots=True)
class Paraphrases:
    """The sentences of one family."""

    train: tuple[str, ...]
    """Used in training episodes only."""
    held_out: tuple[str, ...]
    """Used in test episodes only."""


INSTRUCTIONS: dict[str, Paraphrases] = {
    "drawer-open": Paraphrases(
        train=(
            "open the drawer",
            "pull the drawer out",
            "slide the drawer out towards the robot",
            "grab the handle and slide the drawer open",
            "hook the handle and pull the drawer open",
            "the drawer is shut, open it",
            "reach for the drawer handle and pull",
            "please pull out the drawer",
            "draw the drawer open by its handle",
            "take hold of the handle and open the drawer",
            "move to the closed drawer and get it open",
            "bring the front of the drawer towards you",
        ),
        held_out=(
            "please open the drawer",
            "grab the drawer handle and pull it out",
            "reach for the handle and slide the drawer out",
            "the drawer is closed, pull it open",
        ),
    ),
    "drawer-close": Paraphrases(
        train=(
            "close the drawer",
            "push the drawer in",
            "slide the drawer in away from the robot",
            "touch the handle and slide the drawer shut",
            "press on the drawer until it is closed",
            "the drawer is open, close it",
            "reach for the drawer handle and push",
            "please push in the drawer",
            "shove the drawer shut by its handle",
            "push on the handle and close the drawer",
            "move to the open drawer and get it shut",
            "put the drawer back into its box",
        ),
        held_out=(
            "please close the drawer",
            "reach for the handle and push the drawer shut",
            "the drawer is open, push it back in",
            "slide the open drawer shut",
        ),
    ),
    "door-open": Paraphrases(
        train=(
            "open the door",
            "pull the door open",
            "swing the door open",
            "grab the handle and pull the door",
            "hook the door handle and swing it open",
            "the door is closed, open it",
            "please swing the door wide open",
            "reach for the handle and open the door",
            "pull on the handle until the door stands open",
            "get the closed door open",
            "draw the door towards the robot by its handle",
            "turn the door out of its frame",
        ),
        held_out=(
            "please pull the door open",
            "grab the door handle and swing it wide open",
            "the door is closed, pull it open by its handle",
            "reach for the door and swing it out of its frame",
        ),
    ),
    "door-close": Paraphrases(
        train=(
            "close the door",
            "push the door shut",
            "swing the door closed",
            "push the door back into its frame",
            "the door is open, close it",
            "please swing the door shut",
            "move behind the door and push it shut",
            "reach for the open door and close it",
            "press on the door until it is closed",
            "get the open door closed",
            "shove the door away from the robot",
            "turn the door back until it is shut",
        ),
        held_out=(
            "please push the door shut",
            "the door is open, swing it closed",
            "reach for the door and push it back",
            "swing the open door back into its frame",
        ),
    ),
    "window-open": Paraphrases(
        train=(
            "open the window",
            "slide the window open",
            "push the window to the right",
            "push on the handle and slide the window open",
            "the window is closed, open it",
            "please slide the window to the right",
            "reach for the window handle and push it right",
            "move the window pane aside until it is open",
            "get the closed window open",
            "move the handle of the window to the right",
            "let some air in by opening the window",
            "put the hand left of the handle and open the window",
        ),
        held_out=(
            "please open the window",
            "push the window handle to the right",
            "the window is closed, slide it open",
            "reach for the handle and slide the window pane to the right",
        ),
    ),
    "window-close": Paraphrases(
        train=(
            "close the window",
            "slide the window shut",
            "push the window to the left",
            "push on the handle and slide the window shut",
            "the window is open, close it",
            "please slide the window to the left",
            "reach for the window handle and push it left",
            "move the window pane back until it is shut",
            "get the open window closed",
            "move the handle of the window to the left",
            "keep the cold air out by closing the window",
            "put the hand right of the handle and close the window",
        ),
        held_out=(
            "please close the window",
            "push the window handle to the left",
            "the window is open, slide it shut",
            "reach for the handle and slide the window pane to the left",
        ),
    ),
    "faucet-open": Paraphrases(
        train=(
            "open the faucet",
            "turn on the faucet",
            "turn the faucet handle to the right",
            "let the water run",
            "push the handle round to open the tap",
            "the faucet is off, turn it on",
            "please turn the tap on",
            "get the water to flow from the faucet",
            "reach for the tap and open it",
            "swing the handle of the tap to the right",
            "start the water by turning the faucet",
            "put the hand left of the handle and turn on the tap",
        ),
        held_out=(
            "please open the faucet",
            "turn the handle and let the water flow",
            "the tap is off, open it",
            "reach for the faucet and push the handle to the right",
        ),
    ),
    "faucet-close": Paraphrases(
        train=(
            "close the faucet",
            "turn off the faucet",
            "turn the faucet handle to the left",
            "stop the water",
            "push the handle round to close the tap",
            "the faucet is on, turn it off",
            "please turn the tap off",
            "do not let the water flow from the faucet",
            "reach for the tap and close it",
            "swing the handle of the tap to the left",
            "stop the flow by turning the faucet",
            "put the hand right of the handle and turn off the tap",
        ),
        held_out=(
            "please close the faucet",
            "turn the handle and stop the flow",
            "the tap is on, close it",
            "reach for the faucet and push the handle to the left",
        ),
    ),
    "button-press": Paraphrases(
        train=(
            "press the button",
            "press the button from above",
            "push the button down",
            "push down on top of the box",
            "hit the button with the closed hand",
            "press the button on the box",
            "move above the button and press it",
            "please push the button all the way down",
            "lower the hand onto the button",
            "hold the hand over the box and push its button",
            "come down on the button from the top",
            "the button sticks out, push it in",
        ),
        held_out=(
            "please press the button down",
            "move over the box and press its button",
            "push the button in from above",
            "lower the hand and press down on the button",
        ),
    ),
    "puck-slide": Paraphrases(
        train=(
            "slide the puck into the goal",
            "push the puck into the goal",
            "score a goal",
            "move the black disc into the net",
            "put the hand behind the puck and push it forward",
            "the puck lies in front of the goal, slide it in",
            "please push the puck forward into the net",
            "shove the disc along the table into the goal",
            "get the puck past the posts",
            "bring the puck to the net",
            "lower the hand to the disc and slide it to the goal",
            "reach for the puck and score",
        ),
        held_out=(
            "please slide the puck into the net",
            "push the disc into the goal",
            "reach for the puck and push it past the posts",
            "the disc lies in front of the net, push it in",
        ),
    ),
    "handle-press": Paraphrases(
        train=(
            "press the handle down",
            "push the lever down",
            "press down on the handle",
            "put the hand above the handle and press",
            "lower the lever of the machine",
            "the handle is up, press it down",
            "please push the handle all the way down",
            "move over the lever and push it to the bottom",
            "reach for the handle and lower it",
            "bring the handle of the machine down from above",
            "get the lever down",
            "hold the open hand on the lever and press down",
        ),
        held_out=(
            "please press the lever down",
            "push the handle to the bottom",
            "the lever is up, lower it",
            "move above the handle and push it down",
        ),
    ),
    "coffee-button": Paraphrases(
        train=(
            "press the button of the coffee machine",
            "start the coffee machine",
            "make a coffee",
            "push the button on the coffee machine",
            "turn the coffee machine on",
            "the mug is in place, make coffee",
            "please make me a cup of coffee",
            "reach for the coffee machine and push its button",
            "fill the mug with coffee",
            "move forward and press the coffee button",
            "get some coffee into the mug",
            "brew coffee by pressing the button",
        ),
        held_out=(
            "please start the coffee machine",
            "push the coffee button",
            "reach for the button and make some coffee",
            "the mug is in place, press the button of the machine",
        ),
    ),
    "hammer": Paraphrases(
        train=(
            "hammer the nail in",
            "hit the nail with the hammer",
            "drive the nail into the block",
            "pick up the hammer and hit the nail",
            "use the hammer on the nail",
            "the nail sticks out of the wood, drive it in",
            "please hammer the nail into the wood",
            "grab the hammer and strike the nail",
            "take the hammer to the block and drive in its nail",
            "strike the nail until it is in the block",
            "lift the hammer off the table and knock the nail in",
            "knock the nail into the wooden block",
        ),
        held_out=(
            "please drive the nail in",
            "grab the hammer and knock the nail into the wood",
            "strike the nail with the hammer",
            "pick up the hammer and drive the nail into the block",
        ),
    ),
    "dial-turn": Paraphrases(
        train=(
            "turn the dial",
            "rotate the dial",
            "turn the knob on the table",
            "push the side of the dial to rotate it",
            "twist the knob to the left",
            "the dial points the wrong way, turn it",
            "please turn the knob round",
            "reach down to the dial and turn it round",
            "give the dial half a turn",
            "lower the hand to the knob and twist it",
            "move the hand against the knob to rotate it",
            "set the dial to the other side",
        ),
        held_out=(
            "please rotate the dial",
            "reach down to the knob and twist it to the left",
            "give the knob half a turn",
            "the knob points the wrong way, rotate it",
        ),
    ),
}


def sentences(family: int, split: str) -> tuple[str, ...]:
    """The sentences that a split may use for a family."""
    paraphrases = INSTRUCTIONS[FAMILIES[family].name]
    return paraphrases.held_out if split == "test" else paraphrases.train


def draw_instruction(key: EpisodeKey) -> str:
    """The episode's sentence: each of the split's in turn, in an order given by the seed."""
    allowed = sentences(key.family, key.split)
    order = generator(key.first(), 0, "instruction").permutation(len(allowed))
    return allowed[int(order[key.index % len(allowed)])]
