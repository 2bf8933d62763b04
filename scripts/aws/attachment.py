"""What attaching the extension changes in one function's configuration, and what undoes it. Calls nobody."""
import dataclasses
import re

import settings

PREFIX = settings.PREFIX
LAYER = re.compile(r"(arn:[^:]+:lambda:[^:]+:\d+:layer:[\w-]*kinesis-telemetry-extension[\w-]*):\d+")
MOST_LAYERS = 5
# Of the function's code and all its layers, unpacked; and of its variables. Both are Lambda's limits.
MOST_BYTES = 250 * 1024 * 1024
MOST_VARIABLE_BYTES = 4096
# The program, unpacked: scripts/build-layer holds it to this.
PROGRAM_BYTES = 1_800_000


class Refused(Exception):
    """Why this function can't have the extension, or can't be changed."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a function gets. `layers`: architecture -> ARN of a layer version."""

    layers: dict
    variables: dict


@dataclasses.dataclass(frozen=True)
class Change:
    """The new values of what Lambda replaces as a whole; None where it stays as it is."""

    layers: list | None
    variables: dict | None

    def nothing(self):
        return self.layers is None and self.variables is None


def ours(arn, also=None):
    """Whether a layer is the extension: by the name that it is published under, or by that of `also`, whatever the version."""
    return bool(LAYER.fullmatch(arn)) or (also is not None and arn.rpartition(":")[0] == also.rpartition(":")[0])


def layers_of(configuration):
    return [layer["Arn"] for layer in configuration.get("Layers", [])]


def variables_of(configuration):
    """The variables; refuses where Lambda does not show them, since writing the rest back would delete them."""
    environment = configuration.get("Environment", {})
    if "Error" in environment:
        error = environment["Error"]
        raise Refused(f"its variables can't be read: {error.get('ErrorCode')}: {error.get('Message')}")
    return environment.get("Variables", {})


def check_kind(configuration):
    if configuration.get("Version", "$LATEST") != "$LATEST":
        raise Refused(f"is version {configuration['Version']}, which can't be changed: name the function alone, then publish a new version")
    if configuration.get("PackageType") == "Image":
        raise Refused("is a container image, which takes no layers: .github/docs/recipes.md says what to put into the Dockerfile")
    if configuration.get("State") in ("Failed", "Pending"):
        raise Refused(f"can't be changed: its state is {configuration['State']}")


def attach(configuration, wanted):
    """The change that attaches the extension; raises Refused."""
    check_kind(configuration)
    (architecture,) = configuration.get("Architectures", ["x86_64"])
    if architecture not in wanted.layers:
        raise Refused(f"is for {architecture}, and there is no layer for that")
    wanted_layer = wanted.layers[architecture]
    old_layers, old_variables = layers_of(configuration), variables_of(configuration)
    kept = [arn for arn in old_layers if not ours(arn, wanted_layer)]
    # In its old place, if it had one: the order of layers decides which file wins.
    at = next((at for at, arn in enumerate(old_layers) if arn not in kept), len(kept))
    layers = [*kept[:at], wanted_layer, *kept[at:]]
    variables = {**old_variables, **wanted.variables}
    # Also those that were there before: with one bad value, the extension sends nothing.
    if wrong := [*settings.problems(variables), *settings.conflicts(variables)]:
        raise Refused(f"would have wrong settings: {'; '.join(wrong)}")
    check_limits(configuration, kept, variables)
    return change(old_layers, layers, old_variables, variables)


def check_limits(configuration, kept, variables):
    if len(kept) >= MOST_LAYERS:
        raise Refused(f"has {len(kept)} layers already, and Lambda allows {MOST_LAYERS}")
    # Lambda tells packed sizes only. What is too large packed is too large unpacked; the rest Lambda refuses itself.
    packed = configuration.get("CodeSize", 0) + sum(layer.get("CodeSize", 0) for layer in configuration.get("Layers", []) if layer["Arn"] in kept)
    if packed + PROGRAM_BYTES > MOST_BYTES:
        raise Refused(f"has {packed:,} bytes of code and layers already, and Lambda allows {MOST_BYTES:,}, unpacked")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > MOST_VARIABLE_BYTES:
        raise Refused(f"would have {size:,} bytes of variables, and Lambda allows {MOST_VARIABLE_BYTES:,}")


def before(configuration, wanted):
    """What is to be known to undo an attachment: only what is the extension's own, nothing of the function's."""
    layer = wanted.layers[configuration.get("Architectures", ["x86_64"])[0]]
    return {
        "attached": layer,
        "layers": {str(at): arn for at, arn in enumerate(layers_of(configuration)) if ours(arn, layer)},
        "variables": {name: value for name, value in variables_of(configuration).items() if name.startswith(PREFIX)},
    }


def detach(configuration, state):
    """The change that takes the extension away; with `state`, that puts back what was there before."""
    check_kind(configuration)
    state = state or {"attached": None, "layers": {}, "variables": {}}
    old_layers, old_variables = layers_of(configuration), variables_of(configuration)
    layers = [arn for arn in old_layers if not ours(arn, state["attached"])]
    for at, arn in sorted(state["layers"].items(), key=lambda item: int(item[0])):
        layers.insert(int(at), arn)
    kept = {name: value for name, value in old_variables.items() if not name.startswith(PREFIX)}
    return change(old_layers, layers, old_variables, {**kept, **state["variables"]})


def change(old_layers, layers, old_variables, variables):
    return Change(None if layers == old_layers else layers, None if variables == old_variables else variables)


def words(change):
    """The change in words, without values: they may be secrets."""
    said = []
    if change.layers is not None:
        said.append(f"layers {', '.join(arn.split(':layer:')[-1] for arn in change.layers) or 'none'}")
    if change.variables is not None:
        said.append(f"variables {', '.join(name for name in change.variables if name.startswith(PREFIX)) or 'without ' + PREFIX + '...'}")
    return "; ".join(said) or "nothing to change"
