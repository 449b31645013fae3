"""Choosing label columns, by name or by bounds."""

from collections.abc import Sequence


def choose(names: Sequence[str], targets: Sequence[str | int], path: str) -> list[int]:
    """Positions in `names` of what `targets` asks for: names, two numbers [lower, upper), or () for all."""
    if not targets:
        return list(range(len(names)))
    if all(isinstance(target, int) for target in targets):
        if len(targets) != 2 or not 0 <= targets[0] < targets[1] <= len(names):
            raise ValueError(
                f"{path} {tuple(targets)} is no range [lower, upper) of the {len(names)} label columns; give two "
                f"numbers with 0 <= lower < upper <= {len(names)}, or names."
            )
        return list(range(*targets))
    unknown = [target for target in targets if target not in names]
    if unknown:
        raise ValueError(f"{path}: unknown {unknown}; the data set has {', '.join(names)}.")
    if len(set(targets)) < len(targets):
        raise ValueError(f"{path} {tuple(targets)} names a column twice; name each once.")
    return [list(names).index(target) for target in targets]
