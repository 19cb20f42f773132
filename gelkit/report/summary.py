"""Summaries: what the terminal shows, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gelkit.features.backbones import get_backbone
from gelkit.features.cache import Failure
from gelkit.features.inventory import Inventory
from gelkit.features.merging import Merged
from gelkit.features.planning import Plan
from gelkit.features.verification import VerifiedShard
from gelkit.images.catalog import Catalog, Leftover
from gelkit.text import listed, shown

if TYPE_CHECKING:
    from gelkit.features.agreement import Outcome
    from gelkit.features.diagnosis import Finding, Speed
    from gelkit.features.networks import Network

_SHOWN_NAMES = 10


def skipped(catalog: Catalog) -> str:
    """Say what in a catalog's folders is not read as an image; empty if there is nothing."""
    lines = []
    if catalog.skipped:
        lines = [f"Files that are no images: {len(catalog.skipped)} ({_listed(catalog.skipped)})"]
    if catalog.leftovers:
        lines += [f"Not data, and left out: {len(catalog.leftovers)}", _by_kind(catalog.leftovers)]
    return "\n".join(lines)


def _by_kind(leftovers: Sequence[Leftover]) -> str:
    names: dict[str, list[str]] = {}
    for its in leftovers:
        names.setdefault(its.kind, []).append(its.name)
    return listed([f"{kind}: {_listed(its)}" for kind, its in names.items()])


def costs(plans: Sequence[Plan]) -> str:
    """Say what stage one is about to do, and roughly what that costs."""
    return "\n".join(_cost(planned) for planned in plans)


def done(planned: Plan, failures: Sequence[Failure]) -> str:
    """Say what stage one has for a plan that is carried out, and where."""
    recipe, catalog = planned.recipe, planned.catalog
    count = len(catalog) + len(catalog.unreadable) - len(failures)
    width = get_backbone(recipe.backbone).width
    return f"{recipe.backbone} on {recipe.hardware}: {count} x {width} in {planned.cache.folder}"


def failed(failures: Sequence[Failure]) -> str:
    """Name the images that failed, and why; empty if there are none."""
    if not failures:
        return ""
    lines = [f"{shown(failure.name)}: {shown(failure.error)}" for failure in failures]
    return f"Images that failed, the others are done: {len(failures)}\n{listed(lines)}"


def verified(shards: Sequence[VerifiedShard]) -> str:
    """Say how many rows are whole, and what is damaged."""
    damaged = [shard for shard in shards if shard.error]
    rows = sum(shard.rows for shard in shards)
    files = f"{len(shards)} files" if len(shards) != 1 else "1 file"
    return "\n".join(
        [f"{files} with {rows} whole rows, {len(damaged)} damaged", *map(_damage, damaged)]
    )


def inventories(found: Sequence[Inventory]) -> str:
    """Show what caches hold, a line each."""
    return "\n".join(map(_inventory, found)) if found else "No cache holds anything yet."


def _inventory(cache: Inventory) -> str:
    counts = [
        f"{cache.images:,} images",
        *([f"{cache.views:,} views"] if cache.views != cache.images else []),
        *([f"{cache.failures:,} failed"] if cache.failures else []),
        f"{cache.shards:,} file{'s' if cache.shards > 1 else ''}",
        f"{cache.bytes / 1e6:,.1f} MB",
    ]
    return f"{cache.folder.name}: {', '.join(counts)}"


def merged(found: Sequence[Merged]) -> str:
    """Say what of other caches was new; empty if there were none."""
    return "\n".join(
        f"{its.folder}: {its.rows:,} rows were new, {its.known:,} were known" for its in found
    )


def _damage(shard: VerifiedShard) -> str:
    lost = "all" if shard.lost is None else str(len(shard.lost))
    lines = [f"  {shard.path}: {shard.rows} rows whole, {lost} to be computed again"]
    lines += [f"    view {view} of the image with SHA-256 {sha}" for sha, view in shard.lost or ()]
    lines = lines[: _SHOWN_NAMES + 1]
    aside = f" Set aside as {shard.set_aside.name}." if shard.set_aside else ""
    return "\n".join([*lines, f"    {shard.error}{aside}"])


def findings(title: str, found: Sequence[Finding]) -> str:
    """List what can be used, and what cannot and why."""
    width = max(len(finding.name) for finding in found)
    lines = [
        f"  {'yes' if finding.usable else 'no ':<3}  {finding.name:<{width}}  {finding.note}"
        for finding in found
    ]
    return "\n".join([title, *lines])


def networks(found: Sequence[Network]) -> str:
    """Show networks, a line each."""
    width = max([len("backbone"), *(len(network.name) for network in found)])
    lines = [
        f"{network.name:<{width}}  {network.width:>5}  {network.input_size:>5}  "
        f"{network.parameters / 1e6:>8.1f} M  {network.weights}"
        for network in found
    ]
    head = f"{'backbone':<{width}}  width  input  parameters  weights"
    return "\n".join([head, *lines])


def names_alone(names: Sequence[str], most: int) -> str:
    """Show the names of networks, a line each, and say how to have fewer described."""
    more = f"{len(names)} networks: give more words to have at most {most} described."
    return "\n".join([*names, more])


def speeds(measured: Sequence[Speed]) -> str:
    """Show what each kernel and precision gains over torch in float32, and which is the fastest."""
    first = {speed.backbone: speed for speed in reversed(measured)}
    lines = [
        f"  {s.backbone:<13} {s.kernel:<9} {s.precision:<9} "
        + (
            "refused, see below"
            if s.refused
            else f"{s.images_per_second:8.1f}"
            f" {s.images_per_second / first[s.backbone].images_per_second:7.2f} x {s.cosine:10.6f}"
        )
        for s in measured
    ]
    head = f"  {'backbone':<13} {'--kernel':<9} {'--precision':<11} images/s    gain     cosine"
    reasons = dict.fromkeys(f"  {s.refused}" for s in measured if s.refused)
    last = _fastest([speed for speed in measured if not speed.refused])
    return "\n".join(["Forward passes, one core, random weights", head, *lines, *reasons, last])


def outcomes(found: Sequence[Outcome]) -> str:
    """Show which kernels were compared with plain torch on this machine, and what came of it."""
    if not found:
        return ""
    widest = max(13, *(len(its.trial.backbone) for its in found))
    head = (
        f"  {'backbone':<{widest}} {'weights':<10} {'hardware':<12} {'kernel':<17} "
        "precision difference   allowed"
    )
    lines = [
        f"  {its.trial.backbone:<{widest}} {its.trial.weights.partition(',')[0][:8]:<10} "
        f"{its.trial.hardware:<12} {its.trial.kernel:<17} {its.trial.precision:<9} "
        f"{its.agreement.difference:10.1e} {its.agreement.allowed:9.1e}"
        f"{'' if its.agreement.agrees else '  WRONG: refused'}"
        for its in found
    ]
    return "\n".join(
        [
            "Kernels compared with plain torch on this processor, before they embedded an image",
            head,
            *lines,
            "  The difference is the largest, as a share of the largest value, from torch in "
            "float64. Allowed is what rounding explains.",
        ]
    )


def _fastest(measured: Sequence[Speed]) -> str:
    """Say which options are the fastest for each backbone."""
    fastest: dict[str, Speed] = {}
    for speed in measured:
        known = fastest.setdefault(speed.backbone, speed)
        if speed.images_per_second > known.images_per_second:
            fastest[speed.backbone] = speed
    named = [f"{backbone} with {_options(its)}" for backbone, its in fastest.items()]
    return (
        f"Fastest here: {', '.join(named)}. Give the same options to features and heads: they "
        "name another cache."
    )


def _options(speed: Speed) -> str:
    words = [f"--kernel {speed.kernel}"] if speed.kernel != "torch" else []
    words += [f"--precision {speed.precision}"] if speed.precision != "float32" else []
    return " ".join(words) or "the defaults"


def _cost(planned: Plan) -> str:
    recipe, total = planned.recipe, len(planned.catalog)
    name = f"{recipe.backbone} on {recipe.hardware}, weights {recipe.weights}"
    if not planned.tasks:
        return f"{name}: {total} images, all known"
    return (
        f"{name}: {total} images, {_to_embed(planned)}, very roughly "
        f"{_duration(planned.seconds_to_compute)} and {planned.bytes_to_write / 1e6:.1f} MB"
    )


def _to_embed(planned: Plan) -> str:
    images, views = len(planned.tasks), planned.num_views
    return f"{images} to embed" + (f" ({views} views)" if views != images else "")


def _duration(secs: float) -> str:
    if secs < 90:
        return f"{max(1, round(secs))} s"
    return f"{round(secs / 60)} min" if secs < 5400 else f"{secs / 3600:.1f} h"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(map(shown, names[:_SHOWN_NAMES])) + (f" and {more} more" if more > 0 else "")
