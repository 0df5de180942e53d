"""Names of models that a key may be restricted to: of routes, of prices, and of calls."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django.db.models import Q

from llm.models import ModelRoute, Price, Usage

MAX_ROUTES = 500
MAX_PRICES = 1000
CALLS_READ = 1000


def known_models() -> Sequence[str]:
    """To choose from: routes with a whole name first, then what was called lately or has a price, by name."""
    routes = ModelRoute.objects.filter(is_active=True).exclude(name__contains="*").order_by("name")
    called = Usage.objects.order_by("-id").values_list("model", flat=True)[:CALLS_READ]
    priced = Price.objects.filter(match=None).order_by("model").values_list("model", flat=True).distinct()
    names = [*routes.values_list("name", flat=True)[:MAX_ROUTES], *sorted({*called, *priced[:MAX_PRICES]})]
    return list(dict.fromkeys(names))


def warnings_about(names: Collection[str]) -> list[str]:
    """Sentences on names that may be typing errors. They are kept: a model may be new."""
    patterns = [name for name in names if "*" in name]
    plain = [name for name in names if "*" not in name]
    known = {*ModelRoute.objects.filter(name__in=plain).values_list("name", flat=True)}
    known |= {*Price.objects.filter(model__in=plain).values_list("model", flat=True)}
    unknown = [name for name in plain if name not in known and not _is_called(name)]
    sentences = []
    if patterns:
        sentences.append(
            f"{_quoted(patterns)}: here, * is an ordinary character, since a key's models are compared letter by "
            "letter. List each model."
        )
    if unknown:
        sentences.append(
            f"{_quoted(unknown)}: no route, price or call has this name. The key is accepted for exactly this name; "
            "check it for a typo."
        )
    return sentences


def _is_called(name: str) -> bool:
    """As requested, or behind a route whose name is a pattern."""
    if Usage.objects.filter(model=name).exists():
        return True
    patterns = ModelRoute.objects.filter(Q(name__contains="*"), is_active=True).values_list("name", flat=True)
    return any(_matches(pattern, name) for pattern in patterns[:MAX_ROUTES])


def _matches(pattern: str, name: str) -> bool:
    begins, _, ends = pattern.partition("*")
    return len(name) > len(begins) + len(ends) and name.startswith(begins) and name.endswith(ends)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"“{name}”" for name in names)
